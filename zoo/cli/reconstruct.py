"""``zoo reconstruct content|style``: what the layers of the network keep of an image (Gatys et al., figure 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.common import Reporter, make_picture, method_options, read_image, refuse_overwriting
from zoo.errors import UnsupportedError
from zoo.options import SEED, Quiet, verb
from zoo.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.methods.gatys import Gatys
    from zoo.stylizer import Stylized

reconstruct = typer.Typer(
    help="Rebuild an image from the features or the Gram matrices of chosen layers.", no_args_is_help=True
)

Image = Annotated[str, typer.Option(help="File, builtin:NAME, or -.")]
Output = Annotated[str, typer.Option("--output", "-o", help="The picture to write.")]

_WITH_METHOD_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(Quiet):
    """What both verbs take."""

    image: Image
    output: Output
    size: Annotated[str, typer.Option(help="Long side in pixels; 0 keeps the size.")] = "256"
    method: Annotated[str, typer.Option("--method", "-m", help="gatys or one of its presets.")] = "gatys"
    seed: Annotated[int, typer.Option(help="Fixes the noise it begins from.", **SEED)] = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto"


@dataclass(frozen=True, kw_only=True)
class ContentOptions(ReconstructOptions):
    """Options of ``zoo reconstruct content``."""

    image: Image = "builtin:astronaut"
    layer: Annotated[str, typer.Option(help="The layer to rebuild from, such as relu2_2.")] = "relu4_2"
    output: Output = "content.png"


@dataclass(frozen=True, kw_only=True)
class GramOptions(ReconstructOptions):
    """Options of ``zoo reconstruct style``."""

    image: Image = "builtin:swirls"
    layers: Annotated[str, typer.Option(help="The layers to rebuild from, separated by commas.")] = (
        "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1"
    )
    output: Output = "style.png"


@reconstruct.command(context_settings=_WITH_METHOD_OPTIONS)
@verb
def content(context: typer.Context, options: ContentOptions) -> None:
    """From noise, find an image with the same features in one layer: what that layer knows of the content."""

    def run(model: Gatys, pixels: Tensor, report: Reporter) -> Stylized:
        return model.reconstruct_content(pixels, options.layer, seed=options.seed, progress=report)

    _reconstruct(run, options, method_options(context.args, options.method))


@reconstruct.command(context_settings=_WITH_METHOD_OPTIONS)
@verb
def style(context: typer.Context, options: GramOptions) -> None:
    """From noise, find an image with the same Gram matrices in these layers: the style without its content."""

    def run(model: Gatys, pixels: Tensor, report: Reporter) -> Stylized:
        height, width = pixels.shape[-2:]
        return model.synthesize(model.encode_style(pixels), (height, width), seed=options.seed, progress=report)

    chosen = method_options(context.args, options.method)
    if "style_layer_weights" not in chosen:
        from zoo.methods._pixels import layer_weights
        from zoo.methods.gatys import GatysConfig
        from zoo.registry import load_registry

        # The preset's weights belong to its own layers; a layer it does not weigh takes part like the last of them.
        preset = GatysConfig.make({**load_registry().resolve(options.method).options, **chosen})
        known = layer_weights(preset, "style")
        fallback = list(known.values())[-1]
        weights = (str(known.get(name, fallback)) for name in options.layers.split(","))
        chosen["style_layer_weights"] = ",".join(weights)
    _reconstruct(run, options, {**chosen, "style_layers": options.layers})


def _reconstruct(
    run: Callable[[Gatys, Tensor, Reporter], Stylized], options: ReconstructOptions, chosen: Mapping[str, Any]
) -> None:
    from zoo import images, memory
    from zoo.loading import load
    from zoo.methods.gatys import Gatys

    images.check_writable(options.output)
    refuse_overwriting(options.output, [options.image])
    pixels = read_image(options.image, options.size).pixels
    height, width = pixels.shape[-2:]
    images.check_writable(options.output, (height, width))
    model = load(options.method, device=options.device, precision=options.precision, **chosen)
    if not isinstance(model, Gatys):
        raise UnsupportedError(
            f"{options.method} does not rebuild images from layers: use gatys or one of its presets."
        )
    memory.require(model, height, width)
    make_picture(
        options.output,
        options.quiet,
        lambda report: run(model, pixels, report),
        lambda made: counted(made.steps, "step"),
    )
