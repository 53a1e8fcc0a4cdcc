"""CFSD: how much the output changes which places of the content look alike.

Content Feature Structural Distance of Chung, Hyun and Heo, "Style injection in diffusion" (StyleID), CVPR 2024,
as in evaluation/image_metrics.py (``PatchSimi``) of their repository: features F of relu3_1, one row of C
channels per position, divided by C; their inner products M = F F^T; every row of M made a distribution by softmax; and
the Kullback-Leibler divergence of the output's rows from the content's, summed over rows.

Being a sum over positions, it grows with the picture: compare values of one size only.

| reference | here | why |
|---|---|---|
| VGG-19 of torchvision | the original VGG-19, features divided by 255 x 0.226 | needs no download; see below |
| both (H W) x (H W) matrices in memory, 1.1 GB each at 512 | a block at a time, half of them | the same sum |
| float32 | products in float32, softmax and sums in float64 | terms of 1e-5 are left of logarithms near -10 |

The softmax makes the value depend on the scale of the features. torchvision's network sees pixels in units of 0.226
(the mean of its three deviations), the original one levels of 255: dividing by 255 x 0.226 gives its features the unit
of torchvision's, and rows near the uniform distribution as there. Figures of this default are still no figures of
another network, so tables call it CFSD.vgg19-caffe; published ones need ``encoder="vgg19.torchvision"``, which is the
reference in every respect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.encoders import load_encoder
from zoo.encoders.sources import IMAGENET_STD
from zoo.metrics.base import Metric

TAP = "relu3_1"
LEVELS = 255 * sum(IMAGENET_STD) / 3
# Elements of a block of products: 512 x 512, 2 MiB in float64, stays in a core's cache. Fixed: sums are repeatable.
CHUNK = 1 << 18
# Exponents between this and minus this are far from the ends of float64 (-745).
_SAFE = 300.0


@dataclass(frozen=True)
class CFSDConfig(Config):
    """Options of :class:`CFSD`."""

    encoder: str = option("vgg19", "Feature network; vgg19.torchvision for the published definition.")


class CFSD(Metric):
    """Summed divergence of self-similarities, 0 for equal pictures; not symmetric."""

    Config = CFSDConfig
    config: CFSDConfig

    def _build(self) -> None:
        self.encoder = load_encoder(self.config.encoder, taps=[TAP], device=self.device)
        self.divisor = LEVELS if self.config.encoder == "vgg19" else 1.0

    def _rows(self, image: Tensor) -> Tensor:
        """Features as rows (H W, C), divided by C and by the network's unit."""
        features = self.encoder(image)[TAP][0].flatten(1).T.contiguous()
        return features / (features.shape[1] * self.divisor)

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        return divergence(self.remember(content, self._rows), self._rows(output))


def divergence(wanted: Tensor, found: Tensor, chunk: int = CHUNK) -> Tensor:
    """Sum over rows of KL(softmax(W W^T) || softmax(F F^T)), float64, of ``wanted`` W and ``found`` F, both (N, C).

    At most ``chunk`` products of each are kept at a time (at least one). With w and f the products of a row and
    p = softmax(w), the divergence is sum p (w - f) - log sum exp w + log sum exp f: three sums per row. As W W^T and
    F F^T are symmetric, a block above the diagonal gives its share to its rows and, summed the other way, to those of
    its mirror image.
    """
    # The largest product is on the diagonal (Cauchy-Schwarz): one shift for all keeps every exponential in range.
    high = [float(rows.double().square().sum(dim=1).max()) for rows in (wanted, found)]
    if max(high) > _SAFE:
        return _divergence_by_rows(wanted, found, chunk)
    sums = torch.zeros(3, len(wanted), dtype=torch.float64, device=wanted.device)
    side = max(1, math.isqrt(chunk))
    for top in range(0, len(wanted), side):
        rows = slice(top, top + side)
        for left in range(top, len(wanted), side):
            columns = slice(left, left + side)
            w, f = (x[rows].matmul(x[columns].T).double() for x in (wanted, found))
            difference = w - f
            w, f = w.sub_(high[0]).exp_(), f.sub_(high[1]).exp_()
            for total, terms in zip(sums, (w, f, difference.mul_(w)), strict=True):
                total[rows] += terms.sum(dim=1)
                if left > top:
                    total[columns] += terms.sum(dim=0)
    exp_w, exp_f, weighted = sums
    return (weighted / exp_w + (exp_f.log() + high[1]) - (exp_w.log() + high[0])).sum()


def _divergence_by_rows(wanted: Tensor, found: Tensor, chunk: int) -> Tensor:
    """The same where one shift will not do: whole rows, each with its own."""
    total = torch.zeros((), dtype=torch.float64, device=wanted.device)
    step = max(1, chunk // len(wanted))
    for at in range(0, len(wanted), step):
        rows = slice(at, at + step)
        target = (wanted[rows] @ wanted.T).double().log_softmax(dim=1)
        difference = target - (found[rows] @ found.T).double().log_softmax(dim=1)
        total += (target.exp_().mul_(difference)).sum()
    return total
