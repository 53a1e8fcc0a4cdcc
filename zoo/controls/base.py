"""The base of all controls: it passes every call on to the method inside, unless a control changes something."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from zoo.config import Config
from zoo.stylizer import Call, Mix, Style, StyleCode, Stylized, Stylizer, Traits


class Control(Stylizer):
    """A method around the method ``model``, of the same name, device, precision and options.

    Subclasses override :meth:`_stylize` and, where they change a style, :meth:`_encode_style`. Traits are those of
    ``model`` unless :meth:`_traits` changes some. What a control itself was asked for belongs into :attr:`settings`, on
    which style codes depend.
    """

    def __init__(self, model: Stylizer) -> None:
        self.model = model
        self.config: Config = model.config
        self.device, self.precision = model.device, model.precision
        self.checkpoint, self.name = model.checkpoint, model.name
        self.checkpoint_sha256 = model.checkpoint_sha256
        # On the instance: what a control promises depends on what it wraps. The method inside pads for itself.
        self.traits = dataclasses.replace(self._traits(model.traits), multiple_of=1)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The control's own options."""
        return {}

    def _traits(self, inner: Traits) -> Traits:
        # Results that a control changed afterwards are none that the method inside could aim at.
        return dataclasses.replace(inner, context=inner.context - {"anchors"})

    @property
    def _made_with(self) -> str:
        return f"{type(self).__name__} {dict(self.settings)} {self.model._made_with}"

    @property
    def style_names(self) -> tuple[str, ...]:
        return self.model.style_names

    def with_config(self, **options: Any) -> Any:
        return type(self)(self.model.with_config(**options), **self.settings)

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        return {"inner": self.model.encode_style(style, content_size).data}

    def _inner_code(self, code: StyleCode) -> StyleCode:
        """The method's own code behind one of this control's."""
        return StyleCode(self.model.name, self.model._made_with, code.source, code.data["inner"])

    def _inner(self, style: Mix) -> Mix:
        """The mix of the method's own codes behind a mix of this control's."""
        return Mix([(self._inner_code(code), weight) for code, weight in style])

    def _call(
        self, content: Tensor, style: Mix, call: Call, show: Callable[[Tensor], Tensor] = lambda image: image
    ) -> Stylized:
        """Stylize with the method inside; ``show`` makes the picture that a watcher sees of its pictures."""
        progress = call.progress
        return self.model.stylize(
            content,
            style,
            strength=call.strength,
            seed=call.seed,
            context=call.context,
            # What a control does is done to whole pictures; the method inside is what takes the memory.
            tile=call.tile,
            progress=None
            if progress is None
            else lambda step, total, losses, image: progress(step, total, losses, lambda: show(image())),
        )

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return self._call(content, self._inner(style), call)

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        return self.model.synthesize(self._inner(style), size, seed=call.seed, progress=call.progress)

    def _as_network(self, style: Mix) -> nn.Module:
        return super()._as_network(style)


__all__ = ["Control"]
