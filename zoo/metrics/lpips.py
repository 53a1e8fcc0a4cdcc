"""LPIPS: how different output and content look to a network whose layers were weighed by human judgements.

Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a perceptual metric", CVPR
2018, section 3 and equation 1, computed by the authors' package ``lpips`` (version 0.1 of the weights): features of
five layers are normalised to unit length over channels, squared differences are weighed per channel, averaged over
positions and summed over layers. Papers on style transfer use the AlexNet; ``net="vgg"`` is the other one.

Images in [0, 1] go in as they are: the package maps them to [-1, 1] (``normalize=True``), where its scaling layer
expects them. The heads ship with the package; the trunk is torchvision's and must be fetched once.

| reference | here | why |
|---|---|---|
| downloads the trunk when it is built | reads the file that ``zoo weights fetch`` brought | no surprise |
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.config import Config, option
from zoo.errors import InputError, WeightsError
from zoo.metrics.base import Metric, import_package
from zoo.weights import read_network

TRUNKS = {"alex": "alexnet.torchvision", "vgg": "vgg16.torchvision"}
MIN_SIZE = {"alex": 31, "vgg": 16}  # pixels a side for which the deepest layer has one position


@dataclass(frozen=True)
class LPIPSConfig(Config):
    """Options of :class:`LPIPS`."""

    net: Literal["alex", "vgg"] = option("alex", "Trunk: AlexNet or VGG-16.")


class LPIPS(Metric):
    """Perceptual distance of output and content, 0 for equal pictures; symmetric.

    Raises DownloadRequiredError where the trunk is not on this machine, UnsupportedError without the package.
    """

    Config = LPIPSConfig
    config: LPIPSConfig

    def _build(self) -> None:
        package = import_package("lpips")
        trunk = read_network(TRUNKS[self.config.net])
        self.model = assembled(package, self.config.net, trunk).to(self.device)

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        smallest = MIN_SIZE[self.config.net]
        if min(output.shape[-2:]) < smallest:
            raise InputError(f"LPIPS with {self.config.net} needs images of at least {smallest} pixels a side.")
        return self.model(output, content, normalize=True).double().view(())


def assembled(package: Any, net: str, trunk: Mapping[str, Tensor]) -> nn.Module:
    """The package's network with its own heads and a trunk given by torchvision's names; WeightsError if it misfits."""
    with warnings.catch_warnings(), torch.device("meta"):  # structure only: no memory, no random numbers
        warnings.simplefilter("ignore")  # its torchvision calls are of an older style
        model: nn.Module = package.LPIPS(net=net, version="0.1", pretrained=False, pnet_rand=True, verbose=False)
    state = torch.load(Path(package.__file__).parent / f"weights/v0.1/{net}.pth", "cpu", weights_only=True)
    # net.slice2.3.weight is torchvision's features.3.weight: slices keep the numbers of the layers.
    for key in model.state_dict():
        if key.startswith("net."):
            theirs = f"features.{key.split('.', 2)[2]}"
            if theirs not in trunk:
                raise WeightsError(f"The weights of {TRUNKS[net]} lack {theirs}: delete the file and fetch it again.")
            state[key] = trunk[theirs].float()
    try:
        model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"The weights of {TRUNKS[net]} do not fit the trunk of LPIPS: {error}.") from error
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise WeightsError("The heads of LPIPS are not those of its version 0.1: reinstall the package lpips.")
    return model.eval().requires_grad_(False)
