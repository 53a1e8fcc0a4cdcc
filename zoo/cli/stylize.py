"""``zoo stylize``: photographs in, stylised photographs out."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.batch import Batch
from zoo.cli.common import (
    Reporter,
    StopRequest,
    console,
    default_style,
    expand,
    method_options,
    parse_weights,
    progress_bar,
    read_image,
    trained_styles,
)
from zoo.cli.jobs import Film, Job, check_targets, missing, plan, shared_out, write_picture
from zoo.cli.labels import Labels, with_object
from zoo.cli.streams import binary_output
from zoo.config import LARGEST_INT
from zoo.errors import ConfigError, InputError
from zoo.options import PIXELS, Look, verb, whole
from zoo.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.images import Image
    from zoo.stylizer import Mix, StyleCode, Stylized, Stylizer

DEFAULT_CONTENT = "builtin:astronaut"


@dataclass(frozen=True, kw_only=True)
class StylizeOptions(Look):
    """Options of ``zoo stylize``."""

    method: Annotated[str, typer.Option("--method", "-m", help="Method or method.tag ('zoo list').")] = "gatys"
    content: Annotated[
        list[str] | None,
        typer.Option(help="Files, folders, builtin:NAME, or - for standard input. Default: a built-in photograph."),
    ] = None
    style: Annotated[
        list[str] | None,
        typer.Option(help="Files, folders, builtin:NAME, - or trained styles' names. Every content meets every style."),
    ] = None
    content_dir: Annotated[str | None, typer.Option(help="A folder of contents.")] = None
    style_dir: Annotated[str | None, typer.Option(help="A folder of styles.")] = None
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file for one picture, a folder for several, - for standard output."),
    ] = None
    content_size: Annotated[
        str, typer.Option(help="Long side in pixels, or long:N, short:N, exact:WxH (cropped); 0 keeps the size.")
    ] = "512"
    style_size: Annotated[str, typer.Option(help="The same for styles.")] = "512"
    max_pixels: Annotated[
        int | None, typer.Option(help="Refuse larger images (a guard against broken headers).", **PIXELS)
    ] = None
    weights: Annotated[
        str | None,
        typer.Option("--style-interpolation-weights", help="Blend all styles in one result: 0.3,0.7. Without --mask."),
    ] = None
    mask: Annotated[
        list[str] | None, typer.Option(help="One region mask per style (white: this style), in the styles' order.")
    ] = None
    content_labels: Annotated[
        str | None, typer.Option(help="What is where in the content: a map of a few flat colors, as a PNG.")
    ] = None
    style_labels: Annotated[
        list[str] | None, typer.Option(help="The same of each style, in the same colors: sky takes its style from sky.")
    ] = None
    object: Annotated[
        str | None, typer.Option(help="Stylise one object alone: a mask, white on it.", metavar="MASK")
    ] = None
    subject: Annotated[bool, typer.Option("--subject", help="Stylise the person in the content alone.")] = False
    backend: Annotated[
        str,
        typer.Option(
            help="torch, or onnxruntime: the network exported, in float32 on the CPU. auto is onnxruntime, without the "
            "wait for torch to start, where a trained style was run by it before."
        ),
    ] = "auto"
    sheet: Annotated[str | None, typer.Option(help="Also write a contact sheet: content, style, result.")] = None
    save_every: Annotated[
        int, typer.Option(help="Keep the picture of every N-th step; 0 for none.", **whole(0, LARGEST_INT))
    ] = 0
    losses: Annotated[str | None, typer.Option(help="Write the losses of every step to this CSV file.")] = None
    part: Annotated[
        str | None, typer.Option(metavar="K/N", help="Make the K-th of N parts, such as 2/3: for several machines.")
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Make only the pictures that are not there yet.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False

    @property
    def contents(self) -> list[str]:
        """Everything that was named as content, or the built-in photograph."""
        return [*(self.content or []), *([self.content_dir] if self.content_dir else [])] or [DEFAULT_CONTENT]

    def styles(self, trained: Sequence[str]) -> list[str]:
        """Everything that was named as style, or what stands in where nothing was."""
        named = [*(self.style or []), *([self.style_dir] if self.style_dir else [])]
        return named or [default_style(trained)]


@verb
def stylize(context: typer.Context, options: StylizeOptions) -> None:
    """Stylise photographs. Method options (--num-steps, --style-weight, ...) are listed by 'zoo info METHOD'."""
    from zoo.cli.quick import exported_networks, run_exported
    from zoo.loading import load

    chosen, keep = method_options(context.args, options.method), "none"
    if options.preserve_color != "none":
        from zoo.controls.color import own_option

        chosen, keep = own_option(options.method, options.preserve_color, chosen)
    chosen |= _machine(options)
    names, stylizer = trained_styles(options.method, **chosen)
    told = None if options.quiet else console.say
    contents = expand(options.contents, "content", told=told)
    styles = expand(options.styles(names), "style", names, told)
    blend = parse_weights(options.weights, len(styles))
    jobs = _plan(options, contents, styles, names, blend)
    if not jobs:
        console.say("zoo: every picture of this call is there already, or another part makes it.")
        return
    labels = _labels(options, contents, styles, blend)
    networks = exported_networks(options, context.args, styles)
    if networks is not None:
        run_exported(jobs, networks, options)
        return
    batch = Batch(len(jobs), options.method, len(jobs[0].styles), options.sheet, options.losses)
    inputs = _Inputs(options.content_size, options.style_size, options.max_pixels, options.mask or [])
    if batch.count == 1:  # what can be known of a single picture is known before its method is loaded
        inputs.content(jobs[0])
    pictures = inputs.styles(styles, names, batch, len(contents))
    jobs = [job for job in jobs if all(source in pictures for source in job.styles)]
    if not jobs:
        raise InputError("None of the styles can be read: give others.")
    stylizer = stylizer or load(options.method, **chosen)
    if options.losses and not stylizer.traits.iterative:
        raise InputError("This method reports no losses: leave --losses out.")
    if options.backend == "onnxruntime":
        from zoo.export import with_onnxruntime

        stylizer = with_onnxruntime(stylizer)
    if keep != "none":
        from zoo.controls.color import in_color

        stylizer = in_color(stylizer, keep)
    stylizer = with_object(stylizer, options.object, options.subject, options.max_pixels)
    _run(jobs, batch, inputs, _Session(stylizer, pictures, options, blend, labels))


def _labels(
    options: StylizeOptions, contents: list[str], styles: list[str], blend: list[float] | None
) -> Labels | None:
    """Return the label maps of the call; None where there are none. Raises InputError for what does not go together."""
    if options.content_labels is None and not options.style_labels:
        return None
    if blend or options.mask:
        raise InputError("Labels go with one style a picture: leave --mask and --style-interpolation-weights out.")
    return Labels(options.content_labels, options.style_labels or [], len(contents), styles, options.max_pixels)


def _plan(
    options: StylizeOptions, contents: list[str], styles: list[str], names: Sequence[str], blend: list[float] | None
) -> list[Job]:
    """Return the pictures to make; raises InputError and ConfigError for what does not go together or cannot be
    written."""
    masks = options.mask or []
    _check_inputs(contents, styles, masks, blend)
    given = [*options.contents, *options.styles(names)]
    folders = any(Path(source).is_dir() for source in given if source not in names)
    joined = bool(blend or masks)
    jobs = plan(contents, styles, options.method, options.output, joined=joined, folders=folders)
    jobs = shared_out(jobs, options.part)
    jobs = missing(jobs) if options.resume else jobs
    if options.output == "-" and (options.as_json or len(jobs) > 1):
        raise InputError("Standard output holds one picture and nothing else: give -o a file or a folder.")
    if options.output == "-":
        binary_output()
    check_targets(jobs, options.losses, options.save_every)
    return jobs


def _run(jobs: list[Job], batch: Batch, inputs: _Inputs, session: _Session) -> None:
    """Make the pictures; Ctrl-C ends with what there is. Exits with 1 where some were left out."""
    options = session.options
    bar, stop = progress_bar(options.quiet), StopRequest()
    report = functools.partial(Reporter, bar, stop, options.save_every)
    try:
        with stop.listening(), bar or contextlib.nullcontext():
            for _, group in itertools.groupby(jobs, key=lambda job: job.content):
                _make(list(group), batch, inputs, session, report)
                if stop.asked:
                    break
    finally:
        batch.close(as_json=options.as_json, quiet=options.quiet)
    if stop.asked or batch.left_out:
        raise typer.Exit(stop.code if stop.asked else 1)


def _make(
    jobs: list[Job],
    batch: Batch,
    inputs: _Inputs,
    session: _Session,
    report: Callable[[Film], Reporter],
) -> None:
    """Make the pictures of one content; what is wrong with it, or with it and one of the styles, is named."""
    from zoo import memory

    read: tuple[Image, Tensor | None] | None = None
    with batch.sparing(jobs[0].content, len(jobs)):
        read = inputs.content(jobs[0])
        memory.require(session.stylizer, *read[0].size)
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
                summary = _summary(job, session, result, time.perf_counter() - started)
                write_picture(job, result.image, photo.alpha)
                if reporter.save_every and not film.begun and film.folder.is_dir():
                    film.clear()  # fewer steps than one frame takes
                batch.add(summary, result, [photo.pixels, *session.pictures(job)])
        if reporter.stop.asked:
            return


class _Inputs:
    """The pictures of a call, each read once: standard input can be read no second time."""

    def __init__(self, content_size: str, style_size: str, max_pixels: int | None, masks: list[str]) -> None:
        """Read the masks. Raises ImageError or InputError where one is no mask."""
        from zoo import images

        self.policy = images.SizePolicy.parse(content_size)
        self.style_size, self.max_pixels = style_size, max_pixels
        self.masks = [(source, images.selection(read_image(source, "0", max_pixels), source)) for source in masks]
        self._last: tuple[str, Image] | None = None

    def content(self, job: Job) -> tuple[Image, Tensor | None]:
        """The content of a job, and the masks at its size; ImageError where the job's file could not hold it."""
        import torch

        from zoo import images

        if self._last is None or self._last[0] != job.content:
            self._last = job.content, read_image(job.content, str(self.policy), self.max_pixels)
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


def _check_inputs(contents: list[str], styles: list[str], masks: list[str], blend: list[float] | None) -> None:
    """Refuse what does not go together."""
    if [*contents, *styles, *masks].count("-") > 1:
        raise InputError("Standard input can be the content, the style or a mask, not both: give the others as files.")
    if masks and blend:
        raise ConfigError(
            "Masks give every style a region of its own, weights give all styles one share everywhere: "
            "leave --mask or --style-interpolation-weights out."
        )
    if masks and len(masks) != len(styles):
        raise InputError(
            f"Give one --mask per style, not {counted(len(masks), 'mask')} for {counted(len(styles), 'style')}."
        )


def _machine(options: StylizeOptions) -> dict[str, Any]:
    """Return device, precision and checkpoint as :func:`zoo.load` takes them; ConfigError for a backend that there is
    not, or one that cannot run there."""
    if options.backend not in ("auto", "torch", "onnxruntime"):
        raise ConfigError(f"--backend is auto, torch or onnxruntime, not {options.backend!r}.")
    if options.backend != "onnxruntime":
        return options.machine
    if options.device not in ("auto", "cpu") or options.precision not in ("auto", "fp32"):
        raise ConfigError("--backend onnxruntime runs in float32 on the CPU: leave --device and --precision out.")
    return {**options.machine, "device": "cpu", "precision": "fp32"}


class _Session:
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

    def pictures(self, job: Job) -> list[Tensor | None]:
        """The style images of a job, as far as there are any."""
        found = [self.images[source] for source in job.styles]
        return [None if image is None else image.pixels for image in found]

    def _code(self, source: str, photo: Image) -> StyleCode:
        self.codes[photo.size] = codes = self.codes.pop(photo.size, {})
        while len(self.codes) > self.SIZES:
            self.codes.pop(next(iter(self.codes)))
        if source not in codes:
            image = self.images[source]
            style = source if image is None else image.pixels
            if self.labels is not None and image is not None:
                style = self.labels.of_style(source, image)
            codes[source] = self.stylizer.encode_style(style, photo.size)
        return codes[source]

    def _labels(self, photo: Image, job: Job) -> Tensor | None:
        """What is where in the content, in the numbers of the job's style."""
        image = self.images[job.styles[0]]
        return None if self.labels is None or image is None else self.labels.of_content(photo, job.styles[0], image)

    def run(self, photo: Image, job: Job, masks: Tensor | None, reporter: Reporter) -> Stylized:
        """Stylise one content."""
        from zoo.stylizer import Context, Mix

        codes = [self._code(source, photo) for source in job.styles]
        style: StyleCode | Mix = codes[0]
        if self.blend or masks is not None:
            shares = self.blend or [1 / len(codes)] * len(codes)
            style = Mix(list(zip(codes, shares, strict=True)))
        return self.stylizer.stylize(
            photo.pixels,
            style,
            strength=self.options.strength,
            seed=self.options.seed,
            context=Context(content_masks=masks, content_labels=self._labels(photo, job)),
            progress=reporter,
        )


def _summary(job: Job, session: _Session, result: Stylized, seconds: float) -> dict[str, Any]:
    height, width = result.image.shape[-2:]
    return {
        "output": job.output,
        "content": job.content,
        "styles": list(job.styles),
        "method": session.stylizer.name,
        "width": width,
        "height": height,
        "seconds": round(seconds, 3),
        "steps": result.steps,
        "stopped": result.stopped,
        "losses": dict(result.losses[-1]) if result.losses else {},
        "strength": session.options.strength,
        "seed": session.options.seed,
        "device": str(session.stylizer.device),
        "precision": session.stylizer.precision,
        "backend": "onnxruntime" if session.options.backend == "onnxruntime" else "torch",
        "options": session.stylizer.config.to_dict(),
    }
