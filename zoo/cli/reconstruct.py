"""``zoo reconstruct content|style``: what the layers of the network keep of an image (Gatys et al., figure 1)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.common import SEED, Reporter, StopRequest, console, method_options, progress_bar, read_image
from zoo.errors import UnsupportedError
from zoo.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.methods.gatys import Gatys
    from zoo.stylizer import Stylized

reconstruct = typer.Typer(
    help="Rebuild an image from the features or the Gram matrices of chosen layers.", no_args_is_help=True
)

Method = Annotated[str, typer.Option("--method", "-m", help="gatys or one of its presets.")]
Output = Annotated[str, typer.Option("--output", "-o", help="The picture to write.")]
Size = Annotated[str, typer.Option(help="Long side in pixels; 0 keeps the size.")]
Seed = Annotated[int, typer.Option(help="Fixes the noise it begins from.", **SEED)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no messages.")]

_WITH_METHOD_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}


@reconstruct.command(context_settings=_WITH_METHOD_OPTIONS)
def content(
    context: typer.Context,
    image: Annotated[str, typer.Option(help="File, builtin:NAME, or -.")] = "builtin:astronaut",
    layer: Annotated[str, typer.Option(help="The layer to rebuild from, such as relu2_2.")] = "relu4_2",
    output: Output = "content.png",
    size: Size = "256",
    method: Method = "gatys",
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
) -> None:
    """From noise, find an image with the same features in one layer: what that layer knows of the content."""

    def run(model: Gatys, pixels: Tensor, report: Reporter) -> Stylized:
        return model.reconstruct_content(pixels, layer, seed=seed, progress=report)

    options = method_options(context.args, method)
    _reconstruct(run, image, output, size, quiet, method, device=device, precision=precision, **options)


@reconstruct.command(context_settings=_WITH_METHOD_OPTIONS)
def style(
    context: typer.Context,
    image: Annotated[str, typer.Option(help="File, builtin:NAME, or -.")] = "builtin:swirls",
    layers: Annotated[
        str, typer.Option(help="The layers to rebuild from, separated by commas.")
    ] = "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1",
    output: Output = "style.png",
    size: Size = "256",
    method: Method = "gatys",
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
) -> None:
    """From noise, find an image with the same Gram matrices in these layers: the style without its content."""

    def run(model: Gatys, pixels: Tensor, report: Reporter) -> Stylized:
        height, width = pixels.shape[-2:]
        return model.synthesize(model.encode_style(pixels), (height, width), seed=seed, progress=report)

    options = method_options(context.args, method)
    if "style_layer_weights" not in options:
        from zoo.methods._pixels import layer_weights
        from zoo.methods.gatys import GatysConfig
        from zoo.registry import load_registry

        # The preset's weights belong to its own layers; a layer it does not weigh takes part like the last of them.
        preset = GatysConfig.make({**load_registry().resolve(method).options, **options})
        known = layer_weights(preset, "style")
        fallback = list(known.values())[-1]
        options["style_layer_weights"] = ",".join(str(known.get(name, fallback)) for name in layers.split(","))
    options["style_layers"] = layers
    _reconstruct(run, image, output, size, quiet, method, device=device, precision=precision, **options)


def _reconstruct(
    run: Callable[[Gatys, Tensor, Reporter], Stylized],
    image: str,
    output: str,
    size: str,
    quiet: bool,
    method: str,
    **options: Any,
) -> None:
    from zoo import images, memory
    from zoo.loading import load
    from zoo.methods.gatys import Gatys

    images.check_writable(output)
    pixels = read_image(image, size).pixels
    height, width = pixels.shape[-2:]
    images.check_writable(output, (height, width))
    model = load(method, **options)
    if not isinstance(model, Gatys):
        raise UnsupportedError(f"{method} does not rebuild images from layers: use gatys or one of its presets.")
    memory.require(model, height, width)
    bar, stop = progress_bar(quiet), StopRequest()
    with stop.listening(), bar or contextlib.nullcontext():
        report = Reporter(bar, stop)
        report.begin(Path(output).name)
        result = run(model, pixels, report)
    images.write(output, result.image)
    if not quiet:
        console.say(f"{output}  {counted(result.steps, 'step')}")
    if stop.asked:
        raise typer.Exit(stop.code)
