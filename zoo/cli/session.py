"""The pictures of one call of ``zoo stylize``: read ahead, made in a session, written behind."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zoo.cli.batch import Batch
from zoo.cli.common import Reporter, StopRequest, progress_bar, read_image
from zoo.cli.jobs import Film, Job, summary, write_picture
from zoo.cli.labels import Labels
from zoo.cli.streams import console

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.cli.stylize import StylizeOptions
    from zoo.images import Image
    from zoo.stylizer import Mix, StyleCode, Stylized, Stylizer

T = TypeVar("T")
R = TypeVar("R")


def make(jobs: Iterable[Job], batch: Batch, inputs: Inputs, session: Session, stop: StopRequest) -> None:
    """Make the pictures until ``stop`` is asked for; what is wrong with one of several is named.

    While one content is worked on the next is read, and the picture before is written.
    """
    bar = progress_bar(session.options.quiet)
    report = functools.partial(Reporter, bar, stop, session.options.save_every)
    with bar or contextlib.nullcontext(), Writer() as writer:
        groups = (list(group) for _, group in itertools.groupby(jobs, key=lambda job: job.content))
        for group, content in read_ahead(groups, lambda group: inputs.content(group[0])):
            _make(group, content, batch, session, report, writer)
            if stop.asked:
                return


def read_ahead(items: Iterable[T], read: Callable[[T], R]) -> Iterator[tuple[T, Callable[[], R]]]:
    """Give every item with a function that returns, or raises, what ``read`` makes of it.

    It is read in a thread of its own while the item before is worked on.
    """
    with ThreadPoolExecutor(1, "zoo-reader") as pool:
        before: tuple[T, Future[R]] | None = None
        for item in items:
            now = item, pool.submit(read, item)
            if before is not None:
                yield before[0], before[1].result
            before = now
        if before is not None:
            yield before[0], before[1].result


class Writer:
    """Writes one picture while the next is made, in a thread of its own. What goes wrong is raised at the next one or
    at the end of the block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "zoo-writer")
        self._pending: tuple[Future[None], Callable[[], None]] | None = None

    def put(self, write: Callable[[], None], done: Callable[[], None]) -> None:
        """Begin to ``write`` once what was put before is written; ``done`` is called in this thread afterwards."""
        self.settle()
        self._pending = self._pool.submit(write), done

    def settle(self) -> None:
        """Wait until what was put is written."""
        if self._pending is not None:
            (future, done), self._pending = self._pending, None
            future.result()
            done()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._pool:
            self.settle()


def _make(
    jobs: list[Job],
    content: Callable[[], tuple[Image, Tensor | None]],
    batch: Batch,
    session: Session,
    report: Callable[[Film], Reporter],
    writer: Writer,
) -> None:
    """Make the pictures of one content; what is wrong with it, or with it and one of the styles, is named."""
    read: tuple[Image, Tensor | None] | None = None
    with batch.sparing(jobs[0].content, len(jobs)):
        read = content()
        session.cut(*read[0].size)
    if read is None:
        return
    photo, masks = read
    for job in jobs:
        with contextlib.closing(Film(job.frames)) as film:
            reporter, result, started = report(film), None, time.perf_counter()
            reporter.begin(job.label)
            with batch.sparing(job.label):
                result = session.run(photo, job, masks, reporter)
            if result is not None:
                said = _summary(job, session, result, time.perf_counter() - started)
                if reporter.save_every and not film.begun and film.folder.is_dir():
                    film.clear()  # fewer steps than one frame takes
                shown = [photo.pixels, *session.pictures(job)]
                writer.put(
                    functools.partial(write_picture, job, result.image, photo.alpha),
                    functools.partial(batch.add, said, result, shown),
                )
        if reporter.stop.asked:
            return


class Inputs:
    """The pictures of a call, each read once: standard input can be read no second time."""

    def __init__(self, content_size: str, style_size: str, max_pixels: int | None, masks: list[str]) -> None:
        """Read the masks. Raises ImageError or InputError where one is no mask."""
        from zoo import images

        self.policy = images.SizePolicy.parse(content_size)
        self.style_size, self.max_pixels = style_size, max_pixels
        self.masks = [(source, images.selection(read_image(source, "0", max_pixels), source)) for source in masks]
        self._last: tuple[str, Image] | None = None

    def content(self, job: Job) -> tuple[Image, Tensor | None]:
        """The content of a job, uint8 where it stays as in its file, and the masks at its size; ImageError where the
        job's file could not hold it."""
        import torch

        from zoo import images

        if self._last is None or self._last[0] != job.content:
            self._last = job.content, read_image(job.content, str(self.policy), self.max_pixels, levels=True)
        photo = self._last[1]
        if job.output != "-":
            images.check_writable(job.output, photo.size)
        masks = [images.fitted(mask, source, photo, self.policy) for source, mask in self.masks]
        return photo, torch.cat(masks) if masks else None

    def styles(self, sources: list[str], names: Sequence[str], batch: Batch, contents: int) -> dict[str, Image | None]:
        """The style images by their source, None where it is a trained style's name; unless all styles go into one
        picture, those that cannot be read are left out."""
        found: dict[str, Image | None] = {}
        for source in dict.fromkeys(sources):
            alone = batch.inner > 1 or len(sources) == 1
            with contextlib.nullcontext() if alone else batch.sparing(source, contents):
                found[source] = None if source in names else read_image(source, self.style_size, self.max_pixels)
        return found


class Session:
    """A stylizer with its styles encoded once, as far as contents share them.

    ``styles`` are images by their source; None where the source is a trained style's name.
    """

    # Upright and wide contents in turn both find their codes. Of a folder of as many sizes as files not all are kept:
    # a code of patches is as large as the style's features.
    SIZES = 2

    def __init__(
        self,
        stylizer: Stylizer,
        styles: dict[str, Image | None],
        options: StylizeOptions,
        blend: list[float] | None,
        labels: Labels | None = None,
    ) -> None:
        self.stylizer, self.images, self.options, self.blend = stylizer, styles, options, blend
        self.labels = labels
        # By the content's size, the one thing of it that a code depends on; the last one used comes last.
        self.codes: dict[tuple[int, int], dict[str, StyleCode]] = {}
        self.tile: int | None = None

    def cut(self, height: int, width: int) -> None:
        """Choose the tiles of the next content, and say so where nobody asked for them.

        Raises MemoryLimitError for a picture that fits into memory neither whole nor by tiles.
        """
        from zoo import memory
        from zoo.controls.tiles import side_of

        before, self.tile = self.tile, side_of(self.stylizer, self.options.tile, height, width)
        memory.require(self.stylizer, height, width, self.tile)
        if self.tile and self.options.tile == "auto" and before is None and not self.options.quiet:
            console.say(f"zoo: {memory.told(self.stylizer, height, width, self.tile)}")

    def pictures(self, job: Job) -> list[Tensor | None]:
        """The style images of a job, as far as there are any."""
        found = [self.images[source] for source in job.styles]
        return [None if image is None else image.pixels for image in found]

    def _code(self, source: str, photo: Image) -> StyleCode:
        self.codes[photo.size] = codes = self.codes.pop(photo.size, {})
        while len(self.codes) > self.SIZES:
            self.codes.pop(next(iter(self.codes)))
        if source not in codes:
            from zoo import memory

            image = self.images[source]
            traits = self.stylizer.traits
            whole = image is not None and not (traits.tiled_styles and memory.style_tile(*image.size))
            if image is not None and whole and not traits.iterative:  # what encodes a content encodes a style
                memory.require(self.stylizer, *image.size, kind="a style of ")
            style = source if image is None else image.pixels
            if self.labels is not None and image is not None:
                style = self.labels.of_style(source, image)
            codes[source] = self.stylizer.encode_style(style, photo.size)
        return codes[source]

    def _labels(self, photo: Image, job: Job) -> Tensor | None:
        """What is where in the content, in the numbers of the job's style."""
        image = self.images[job.styles[0]]
        return None if self.labels is None or image is None else self.labels.of_content(photo, job.styles[0], image)

    def run(self, photo: Image, job: Job, masks: Tensor | None, reporter: Reporter) -> Stylized | None:
        """Stylise one content; None where a signal came among its tiles, before there was a picture."""
        from zoo.nn.tiles import Stopped, watched

        # An optimiser tells its steps.
        told = (lambda done, total: reporter.stop.asked) if self.stylizer.traits.iterative else reporter.tile
        try:
            with watched(told):
                return self._run(photo, job, masks, reporter)
        except Stopped:
            if not self.options.quiet:
                console.say(f"zoo: stopped before {job.label} was made.")
            return None

    def _run(self, photo: Image, job: Job, masks: Tensor | None, reporter: Reporter) -> Stylized:
        from zoo.nn.tiles import from_levels
        from zoo.stylizer import Context, Mix

        codes = [self._code(source, photo) for source in job.styles]
        style: StyleCode | Mix = codes[0]
        if self.blend or masks is not None:
            shares = self.blend or [1 / len(codes)] * len(codes)
            style = Mix(list(zip(codes, shares, strict=True)))
        return self.stylizer.stylize(
            from_levels(photo.pixels) if self.tile is None else photo.pixels,
            style,
            strength=self.options.strength,
            seed=self.options.seed,
            context=Context(content_masks=masks, content_labels=self._labels(photo, job)),
            progress=reporter,
            tile=self.tile,
            levels=self.tile is not None,
        )


def _summary(job: Job, session: Session, result: Stylized, seconds: float) -> dict[str, Any]:
    height, width = result.image.shape[-2:]
    return summary(
        job,
        session.stylizer.name,
        (height, width),
        seconds,
        session.options.seed,
        steps=result.steps,
        stopped=result.stopped,
        losses=dict(result.losses[-1]) if result.losses else {},
        strength=session.options.strength,
        device=str(session.stylizer.device),
        precision=session.stylizer.precision,
        tile=session.tile,
        backend="onnxruntime" if session.options.backend == "onnxruntime" else "torch",
        options=session.stylizer.config.to_dict(),
    )
