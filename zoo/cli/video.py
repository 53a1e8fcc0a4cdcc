"""``zoo video``: a film in the style of a picture."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress as RichProgress
from rich.progress import TaskID

from zoo.cli.common import (
    StopRequest,
    console,
    default_style,
    expand,
    method_options,
    progress_bar,
    read_image,
    refuse_overwriting,
    trained_styles,
)
from zoo.cli.streams import binary_input, binary_output
from zoo.errors import ConfigError
from zoo.names import DEFAULT_METHOD
from zoo.options import Backed, real, verb, whole
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.controls.video import Video
    from zoo.stylizer import Progress, Stylizer

# The tag of weights that were trained for films.
FILMS = "video"


@dataclass(frozen=True, kw_only=True)
class VideoOptions(Backed):
    """Options of ``zoo video``."""

    method: Annotated[str, typer.Option("--method", "-m", help="Method or method.tag ('zoo list').")] = DEFAULT_METHOD
    content: Annotated[
        str, typer.Option(help="A film, a folder of frames, builtin:bikes, bigbuckbunny or carphone, or -.")
    ] = "builtin:bikes"
    style: Annotated[str | None, typer.Option(help="File, builtin:NAME, or a trained style's name.")] = None
    output: Annotated[
        str, typer.Option("--output", "-o", help="A film (.mp4, .mov, .mkv, .webm, .gif), a folder for frames, or -.")
    ] = "stylized.mp4"
    keep: Annotated[
        str,
        typer.Option(help="none, warp (carried along the motion) or temporal (learned, or in the loss of optimizers)."),
    ] = "warp"
    blend: Annotated[
        float | None,
        typer.Option(
            help="Share of a carried pixel that stays. Default: all of it; none where the method starts from it.",
            show_default=False,
            **real(0, 1),
        ),
    ] = None
    passes: Annotated[int, typer.Option(help="How often to go through the film (temporal).", **whole(1, 1000))] = 1
    motion: Annotated[str, typer.Option(help="dis, deepflow, or a folder of forward_1_2.flo, backward_2_1.flo.")] = (
        "dis"
    )
    start: Annotated[float, typer.Option(help="Begin at this second.", **real(0, 1e6))] = 0.0
    duration: Annotated[
        float | None, typer.Option(help="Seconds of the film; default: to its end.", **real(0, 1e6, above=True))
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second; default: the film's own, of a folder 25.", **real(0, 1000, above=True)),
    ] = None
    size: Annotated[str, typer.Option(help="Long side in pixels, or long:N, short:N, exact:WxH; 0 keeps it.")] = "512"
    style_size: Annotated[str, typer.Option(help="The same for the style.")] = "512"
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a film that was broken off.")] = False

    def made_by(self, style: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a film that goes on must have been begun with."""
        named = (
            "method",
            "content",
            "keep",
            "blend",
            "passes",
            "motion",
            "start",
            "style_size",
            "strength",
            "preserve_color",
            "seed",
            "checkpoint",
        )
        return {**{name: getattr(self, name) for name in named}, "style": style, "options": dict(options)}


def _by_trained_network(options: VideoOptions) -> tuple[str, str]:
    """The method and the way: for ``temporal`` the method's network that was trained for films, where it has one, which
    keeps frames together by itself."""
    from zoo.registry import load_registry

    name, _, tag = options.method.partition(".")
    if options.keep == "temporal" and tag in ("", FILMS):
        entry = load_registry().resolve(options.method).entry
        if FILMS in entry.checkpoints:
            return f"{name}.{FILMS}", "none"
    return options.method, options.keep


def _watcher(stop: StopRequest, bar: RichProgress | None, task: TaskID | None, passes: int) -> Progress:
    """What hears of the steps of several passes, which give no frame before their end: Ctrl-C then ends them all."""
    begun = itertools.count()

    def watch(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Any], /) -> bool:
        if step == 1 and bar is not None and task is not None:
            bar.update(task, completed=next(begun) / passes)
        return stop.asked

    return watch


def _model(
    options: VideoOptions, method: str, chosen: dict[str, Any], keep: str, style: str, loaded: Stylizer | None
) -> Stylizer:
    """The method as ``loaded``, or loaded now, by onnxruntime where that runs it, with the content's colors kept."""
    from zoo import exported
    from zoo.controls.color import in_color
    from zoo.loading import load
    from zoo.registry import load_registry

    model = loaded or load(method, **options.machine, **chosen)
    onnx = options.backend == "onnxruntime"
    if options.backend == "auto" and (model.device.type, model.precision) == ("cpu", "fp32"):
        usual = not chosen and options.checkpoint is None
        onnx = usual and exported.find(load_registry().resolve(method), [style]) is not None
    if onnx:
        from zoo.export import with_onnxruntime

        model = with_onnxruntime(model)
    return in_color(model, keep)


def _video(options: VideoOptions, model: Stylizer, way: str, size: tuple[int, int]) -> Video:
    from zoo import memory
    from zoo.controls.video import Video
    from zoo.video import flow

    memory.require(model, *size)
    motion = flow.FlowFiles(options.motion) if Path(options.motion).is_dir() else options.motion
    return Video(model, way, blend=options.blend, passes=options.passes, motion=motion)


@verb
def video(context: typer.Context, options: VideoOptions) -> None:
    """Stylize a film with its frames kept together. Ctrl-C leaves a film that plays to where it came."""
    from zoo.cli.quick import exported_frames
    from zoo.video.clips import Clip, ClipOptions
    from zoo.video.film import Film
    from zoo.video.record import record

    method, way = _by_trained_network(options)
    chosen, keep = method_options(context.args, method), "none"
    if options.preserve_color != "none":
        from zoo.controls.color import own_option

        chosen, keep = own_option(method, options.preserve_color, chosen)
    rate = None if options.fps is None else Fraction(options.fps).limit_denominator(1001)
    if options.output == "-":
        binary_output()
    refuse_overwriting(options.output, [options.content, options.style or ""])
    content = binary_input() if options.content == "-" else options.content
    clip = Clip(content, ClipOptions(options.start, options.duration, rate, options.size))
    names, loaded = trained_styles(method, **options.machine, **chosen)
    sources = expand([options.style or default_style(names)], "style", names)
    if len(sources) > 1:
        raise ConfigError(f"A film has one style: give a file, not the folder {options.style}.")
    code: Any = None
    stream: Any = exported_frames(options, method, way, context.args, sources[0], clip.size)
    if stream is None:
        picture: Any = sources[0] if sources[0] in names else read_image(sources[0], options.style_size).pixels
        model = _model(options, method, chosen, keep, sources[0], loaded)
        stream, code = _video(options, model, way, clip.size), model.encode_style(picture, clip.size)
    made_by = options.made_by(sources[0], chosen)
    film = Film(
        options.output, clip.size, clip.rate, sound=clip.audio, start=options.start, made_by=made_by,
        resume=options.resume,
    )  # fmt: skip
    stream.resume(film.state())
    stop, bar = StopRequest(), progress_bar(options.quiet)
    with stop.listening(), bar or contextlib.nullcontext():
        task = bar.add_task(options.output, total=clip.count, completed=film.done) if bar else None

        def told(done: int) -> bool:
            if bar is not None and task is not None:
                bar.update(task, completed=done)
            return stop.asked and options.passes == 1

        watched: dict[str, Any] = {"progress": _watcher(stop, bar, task, options.passes)} if options.passes > 1 else {}
        ended = record(clip, film, stream, code, told=told, strength=options.strength, seed=options.seed, **watched)
    if clip.damage:
        console.say(f"{options.content}: {clip.damage}; what can be read is in {options.output}.")
    if not options.quiet:
        done = counted(film.done, "frame")
        kept = ended or options.output == "-"
        said = f"{clip.size[1]}x{clip.size[0]}, {done}" if kept else f"{done}; --resume goes on."
        console.say(f"{options.output}  {said}")
    if stop.asked:
        raise typer.Exit(stop.code)
