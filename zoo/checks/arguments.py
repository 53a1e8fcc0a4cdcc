"""What goes in: malformed pictures, styles encoded by others and context that is not taken are refused."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.checks.core import LEVEL, ContractError, Subject, check, distance, picture, refused, require
from zoo.errors import InputError, UnknownNameError, UnsupportedError
from zoo.stylizer import CONTEXT_FIELDS, Context, Style


def _malformed(image: Tensor) -> dict[str, Any]:
    spoiled = image.clone()
    spoiled[0, 0, 0, 0] = math.nan
    return {
        "float64": image.double(),
        "float16": image.half(),
        "uint8": (image * 255).byte(),
        "0 to 255": image * 255,
        "negative": image - 1,
        "with a NaN": spoiled,
        "without a batch dimension": image[0],
        "of one channel": image[:, :1],
        "as a numpy array": image.numpy(),
    }


@check("content-refused", "A content of another type, shape or range is refused.")
def _content_refused(s: Subject) -> None:
    code = s.code()
    for label, wrong in _malformed(s.content()).items():
        with refused(f"a content {label}", InputError):
            s.stylize(wrong, code)


@check("style-refused", "A style of another type, shape or range is refused.", "styles: any")
def _style_refused(s: Subject) -> None:
    image = picture(s.side, s.side, seed=20)
    for label, wrong in _malformed(image).items():
        with refused(f"a style {label}", InputError):
            s.model.encode_style(wrong)
    with refused("a batch of two as one style", InputError):
        s.model.encode_style(torch.cat([image, image]))
    with refused("a style's name", UnsupportedError, UnknownNameError):
        s.model.encode_style("no such style")
    with refused("a mask of another size", InputError):
        s.model.encode_style(Style(image, mask=torch.ones(1, 1, s.side + 1, s.side)))
    with refused("a bare image in place of a code", InputError):
        s.model.stylize(s.content(), image)  # pyright: ignore[reportArgumentType]  # what is checked


@check("min-size", "Pictures of traits.min_size work; smaller ones are refused.")
def _min_size(s: Subject) -> None:
    least = s.traits.min_size
    smallest = picture(least, least, seed=10)
    code = s.model.encode_style(s.style(0, (least, least)), (least, least))
    shape = tuple(s.stylize(smallest, code).image.shape)
    require(shape == tuple(smallest.shape), f"{shape} for {tuple(smallest.shape)}")
    if least == 1:
        return
    for size in ((least - 1, s.side), (s.side, least - 1)):
        with refused(f"a content of {size[1]} x {size[0]} pixels", InputError):
            s.stylize(picture(*size, seed=10), code)
        if s.traits.styles == "any":
            with refused(f"a style of {size[1]} x {size[0]} pixels", InputError):
                s.model.encode_style(picture(*size, seed=20))


@check("intact", "Content, style image and style code are as they were before the call.")
def _intact(s: Subject) -> None:
    content, style = s.content(), s.style()
    code = s.model.encode_style(style, s.size)
    kept = [t.clone() for t in _tensors(code.data)]
    s.stylize(content, code)
    require(torch.equal(content, s.content()), "the content was modified in place")
    if isinstance(style, Tensor):
        require(torch.equal(style, typing.cast(Tensor, s.style())), "the style image was modified in place")
    now = _tensors(code.data)
    require(
        len(kept) == len(now) and all(torch.equal(a, b) for a, b in zip(kept, now, strict=True)),
        "the style code was modified in place",
    )


def _tensors(data: Any) -> list[Tensor]:
    """Every tensor inside a style code's data; ContractError for anything that ``StyleCode.to`` would not reach."""
    if isinstance(data, Tensor):
        return [data]
    if isinstance(data, Mapping):
        return [t for value in data.values() for t in _tensors(value)]
    if isinstance(data, list | tuple):
        return [t for value in data for t in _tensors(value)]
    if data is None or isinstance(data, str | int | float | bool):
        return []
    raise ContractError(
        f"a style code holds tensors, numbers and text in dicts, lists and tuples, not {type(data).__name__}"
    )


@check("code", "A style code is plain data without gradients that moves to another device and back.")
def _code(s: Subject) -> None:
    code = s.code()
    tensors = _tensors(code.data)
    require(not any(t.requires_grad for t in tensors), "the style code's tensors require gradients")
    if s.traits.styles == "any":
        require(code.nbytes > 0, "the style code holds no tensor")
    require(code.nbytes == sum(t.numel() * t.element_size() for t in tensors), f"nbytes says {code.nbytes}")
    # The meta device shows that each tensor follows, without a second device being there.
    require(all(t.is_meta for t in _tensors(code.to("meta").data)), "StyleCode.to leaves a tensor behind")
    image = s.stylize(s.content(), code.to("cpu")).image
    require(s.same(image, s.baseline), "other pixels after moving the code to the CPU and back")


@check("code-refused", "A style encoded by another method or with other options is refused.")
def _code_refused(s: Subject) -> None:
    for label, other in (("with other options", {"config": "0" * 12}), ("by another method", {"method": "other"})):
        with refused(f"a style encoded {label}", InputError):
            s.stylize(s.content(), dataclasses.replace(s.code(), **other))


def _context_examples(s: Subject) -> dict[str, Tensor]:
    content = s.content()
    height, width = s.size
    return {
        "init": content,
        "content_masks": torch.ones(1, height, width),
        "content_labels": torch.zeros(1, 1, height, width, dtype=torch.int64),
        "anchors": torch.ones(1, 4, height, width),
    }


@check("context-refused", "A field of the context that the traits do not list is refused.")
def _context_refused(s: Subject) -> None:
    examples = _context_examples(s)
    for name in CONTEXT_FIELDS:
        if name not in s.traits.context:
            with refused(f"context field {name}", UnsupportedError):
                s.stylize(s.content(), context=Context(**{name: examples[name]}))


@check(
    "context", "The fields of the context that the traits list are taken; of another shape they are refused.", "context"
)
def _context(s: Subject) -> None:
    examples = {name: value for name, value in _context_examples(s).items() if name in s.traits.context}
    code = s.code()
    if "content_labels" in examples:
        style = s.style()
        require(isinstance(style, Tensor), "labels of a trained style have no image to lie on")
        style = typing.cast(Tensor, style)
        code = s.model.encode_style(Style(style, labels=torch.zeros_like(style[:, :1], dtype=torch.int64)), s.size)
    image = s.stylize(s.content(), code, context=Context(**examples)).image
    require(image.shape == s.baseline.shape, f"{tuple(image.shape)} with every field given")
    if "content_masks" in examples:
        masked = s.stylize(s.content(), context=Context(content_masks=examples["content_masks"])).image
        gap = distance(masked, s.baseline)
        require(gap <= 2 * LEVEL, f"a mask of ones changes pixels by {gap:.3g} on average")
    for name in examples:
        with refused(f"context field {name} of another size", InputError):
            s.stylize(
                s.content(),
                code if name == "content_labels" else None,
                context=Context(**{name: examples[name][..., :-1]}),
            )
