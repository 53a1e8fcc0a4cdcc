"""Any timm backbone with feature taps, from a file that is on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from zoo.encoders.base import Encoder
from zoo.errors import InputError, UnknownNameError, UnsupportedError, WeightsError
from zoo.weights import TIMM_PREFIX, sha256


class TimmTrunk(Encoder):
    """A timm backbone cut behind its deepest tap, with its own mean and standard deviation.

    Taps are the modules that the backbone lists as features (``layer1``, ``stages.0``, ``blocks.11``) or ``stage0`` ..
    ``stageN``, the same by number. ``weights`` is a file with the backbone's state.
    """

    def __init__(self, backbone: str, taps: Sequence[str], weights: Path) -> None:
        super().__init__()
        self.name, self.taps = TIMM_PREFIX + backbone, tuple(dict.fromkeys(taps))
        self.digest = sha256(weights)
        self._features = _feature_list(backbone)
        self._index = {f"stage{i}": i for i in range(len(self._features))}
        self._index |= {feature["module"]: i for i, feature in enumerate(self._features)}
        self._outputs = sorted({self._at(tap) for tap in self.taps})
        self.trunk = _load(backbone, weights, self._outputs)
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
    """Return what timm knows of the backbone's features, shallow to deep: ``module``, ``num_chs``, ``reduction``."""
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
        except Exception as error:  # whatever a damaged pickle makes of itself
            raise WeightsError(f"{misfit}: {str(error) or type(error).__name__}.") from error
    loaded = {_fingerprint(tensor) for tensor in whole.state_dict().values()}
    stray = [name for name, tensor in trunk.state_dict().items() if _fingerprint(tensor) not in loaded]
    if stray:
        raise WeightsError(f"{misfit}: it lacks {', '.join(stray[:3])}.")
    return trunk


def _fingerprint(tensor: Tensor) -> tuple[torch.Size, bytes]:
    return tensor.shape, hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).digest()
