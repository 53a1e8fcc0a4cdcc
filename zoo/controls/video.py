"""Frames of a film in one style, kept together: a control around any method, one stream of frames in, one out.

``none`` stylizes frame by frame (style encoded once, one seed). ``warp`` carries the previous result along the motion
and blends it with the new one where the motion can be trusted; a method that optimizes starts from it too (Ruder et al.
2016, section 4.1). At a cut everything begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.stylizer import Context, Mix, StyleCode, Stylizer
from zoo.video import flow

Keeping = Literal["none", "warp"]

# Share of the carried picture where motion is trusted: at 1 errors of resampling add up from frame to frame.
BLEND = 0.8


@dataclass(frozen=True)
class VideoFrame:
    """A stylized frame: ``image`` (1, 3, H, W) in [0, 1]; ``trusted`` (1, 1, H, W), 1 where it carries on the frame
    before, None where it begins anew; ``cut`` where a new shot began."""

    image: Tensor
    trusted: Tensor | None = None
    cut: bool = False


class Video:
    """Stylize a stream of frames with ``model``.

    ``keep`` is ``none`` or ``warp``, ``blend`` in [0, 1] how much of a carried pixel stays, ``estimator`` of the motion
    ``dis`` or ``deepflow``; ``motion`` replaces it: from (previous frame, frame) to (forward, backward) flow. Raises
    ConfigError for other values.
    """

    def __init__(
        self,
        model: Stylizer,
        keep: Keeping = "warp",
        *,
        blend: float = BLEND,
        estimator: flow.Estimator = "dis",
        motion: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        if keep not in get_args(Keeping):
            raise ConfigError(f"Frames are kept together by {' or '.join(get_args(Keeping))}, not {keep!r}.")
        flow.check_estimator(estimator)
        if not 0 <= blend <= 1:
            raise ConfigError(f"The share of a carried pixel must lie in [0, 1], got {blend:g}.")
        self.model, self.keep, self.blend = model, keep, blend
        self._motion = motion or (
            lambda before, now: (flow.estimate(before, now, estimator), flow.estimate(now, before, estimator))
        )
        self._state: dict[str, Tensor] = {}

    @property
    def state(self) -> Mapping[str, Tensor]:
        """What the next frame depends on: give it to :meth:`resume`."""
        return self._state

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Go on after the frame whose :attr:`state` this is."""
        self._state = dict(state)

    def frames(self, contents: Iterable[Tensor], style: StyleCode | Mix, **options: Any) -> Iterator[VideoFrame]:
        """Yield each frame of ``contents``, (1, 3, H, W) in [0, 1], in ``style``; ``options`` go to the method."""
        for content in contents:
            yield self._frame(content, style, options)

    def _frame(self, content: Tensor, style: StyleCode | Mix, options: Mapping[str, Any]) -> VideoFrame:
        if self.keep == "none":
            return VideoFrame(self.model.stylize(content, style, **options).image)
        before = self._state
        carried = trusted = None
        cut = False
        if before and before["content"].shape == content.shape:
            forward, backward = self._motion(before["content"], content.cpu())
            trusted = flow.reliability(forward, backward)
            cut = flow.is_cut(before["content"], content.cpu(), backward, trusted)
            if not cut:
                carried = flow.warp(before["image"], backward, sharp=True).clamp(0, 1)
        if carried is None or trusted is None:
            image = self.model.stylize(content, style, **options).image
            trusted = None
        else:
            if "init" in self.model.traits.context:
                # Where nothing can be carried over, the content itself.
                start = torch.where(trusted.to(carried) > 0, carried, content.to(carried))
                options = {**options, "context": Context(init=start)}
            image = self.model.stylize(content, style, **options).image
            image = image + (self.blend * trusted).to(image) * (carried.to(image) - image)
        self._state = {"content": content.cpu(), "image": image.cpu()}
        return VideoFrame(image, trusted, cut)


__all__ = ["BLEND", "Video", "VideoFrame"]
