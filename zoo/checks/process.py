"""What belongs to the whole process: how to read it, and to put it back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zoo import device as devices


@dataclass(frozen=True)
class Piece:
    """A piece of the process's state: how to read it, and to put a reading back."""

    read: Callable[[], Any]
    write: Callable[[Any], None]


def _write_grad(enabled: bool) -> None:
    torch.set_grad_enabled(enabled)


def _read_seeds() -> Any:
    numpy: Any = np.random.get_state()
    kind, keys, *rest = numpy
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return random.getstate(), (kind, keys.tobytes(), *rest), [bytes(t.numpy()) for t in (torch.get_rng_state(), *cuda)]


def _write_seeds(seeds: Any) -> None:
    python, (kind, keys, *rest), states = seeds
    random.setstate(python)
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))
    own, *cuda = (torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states)
    torch.set_rng_state(own)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


def _read_defaults() -> Any:
    return torch.get_default_dtype(), torch.get_default_device()


def _write_defaults(defaults: Any) -> None:
    dtype, device = defaults
    torch.set_default_dtype(dtype)
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)


def _read_backends() -> Any:
    cudnn = torch.backends.cudnn
    return (
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        devices.float32_rounding(),
        (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        torch.is_anomaly_enabled(),
    )


def _write_backends(flags: Any) -> None:
    cudnn = torch.backends.cudnn
    (cudnn.enabled, cudnn.benchmark, cudnn.deterministic), rounding, (deterministic, warn_only), anomaly = flags
    devices.set_float32_rounding(rounding)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.autograd.set_detect_anomaly(anomaly)


def _read_autocast() -> Any:
    kinds = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]
    return kinds, torch.is_autocast_cache_enabled()


def _write_autocast(state: Any) -> None:
    kinds, cache = state
    for kind, enabled, dtype in kinds:
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cache)


STATE: dict[str, Piece] = {
    "grad-mode": Piece(torch.is_grad_enabled, _write_grad),
    "random-state": Piece(_read_seeds, _write_seeds),
    "threads": Piece(torch.get_num_threads, torch.set_num_threads),
    "defaults": Piece(_read_defaults, _write_defaults),
    "backends": Piece(_read_backends, _write_backends),
    "autocast": Piece(_read_autocast, _write_autocast),
}


def read() -> dict[str, Any]:
    """Every piece as it is now, by name."""
    return {name: piece.read() for name, piece in STATE.items()}


def restore(before: Mapping[str, Any]) -> list[str]:
    """Put back what differs from ``before``; the names of what did."""
    changed = [name for name, piece in STATE.items() if piece.read() != before[name]]
    for name in changed:
        STATE[name].write(before[name])
    return changed


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Whatever the block changes is as before after it."""
    before = read()
    try:
        yield
    finally:
        restore(before)
