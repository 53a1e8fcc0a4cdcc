"""E: how effectively the style's feature distribution was transferred, as minus the logarithm of a divergence.

Yeh, Tang, Bhattad, Zou and Forsyth, "Improving style transfer with calibrated metrics", WACV 2020: at each of relu1_1,
relu2_1, relu3_1, relu4_1 and relu5_1 of VGG-19 the features of output and style are taken for Gaussians. Means and
covariances (divided by H W) are projected on the first k = 32, 48, 128, 256, 256 principal axes of a covariance that
photographs have on average, and

    E = -log KL(N_output || N_style)
    KL = 1/2 [tr(S_t^-1 S_o) + (m_t - m_o)^T S_t^-1 (m_t - m_o) - k + log |S_t| / |S_o|]

(authors' code: stringtron/quantative_style, Baed_E_scripts/EBase/tools.py). Pictures are scaled to a short side of
512.

| authors' code | here | why |
|---|---|---|
| five numbers, joined by a regression on human judgements | their mean | the regression's weights are not published |
| axes from the content pictures of the experiment | axes of fixed photographs, in a file | comparable runs |
| E is infinite for equal pictures | KL at least 1e-6, so E at most 13.8 | a table needs a number |
| Pillow's scaling | bicubic, antialiased | the zoo's own |
| inverse in float32 | float64, by Cholesky; a singular covariance is an error | relu5_1 has few positions |
| singular is what the inverse makes of it | variance along an axis below 1e-10 of the features' mean square | the \
same on every processor, see SINGULAR |

The authors' file of weights has the original VGG-19 with max pooling, as here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo import images
from zoo.config import Config, option
from zoo.encoders import load_encoder
from zoo.errors import ConfigError, NumericalError, WeightsError
from zoo.metrics.base import Metric

TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
AXES = (32, 48, 128, 256, 256)
SHORT_SIDE = 512
SMALLEST = 1e-6
# Share of the mean square of the projected features below which their variance along a direction is rounding. Features
# are float32 sums of products, wrong by some 1e-6 of their size, so by 1e-12 of their square: where a picture is flat,
# or has fewer positions than axes, 1e-13 of it and less is found. Photographs have 9e-6 and more.
SINGULAR = 1e-10
# Written by benchmarks/e_statistic_basis.py.
BASIS_FILE = Path(__file__).with_name("e_statistic_basis.safetensors")

Gaussian = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class EStatisticConfig(Config):
    """Options of :class:`EStatistic`."""

    taps: tuple[str, ...] = option(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), "Layers averaged over.")
    short_side: int = option(512, "Pictures are scaled to this short side, in pixels.", ge=16)

    def validate(self) -> None:
        unknown = sorted(set(self.taps) - set(TAPS))
        if unknown or not self.taps:
            raise ConfigError(f"The E statistic has the layers {', '.join(TAPS)}, not {', '.join(unknown) or 'none'}.")


class EStatistic(Metric):
    """Mean over layers of -log KL between output and style, at most 13.8; not symmetric.

    Raises NumericalError for a picture so flat (or so small) that its covariance is singular.
    """

    Config = EStatisticConfig
    config: EStatisticConfig

    def _build(self) -> None:
        self.encoder = load_encoder("vgg19", taps=self.config.taps, device=self.device)
        self.basis = {tap: axes.to(self.device) for tap, axes in read_basis().items()}

    def _gaussians(self, image: Tensor) -> dict[str, Gaussian]:
        features = self.encoder(scaled(image, self.config.short_side))
        return {tap: projected(gaussian(features[tap]), self.basis[tap]) for tap in self.config.taps}

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        found, wanted = self._gaussians(output), self.remember(style, self._gaussians)
        each = [-divergence(found[tap], wanted[tap]).clamp_min(SMALLEST).log() for tap in self.config.taps]
        return torch.stack(each).mean()


def read_basis() -> dict[str, Tensor]:
    """Principal axes by tap, (C, k) each, float64; WeightsError where the file is missing."""
    from safetensors.torch import load_file

    if not BASIS_FILE.is_file():
        raise WeightsError(f"The principal axes of the E statistic are missing ({BASIS_FILE.name}): reinstall.")
    return {tap: axes.double() for tap, axes in load_file(BASIS_FILE).items()}


def scaled(image: Tensor, short_side: int) -> Tensor:
    """``image`` (1, 3, H, W) with its short side ``short_side`` pixels long."""
    height, width = image.shape[-2:]
    factor = short_side / min(height, width)
    return images.resize(image, (round(height * factor), round(width * factor)))


def gaussian(features: Tensor) -> Gaussian:
    """Mean (C,) and population covariance (C, C) over the positions of features (1, C, h, w), float64."""
    rows = features[0].flatten(1).double()
    mean = rows.mean(dim=1)
    centered = rows - mean[:, None]
    return mean, centered @ centered.T / rows.shape[1]


def projected(moments: Gaussian, axes: Tensor) -> Gaussian:
    """Mean and covariance along ``axes`` (C, k): (k,) and (k, k)."""
    mean, covariance = moments
    return axes.T @ mean, axes.T @ covariance @ axes


def divergence(found: Gaussian, wanted: Gaussian) -> Tensor:
    """KL(N_found || N_wanted) of Gaussians (k,), (k, k); NumericalError where a covariance is singular."""
    (mean, covariance), (target_mean, target_covariance) = found, wanted
    for name, moments in (("output", found), ("style", wanted)):
        if singular(moments):
            raise NumericalError(
                f"The E statistic is undefined, for the {name} is so flat or small that its features have a singular "
                "covariance: take another picture, or leave this metric out."
            )
    own, target = torch.linalg.cholesky(covariance), torch.linalg.cholesky(target_covariance)
    difference = (target_mean - mean)[:, None]
    # With S_t = L L^T: tr(S_t^-1 S_o) = |L^-1 L_o|^2, and the other terms alike.
    solved = torch.linalg.solve_triangular(target, torch.cat([own, difference], dim=1), upper=False)
    log_ratio = 2 * (target.diagonal().log().sum() - own.diagonal().log().sum())
    return (solved.square().sum() - len(mean) + log_ratio) / 2


def singular(moments: Gaussian) -> bool:
    """Whether there is a direction without variance, see SINGULAR."""
    mean, covariance = moments
    power = covariance.trace() + mean.square().sum()
    return bool(torch.linalg.eigvalsh(covariance)[0] <= SINGULAR * power)
