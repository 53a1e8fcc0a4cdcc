"""``zoo stylize``: photographs in, stylised photographs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.batch import Batch
from zoo.cli.common import (
    StopRequest,
    console,
    default_style,
    expand,
    method_options,
    parse_weights,
    refuse_overwriting,
    refuse_restylizing,
    trained_styles,
)
from zoo.cli.jobs import Job, check_targets, missing, plan, shared_out
from zoo.cli.labels import Labels, with_object
from zoo.cli.session import Inputs, Session, make
from zoo.cli.streams import binary_output
from zoo.cli.watch import arrivals, check_watch, outdated
from zoo.config import LARGEST_INT
from zoo.errors import ConfigError, InputError
from zoo.names import DEFAULT_METHOD, find
from zoo.options import PIXELS, Backed, verb, whole
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.stylizer import Stylizer

DEFAULT_CONTENT = "builtin:astronaut"


@dataclass(frozen=True, kw_only=True)
class StylizeOptions(Backed):
    """Options of ``zoo stylize``."""

    method: Annotated[str, typer.Option("--method", "-m", help="Method or method.tag ('zoo list').")] = DEFAULT_METHOD
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
    watch: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Stylise a folder's pictures, and others as they come, until Ctrl-C."),
    ] = None
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
    tile: Annotated[
        str,
        typer.Option(
            help="Make large pictures by tiles, without seams: auto where one does not fit into memory, a side in "
            "pixels, or off.",
            metavar="auto|N|off",
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

    def style_files(self, trained: Sequence[str]) -> list[str]:
        """Those of :meth:`styles` that are no names of trained styles."""
        return [source for source in self.styles(trained) if find(source, trained) is None]


@verb
def stylize(context: typer.Context, options: StylizeOptions) -> None:
    """Stylise photographs. Method options (--num-steps, --style-weight, ...) are listed by 'zoo info METHOD'."""
    from zoo import memory
    from zoo.cli.quick import exported_networks, run_exported

    chosen, keep = method_options(context.args, options.method), "none"
    if options.preserve_color != "none":
        from zoo.controls.color import own_option

        chosen, keep = own_option(options.method, options.preserve_color, chosen)
    chosen |= options.machine
    memory.parse_tile(options.tile)
    names, stylizer = trained_styles(options.method, **chosen)
    told = None if options.quiet else console.say
    styles = expand(options.styles(names), "style", names, told)
    blend = parse_weights(options.weights, len(styles))
    contents: list[str] = []
    jobs: list[Job] = []
    if options.watch is not None:
        check_watch(options, options.style_files(names))
    else:
        contents = expand(options.contents, "content", told=told)
        jobs = _plan(options, contents, styles, names, blend)
        if not jobs:
            console.say("zoo: every picture of this call is there already, or another part makes it.")
            return
    labels = _labels(options, contents, styles, blend)
    networks = None if options.watch else exported_networks(options, context.args, styles)
    if networks is not None:
        run_exported(jobs, networks, options)
        return
    inner = len(styles) if blend or options.mask else 1
    batch = Batch(len(jobs), options.method, inner, options.sheet, options.losses)
    inputs = Inputs(options.content_size, options.style_size, options.max_pixels, options.mask or [])
    if batch.alone:  # what can be known of a single picture is known before its method is loaded
        inputs.content(jobs[0])
    pictures = inputs.styles(styles, names, batch, len(contents))
    jobs = [job for job in jobs if all(source in pictures for source in job.styles)]
    if not (jobs or (options.watch and pictures)):
        raise InputError("None of the styles can be read: give others.")
    session = Session(_stylizer(options, stylizer, chosen, keep), pictures, options, blend, labels)
    stop, left_out = StopRequest(), 0
    with stop.listening():
        for some, told_of in (
            _watched(options, list(pictures), names, blend, stop) if options.watch else [(jobs, batch)]
        ):
            try:
                make(some, told_of, inputs, session, stop)
            finally:
                told_of.close(as_json=options.as_json, quiet=options.quiet)
            left_out += told_of.left_out
    if left_out or (stop.asked and not options.watch):  # Ctrl-C is how watching ends
        raise typer.Exit(stop.code if stop.asked and not options.watch else 1)


def _stylizer(options: StylizeOptions, loaded: Stylizer | None, chosen: dict[str, Any], keep: str) -> Stylizer:
    """Return the method with what the options wrap around it."""
    from zoo.loading import load

    stylizer = loaded or load(options.method, **chosen)
    if options.losses and not stylizer.traits.iterative:
        raise InputError("This method reports no losses: leave --losses out.")
    if options.backend == "onnxruntime":
        from zoo.export import with_onnxruntime

        stylizer = with_onnxruntime(stylizer)
    if keep != "none":
        from zoo.controls.color import in_color

        stylizer = in_color(stylizer, keep)
    return with_object(stylizer, options.object, options.subject, options.max_pixels)


def _watched(
    options: StylizeOptions, styles: list[str], names: Sequence[str], blend: list[float] | None, stop: StopRequest
) -> Iterator[tuple[list[Job], Batch]]:
    """Give the pictures to make of ``options.watch`` as contents come, until ``stop`` is asked for."""
    for present, new in arrivals(str(options.watch), stop):
        jobs = outdated([job for job in _plan(options, present, styles, names, blend) if job.content in new])
        if jobs:
            yield jobs, Batch(len(jobs), options.method, len(jobs[0].styles), None, None, alone=False)


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
    given = [options.watch] if options.watch else options.contents
    of_style = options.style_files(names)
    folders = any(Path(source).is_dir() for source in (*given, *of_style))
    joined = bool(blend or masks)
    jobs = plan(contents, styles, options.method, options.output, joined=joined, folders=folders)
    if options.output != "-":
        refuse_restylizing(Path(jobs[0].output).parent, given, of_style)
    jobs = shared_out(jobs, options.part)
    jobs = missing(jobs) if options.resume else jobs
    if options.output == "-" and (options.as_json or len(jobs) > 1):
        raise InputError("Standard output holds one picture and nothing else: give -o a file or a folder.")
    if options.output == "-":
        binary_output()
    check_targets(jobs, options.losses, options.save_every)
    if len(jobs) == 1:  # several are named after all that goes into each
        maps = [options.object or "", options.content_labels or "", *(options.style_labels or [])]
        refuse_overwriting(jobs[0].output, [*contents, *styles, *masks, *maps])
    return jobs


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
