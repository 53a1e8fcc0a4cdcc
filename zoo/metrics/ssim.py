"""Structural similarity to the content, with the settings of its paper.

Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
Transactions on Image Processing 13(4), 2004, equation 13: Gaussian window of 11 x 11 with standard deviation 1.5,
population statistics, K1 = 0.01, K2 = 0.03. Computed by scikit-image, whose defaults differ (uniform window of 7,
sample statistics).

| paper | here | why |
|---|---|---|
| luma of an 8-bit image, range 255 | luma (ITU-R BT.601, as the authors' rgb2gray) of [0, 1], range 1 | same value |
| windows inside the image only | scikit-image crops a border of 5 pixels from the mean: the same windows | |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from skimage.metrics import structural_similarity
from torch import Tensor

from zoo.config import Config, option
from zoo.errors import InputError
from zoo.metrics.base import Metric

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
WINDOW = 11  # 2 * round(3.5 * 1.5) + 1: scikit-image cuts the Gaussian at 3.5 standard deviations


@dataclass(frozen=True)
class SSIMConfig(Config):
    """Options of :class:`SSIM`."""

    channels: Literal["luma", "rgb"] = option("luma", "Compare luma, or R, G and B apart and take the mean.")


class SSIM(Metric):
    """Mean structural similarity of output and content; 1 means equal."""

    Config = SSIMConfig
    config: SSIMConfig

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> float:
        if min(output.shape[-2:]) < WINDOW:
            raise InputError(f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels.")
        first, second = self._planes(output[0]), self._planes(content[0])
        value: Any = structural_similarity(
            first,
            second,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=0 if self.config.channels == "rgb" else None,
        )
        return float(value)

    def _planes(self, image: Tensor) -> np.ndarray:
        pixels = image.cpu().double().numpy()
        return pixels if self.config.channels == "rgb" else np.tensordot(LUMA, pixels, axes=1)
