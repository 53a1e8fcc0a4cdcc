"""Frames of a film in one style, kept together: a control around any method, one stream of frames in, one out.

``none`` stylizes frame by frame (style encoded once, one seed). ``warp`` carries the previous result along the motion
and keeps it wherever that holds; a method that optimizes starts from it too (Ruder et al. 2016, section 4.1). At a cut
everything begins anew.

How ``warp`` stays sharp: a mean of the carried and the new picture blurs, because their brush strokes differ, and so
does resampling again and again. So each pixel is of one of the two. Which one, the film itself tells: its first frame
is carried along beside the result, and where it no longer shows what the present frame shows (a mouth that opened, a
wrong motion, an edge that blurred), that place is stylized afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.stylizer import Context, Mix, StyleCode, Stylizer
from zoo.video import flow
from zoo.video.ahead import ahead

Keeping = Literal["none", "warp"]
Motion = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]

# Share of the carried picture where it holds. Under 1, strokes that differ from frame to frame average out: at 0.8 the
# style loss of carphone in johnson's mosaic is 1.9 times that of single frames, at 1 it is 1.05 times.
BLEND = 1.0

# A place holds where the carried film differs from the present frame by less than 15 levels of 255 (mean of 7 x 7
# pixels and of the channels), and no longer at 25. JPEG-like noise stays under 10.
_HOLDS, _FAILS, _PATCH = 0.06, 0.1, 7
_FEATHER = 5  # pixels over which a border between the two is blurred

# Detail is what a Gaussian of this many pixels takes away. Each step of resampling loses one percent of it or two,
# which is given back, at most this factor a frame.
_DETAIL, _SHARPEN = 1.5, 1.1


@dataclass(frozen=True)
class VideoFrame:
    """A stylized frame: ``image`` (1, 3, H, W) in [0, 1]; ``trusted`` (1, 1, H, W), 1 where it carries on the frame
    before, None where it begins anew; ``cut`` where a new shot began."""

    image: Tensor
    trusted: Tensor | None = None
    cut: bool = False


@dataclass(frozen=True)
class _Step:
    """A frame and how it follows from the one before: backward flow, where it can be trusted, whether a shot began."""

    content: Tensor
    backward: Tensor | None = None
    trusted: Tensor | None = None
    cut: bool = False


class Video:
    """Stylize a stream of frames with ``model``.

    ``keep`` is ``none`` or ``warp``, ``blend`` in [0, 1] how much of a carried pixel stays, ``motion`` an estimator's
    name (``dis``, ``deepflow``) or a function from (previous frame, frame, the latter's number from 0) to (forward,
    backward) flow. Raises ConfigError for other values.
    """

    def __init__(
        self, model: Stylizer, keep: Keeping = "warp", *, blend: float = BLEND, motion: flow.Estimator | Motion = "dis"
    ) -> None:
        if keep not in get_args(Keeping):
            raise ConfigError(f"Frames are kept together by {' or '.join(get_args(Keeping))}, not {keep!r}.")
        if not 0 <= blend <= 1:
            raise ConfigError(f"The share of a carried pixel must lie in [0, 1], got {blend:g}.")
        if isinstance(motion, str):
            motion = partial(flow.estimate_both, flow.check_estimator(motion))
        self.model, self.keep, self.blend, self._motion = model, keep, blend, motion
        self._state: dict[str, Any] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What the next frame depends on: give it to :meth:`resume`."""
        return self._state

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on after the frame whose :attr:`state` this is."""
        self._state = dict(state)

    def frames(
        self, contents: Iterable[Tensor], style: StyleCode | Mix, **options: Any
    ) -> Generator[VideoFrame, None, None]:
        """Yield each frame of ``contents``, (1, 3, H, W) in [0, 1], in ``style``; ``options`` go to the method.

        Motion is estimated in a thread, ahead of the method.
        """
        if self.keep == "none":
            for content in contents:
                yield VideoFrame(self.model.stylize(content, style, **options).image)
            return
        steps = ahead(self._steps(contents))
        try:
            for step in steps:
                yield self._frame(step, style, options)
        finally:
            steps.close()

    def _steps(self, contents: Iterable[Tensor]) -> Iterator[_Step]:
        before, number = self._state.get("content"), int(self._state.get("number", 0))
        for content in contents:
            now = content.cpu()
            if before is None or before.shape != now.shape:
                yield _Step(content)
            else:
                forward, backward = self._motion(before, now, number)
                trusted = flow.reliability(forward, backward)
                cut = flow.is_cut(before, now, backward, trusted)
                yield _Step(content, cut=True) if cut else _Step(content, backward, trusted)
            before, number = now, number + 1

    def _frame(self, step: _Step, style: StyleCode | Mix, options: Mapping[str, Any]) -> VideoFrame:
        content, now, number = step.content, step.content.cpu(), int(self._state.get("number", 0)) + 1
        if step.backward is None or step.trusted is None:
            image = self.model.stylize(content, style, **options).image
            self._state = {"content": now, "image": image.cpu(), "carried": now, "number": number}
            return VideoFrame(image, None, step.cut)
        image, film = (flow.carry(self._state[name], step.backward).clamp(0, 1) for name in ("image", "carried"))
        holds = _holding(film, now, step.trusted)
        if "init" in self.model.traits.context:
            start = now + holds * (image - now)  # where nothing can be carried over, the content itself
            options = {**options, "context": Context(init=start.to(content))}
        fresh = self.model.stylize(content, style, **options).image.cpu()
        share = self.blend * holds
        image = _joined(image, fresh, share)
        self._state = {"content": now, "image": image, "carried": now + share * (film - now), "number": number}
        return VideoFrame(image.to(content), holds.to(content), step.cut)


def _holding(film: Tensor, now: Tensor, trusted: Tensor) -> Tensor:
    """How far (1, 1, H, W), 0 to 1, a pixel carried up to the frame ``now`` may stay, as ``film`` was carried alike."""
    cv2 = flow.require_cv2()

    def mean(values: Tensor, side: int) -> Tensor:
        return torch.from_numpy(cv2.blur(values[0, 0].numpy(), (side, side), borderType=cv2.BORDER_REFLECT))[None, None]

    apart = mean((film - now).abs().mean(1, keepdim=True), _PATCH)
    return ((_FAILS - apart) / (_FAILS - _HOLDS)).clamp(0, 1) * torch.minimum(trusted, mean(trusted, _FEATHER))


def _joined(carried: Tensor, fresh: Tensor, share: Tensor) -> Tensor:
    """Return ``share`` of the carried picture and the rest of the fresh one, in [0, 1].

    Only their coarse parts are mixed; detail is one's or the other's, or it would average out where they meet.
    """
    cv2 = flow.require_cv2()

    def coarse(image: Tensor) -> Tensor:
        blurred = cv2.GaussianBlur(image[0].permute(1, 2, 0).contiguous().numpy(), (0, 0), _DETAIL)
        return torch.from_numpy(blurred).permute(2, 0, 1)[None]

    bases = coarse(carried), coarse(fresh)
    detail, new = carried - bases[0], fresh - bases[1]
    lost = (share * new.square()).sum() / (share * detail.square()).sum().clamp_min(1e-12)
    detail = detail * lost.sqrt().clamp(1, _SHARPEN)
    chosen = ((share - 0.5) * 6 + 0.5).clamp(0, 1)
    return (bases[1] + share * (bases[0] - bases[1]) + new + chosen * (detail - new)).clamp(0, 1)


__all__ = ["BLEND", "Motion", "Video", "VideoFrame"]
