"""Fréchet distance between the outputs of a method and the styles, as clouds of VGG-19 features.

The distance of FID (Heusel et al. 2017; see :mod:`zoo.metrics.fid`) on channel means of relu4_1 of the normalised
VGG-19, 512 numbers near 1 a picture, at the pictures' own size. It needs no download, and is not FID: its values have
their own scale and stand under their own name. torch-fidelity knows the features as ``vgg19-normalised``.
"""

from __future__ import annotations

from zoo.metrics.fidelity import VGG19Sets


class FDVGG19(VGG19Sets):
    """Fréchet distance of a method's pictures to their styles; 0 for the styles themselves. Needs two pictures."""

    def _value(self) -> float:
        return self._frechet()
