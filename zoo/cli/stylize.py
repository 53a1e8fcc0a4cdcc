"""``zoo stylize``: photographs in, stylised photographs out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.batch import Batch
from zoo.cli.common import (
    PIXELS,
    SEED,
    Reporter,
    StopRequest,
    console,
    default_style,
    expand,
    method_options,
    parse_weights,
    progress_bar,
    read_image,
    real,
    trained_styles,
    whole,
)
from zoo.cli.jobs import Film, Job, check_targets, missing, plan, shared_out
from zoo.cli.streams import binary_output
from zoo.config import LARGEST_INT
from zoo.errors import ConfigError, ImageError, InputError, reason
from zoo.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.images import Image
    from zoo.stylizer import Mix, StyleCode, Stylized, Stylizer

DEFAULT_CONTENT = "builtin:astronaut"


def stylize(
    context: typer.Context,
    method: Annotated[str, typer.Option("--method", "-m", help="Method or method.tag ('zoo list').")] = "gatys",
    content: Annotated[
        list[str] | None,
        typer.Option(help="Files, folders, builtin:NAME, or - for standard input. Default: a built-in photograph."),
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(help="Files, folders, builtin:NAME, - or trained styles' names. Every content meets every style."),
    ] = None,
    content_dir: Annotated[str | None, typer.Option(help="A folder of contents.")] = None,
    style_dir: Annotated[str | None, typer.Option(help="A folder of styles.")] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file for one picture, a folder for several, - for standard output."),
    ] = None,
    content_size: Annotated[
        str, typer.Option(help="Long side in pixels, or long:N, short:N, exact:WxH (cropped); 0 keeps the size.")
    ] = "512",
    style_size: Annotated[str, typer.Option(help="The same for styles.")] = "512",
    max_pixels: Annotated[
        int | None, typer.Option(help="Refuse larger images (a guard against broken headers).", **PIXELS)
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            "--alpha",
            "--strength",
            help="0 is the content (some methods rebuild it), 1 is the full style.",
            **real(0, 1),
        ),
    ] = 1.0,
    weights: Annotated[
        str | None,
        typer.Option("--style-interpolation-weights", help="Blend all styles in one result: 0.3,0.7. Without --mask."),
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option(help="One region mask per style (white: this style), in the styles' order.")
    ] = None,
    preserve_color: Annotated[
        str,
        typer.Option(
            help="Keep the content's colours: none; coral gives the style image the content's colours first; luminance "
            "transfers lightness alone."
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Fixes all noise.", **SEED)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    checkpoint: Annotated[str | None, typer.Option(help="Your own weights (safetensors) for this method.")] = None,
    backend: Annotated[
        str,
        typer.Option(help="torch, or onnxruntime: the network exported ('zoo export'), in float32 on the CPU."),
    ] = "torch",
    sheet: Annotated[str | None, typer.Option(help="Also write a contact sheet: content, style, result.")] = None,
    save_every: Annotated[
        int, typer.Option(help="Keep the picture of every N-th step; 0 for none.", **whole(0, LARGEST_INT))
    ] = 0,
    losses: Annotated[str | None, typer.Option(help="Write the losses of every step to this CSV file.")] = None,
    part: Annotated[
        str | None, typer.Option(metavar="K/N", help="Make the K-th of N parts, such as 2/3: for several machines.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Make only the pictures that are not there yet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no messages.")] = False,
) -> None:
    """Stylise photographs. Method options (--num-steps, --style-weight, ...) are listed by 'zoo info METHOD'."""
    from zoo.loading import load

    options = method_options(context.args, method)
    keep = _preserved_color(preserve_color, method, options)
    if backend not in ("torch", "onnxruntime"):
        raise ConfigError(f"--backend is torch or onnxruntime, not {backend!r}.")
    if backend == "onnxruntime":
        device, precision = _for_onnxruntime(device, precision)
    options |= {"device": device, "precision": precision, "checkpoint": checkpoint}
    names, stylizer = trained_styles(method, **options)
    if names and keep == "coral":
        raise ConfigError("Trained styles have their own colours: keep the content's with --preserve-color luminance.")
    given = [*(content or []), *([content_dir] if content_dir else [])] or [DEFAULT_CONTENT]
    wanted = [*(style or []), *([style_dir] if style_dir else [])] or [default_style(names)]
    told = None if quiet else console.say
    contents, styles = expand(given, "content", told=told), expand(wanted, "style", names, told)
    blend = parse_weights(weights, len(styles))
    _check_inputs(contents, styles, mask or [], blend)
    folders = any(Path(source).is_dir() for source in [*given, *wanted] if source not in names)
    jobs = plan(contents, styles, method, output, joined=bool(blend or mask), folders=folders)
    jobs = shared_out(jobs, part)
    jobs = missing(jobs) if resume else jobs
    if not jobs:
        console.say("zoo: every picture of this call is there already, or another part makes it.")
        return
    if output == "-" and (as_json or len(jobs) > 1):
        raise InputError("Standard output holds one picture and nothing else: give -o a file or a folder.")
    if output == "-":
        binary_output()
    check_targets(jobs, losses, save_every)

    batch = Batch(len(jobs), method, len(jobs[0].styles), sheet, losses)
    inputs = _Inputs(content_size, style_size, max_pixels, mask or [])
    if batch.count == 1:  # what can be known of a single picture is known before its method is loaded
        inputs.content(jobs[0])
    pictures = inputs.styles(styles, names, batch, len(contents))
    jobs = [job for job in jobs if all(source in pictures for source in job.styles)]
    if not jobs:
        raise InputError("None of the styles can be read: give others.")
    stylizer = stylizer or load(method, **options)
    if losses and stylizer.traits.kind != "optimisation":
        raise InputError("This method reports no losses: leave --losses out.")
    if backend == "onnxruntime":
        from zoo.export import with_onnxruntime

        stylizer = with_onnxruntime(stylizer)
    session = _Session(stylizer, pictures, strength, seed, blend, keep)
    bar, stop = progress_bar(quiet), StopRequest()
    try:
        with stop.listening(), bar or contextlib.nullcontext():
            for _, group in itertools.groupby(jobs, key=lambda job: job.content):
                _make(list(group), batch, inputs, session, backend, functools.partial(Reporter, bar, stop, save_every))
                if stop.asked:
                    break
    finally:
        batch.close(as_json=as_json, quiet=quiet)
    if stop.asked or batch.left_out:
        raise typer.Exit(stop.code if stop.asked else 1)


def _make(
    jobs: list[Job],
    batch: Batch,
    inputs: _Inputs,
    session: _Session,
    backend: str,
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
                summary = _summary(job, session, result, time.perf_counter() - started, backend)
                _write(job, result.image, photo)
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


def _for_onnxruntime(device: str, precision: str) -> tuple[str, str]:
    """The device and precision of exported networks, where these are left open or the same."""
    if device not in ("auto", "cpu") or precision not in ("auto", "fp32"):
        raise ConfigError("--backend onnxruntime runs in float32 on the CPU: leave --device and --precision out.")
    return "cpu", "fp32"


def _preserved_color(wanted: str, method: str, options: dict[str, Any]) -> str:
    """What the session does about colours; a method with an option of that name does it itself, inside its loss."""
    from zoo.registry import load_registry

    if wanted not in ("none", "coral", "luminance"):
        raise ConfigError(f"--preserve-color is none, coral or luminance, not {wanted!r}.")
    if any(spec.name == "preserve_color" for spec in load_registry().options(method)):
        if wanted != "none":
            options["preserve_color"] = wanted
        return "none"
    return wanted


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
        strength: float,
        seed: int,
        blend: list[float] | None,
        keep: str = "none",
    ) -> None:
        self.stylizer, self.strength, self.seed, self.blend, self.keep = stylizer, strength, seed, blend, keep
        self.images = styles
        # By what a code depends on besides the style, the content's size and colours; the last one used comes last.
        self.codes: dict[tuple[tuple[int, int], str], dict[str, StyleCode]] = {}

    def pictures(self, job: Job) -> list[Tensor | None]:
        """The style images of a job, as far as there are any."""
        found = [self.images[source] for source in job.styles]
        return [None if image is None else image.pixels for image in found]

    def _code(self, source: str, photo: Image, job: Job) -> StyleCode:
        from zoo import color

        size = (photo.pixels.shape[-2], photo.pixels.shape[-1])
        # A style in the content's colours is another style for every content, and of no use to the next.
        key = (size, "" if self.keep == "none" else job.content)
        self.codes[key] = codes = self.codes.pop(key, {})
        while len(self.codes) > (self.SIZES if self.keep == "none" else 1):
            self.codes.pop(next(iter(self.codes)))
        if source not in codes:
            image = self.images[source]
            style = source if image is None else color.recolor_style(image.pixels, photo.pixels, self.keep)
            codes[source] = self.stylizer.encode_style(style, size)
        return codes[source]

    def run(self, photo: Image, job: Job, masks: Tensor | None, reporter: Reporter) -> Stylized:
        """Stylise one content."""
        from zoo import color
        from zoo.stylizer import Context, Mix

        codes = [self._code(source, photo, job) for source in job.styles]
        style: StyleCode | Mix = codes[0]
        if self.blend or masks is not None:
            shares = self.blend or [1 / len(codes)] * len(codes)
            style = Mix(list(zip(codes, shares, strict=True)))
        result = self.stylizer.stylize(
            color.grey(photo.pixels) if self.keep == "luminance" else photo.pixels,
            style,
            strength=self.strength,
            seed=self.seed,
            context=Context(content_masks=masks),
            progress=reporter,
        )
        if self.keep != "luminance":
            return result
        kept = color.with_luminance(photo.pixels, color.luminance(result.image)).clamp(0, 1)
        return dataclasses.replace(result, image=kept)


def _write(job: Job, image: Tensor, photo: Image) -> None:
    from zoo import images

    if job.output != "-":
        images.write(job.output, image, alpha=photo.alpha)
        return
    data, out = images.encode(image, "png", alpha=photo.alpha), binary_output()
    try:
        out.write(data)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ImageError(f"Standard output cannot be written ({reason(error)}): give -o a file.") from error


def _summary(job: Job, session: _Session, result: Stylized, seconds: float, backend: str) -> dict[str, Any]:
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
        "strength": session.strength,
        "seed": session.seed,
        "device": str(session.stylizer.device),
        "precision": session.stylizer.precision,
        "backend": backend,
        "options": session.stylizer.config.to_dict(),
    }
