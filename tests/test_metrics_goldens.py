"""Values of the metrics on three fixed pairs, recorded: a change of any shows here before it shows in a table."""

from __future__ import annotations

import warnings

import pytest
from torch import Tensor

from zoo import images
from zoo.metrics import load_metric, load_set_metric
from zoo.metrics.base import SmallSetWarning

PAIRS = (("astronaut", "swirls"), ("coffee", "woodblock"), ("astronaut", "mosaic"))

# Computed in float32 on a CPU; another processor adds in another order.
GOLDENS = {
    "ssim": (0.740254, 0.641775, 0.688707),
    "content_loss": (419132, 492147, 562536),
    "cfsd": (0.304224, 0.190415, 0.372357),
    "cf": (0.858781, 0.8406, 0.812923),
    "gram_loss": (6.09394e11, 6.03308e11, 3.37206e11),
    "mean_std_loss": (1583.23, 2437.79, 1382.87),
    "ge": (0.703508, 0.614764, 0.818882),
    "lp": (0.576086, 0.473654, 0.623601),
    "e_statistic": (-4.25376, -5.25978, -3.52861),
    "color_histogram": (0.705321, 0.784607, 0.452768),
}
# A tie among patches that falls the other way moves the share of patches used.
TOLERANCE = {"lp": 5e-3}


def picture(content: str, style: str) -> tuple[Tensor, Tensor, Tensor]:
    """Output, content and style at 128: the output is the content under a veil of the style, as 8 bits hold it."""
    pixels, other = (images.read(f"builtin:{name}", size="long:128").pixels for name in (content, style))
    veiled = 0.7 * pixels + 0.3 * images.resize(other, (pixels.shape[-2], pixels.shape[-1]))
    return (veiled * 255).round() / 255, pixels, other


@pytest.mark.parametrize("name", GOLDENS)
def test_values_are_those_recorded(name: str) -> None:
    metric = load_metric(name)
    found = [metric(*picture(*pair)) for pair in PAIRS]
    assert found == pytest.approx(list(GOLDENS[name]), rel=TOLERANCE.get(name, 1e-3))


@pytest.mark.parametrize(("name", "value"), [("fd_vgg19", 707.785), ("kid_vgg19", 23.0964)])
def test_values_of_sets_are_those_recorded(name: str, value: float) -> None:
    metric = load_set_metric(name)
    metric.begin()
    for pair in PAIRS:
        metric.add(*picture(*pair))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSetWarning)
        assert metric.value() == pytest.approx(value, rel=1e-3)
