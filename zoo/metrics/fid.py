"""FID: the Fréchet distance between the outputs of a method and the styles, as clouds of Inception features.

Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, "GANs trained by a two time-scale update rule converge to a local
Nash equilibrium", NIPS 2017; computed by torch-fidelity: pictures are scaled to 299 x 299 as TensorFlow did,
and the 2,048 pooled features of the Inception of 2015 are compared. Styles count once per picture.

``network="art"`` is the part that ArtFID is made of (Wright and Ommer 2022): Inception v3 trained on artworks, pictures
at their own size. Both are FID_N of the N pictures at hand; no FID-infinity is extrapolated, which ArtFID's code does
from as few as 800 pictures though its fit begins at 5,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from zoo.config import Config, option
from zoo.errors import InputError
from zoo.metrics.fidelity import FeatureSets, art_inception, inception

ART_MIN_SIZE = 75  # pixels a side for which Inception v3's last layer has one position


@dataclass(frozen=True)
class FIDConfig(Config):
    """Options of :class:`FID`."""

    network: Literal["inception", "art"] = option("inception", "The Inception of FID, or ArtFID's.")


class FID(FeatureSets):
    """Fréchet distance of a method's pictures to their styles; 0 for the styles themselves. Needs two pictures.

    Raises DownloadRequiredError where the network is not on this machine, UnsupportedError without torch-fidelity.
    """

    Config = FIDConfig
    config: FIDConfig

    def _network(self) -> nn.Module:
        return inception() if self.config.network == "inception" else art_inception()

    def _features(self, image: Tensor) -> Tensor:
        return super()._features(image) if self.config.network == "inception" else art_features(self.network, image)

    def _value(self) -> float:
        return self._frechet()


def art_features(network: nn.Module, image: Tensor) -> Tensor:
    """The vector (2048,) of ArtFID's Inception: pixels in [0, 1] as they are, at their own size."""
    if min(image.shape[-2:]) < ART_MIN_SIZE:
        raise InputError(f"ArtFID's Inception needs images of at least {ART_MIN_SIZE} pixels a side.")
    return network(image)[0]
