"""Cores and memory that this process may have, what a picture will take, and what a failed allocation looks like."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import psutil

from zoo.errors import ConfigError, MemoryLimitError
from zoo.words import shown

if TYPE_CHECKING:
    import torch

    from zoo.stylizer import Stylizer

# Where Linux tells the control groups of a process, and where their files are.
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


# Sides of tiles, in pixels: under it a tile is mostly halo.
SMALLEST_TILE = 64
# Sides of tiles that are chosen from, and what the largest of them may take: more costs memory and saves no time.
_TILES = (2048, 1024, 512, 256)
_TILE_BYTES = 3 << 29
# Bytes per pixel of a picture's result in levels.
_RESULT = 3
# Pixels of a style above which its statistics are gathered by tiles, and the side of these.
_LARGE_STYLE = 2048 * 2048
_STYLE_TILE = 1024


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require(model: Stylizer, height: int, width: int, tile: int | None = None, *, kind: str = "") -> None:
    """Raise :class:`MemoryLimitError` where a picture of this size cannot fit into what is free, before any work.
    ``kind`` says what picture it is, such as "a style of ".

    What a pixel takes at the peak is a trait of every method, measured in bfloat16. Other layers may take less, so half
    of it is asked for, and all of it in float32: whatever is refused would have failed. Of a picture by tiles, ``tile``
    pixels a side, that is what a tile takes, and what is kept of the whole picture comes to it.
    """
    cut = tile is not None and tile < max(height, width)
    at_once = min(height, tile) * min(width, tile) if tile is not None else height * width
    needed = predicted(model, at_once) // 2
    if cut:
        needed += (_RESULT + _formats(model) * model.traits.kept_bytes) * height * width
    free = free_memory(model.device)
    if needed > free:
        side = max(height, width) * (max(0, free) / needed / 2) ** 0.5
        raise MemoryLimitError(
            f"{model.name} takes at least {_shown(needed)} for {kind}{width} x {height} pixels and {_shown(free)} of "
            f"memory are free: choose a smaller size, such as {max(64, int(side) // 32 * 32)} pixels on the longer "
            "side."
        )


def parse_tile(tile: str | int) -> str | int:
    """Return ``auto``, ``off`` or a side in pixels; ConfigError for anything else."""
    if tile in ("auto", "off"):
        return tile
    try:
        side = int(tile)
    except ValueError:
        side = 0
    if side < SMALLEST_TILE:
        raise ConfigError(f"Tiles are auto, off or a side of at least {SMALLEST_TILE} pixels, not {shown(tile)}.")
    return side


def predicted(model: Stylizer, pixels: int) -> int:
    """Return how many bytes so many pixels take at the peak, as a whole picture; 0 where a method does not say."""
    return _formats(model) * model.traits.pixel_bytes * pixels


def _formats(model: Stylizer) -> int:
    """How many times what is measured in bfloat16 a number takes."""
    return 2 if model.precision == "fp32" else 1


def _at_most(model: Stylizer, pixels: int) -> int:
    # Traits are rounded down, by less than a fifth.
    return predicted(model, pixels) * 5 // 4


def tile_side(model: Stylizer, height: int, width: int) -> int | None:
    """Return the side of the tiles for a picture that as a whole is predicted not to fit into what is free, or just so;
    None where it fits, or the method cannot be computed by tiles."""
    free = free_memory(model.device)
    if not model.traits.tiled or _at_most(model, height * width) <= free:
        return None
    return next((side for side in _TILES if predicted(model, side**2) <= min(free // 4, _TILE_BYTES)), _TILES[-1])


def style_tile(height: int, width: int) -> int | None:
    """Return the side of the tiles by which methods with the trait ``tiled_styles`` read a style; None as a whole.

    By its size alone: what is free of memory must not change a code, be it by rounding.
    """
    return _STYLE_TILE if height * width > _LARGE_STYLE else None


def told(model: Stylizer, height: int, width: int, tile: int) -> str:
    """Return the sentence that says why a picture is made by tiles."""
    return (
        f"{model.name} takes up to {_shown(_at_most(model, height * width))} for {width} x {height} pixels and "
        f"{_shown(free_memory(model.device))} of memory are free: made by tiles of {tile} pixels."
    )


def _shown(count: int) -> str:
    return f"{max(0, count) / 1e9:.1f} GB"


def free_memory(device: torch.device) -> int:
    """Return how many bytes this process may still take on ``device``: what the machine, its control group and the
    limits of the shell (``ulimit -v``) leave."""
    import torch

    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    own = psutil.Process().memory_info()
    with warnings.catch_warnings(action="ignore"):  # in a container that hides how much is swapped
        swap = psutil.swap_memory().free
    return min(
        psutil.virtual_memory().available + swap,
        machine_memory() + swap - own.rss,
        *(limit - own.vms for limit in _address_limits()),
    )


def _address_limits() -> list[int]:
    """Return the limits of this process's address space, if there are any."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if soft == resource.RLIM_INFINITY else [soft]


def machine_memory() -> int:
    """Return how many bytes of memory this process may use: the machine's, or the lowest limit of its control groups.

    A limit may stand at any level above the process (its container, its job on a cluster, a slice of systemd), and
    holds for all that is below.
    """
    return min([psutil.virtual_memory().total, *_group_limits()])


def _group_limits() -> list[int]:
    """Return the memory limits of this process's control groups and of every group above them."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return []
    limits = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers:  # version 2, which may be mounted beside version 1
            files = [(_MOUNT, "memory.max"), (_MOUNT / "unified", "memory.max")]
        elif "memory" in controllers.split(","):
            files = [(_MOUNT / "memory", "memory.limit_in_bytes")]
        else:
            continue
        group = PurePosixPath(place.lstrip("/"))
        # In a container the path may be one that only its host knows; then the mount's root is the container's group.
        for one in (group, *group.parents):
            for mount, name in files:
                with contextlib.suppress(OSError, ValueError):  # no such group here; "max"
                    limits.append(int((mount / one / name).read_text()))
    return limits
