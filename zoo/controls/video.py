"""Frames of a film in one style, kept together: a control around any method, one stream of frames in, one out.

``none`` stylizes frame by frame (style encoded once, one seed). ``warp`` carries the previous result along the motion
and keeps it wherever that holds; a method that optimizes starts from it too (Ruder, Dosovitskiy, Brox, *Artistic Style
Transfer for Videos*, GCPR 2016, section 4.1). ``temporal`` is for methods that optimize: earlier frames become part of
their loss (sections 4.2 and 4.3), in several passes if asked (section 4.4). At a cut everything begins anew.

How ``warp`` stays sharp: a mean of the carried and the new picture blurs, because their brush strokes differ, and so
does resampling again and again. So each pixel is of one of the two. Which one, the film itself tells: its first frame
is carried along beside the result, and where it no longer shows what the present frame shows (a mouth that opened, a
wrong motion, an edge that blurred), or where its own strokes have blurred, that place is stylized afresh. A method that
optimizes starts from what is carried and is not mixed with it afterwards: that undoes what it fitted (five times the
style loss of Gatys on carphone).

| paper | here | why |
|---|---|---|
| first frame 2000 iterations, later ones 1000 | ``num_steps`` and half of them | the method's own number |
| stop when 50 iterations change the loss by less than 0.01 % | all steps | seconds that can be foretold |
| DeepFlow | DIS by default, DeepFlow on request | as good on what was tried, 25 times as fast |
| what was hidden starts from the warped frame | from the content | no ghost to begin with |
| 15 passes of 100 iterations | ``num_steps`` shared out over ``passes`` | the method's own number |
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.stylizer import Context, Mix, Progress, StyleCode, Stylizer
from zoo.video import flow
from zoo.video.ahead import Ahead

Keeping = Literal["none", "warp", "temporal"]
# From two frames and their numbers to (forward, backward) flow.
Motion = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]

# Share of the carried picture where it holds, of methods that do not start from it. Under 1, strokes that differ from
# frame to frame average out: at 0.8 the style loss of carphone in johnson's mosaic is 1.9 times that of single frames,
# at 1 it is 1.08 times.
BLEND = 1.0

# A place holds where the carried film differs from the present frame by less than 15 levels of 255 (mean of 7 x 7
# pixels and of the channels), and no longer at 25. JPEG-like noise stays under 10.
_HOLDS, _FAILS, _PATCH = 0.06, 0.1, 7
_FEATHER = 5  # pixels over which a border between the two is blurred

# Detail is what a Gaussian of this many pixels takes away. Each step of resampling loses one percent of it or two,
# which is given back, at most this factor a frame.
_DETAIL, _SHARPEN = 1.5, 1.1

# A place has blurred or stretched where the carried detail has less than 0.85 of the contrast that a fresh result has
# there (over a Gaussian of 6 pixels); at 0.6 it is taken afresh. On bikes this takes off an eighth of the style loss.
_SHARP, _BLURRED, _AROUND = 0.85, 0.6, 6.0
_UNSEEN = (2 / 255) ** 2  # contrast that nobody misses

# Ruder et al., section 4.3: how many frames back the frames lie that a frame should equal, the nearest first.
_BACK = (1, 2, 4)
# Section 4.4 and the authors' scripts: half of the neighbor is mixed in, its loss counts half and from this share of
# the passes on.
_MIXED, _COUNTED, _FROM = 0.5, 0.5, 8 / 15


@dataclass(frozen=True)
class VideoFrame:
    """A stylized frame: ``image`` (1, 3, H, W) in [0, 1]; ``trusted`` (1, 1, H, W), 1 where it carries on the frame
    before or was fitted from it, None where it begins anew; ``cut`` where a new shot began."""

    image: Tensor
    trusted: Tensor | None = None
    cut: bool = False


@dataclass(frozen=True)
class _Link:
    """Backward flow from a frame to one ``back`` frames before, and where it can be trusted."""

    back: int
    backward: Tensor
    trusted: Tensor


@dataclass(frozen=True)
class _Step:
    """A frame and how it follows from earlier ones, the nearest first; whether a shot began."""

    content: Tensor
    links: Sequence[_Link] = ()
    cut: bool = False


class Video:
    """Stylize a stream of frames with ``model``.

    ``keep`` is ``none``, ``warp`` or ``temporal``, ``blend`` in [0, 1] how much of a carried pixel stays (``warp``;
    unless given all, or nothing where the method starts from it), ``passes`` how often a film is gone through
    (``temporal``; more than one needs all its frames in memory), ``motion`` an estimator's name (``dis``, ``deepflow``)
    or a function from (frame, later frame, their numbers from 0) to (forward, backward) flow.
    Raises ConfigError for other values, and where the method has no temporal loss.
    """

    def __init__(
        self,
        model: Stylizer,
        keep: Keeping | str = "warp",
        *,
        blend: float | None = None,
        passes: int = 1,
        motion: flow.Estimator | str | Motion = "dis",
    ) -> None:
        if keep not in get_args(Keeping):
            raise ConfigError(f"Frames are kept together by {', '.join(get_args(Keeping))}, not {keep!r}.")
        if keep == "temporal" and "anchors" not in model.traits.context:
            raise ConfigError(f"{model.name} has no temporal loss of its own: keep its frames together by warp.")
        self._begins = "init" in model.traits.context
        if blend is None:
            blend = 0.0 if self._begins else BLEND
        if not 0 <= blend <= 1:
            raise ConfigError(f"The share of a carried pixel must lie in [0, 1], got {blend:g}.")
        if passes < 1 or (passes > 1 and keep != "temporal"):
            raise ConfigError(f"Passes are a whole number from 1, more than one with temporal only; got {passes}.")
        if isinstance(motion, str):
            motion = flow.Estimated(motion)
        self.model, self.keep, self.blend, self.passes, self._motion = model, keep, blend, passes, motion
        self._state: dict[str, Any] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What the next frame depends on: give it to :meth:`resume`. Empty where nothing can go on from there."""
        return self._state

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on after the frame whose :attr:`state` this is."""
        self._state = dict(state)

    def frames(
        self, contents: Iterable[Tensor | np.ndarray], style: StyleCode | Mix, **options: Any
    ) -> Generator[VideoFrame, None, None]:
        """Yield each frame of ``contents``, (1, 3, H, W) float32 in [0, 1], in ``style``; ``options`` go to the method.

        Motion is estimated in a thread, ahead of the method; what it carries is joined with a fresh result in another,
        while the method makes the next.
        """
        tensors = (torch.as_tensor(content) for content in contents)
        if self.keep == "none":
            for content in tensors:
                yield VideoFrame(self.model.stylize(content, style, **options).image)
            return
        if self.passes > 1:
            yield from self._in_passes(list(tensors), style, options)
            return
        steps = Ahead(self._steps(tensors, _BACK if self.keep == "temporal" else (1,)))
        make = self._carried if self.keep == "warp" else self._anchored
        try:
            if self.keep == "warp" and not self._begins:
                yield from self._carried_beside(steps, style, options)
            else:
                for step in steps:
                    yield make(step, style, options)
        finally:
            steps.close()

    # -- motion ------------------------------------------------------------------------------------------------------

    def _steps(self, contents: Iterable[Tensor], back: Sequence[int]) -> Iterator[_Step]:
        number, shot = int(self._state.get("number", 0)), list(self._state.get("contents", ()))
        for content in contents:
            now = content.cpu()
            begun = bool(shot)
            if shot and shot[-1].shape != now.shape:
                shot, begun = [], False
            links: list[_Link] = []
            for gap in back:
                if len(shot) < gap or min(now.shape[-2:]) < flow.SMALLEST:
                    break
                forward, backward = self._motion(shot[-gap], now, number - gap, number)
                trusted = flow.reliability(forward, backward)
                if gap == 1 and flow.is_cut(shot[-1], now, backward, trusted):
                    shot = []
                    break
                links.append(_Link(gap, backward, trusted))
            yield _Step(content, links, cut=begun and not links)
            shot, number = [*shot, now][-max(back) :], number + 1

    # -- the previous result, carried --------------------------------------------------------------------------------

    def _carried_beside(
        self, steps: Iterable[_Step], style: StyleCode | Mix, options: Mapping[str, Any]
    ) -> Iterator[VideoFrame]:
        """As :meth:`_carried`, of a method that begins from nothing, so that it can go on to the next frame."""
        with ThreadPoolExecutor(1, "zoo-carry") as beside:
            joined: Future[VideoFrame] | None = None
            try:
                for step in steps:
                    fresh = self.model.stylize(step.content, style, **options).image
                    if joined is not None:
                        yield joined.result()  # its state stands until the next one is begun
                    joined = beside.submit(self._joined, step, fresh)
            except Exception:
                if joined is not None:
                    yield joined.result()
                raise
            if joined is not None:
                yield joined.result()

    def _carried(self, step: _Step, style: StyleCode | Mix, options: Mapping[str, Any]) -> VideoFrame:
        """The frame of a method that may start from what is carried."""
        moved = self._moved(step)
        if moved is not None:
            image, _, holds = moved
            now = step.content.cpu()
            start = now + holds * (image - now)  # where nothing can be carried over, the content itself
            options = {**options, "context": Context(init=start.to(step.content))}
        return self._joined(step, self.model.stylize(step.content, style, **options).image, moved)

    def _moved(self, step: _Step) -> tuple[Tensor, Tensor, Tensor] | None:
        """The previous result and its film, carried to this frame, and how far they hold; None where a shot begins."""
        if not step.links:
            return None
        (link,) = step.links
        image, film = (flow.carry(self._state[name], link.backward).clamp(0, 1) for name in ("image", "carried"))
        return image, film, _holding(film, step.content.cpu(), link.trusted)

    def _joined(self, step: _Step, fresh: Tensor, moved: tuple[Tensor, Tensor, Tensor] | None = None) -> VideoFrame:
        content, now, number = step.content, step.content.cpu(), int(self._state.get("number", 0)) + 1
        moved = moved or self._moved(step)
        if moved is None:
            self._state = {"contents": [now], "image": fresh.cpu(), "carried": now, "number": number}
            return VideoFrame(fresh, None, step.cut)
        image, film, holds = moved
        image, share = _mixed(image, fresh.cpu(), self.blend * holds)
        self._state = {"contents": [now], "image": image, "carried": now + share * (film - now), "number": number}
        return VideoFrame(image.to(content), (holds if self._begins else share).to(content), step.cut)

    # -- earlier frames in the loss ----------------------------------------------------------------------------------

    def _anchored(self, step: _Step, style: StyleCode | Mix, options: Mapping[str, Any]) -> VideoFrame:
        now, number = step.content.cpu(), int(self._state.get("number", 0)) + 1
        contents, images = ([], []) if not step.links else (self._state["contents"], self._state["images"])
        if not step.links:
            image, trusted = self.model.stylize(step.content, style, **options).image.cpu(), None
        else:
            trusted = step.links[0].trusted
            carried = [flow.warp(images[-link.back], link.backward) for link in step.links]
            anchors = torch.cat([torch.cat(pair, 1) for pair in zip(carried, _long_term(step.links), strict=True)])
            start = torch.where(trusted > 0, carried[0], now)
            image = self._from(step.content, start, anchors, self._steps_of(2), style, options)
        kept = max(_BACK)
        self._state = {"contents": [*contents, now][-kept:], "images": [*images, image][-kept:], "number": number}
        return VideoFrame(image.to(step.content), None if trusted is None else trusted.to(step.content), step.cut)

    def _steps_of(self, parts: int) -> int:
        """A part of the method's steps, at least one."""
        return max(1, int(getattr(self.model.config, "num_steps", 1)) // parts)

    def _from(
        self,
        content: Tensor,
        start: Tensor,
        anchors: Tensor,
        steps: int,
        style: StyleCode | Mix,
        options: Mapping[str, Any],
    ) -> Tensor:
        """The frame fitted from ``start`` with ``anchors`` in ``steps``, on the CPU."""
        context = Context(init=start.to(content), anchors=anchors.to(content))
        progress = _until(steps, options.get("progress"))
        return self.model.stylize(content, style, **{**options, "context": context, "progress": progress}).image.cpu()

    # -- several passes, forward and backward in turn ----------------------------------------------------------------

    def _in_passes(
        self, contents: Sequence[Tensor], style: StyleCode | Mix, options: Mapping[str, Any]
    ) -> Iterator[VideoFrame]:
        """Yield all frames after the last pass."""
        film = [content.cpu() for content in contents]
        # By the number of the later frame: flow from it to the one before and back, each with where it can be trusted.
        joints: dict[int, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] = {}
        for late in range(1, len(film)):
            if film[late].shape != film[late - 1].shape or min(film[late].shape[-2:]) < flow.SMALLEST:
                continue
            forward, backward = self._motion(film[late - 1], film[late], late - 1, late)
            trusted = flow.reliability(forward, backward)
            if not flow.is_cut(film[late - 1], film[late], backward, trusted):
                joints[late] = (backward, trusted), (forward, flow.reliability(backward, forward))
        steps = self._steps_of(self.passes)
        images: list[Tensor] = []
        for turn in range(self.passes):
            ahead_of, order = turn % 2, range(len(film))
            before = list(images)
            for number in reversed(order) if ahead_of else order:
                if not turn:
                    first = {**options, "progress": _until(steps, options.get("progress"))}
                    images.append(self.model.stylize(contents[number], style, **first).image.cpu())
                    continue
                start, anchors = before[number], torch.zeros(1, 4, *film[number].shape[-2:])
                joint = joints.get(number + ahead_of)
                if joint is not None:
                    motion, trusted = joint[ahead_of]
                    moved = flow.warp(images[number + (1 if ahead_of else -1)], motion)
                    start = start + _MIXED * trusted * (moved - start)
                    if turn >= _FROM * self.passes:
                        anchors = torch.cat([moved, _COUNTED * trusted], 1)
                images[number] = self._from(contents[number], start, anchors, steps, style, options)
        for number, image in enumerate(images):
            trusted = joints[number][0][1].to(contents[number]) if number in joints else None
            yield VideoFrame(image.to(contents[number]), trusted, bool(number) and number not in joints)


def _until(steps: int, watcher: Progress | None) -> Progress:
    """A watcher that asks for the end after so many steps."""

    def watch(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
        return bool(watcher is not None and watcher(step, steps, losses, image)) or step >= steps

    return watch


def _long_term(links: Sequence[_Link]) -> list[Tensor]:
    """Weights (1, 1, H, W) of earlier frames: a pixel counts for the nearest frame that shows it (section 4.3)."""
    weights, nearer = [], torch.zeros_like(links[0].trusted)
    for link in links:
        weights.append((link.trusted - nearer).clamp_min(0))
        nearer = nearer + link.trusted
    return weights


def _holding(film: Tensor, now: Tensor, trusted: Tensor) -> Tensor:
    """How far (1, 1, H, W), 0 to 1, a pixel carried up to the frame ``now`` may stay, as ``film`` was carried alike."""
    cv2 = flow.require_cv2()

    def mean(values: Tensor, side: int) -> Tensor:
        return torch.from_numpy(cv2.blur(values[0, 0].numpy(), (side, side), borderType=cv2.BORDER_REFLECT))[None, None]

    apart = mean((film - now).abs().mean(1, keepdim=True), _PATCH)
    return ((_FAILS - apart) / (_FAILS - _HOLDS)).clamp(0, 1) * torch.minimum(trusted, mean(trusted, _FEATHER))


def _mixed(carried: Tensor, fresh: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``share`` of the carried picture and the rest of the fresh one, in [0, 1]; and what share it became.

    Less is carried where detail got lost. Only coarse parts are mixed; detail is one's or the other's, or it would
    average out where they meet.
    """
    cv2 = flow.require_cv2()

    def coarse(image: Tensor, sigma: float = _DETAIL) -> Tensor:
        planes = [cv2.GaussianBlur(plane, (0, 0), sigma) for plane in image[0].numpy()]
        return torch.from_numpy(np.stack(planes))[None]

    bases = coarse(carried), coarse(fresh)
    detail, new = carried - bases[0], fresh - bases[1]
    had, has = (coarse(one.square().mean(1, keepdim=True), _AROUND).clamp_min(0) for one in (detail, new))
    contrast = ((had + _UNSEEN) / (has + _UNSEEN)).sqrt()
    share = share * ((contrast - _BLURRED) / (_SHARP - _BLURRED)).clamp(0, 1)
    lost = (share * new.square()).sum() / (share * detail.square()).sum().clamp_min(1e-12)
    detail = detail * lost.sqrt().clamp(1, _SHARPEN)
    chosen = ((share - 0.5) * 6 + 0.5).clamp(0, 1)
    joined = bases[1] + share * (bases[0] - bases[1]) + new + chosen * (detail - new)
    return joined.clamp(0, 1), share


__all__ = ["BLEND", "Motion", "Video", "VideoFrame"]
