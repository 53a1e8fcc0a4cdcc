"""``zoo texture``: a new texture in a style, with no content image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.common import (
    Reporter,
    default_style,
    expand,
    make_picture,
    method_options,
    read_image,
    refuse_overwriting,
    trained_styles,
)
from zoo.errors import ConfigError
from zoo.options import SEED, Machine, verb
from zoo.words import shown

if TYPE_CHECKING:
    from zoo.stylizer import Stylized


@dataclass(frozen=True, kw_only=True)
class TextureOptions(Machine):
    """Options of ``zoo texture``."""

    method: Annotated[str, typer.Option("--method", "-m", help="A method that synthesises textures.")] = "gatys"
    style: Annotated[
        str | None, typer.Option(help="File, builtin:NAME, - for standard input, or a trained style's name.")
    ] = None
    output: Annotated[str, typer.Option("--output", "-o", help="The picture to write.")] = "texture.png"
    size: Annotated[str, typer.Option(help="Width x height of the texture: 384x256, or one number.")] = "256"
    style_size: Annotated[str, typer.Option(help="Long side of the style; 0 keeps it.")] = "512"
    seed: Annotated[int, typer.Option(help="Another seed, another sample.", **SEED)] = 0


@verb
def texture(context: typer.Context, options: TextureOptions) -> None:
    """Synthesise a texture from a style image. Method options are listed by 'zoo info METHOD'."""
    from zoo import images, memory
    from zoo.loading import load

    chosen = {**options.machine, **method_options(context.args, options.method)}
    height, width = parse_size(options.size)
    images.check_writable(options.output, (height, width))
    names, stylizer = trained_styles(options.method, **chosen)
    sources = expand([options.style or default_style(names)], "style", names)
    if len(sources) > 1:
        raise ConfigError(f"A texture has one style: give a file, not the folder {options.style}.")
    refuse_overwriting(options.output, sources)
    picture = sources[0] if sources[0] in names else read_image(sources[0], options.style_size).pixels
    stylizer = stylizer or load(options.method, **chosen)
    memory.require(stylizer, height, width)
    code = stylizer.encode_style(picture, (height, width))

    def run(reporter: Reporter) -> Stylized:
        return stylizer.synthesize(code, (height, width), seed=options.seed, progress=reporter)

    make_picture(options.output, options.quiet, run, lambda _: f"{width}x{height}")


def parse_size(text: str) -> tuple[int, int]:
    """``384x256`` (width x height, as on a screen) or ``256`` as (height, width); ConfigError for anything else."""
    from zoo.images import MAX_PIXELS, MAX_SIDE

    parts = text.lower().split("x")
    # A name of a number in another script is a digit to Python, and no size.
    if len(parts) > 2 or not all(re.fullmatch("[0-9]{1,9}", p) and 0 < int(p) <= MAX_SIDE for p in parts):
        raise ConfigError(f"A size is WIDTHxHEIGHT or one number, sides from 1 to {MAX_SIDE}, not {shown(text)}.")
    height, width = int(parts[-1]), int(parts[0])
    if height * width > MAX_PIXELS:
        raise ConfigError(f"A texture has at most {MAX_PIXELS:,} pixels, and {text} are {height * width:,}.")
    return height, width
