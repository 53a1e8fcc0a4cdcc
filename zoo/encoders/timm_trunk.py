"""Any timm backbone with feature taps, loaded from timm's own caches and fetched only when asked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from safetensors import SafetensorError
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor

from zoo.download import fetch, offline, torch_home
from zoo.encoders.base import Encoder
from zoo.encoders.catalog import TIMM_PREFIX
from zoo.encoders.sources import download_required, file_sha256
from zoo.errors import InputError, UnknownNameError, UnsupportedError, WeightsError


class TimmTrunk(Encoder):
    """A timm backbone cut behind its deepest tap, with its own mean and standard deviation.

    Taps are the modules that the backbone lists as features (``layer1``, ``stages.0``, ``blocks.11``) or ``stage0`` ..
    ``stageN``, the same by number. ``weights`` is a file with the backbone's state; None finds timm's.
    """

    def __init__(
        self, backbone: str, taps: Sequence[str], *, allow_download: bool = False, weights: Path | None = None
    ) -> None:
        super().__init__()
        self.name, self.taps = TIMM_PREFIX + backbone, tuple(dict.fromkeys(taps))
        path = timm_file(backbone, allow_download) if weights is None else weights
        self.digest = file_sha256(path)
        self._features = _feature_list(backbone)
        self._index = {f"stage{i}": i for i in range(len(self._features))}
        self._index |= {feature["module"]: i for i, feature in enumerate(self._features)}
        self._outputs = sorted({self._at(tap) for tap in self.taps})
        self.trunk = _load(backbone, path, self._outputs)
        self.trunk.requires_grad_(False).to(memory_format=torch.channels_last)
        config: dict[str, Any] = self.trunk.pretrained_cfg
        self._constants = {key: torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std")}
        self.eval()

    def _at(self, tap: str) -> int:
        if tap not in self._index:
            raise UnknownNameError("tap", tap, self._index, f"They belong to {self.name}.")
        return self._index[tap]

    def channels(self, tap: str) -> int:
        return self._features[self._at(tap)]["num_chs"]

    def stride(self, tap: str) -> int:
        return self._features[self._at(tap)]["reduction"]

    @property
    def min_size(self) -> int:
        return 1  # strided convolutions pad, so even one pixel passes; what a backbone refuses itself is told below

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self._check(images)
        mean, std = (self._constants[key].to(images.dtype) for key in ("mean", "std"))
        x = (images - mean) / std
        try:
            outputs = self.trunk(x.to(next(self.trunk.parameters()).dtype))
        except AssertionError as error:  # timm's way to refuse a size
            raise InputError(f"Encoder {self.name} cannot take images of this size: {error}.") from error
        if getattr(self.trunk, "output_fmt", "NCHW") == "NHWC":
            outputs = [output.permute(0, 3, 1, 2) for output in outputs]
        by_index = dict(zip(self._outputs, outputs, strict=True))
        return {tap: by_index[self._at(tap)] for tap in self.taps}


def _feature_list(backbone: str) -> list[dict[str, Any]]:
    """What timm knows of the backbone's features, shallow to deep: ``module``, ``num_chs``, ``reduction``."""
    try:
        with torch.device("meta"):  # structure only: no memory, no random numbers
            trunk: Any = timm.create_model(backbone, features_only=True)
        return trunk.feature_info.info
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise UnsupportedError(f"timm's {backbone} has no feature taps: choose another backbone.") from error


def _load(backbone: str, path: Path, outputs: Sequence[int]) -> Any:
    """The trunk up to the deepest of ``outputs``, every tensor of it known to come from the file.

    timm loads a feature trunk leniently: what the file lacks stays random and is only logged. So the whole network is
    loaded strictly beside it, and the trunk must hold no tensor that the whole network does not.
    """
    # A foreign format (npz) is read with the model's own reader, and only then.
    overlay = {"file": str(path), "custom_load": path.suffix == ".npz"}
    options: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    misfit = f"The weights of {TIMM_PREFIX}{backbone} at {path} do not fit the network"
    with torch.random.fork_rng(devices=[]):  # timm initialises before it loads
        try:
            whole = timm.create_model(backbone, **options)
            trunk = timm.create_model(backbone, features_only=True, out_indices=outputs, **options)
        except (RuntimeError, KeyError, OSError, SafetensorError) as error:
            raise WeightsError(f"{misfit}: {error}.") from error
    loaded = {_fingerprint(tensor) for tensor in whole.state_dict().values()}
    stray = [name for name, tensor in trunk.state_dict().items() if _fingerprint(tensor) not in loaded]
    if stray:
        raise WeightsError(f"{misfit}: it lacks {', '.join(stray[:3])}.")
    return trunk


def _fingerprint(tensor: Tensor) -> tuple[torch.Size, bytes]:
    return tensor.shape, hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).digest()


def _config(backbone: str) -> PretrainedCfg:
    if not timm.is_model(backbone):
        raise UnknownNameError("timm backbone", backbone, timm.list_models())
    try:
        config = get_pretrained_cfg(backbone)
    except RuntimeError as error:
        known = [name for name in timm.list_pretrained() if name.startswith(backbone.partition(".")[0] + ".")]
        raise UnknownNameError("timm backbone", backbone, known) from error
    if config is None or not config.has_weights:
        raise WeightsError(f"timm publishes no weights for {backbone}: choose a backbone of 'timm.list_pretrained()'.")
    return config


def timm_file(backbone: str, allow_download: bool = False) -> Path:
    """The backbone's weights in Hugging Face's cache (``HF_HOME``) or torch hub's (``TORCH_HOME``).

    DownloadRequiredError if they are not there and ``allow_download`` is not set; WeightsError if fetching fails.
    """
    config = _config(backbone)
    repository, _, revision = (config.hf_hub_id or "").partition("@")
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    url = config.url if isinstance(config.url, str) else ""
    hub = torch_home() / os.path.basename(urlparse(url).path)
    # Where a mirror brings what Hugging Face keeps; its own cache has no place for a file without its commit.
    brought = {name: torch_home() / f"{repository.replace('/', '--')}--{name}" for name in names if repository}
    if repository:
        from huggingface_hub import try_to_load_from_cache

        for name in names:
            found = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    for path in (*brought.values(), *([hub] if url else [])):
        if path.is_file():
            return path
    if not allow_download:
        raise download_required(TIMM_PREFIX + backbone)
    what = f"The weights of {TIMM_PREFIX}{backbone}"
    if not repository:
        fetch(what, url, hub, variable="TORCH_HOME", error=WeightsError)
        return hub
    if offline() or os.environ.get("ZOO_MIRROR"):
        return _fetch_mirrored(what, f"https://huggingface.co/{repository}/resolve/{revision or 'main'}", brought)
    try:
        return _fetch_hub(repository, names, revision or None)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{what} could not be fetched from {repository}: {error}.") from error


def _fetch_hub(repository: str, names: Sequence[str], revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names[:-1]:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except LocalEntryNotFoundError:  # no connection: another name would not help
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repository, names[-1], revision=revision))


def _fetch_mirrored(what: str, base: str, places: Mapping[str, Path]) -> Path:
    """The first of the files that the mirror has."""
    for name, path in places.items():
        try:
            fetch(what, f"{base}/{name}", path, variable="TORCH_HOME", error=WeightsError)
            return path
        except WeightsError:
            if name == list(places)[-1] or offline():
                raise
    raise AssertionError("a backbone on the hub has a file")
