"""The methods on a CUDA device, where there is one: the pictures of the CPU, in every precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo import images
from zoo.metrics import load_metric
from zoo.registry import load_registry

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

# Of the methods that fit pixels the first steps: later ones carry rounding to other pictures of the same loss.
OPTIONS: dict[str, dict[str, Any]] = {
    "adain": {},
    "cin": {},
    "cnnmrf.code": {"num_steps": 6},
    "cnnmrf.paper": {"num_steps": 6, "rotations": 1, "scales": 0},
    "gatys": {"num_steps": 6},
    "gatys.paper": {"num_steps": 6, "init": "content", "preserve_color": "coral"},
    "deep-photo": {"num_steps": 6},
    "efdm": {},
    "johnson": {},
    "lapstyle": {"num_steps": 6},
    "neural-doodle": {"num_steps": 6},
    "portrait": {"num_steps": 6, "align": "none"},
    "risser": {"num_steps": 6},
    "strotss": {"num_steps": 6},
    "style-swap": {},
    "texture-nets": {},
    "wct": {},
}
# Which patch is nearest is a decision, and one that turns brings another picture: these need only be finite and alike.
DECIDING = {"deep-analogy": {"num_steps": 8, "iterations": 1}, "nnst": {"num_steps": 6}}


def decibels(first: Tensor, second: Tensor) -> float:
    error = float((first - second).square().mean())
    return float(-10 * torch.log10(torch.tensor(max(error, 1e-12))))


@on_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", OPTIONS)
def test_a_picture_is_that_of_the_cpu(method: str, precision: str) -> None:
    side = "exact:128x128" if "num_steps" in OPTIONS[method] else "exact:384x384"
    content = images.read("builtin:astronaut", size=side).pixels
    model = zoo.load(method, device="cuda", precision=precision, **OPTIONS[method])
    known = model.traits.styles != "any"
    style: Any = "swirls" if known else images.read("builtin:swirls", size=side).pixels
    found = model.stylize(content, model.encode_style(style))
    reference = zoo.load(method, device="cpu", precision="fp32", **OPTIONS[method])
    wanted = reference.stylize(content, reference.encode_style(style))
    assert torch.isfinite(found.image).all()
    # What a CPU's bfloat16 is apart from float32 (docs/arbitrary-styles.md), with a margin.
    assert decibels(found.image.cpu(), wanted.image) > (40 if precision == "fp32" else 24)
    for ours, theirs in zip(found.losses, wanted.losses, strict=True):
        assert ours["total"] == pytest.approx(theirs["total"], rel=1e-3 if precision == "fp32" else 0.1)


@on_cuda
@pytest.mark.parametrize("method", DECIDING)
def test_a_picture_of_matches_is_like_that_of_the_cpu(method: str) -> None:
    content, style = (images.read(f"builtin:{name}", size="exact:128x128").pixels for name in ("astronaut", "swirls"))
    found, wanted = (
        zoo.load(method, device=device, precision="fp32", **DECIDING[method])(content, style)
        for device in ("cuda", "cpu")
    )
    assert decibels(found.cpu(), wanted) > 20


@on_cuda
def test_metrics_are_those_of_the_cpu() -> None:
    output, style = (images.read(f"builtin:{name}", size="exact:128x128").pixels for name in ("astronaut", "swirls"))
    for name in ("content_loss", "gram_loss", "mean_std_loss", "cf", "ge", "lp", "cfsd", "color_histogram"):
        values = [load_metric(name, device=device)(output, style, style) for device in ("cuda", "cpu")]
        assert values[0] == pytest.approx(values[1], rel=5e-3 if name == "lp" else 1e-3), name


def test_every_method_is_compared() -> None:
    assert {name.partition(".")[0] for name in (*OPTIONS, *DECIDING)} == set(load_registry().methods)
