"""ArtFID: content lost times style missed, as one number.

Wright and Ommer, "ArtFID: quantitative evaluation of neural style transfer", GCPR 2022:

    ArtFID = (1 + mean LPIPS(output, content)) (1 + FID(outputs, styles))

with LPIPS on AlexNet and FID on an Inception v3 trained on artworks (pictures at their own size, pixels in [0, 1],
every style once per picture). Its parts are the metrics ``lpips`` and ``fid`` with ``network="art"``: show them beside
it, since a product of two numbers hides which of them is good.

| authors' code | here | why |
|---|---|---|
| FID-infinity by default, a fit that begins at 5,000 pictures | FID of the pictures at hand | as papers' tables |
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.metrics.fid import art_features
from zoo.metrics.fidelity import FeatureSets, art_inception
from zoo.metrics.lpips import LPIPS


class ArtFID(FeatureSets):
    """(1 + LPIPS)(1 + FID) of a method's pictures, at least 1. Needs two pictures.

    Raises DownloadRequiredError where a network is not on this machine, UnsupportedError without lpips and
    torch-fidelity.
    """

    def _network(self) -> nn.Module:
        self.lpips = LPIPS(device=self.device)
        return art_inception()

    def _features(self, image: Tensor) -> Tensor:
        return art_features(self.network, image)

    def _begin(self) -> None:
        super()._begin()
        self.distances: list[float] = []

    def _add(self, output: Tensor, content: Tensor, style: Tensor) -> None:
        super()._add(output, content, style)
        self.distances.append(self.lpips(output, content, style))

    def _value(self) -> float:
        # Sorted, so that the order of pictures does not even change the rounding.
        distance = sum(sorted(self.distances)) / len(self.distances)
        return (1 + distance) * (1 + self._frechet())
