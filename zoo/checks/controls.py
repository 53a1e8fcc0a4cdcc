"""What a caller steers: strength, mixes of styles, textures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.checks.core import LEVEL, Subject, check, distance, refused, require
from zoo.errors import InputError, UnsupportedError
from zoo.stylizer import Mix


def _at_zero(s: Subject) -> Tensor:
    return s.once("strength 0", lambda: s.stylize(s.content(), strength=0.0).image)


@check("strength-zero", "Strength 0 gives the content, or the reconstruction of it that the traits state.", "strength")
def _strength_zero(s: Subject) -> None:
    content = s.content()
    far = distance(s.baseline, content)
    near = distance(_at_zero(s), content)
    if s.traits.strength_zero == "content":
        require(near <= 2 * LEVEL, f"pixels differ from the content by {near:.3g} on average")
    require(near < far / 2 or s.traits.strength_zero == "reconstruction", f"{near:.3g} away from the content at 0")
    require(near < far, f"{near:.3g} away from the content at strength 0, but {far:.3g} at strength 1")


@check("strength-one", "Strength 1 is the default.", "strength")
def _strength_one(s: Subject) -> None:
    require(s.same(s.stylize(s.content(), strength=1.0).image, s.baseline), "strength 1 differs from the default")


@check("strength-half", "Strength 0.5 lies between 0 and 1.", "strength")
def _strength_half(s: Subject) -> None:
    content = s.content()
    none, half, full = _at_zero(s), s.stylize(content, strength=0.5).image, s.baseline
    require(not torch.equal(half, full) and not torch.equal(half, none), "strength 0.5 is the same as 0 or 1")
    near, middle, far = (distance(image, content) for image in (none, half, full))
    # An optimiser's path is no straight line: a quarter of the whole way is granted on both sides.
    slack = 0.25 * far
    require(
        near - slack <= middle <= far + slack,
        f"distances to the content are {near:.3g}, {middle:.3g}, {far:.3g} at strengths 0, 0.5, 1",
    )


@check("strength-range", "A strength outside [0, 1] is refused.")
def _strength_range(s: Subject) -> None:
    for value in (-0.1, 1.1, math.nan):
        with refused(f"strength {value}", InputError):
            s.stylize(s.content(), strength=value)


@check("strength-refused", "A method without strength takes 1 only.", "strength: none")
def _strength_refused(s: Subject) -> None:
    for value in (0.0, 0.5):
        with refused(f"strength {value}", UnsupportedError):
            s.stylize(s.content(), strength=value)


@check("mix-single", "A mix with weights (1, 0) is the single style.", "mixes")
def _mix_single(s: Subject) -> None:
    image = s.stylize(s.content(), Mix([(s.code(), 1.0), (s.code(1), 0.0)])).image
    require(s.same(image, s.baseline), f"pixels differ by {distance(image, s.baseline):.3g} on average")


@check("mix-order", "The order of styles does not matter when their weights move along.", "mixes")
def _mix_order(s: Subject) -> None:
    one = s.stylize(s.content(), Mix([(s.code(), 0.3), (s.code(1), 0.7)])).image
    two = s.stylize(s.content(), Mix([(s.code(1), 0.7), (s.code(), 0.3)])).image
    require(distance(one, two) <= LEVEL / 2, f"pixels differ by {distance(one, two):.3g} on average")


@check("mix-weights", "Both styles of a mix show, each by its weight.", "mixes")
def _mix_weights(s: Subject) -> None:
    half, mostly = (s.stylize(s.content(), Mix([(s.code(), w), (s.code(1), 1 - w)])).image for w in (0.5, 0.9))
    require(not torch.equal(half, mostly), "weights (0.5, 0.5) and (0.9, 0.1) give the same pixels")
    near, far = distance(mostly, s.baseline), distance(half, s.baseline)
    require(near < far, f"{near:.3g} from the first style alone at weight 0.9, {far:.3g} at 0.5")


@check("mix-refused", "A method that cannot mix refuses two styles.", "no mixes")
def _mix_refused(s: Subject) -> None:
    code = s.code()
    with refused("a mix of two styles", UnsupportedError):
        s.stylize(s.content(), Mix([(code, 0.5), (code, 0.5)]))


def _sample(s: Subject) -> Tensor:
    return s.once("texture", lambda: s.model.synthesize(s.code(), s.size, seed=1).image)


@check("texture", "A texture has exactly the size asked for, in range.", "texture")
def _texture(s: Subject) -> None:
    image = _sample(s)
    require(tuple(image.shape) == (1, 3, *s.size), f"{tuple(image.shape)} for {s.size}")
    require(image.dtype == torch.float32, f"the result is {image.dtype}")
    require(bool(image.min() >= 0) and bool(image.max() <= 1), "pixels leave [0, 1]")
    with refused("a texture under min_size", InputError):
        s.model.synthesize(s.code(), (s.traits.min_size - 1, s.side))


@check("texture-seed", "A texture is a new sample for each seed, and the same for the same one.", "texture")
def _texture_seed(s: Subject) -> None:
    first = _sample(s)
    again, other = (s.model.synthesize(s.code(), s.size, seed=seed).image for seed in (1, 2))
    require(s.same(first, again) or not s.traits.deterministic, "other pixels with the same seed")
    require(not torch.equal(first, other), "the same pixels with another seed")


@check("texture-refused", "A method without texture refuses to synthesise.", "no texture")
def _texture_refused(s: Subject) -> None:
    with refused("synthesize", UnsupportedError):
        s.model.synthesize(s.code(), s.size)
