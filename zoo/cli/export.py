"""``zoo export``: one style of a trained network as an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo import files
from zoo.cli.common import (
    console,
    default_style,
    expand,
    method_options,
    parse_weights,
    read_image,
    shown_license,
    trained_styles,
)

if TYPE_CHECKING:
    from zoo.stylizer import Mix, StyleCode


def export(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="Method or method.tag ('zoo list').")],
    style: Annotated[
        list[str] | None,
        typer.Option(help="A trained style's name, or an image: file or builtin:NAME. Several: a mix."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "--output", "-o", help="The file to write. Default: METHOD-STYLE.onnx.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--style-interpolation-weights", help="Of a mix of styles: 0.3,0.7. Default: equal.")
    ] = None,
    style_size: Annotated[str, typer.Option(help="Long side of style images; 0 keeps it.")] = "512",
    checkpoint: Annotated[str | None, typer.Option(help="Your own weights (safetensors) for this method.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages.")] = False,
) -> None:
    """Write a trained network with one style, or one mix of styles, as ONNX: any height and width, float32.

    The file is compared with PyTorch on a photograph before it is kept. '--backend onnxruntime' of 'zoo stylize' and
    'zoo video' runs networks this way without a file of your own. Needs the extra onnx.
    """
    from zoo.export import export as write
    from zoo.export import require
    from zoo.loading import load
    from zoo.stylizer import Mix

    options = method_options(context.args, method)
    require()
    names, stylizer = trained_styles(method, device="cpu", precision="fp32", checkpoint=checkpoint, **options)
    sources = expand(style or [default_style(names)], "style", names)
    target = output or Path(f"{method}-{'+'.join(Path(s.removeprefix('builtin:')).stem for s in sources)}.onnx")
    files.check_writable(target)
    stylizer = stylizer or load(method, device="cpu", precision="fp32", checkpoint=checkpoint, **options)
    pictures = [source if source in names else read_image(source, style_size).pixels for source in sources]
    codes = [stylizer.encode_style(picture) for picture in pictures]
    chosen: StyleCode | Mix = codes[0]
    if len(codes) > 1 or weights is not None:
        shares = parse_weights(weights, len(codes)) or [1 / len(codes)] * len(codes)
        chosen = Mix(list(zip(codes, shares, strict=True)))
    done = write(stylizer, chosen, target, license=shown_license(method, checkpoint))
    if as_json:
        facts = {"file": str(done.path), "bytes": done.bytes, "difference": done.difference, **done.metadata}
        typer.echo(json.dumps(facts, indent=2))
    elif not quiet:
        console.say(f"{done.path}  {done.bytes / 1e6:.2f} MB, ONNX opset {done.metadata['opset']}, float32, any size")
        console.say(f"Largest difference from PyTorch over a photograph: {done.difference:.2g} (of 1).")
