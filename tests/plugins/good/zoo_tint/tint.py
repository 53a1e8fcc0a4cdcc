"""Colour by region: mean and standard deviation per channel, as small as a complete feed-forward method can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.config import Config, option
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits


@dataclass(frozen=True)
class TintConfig(Config):
    grain: float = option(0.01, "Standard deviation of the film grain added on top.", ge=0, le=1)
    detail: Literal["keep", "soft"] = option("keep", "Whether fine detail stays or is blurred.")


class Tint(Stylizer):
    """Moves the content's colour statistics to the style's."""

    ENTRY: ClassVar = {
        "title": "Tint",
        "authors": "A. Tester",
        "year": 2001,
        "paper": "https://example.org/tint",
        "bibtex": "@misc{tint, title={Tint}}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "standard",
        "presets": {
            "standard": {"summary": "Film grain, detail kept"},
            "soft": {"summary": "No grain, detail blurred", "options": {"grain": 0.0, "detail": "soft"}},
        },
    }

    traits = Traits(
        strength="params",
        mixes=True,
        context=frozenset({"content_masks"}),
        min_size=4,
        multiple_of=4,
    )
    Config = TintConfig

    def _build(self) -> None:
        self.blur = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect", groups=3, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 9)
        self.blur.to(self.device).requires_grad_(False)

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None
        std, mean = torch.std_mean(style.image, dim=(2, 3), keepdim=True)
        return {"mean": mean, "std": std}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        std, mean = torch.std_mean(content, dim=(2, 3), keepdim=True)
        flat = (content - mean) / (std + 1e-3)

        def colored(weights: list[float]) -> Tensor:
            codes = [code.data for code, _ in style]
            target_std = sum(w * c["std"] for w, c in zip(weights, codes, strict=True))
            target_mean = sum(w * c["mean"] for w, c in zip(weights, codes, strict=True))
            return flat * target_std + target_mean

        masks = call.context.content_masks
        if masks is None:
            image = colored([weight for _, weight in style])
        else:
            alone = [[float(i == j) for j in range(len(style))] for i in range(len(style))]
            image = sum((masks[i] * colored(weights) for i, weights in enumerate(alone)), torch.zeros_like(content))
        if self.config.detail == "soft":
            with self.autocast():
                image = self.blur(image).float()
        noise = torch.randn(content.shape[1:], generator=call.generator()).to(self.device)
        image = image + self.config.grain * noise
        return Stylized(content + call.strength * (image - content))
