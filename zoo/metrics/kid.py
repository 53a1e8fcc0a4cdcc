"""KID: the kernel distance between the outputs of a method and the styles, as clouds of Inception features.

Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018; computed by torch-fidelity: the
unbiased estimate of the squared maximum mean discrepancy with kernel (x . y / 2048 + 1)^3, the mean over 100 seeded
subsets of at most 1,000. Unlike FID it has no bias in the number of pictures, so it may be negative. Every style counts
once, because the estimate is unbiased only for vectors that are not repeated.

It is unbiased for two sets drawn independently, which outputs and their own styles are not: the kernel of a style with
itself (or with what was made of it) is in the mean between the sets and not in those within them. The styles themselves
therefore come out below zero, the further the fewer they are, and so may a method: compare its value with the sanity
row ``style-copy`` of the same table, and take none below that for better than the style.
"""

from __future__ import annotations

from torch import nn

from zoo.metrics.fidelity import FeatureSets, inception


class KID(FeatureSets):
    """Kernel distance of a method's pictures to the styles; below 0 for the styles themselves. Needs two styles.

    Raises DownloadRequiredError where the network is not on this machine, UnsupportedError without torch-fidelity.
    """

    def _network(self) -> nn.Module:
        return inception()

    def _value(self) -> float:
        return self._kernel()
