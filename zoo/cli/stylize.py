"""``zoo stylize``: photographs in, stylised photographs out."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo import files
from zoo.cli.common import (
    PIXELS,
    SEED,
    Reporter,
    StopRequest,
    console,
    default_style,
    expand,
    load_first,
    method_options,
    parse_weights,
    progress_bar,
    read_image,
    real,
    whole,
)
from zoo.cli.streams import binary_output
from zoo.config import LARGEST_INT
from zoo.errors import ConfigError, InputError
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
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no messages.")] = False,
) -> None:
    """Stylise photographs. Method options (--num-steps, --style-weight, ...) are listed by 'zoo info METHOD'."""
    from zoo.registry import load

    options = method_options(context.args, method)
    keep = _preserved_color(preserve_color, method, options)
    if backend not in ("torch", "onnxruntime"):
        raise ConfigError(f"--backend is torch or onnxruntime, not {backend!r}.")
    if backend == "onnxruntime":
        device, precision = _for_onnxruntime(device, precision)
    stylizer = load_first(method, device=device, precision=precision, checkpoint=checkpoint, **options)
    names = stylizer.style_names if stylizer else ()
    if names and keep == "coral":
        raise ConfigError("Trained styles have their own colours: keep the content's with --preserve-color luminance.")
    contents = expand([*(content or []), *([content_dir] if content_dir else [])] or [DEFAULT_CONTENT], "content")
    styles = expand([*(style or []), *([style_dir] if style_dir else [])] or [default_style(names)], "style", names)
    if (contents + styles).count("-") > 1:
        raise InputError("Standard input can be the content or the style, not both: give the other as a file.")
    blend = parse_weights(weights, len(styles))
    if mask and blend:
        raise ConfigError(
            "Masks give every style a region of its own, weights give all styles one share everywhere: "
            "leave --mask or --style-interpolation-weights out."
        )
    if mask and len(mask) != len(styles):
        raise InputError(
            f"Give one --mask per style, not {counted(len(mask), 'mask')} for {counted(len(styles), 'style')}."
        )
    jobs = _plan(contents, styles, method, output, joined=bool(blend or mask))
    if output == "-" and (as_json or len(jobs) > 1):
        raise InputError("Standard output holds one picture and nothing else: give -o a file or a folder.")
    if output == "-":
        binary_output()
    _check_targets([job.output for job in jobs], sheet, losses)

    stop = StopRequest()
    summaries: list[dict[str, Any]] = []
    rows: list[list[Tensor | None]] = []
    loss_rows: list[dict[str, Any]] = []
    pictures = {s: None if s in names else read_image(s, style_size, max_pixels) for s in styles}
    stylizer = stylizer or load(method, device=device, precision=precision, checkpoint=checkpoint, **options)
    if backend == "onnxruntime":
        from zoo.export import with_onnxruntime

        stylizer = with_onnxruntime(stylizer)
    session = _Session(stylizer, pictures, strength, seed, blend, keep)
    bar = progress_bar(quiet)
    with stop.listening(), bar or contextlib.nullcontext():
        for job in jobs:
            photo = read_image(job.content, content_size, max_pixels)
            masks = _read_masks(mask, photo)
            reporter = Reporter(bar, stop, save_every, job.save_frame)
            reporter.begin(f"{job.label}")
            started = time.perf_counter()
            result = session.run(photo, job, masks, reporter)
            seconds = time.perf_counter() - started
            _write(job, result.image, photo)
            if sheet:
                rows.append([photo.pixels, *session.pictures(job), result.image])
            if losses:
                loss_rows += [{"output": str(job.output), **row} for row in result.losses]
            summaries.append(_summary(job, stylizer, result, seconds, strength, seed, backend))
            if stop.asked:
                break
    if sheet:
        _write_sheet(sheet, rows, method)
    if losses:
        _write_losses(Path(losses), loss_rows)
    if as_json:
        typer.echo(json.dumps(summaries, indent=2))
    elif not quiet:
        for s in summaries:
            state = ", stopped early" if s["stopped"] else ""
            console.say(f"{s['output']}  {s['width']}x{s['height']}  {s['seconds']:.2f} s{state}")
    if stop.asked:
        raise typer.Exit(stop.code)


@dataclass(frozen=True)
class _Job:
    """One picture to make: its content, the styles that go into it, and where it is written."""

    content: str
    styles: tuple[str, ...]
    output: str
    label: str

    def save_frame(self, step: int, image: Tensor) -> None:
        """The film of the optimisation: ``OUT_frames/00050.png`` beside the output."""
        from zoo import images

        target = Path(self.output if self.output != "-" else "stylized.png")
        folder = target.with_name(f"{target.stem}_frames")
        folder.mkdir(exist_ok=True)
        images.write(folder / f"{step:05d}.png", image)


def _stem(source: str) -> str:
    return "stdin" if source == "-" else Path(source.removeprefix("builtin:")).stem


def _plan(contents: list[str], styles: list[str], method: str, output: str | None, *, joined: bool) -> list[_Job]:
    """Every content with every style, or with all styles together where they are mixed."""
    groups = [tuple(styles)] if joined else [(s,) for s in styles]
    pairs = [(c, group) for c in contents for group in groups]
    labels = [f"{_stem(c)}__{'+'.join(map(_stem, group))}__{method}" for c, group in pairs]
    clash = {label for label in labels if labels.count(label) > 1}
    if clash and len(pairs) > 1:
        raise InputError(f"Several pictures would be called {sorted(clash)[0]}.png: rename the files.")
    single = len(pairs) == 1 and not (output and (Path(output).is_dir() or output.endswith("/")))
    if single:
        return [_Job(*pairs[0], output or "stylized.png", labels[0])]
    folder = Path(output or "stylized")
    if output == "-":
        return [_Job(c, group, "-", label) for (c, group), label in zip(pairs, labels, strict=True)]
    if folder.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"):
        raise InputError(f"{len(pairs)} pictures cannot go into the one file {folder}: give -o a folder.")
    return [
        _Job(c, group, str(folder / f"{label}.png"), label) for (c, group), label in zip(pairs, labels, strict=True)
    ]


def _check_targets(outputs: list[str], sheet: str | None, losses: str | None) -> None:
    """Refuse before the work begins what could not be written after it."""
    from zoo import images

    targets = [Path(o) for o in outputs if o != "-"] + ([Path(sheet)] if sheet else [])
    if len(outputs) > 1 or (outputs[0] != "-" and not Path(outputs[0]).parent.exists()):
        folder = Path(outputs[0]).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    for target in targets:
        images.check_writable(target)
    if losses and not Path(losses).resolve().parent.is_dir():
        raise InputError(f"The folder of {losses} does not exist.")


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


def _read_masks(sources: list[str] | None, photo: Image) -> Tensor | None:
    if not sources:
        return None
    import torch

    height, width = photo.pixels.shape[-2:]
    masks = [read_image(source, f"exact:{width}x{height}").pixels.mean(dim=1) for source in sources]
    return torch.cat(masks)


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

    def pictures(self, job: _Job) -> list[Tensor | None]:
        """The style images of a job, as far as there are any."""
        found = [self.images[source] for source in job.styles]
        return [None if image is None else image.pixels for image in found]

    def _code(self, source: str, photo: Image, job: _Job) -> StyleCode:
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

    def run(self, photo: Image, job: _Job, masks: Tensor | None, reporter: Reporter) -> Stylized:
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


def _write(job: _Job, image: Tensor, photo: Image) -> None:
    from zoo import images

    if job.output == "-":
        stream = binary_output()
        stream.write(images.encode(image, "png", alpha=photo.alpha))
        stream.flush()
    else:
        images.write(job.output, image, alpha=photo.alpha)


def _summary(
    job: _Job, stylizer: Stylizer, result: Stylized, seconds: float, strength: float, seed: int, backend: str
) -> dict[str, Any]:
    height, width = result.image.shape[-2:]
    return {
        "output": job.output,
        "content": job.content,
        "styles": list(job.styles),
        "method": stylizer.name,
        "width": width,
        "height": height,
        "seconds": round(seconds, 3),
        "steps": result.steps,
        "stopped": result.stopped,
        "losses": dict(result.losses[-1]) if result.losses else {},
        "strength": strength,
        "seed": seed,
        "device": str(stylizer.device),
        "precision": stylizer.precision,
        "backend": backend,
        "options": stylizer.config.to_dict(),
    }


def _write_sheet(path: str, rows: list[list[Tensor | None]], method: str) -> None:
    from zoo import images

    inner = max(len(row) for row in rows) - 2
    styles = ["style"] if inner == 1 else [f"style {i + 1}" for i in range(inner)]
    images.write(path, images.contact_sheet(rows, column_labels=["content", *styles, method]))


def _write_losses(path: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        raise InputError("This method reports no losses: leave --losses out.")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(path, text.getvalue(), InputError)
