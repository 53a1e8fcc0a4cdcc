"""Values of the metrics on three fixed pairs, recorded: a change of any shows here before it shows in a table."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import yaml
from torch import Tensor

from zoo import images
from zoo.metrics import load_metric, load_set_metric
from zoo.metrics.base import SmallSetWarning

PAIRS = (("astronaut", "swirls"), ("coffee", "woodblock"), ("astronaut", "mosaic"))

RECORDED = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs/goldens/recorded.yaml").read_text())
GOLDENS: dict[str, list[float]] = RECORDED["pictures"]
SETS: dict[str, list[float]] = RECORDED["sets"]


def pairs(name: str) -> int:
    """How many of the recorded pairs are computed: the first of the E statistic, which takes VGG-19 to 512 pixels."""
    return 1 if name == "e_statistic" else len(PAIRS)


def tolerance(name: str) -> float:
    """How far a value may be from the recorded one, as a share of it."""
    return float(RECORDED["tolerances"].get(name, RECORDED["tolerance"]))


def picture(content: str, style: str) -> tuple[Tensor, Tensor, Tensor]:
    """Output, content and style at 128: the output is the content under a veil of the style, as 8 bits hold it."""
    pixels, other = (images.read(f"builtin:{name}", size="long:128").pixels for name in (content, style))
    veiled = 0.7 * pixels + 0.3 * images.resize(other, (pixels.shape[-2], pixels.shape[-1]))
    return (veiled * 255).round() / 255, pixels, other


@pytest.mark.parametrize("name", GOLDENS)
def test_values_are_those_recorded(name: str) -> None:
    metric = load_metric(name)
    count = pairs(name)
    found = [metric(*picture(*pair)) for pair in PAIRS[:count]]
    assert found == pytest.approx(GOLDENS[name][:count], rel=tolerance(name))


@pytest.mark.parametrize("name", SETS)
def test_values_of_sets_are_those_recorded(name: str) -> None:
    metric = load_set_metric(name)
    metric.begin()
    for pair in PAIRS:
        metric.add(*picture(*pair))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSetWarning)
        assert [metric.value()] == pytest.approx(SETS[name], rel=tolerance(name))
