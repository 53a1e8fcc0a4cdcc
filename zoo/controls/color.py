"""Stylizing in the content's own colors, around any method.

Gatys, Bethge, Hertzmann, Shechtman, *Preserving Color in Neural Artistic Style Transfer*, 2016: transfer the luminance
alone (section 4), or give the style image the content's colors first (section 3). The arithmetic is zoo/color.py's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from zoo.color import gray, luminance, recolor_style, with_luminance
from zoo.controls.base import Control
from zoo.errors import ConfigError, UnsupportedError
from zoo.registry import load_registry
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits

Keep = Literal["luminance", "coral"]
KEEPS = ("none", *get_args(Keep))


class Color(Control):
    """Keep the content's colors with any method.

    ``keep``: ``luminance`` stylizes a gray content by a gray style and puts the content's chroma back; ``coral`` gives
    the style image the mean and covariance of the content's colors before it is encoded. A style is then encoded anew
    for every content. Raises ConfigError for another ``keep``; UnsupportedError for ``coral`` with a style that has a
    name but no image, because its colors are in its weights.
    """

    def __init__(self, model: Stylizer, keep: Keep | str) -> None:
        if keep not in get_args(Keep):
            raise ConfigError(f"Colors are kept by {' or '.join(get_args(Keep))}, not {keep!r}.")
        self.keep = keep
        super().__init__(model)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"keep": self.keep}

    def _traits(self, inner: Traits) -> Traits:
        # Each content has colors of its own. A texture has no content whose colors it could keep.
        return dataclasses.replace(inner, batched=False, texture=False)

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        if style.image is None:
            if self.keep == "coral":
                raise UnsupportedError(
                    f"The colors of a trained style are in its weights: use luminance, not coral, with {self.name}."
                )
            return super()._encode_style(style, content_size)
        return {"image": style.image}  # encoded anew for each content

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        size = (content.shape[-2], content.shape[-1])
        parts = []
        for code, weight in style:
            if "image" not in code.data:
                parts.append((self._inner_code(code), weight))
                continue
            own = dataclasses.replace(code.source, image=recolor_style(code.data["image"], content, self.keep))
            parts.append((self.model.encode_style(own, size), weight))
        if self.keep == "coral":
            return self._call(content, Mix(parts), call)

        def finish(image: Tensor) -> Tensor:
            return with_luminance(content, luminance(image)).clamp(0, 1)

        result = self._call(gray(content), Mix(parts), call, finish)
        return dataclasses.replace(result, image=finish(result.image))


def own_option(method: str, keep: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a method's ``options`` and what is left for :func:`in_color` to do.

    A method with an option ``preserve_color`` keeps colors inside its loss, which is better than around it. Raises
    ConfigError unless ``keep`` is ``none``, ``luminance`` or ``coral``.
    """
    if keep not in KEEPS:
        raise ConfigError(f"Colors are kept by {', '.join(KEEPS[:-1])} or {KEEPS[-1]}, not {keep!r}.")
    if keep != "none" and any(spec.name == "preserve_color" for spec in load_registry().options(method)):
        return {**options, "preserve_color": keep}, "none"
    return dict(options), keep


def in_color(model: Stylizer, keep: str) -> Stylizer:
    """Return ``model`` with the content's colors kept, or as it is for ``none``."""
    return model if keep == "none" else Color(model, keep)


__all__ = ["KEEPS", "Color", "Keep", "in_color", "own_option"]
