"""Gradient descent on pixels towards a style's colour statistics: the smallest complete optimisation method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits


@dataclass(frozen=True)
class DriftConfig(Config):
    num_steps: int = option(20, "Evaluations of loss and gradient.", ge=1)
    learning_rate: float = option(0.3, "Share of the way that one step goes.", gt=0, lt=1)
    channels: tuple[int, ...] = option((0, 1, 2), "Colour channels that move.", ge=0, le=2)
    pull: float | None = option(None, "Weight of staying near the content; none means a tenth.", ge=0)


class Drift(Stylizer):
    """Lets the pixels drift until their mean and standard deviation are the style's."""

    ENTRY: ClassVar = {
        "title": "Drift",
        "authors": "A. Tester",
        "year": 2002,
        "paper": "https://example.org/drift",
        "bibtex": "@misc{drift, title={Drift}}",
        "taxonomy": {"optimizes": "image", "styles": "any", "statistics": "parametric"},
        "default": "slow",
        "presets": {"slow": {"summary": "Twenty steps"}, "fast": {"summary": "Two", "options": {"num_steps": 2}}},
    }

    traits = Traits(
        iterative=True,
        source="image",
        strength="loss",
        batched=False,
        texture=True,
        context=frozenset({"init"}),
        min_size=2,
    )
    Config = DriftConfig

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None
        std, mean = torch.std_mean(style.image, dim=(2, 3), keepdim=True)
        return {"statistics": (mean, std)}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        start = content if call.context.init is None else call.context.init
        pull = 0.1 if self.config.pull is None else self.config.pull
        return self._descend(start, content, pull, style, call)

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        start = torch.rand(1, 3, *size, generator=call.generator()).to(self.device)
        return self._descend(start, start, 0.0, style, call)

    def _descend(self, start: Tensor, anchor: Tensor, pull: float, style: Mix, call: Call) -> Stylized:
        ((code, _),) = style
        mean, std = code.data["statistics"]
        channels = list(self.config.channels)
        image, rows, stopped = start, [], False
        for step in range(1, self.config.num_steps + 1):
            with torch.enable_grad():
                pixels = image.detach().requires_grad_()
                own_std, own_mean = torch.std_mean(pixels, dim=(2, 3), keepdim=True)
                gaps = (own_mean - mean)[:, channels].square() + (own_std - std)[:, channels].square()
                losses = {"style": call.strength * gaps.sum() / 2, "content": pull * (pixels - anchor).square().mean()}
                (gradient,) = torch.autograd.grad(sum(losses.values()), pixels)
            rows.append({"step": step, **{name: float(value.detach()) for name, value in losses.items()}})
            if call.report(step, self.config.num_steps, rows[-1], lambda shown=image: shown):
                stopped = True
                break
            # Times the number of pixels, because the mean's gradient is spread over them.
            image = image - self.config.learning_rate * gradient * gradient[0, 0].numel()
        return Stylized(image, len(rows), rows, stopped)
