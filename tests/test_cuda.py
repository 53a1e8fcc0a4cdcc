"""The methods on a CUDA device, where there is one: the pictures of the CPU, in every precision."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo import images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["adain", "wct", "style-swap", "johnson", "cin", "texture-nets"])
def test_a_picture_is_that_of_the_cpu(method: str, precision: str) -> None:
    content = images.read("builtin:astronaut", size="exact:384x384").pixels
    model = zoo.load(method, device="cuda", precision=precision)
    known = model.traits.styles != "any"
    style = "swirls" if known else images.read("builtin:swirls", size="exact:384x384").pixels
    found = model(content, style).cpu()
    wanted = zoo.load(method, device="cpu", precision="fp32")(content, style)
    assert torch.isfinite(found).all()
    error = float((found - wanted).square().mean())
    # What a CPU's bfloat16 is apart from float32 (docs/arbitrary-styles.md), with a margin.
    assert -10 * torch.log10(torch.tensor(max(error, 1e-12))) > (40 if precision == "fp32" else 24)
