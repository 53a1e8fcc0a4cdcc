"""Kernel distance between the outputs of a method and the styles, as clouds of VGG-19 features.

The distance of KID (Binkowski et al. 2018; see :mod:`zoo.metrics.kid`) with kernel (x . y / 512 + 1)^3 on channel means
of relu4_1 of the normalised VGG-19, 512 numbers near 1 a picture, at the pictures' own size. It needs no download, and
is not KID: its values have their own scale and stand under their own name. torch-fidelity knows the features as
``vgg19-normalised``.
"""

from __future__ import annotations

from zoo.metrics.fidelity import VGG19Sets


class KIDVGG19(VGG19Sets):
    """Kernel distance of a method's pictures to the styles; below 0 for the styles themselves. Needs two styles."""

    def _value(self) -> float:
        return self._kernel()
