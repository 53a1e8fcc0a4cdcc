"""What comes out: size, range, type, the same again, and one by one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch

from zoo.checks.core import LEVEL, ContractError, Subject, check, distance, refused, require
from zoo.errors import InputError, NumericalError, UnsupportedError
from zoo.stylizer import Stylized, Stylizer


@check("sizes", "The result has the content's height and width, odd ones too.")
def _sizes(s: Subject) -> None:
    require(s.baseline.shape == s.content().shape, f"{tuple(s.baseline.shape)} for {tuple(s.content().shape)}")
    size = (s.side + 6, s.side)
    shape = tuple(s.stylize(s.content(size=size)).image.shape)
    require(shape == (1, 3, *size), f"{shape} for a content of {(1, 3, *size)}")


@check("range", "Pixels lie in [0, 1], whatever the method computes.")
def _range(s: Subject) -> None:
    rows, columns = torch.arange(s.size[0]).view(-1, 1), torch.arange(s.size[1]).view(1, -1)
    saturated = ((rows // 8 + columns // 8) % 2).float().expand(1, 3, -1, -1).contiguous()
    results = {"a photograph": s.baseline, "a black and white checkerboard": s.stylize(saturated).image}
    with _hook(s.model, lambda content, style, call: Stylized(torch.full_like(content, 2.0))):
        results["values of 2 out of _stylize"] = s.stylize(s.content()).image
    for label, image in results.items():
        low, high = image.min().item(), image.max().item()
        require(low >= 0 and high <= 1, f"[{low:g}, {high:g}] for {label}")


@check("finite", "Flat pictures, whose features have no variance, give finite pixels.")
def _finite(s: Subject) -> None:
    gray = torch.full((1, 3, *s.size), 0.5, dtype=torch.float32)
    codes = {"a style": s.code()}
    if s.traits.styles == "any":
        codes["a black style"] = s.model.encode_style(torch.zeros_like(gray), s.size)
    for label, code in codes.items():
        try:
            image = s.stylize(gray, code).image
        except NumericalError as error:
            raise ContractError(f"a grey content in {label}: {error}") from error
        require(bool(torch.isfinite(image).all()), f"a grey content in {label} is not finite")


@check("not-finite-refused", "NaN out of the method's arithmetic raises NumericalError and is never returned.")
def _not_finite_refused(s: Subject) -> None:
    for value in (math.nan, math.inf):
        with (
            _hook(s.model, lambda content, style, call, v=value: Stylized(torch.full_like(content, v))),
            refused(f"{value} out of _stylize", NumericalError),
        ):
            s.stylize(s.content())


# Pixels of a side of the tiles of a check, the smallest there are.
_TILE = 64


@check("tiles", "A picture by tiles is the whole picture, up to rounding.", "tiled")
def _tiles(s: Subject) -> None:
    side = max(s.side, _TILE)
    # Kernels are chosen by the size of a map; in 16 bits each rounds in an order of its own.
    allowed = 1 if s.precision == "fp32" else 8
    for height, width in ((side + 9, side + 13), (s.side + 1, 2 * side + 5)):
        content = s.content(size=(height, width))  # two tiles each way, and a row of three
        whole, tiled = (s.stylize(content, tile=tile).image for tile in (None, _TILE))
        furthest = (whole - tiled).abs().max().item()
        said = f"pixels of {width} x {height} differ by up to {furthest / LEVEL:.3g} levels of 255"
        require(furthest <= allowed * LEVEL, said)
    with refused(f"tiles of {_TILE - 1} pixels", InputError):
        s.stylize(content, tile=_TILE - 1)


@check("tiles-refused", "A method that cannot be computed by tiles refuses them.", "not tiled")
def _tiles_refused(s: Subject) -> None:
    with refused("tiles", UnsupportedError):
        s.stylize(s.content(), tile=_TILE)


@contextlib.contextmanager
def _hook(model: Stylizer, stylize: Callable[..., Stylized]) -> Iterator[None]:
    # Set on the instance, so that the class and other instances keep theirs.
    vars(model)["_stylize"] = stylize
    try:
        yield
    finally:
        del vars(model)["_stylize"]


@check("output", "The result is float32, on the content's device, without gradient, in memory of its own.")
def _output(s: Subject) -> None:
    content = s.content()
    variants = {
        "a channels-last content": content.to(memory_format=torch.channels_last),
        "a strided content that requires a gradient": content.mT.contiguous().mT.requires_grad_(),
    }
    for label, variant in variants.items():
        with torch.enable_grad():
            image = s.stylize(variant).image
        require(image.dtype == torch.float32, f"{image.dtype} for {label}")
        require(image.device == content.device, f"on {image.device} for {label} on {content.device}")
        require(not image.requires_grad, f"requires a gradient for {label}")
        require(image.data_ptr() != variant.data_ptr(), f"shares its memory with {label}")
        require(distance(image, s.baseline) < LEVEL, f"other pixels for {label}")


@check("style-matters", "Two styles give two pictures.")
def _style_matters(s: Subject) -> None:
    other = s.stylize(s.content(), s.code(1)).image
    require(not torch.equal(other, s.baseline), "the same pixels in two different styles")
    require(not torch.equal(s.baseline, s.content()), "the content's own pixels come back")


@check(
    "repeat", "The same seed gives the same pixels, after other calls and from a style encoded anew.", "deterministic"
)
def _repeat(s: Subject) -> None:
    first = s.stylize(s.content(), seed=7).image
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        s.stylize(s.content(1), seed=8)
        again = s.stylize(s.content(), s.model.encode_style(s.style(), s.size), seed=7).image
    require(s.same(again, first), f"pixels differ by {distance(again, first):.3g} on average at the second call")


@check(
    "rebuild", "A second instance gives the same pixels: nothing is drawn at random while building.", "deterministic"
)
def _rebuild(s: Subject) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        model = s.build()
    image = model.stylize(s.content(), model.encode_style(s.style(), s.size)).image
    require(s.same(image, s.baseline), f"pixels differ by {distance(image, s.baseline):.3g} on average")


@check("batch", "A batch gives what its images give one by one, noise included.", "deterministic")
def _batch(s: Subject) -> None:
    contents = [s.content(), s.content(1)]
    batch = s.stylize(torch.cat(contents)).image
    require(batch.shape[0] == 2, f"{batch.shape[0]} images for a batch of 2")
    for index, content in enumerate(contents):
        single = s.baseline if index == 0 else s.stylize(content).image
        gap = distance(batch[index : index + 1], single)
        # Kernels differ with the batch's size, so rounding may; a loop over the images has no excuse.
        allowed = LEVEL / 2 if s.traits.batched else 0.0 if s.model.device.type == "cpu" else LEVEL
        require(gap <= allowed, f"image {index} differs by {gap:.3g} on average from the same image alone")


@check("precision", "bfloat16 arithmetic gives nearly the picture of float32.")
def _precision(s: Subject) -> None:
    model = s.build("bf16")
    image = model.stylize(s.content(), model.encode_style(s.style(), s.size)).image
    require(image.dtype == torch.float32, f"the result is {image.dtype}")
    # Eight bits of mantissa through a deep network; measured deviations belong to each method's documentation.
    gap = distance(image, s.baseline)
    require(gap < 0.05, f"pixels differ by {gap:.3g} on average from those in {s.precision}")
