"""``zoo video``: a film in the style of a picture."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.common import (
    SEED,
    StopRequest,
    console,
    default_style,
    expand,
    method_options,
    progress_bar,
    read_image,
    real,
    trained_styles,
)
from zoo.errors import ConfigError


def video(
    context: typer.Context,
    method: Annotated[str, typer.Option("--method", "-m", help="Method or method.tag ('zoo list').")] = "adain",
    content: Annotated[
        str, typer.Option(help="A film, a folder of frames, builtin:bikes, bigbuckbunny or carphone, or -.")
    ] = "builtin:bikes",
    style: Annotated[str | None, typer.Option(help="File, builtin:NAME, or a trained style's name.")] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="A film (.mp4, .mov, .mkv, .webm, .gif), a folder for frames, or -.")
    ] = "stylized.mp4",
    keep: Annotated[
        str, typer.Option(help="How frames are kept together: none, or warp (carried along the motion).")
    ] = "warp",
    blend: Annotated[float, typer.Option(help="Share of a carried pixel that stays.", **real(0, 1))] = 1.0,
    motion: Annotated[
        str, typer.Option(help="dis, deepflow, or a folder of forward_1_2.flo, backward_2_1.flo.")
    ] = "dis",
    start: Annotated[float, typer.Option(help="Begin at this second.", **real(0, 1e6))] = 0.0,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of the film; default: to its end.", **real(0, 1e6, above=True))
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second; default: the film's own.", **real(0, 1000, above=True))
    ] = None,
    size: Annotated[str, typer.Option(help="Long side in pixels, or long:N, short:N, exact:WxH; 0 keeps it.")] = "512",
    style_size: Annotated[str, typer.Option(help="The same for the style.")] = "512",
    strength: Annotated[
        float, typer.Option("--alpha", "--strength", help="0 is the film, 1 the full style.", **real(0, 1))
    ] = 1.0,
    preserve_color: Annotated[str, typer.Option(help="Keep the film's colors: none, luminance or coral.")] = "none",
    seed: Annotated[int, typer.Option(help="Fixes all noise.", **SEED)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a film that was broken off.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    checkpoint: Annotated[str | None, typer.Option(help="Your own weights (safetensors) for this method.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no messages.")] = False,
) -> None:
    """Stylize a film with its frames kept together. Ctrl-C leaves a film that plays to where it came."""
    from zoo import memory
    from zoo.controls import Color
    from zoo.controls.video import Video
    from zoo.loading import load
    from zoo.video import flow
    from zoo.video.ahead import Behind, ahead
    from zoo.video.clips import Clip, ClipOptions
    from zoo.video.film import Film

    options = method_options(context.args, method)
    rate = None if fps is None else Fraction(fps).limit_denominator(1001)
    clip = Clip(content, ClipOptions(start, duration, rate, size))
    names, model = trained_styles(method, device=device, precision=precision, checkpoint=checkpoint, **options)
    sources = expand([style or default_style(names)], "style", names)
    if len(sources) > 1:
        raise ConfigError(f"A film has one style: give a file, not the folder {style}.")
    picture: Any = sources[0] if sources[0] in names else read_image(sources[0], style_size).pixels
    model = model or load(method, device=device, precision=precision, checkpoint=checkpoint, **options)
    if preserve_color != "none":
        model = Color(model, preserve_color)  # type: ignore[arg-type]  # it checks
    memory.require(model, *clip.size)
    files = flow.FlowFiles(motion) if Path(motion).is_dir() else motion
    stream = Video(model, keep, blend=blend, motion=files)  # type: ignore[arg-type]  # it checks
    made_by = {
        "method": method, "style": sources[0], "content": content, "keep": keep, "blend": blend, "motion": motion,
        "start": start, "strength": strength, "preserve_color": preserve_color, "seed": seed, "options": options,
    }  # fmt: skip
    film = Film(output, clip.size, clip.rate, sound=clip.audio, start=start, made_by=made_by, resume=resume)
    stream.resume(film.state())
    code = model.encode_style(picture, clip.size)
    bar, stop = progress_bar(quiet), StopRequest()
    done, whole = film.done, False
    with stop.listening(), bar or contextlib.nullcontext():
        task = bar.add_task(output, total=clip.count, completed=done) if bar else None
        contents = ahead(frame.pixels for frame in clip.frames(skip=done))
        frames = stream.frames(contents, code, strength=strength, seed=seed)
        try:
            with Behind[tuple[Any, Any]](lambda made: film.add(*made)) as writer:
                for frame in frames:
                    writer.put((frame.image, stream.state))
                    done += 1
                    if bar is not None and task is not None:
                        bar.update(task, completed=done)
                    if stop.asked:
                        break
            whole = not stop.asked
        finally:
            frames.close()  # first the thread that reads contents, then theirs
            contents.close()
            film.close(finished=whole)
    if clip.damage:
        console.print(f"{content}: {clip.damage}; what was read before is in {output}.", highlight=False, markup=False)
    if stop.asked:
        if not quiet:
            console.print(f"{output}  {done} frames; the same command with --resume goes on.", highlight=False)
        raise typer.Exit(stop.code)
    if not quiet:
        console.print(f"{output}  {clip.size[1]}x{clip.size[0]}, {done} frames", highlight=False, markup=False)
