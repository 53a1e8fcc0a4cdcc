"""The base class: what the public calls check, move, pad, split and finish around a method's hooks."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.device import autocast, fast_bf16, resolve_device, resolve_precision
from zoo.errors import ConfigError, InputError, NumericalError, UnsupportedError, WeightsError
from zoo.stylizer import (
    Call,
    Context,
    Mix,
    Style,
    StyleCode,
    Stylized,
    Stylizer,
    Traits,
    check_images,
    require_tensors,
)


@dataclass(frozen=True)
class EchoConfig(Config):
    gain: float = option(1.0, "Factor on the content.", ge=0)


class Echo(Stylizer):
    """Returns what ``answer`` makes of the content, and keeps what its hooks were given."""

    traits = Traits(strength="params", mixes=True, min_size=4)
    Config = EchoConfig
    answer: Callable[[Tensor], Tensor] = staticmethod(lambda content: 1 - content)

    def _build(self) -> None:
        self.contents: list[Tensor] = []
        self.mixes: list[Mix] = []
        self.calls: list[Call] = []
        self.styles: list[tuple[Style, tuple[int, int] | None]] = []

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert not torch.is_grad_enabled()
        self.styles.append((style, content_size))
        return {"image": style.image, "list": [torch.zeros(3), (torch.ones(2, dtype=torch.float64),)], "number": 3}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        assert not torch.is_grad_enabled()
        self.contents.append(content)
        self.mixes.append(style)
        self.calls.append(call)
        image = self.answer(content)
        stopped = call.report(1, 1, {"total": 0.0}, lambda: image)
        return Stylized(image, losses=[{"step": 1, "total": 0.0}], stopped=stopped)

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        self.mixes.append(style)
        return Stylized(self.answer(torch.zeros(1, 3, *size)))


def method(**changes: Any) -> Echo:
    """An Echo with other traits; ``answer`` replaces what it returns."""
    answer = changes.pop("answer", None)
    members: dict[str, Any] = {"traits": dataclasses.replace(Echo.traits, **changes)}
    if answer is not None:
        members["answer"] = staticmethod(answer)
    return type("Echo", (Echo,), members)(device="cpu")


def image(batch: int = 1, height: int = 8, width: int = 10, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def code(model: Stylizer, seed: int = 1) -> StyleCode:
    return model.encode_style(image(seed=seed))


# -- traits, styles, codes and mixes -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": frozenset({"init", "masks"})}, "unknown context fields: masks"),
        ({"min_size": 0}, "at least 1"),
        ({"multiple_of": 0}, "at least 1"),
        ({"multiple_of": 32, "min_size": 16}, "multiple_of 32 needs min_size above 16"),
    ],
)
def test_traits_that_cannot_hold_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(Echo.traits, **changes)


def test_a_style_is_known_by_its_pixels_and_mask() -> None:
    pixels, mask = image(), torch.ones(1, 1, 8, 10)
    hashes = [
        Style(pixels).hash,
        Style(pixels + 1e-6).hash,
        Style(pixels.reshape(1, 3, 10, 8)).hash,
        Style(pixels, mask=mask).hash,
        Style(pixels, mask=mask / 2).hash,
        Style(name="a").hash,
        Style(name="b").hash,
    ]
    assert len(set(hashes)) == len(hashes)
    assert Style(pixels.clone(), name="any").hash == hashes[0]
    assert Style(pixels.to(memory_format=torch.channels_last)).hash == hashes[0]
    with pytest.raises(InputError, match="needs an image or the name"):
        Style()


def test_a_code_moves_and_knows_its_bytes() -> None:
    made = code(method())
    assert made.nbytes == 3 * 8 * 10 * 4 + 3 * 4 + 2 * 8
    moved = made.to("meta")
    assert moved.data["image"].is_meta
    assert moved.data["list"][1][0].is_meta
    assert moved.data["number"] == 3
    assert (moved.method, moved.config, moved.style, moved.label) == (made.method, made.config, made.style, made.label)
    assert not made.data["image"].is_meta


def test_a_style_is_hashed_when_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[object] = []

    def sha256(*data: bytes) -> Any:
        hashed.append(data)
        return hashlib.sha256(*data)

    monkeypatch.setattr("zoo.contract.hashlib", SimpleNamespace(sha256=sha256))
    model = method()
    made = code(model)
    model.stylize(image(), made)
    assert not hashed
    assert len({made.style, made.label, made.to("cpu").style}) == len(hashed) == 1


def test_a_code_is_refused_by_other_options_and_methods() -> None:
    model = method()
    made = code(model)
    assert made.style == made.label == Style(image(seed=1)).hash
    with pytest.raises(InputError, match="encoded by echo with other options"):
        model.with_config(gain=2).stylize(image(), made)
    other = Echo(device="cpu", name="other")
    with pytest.raises(InputError, match="encode it with this other"):
        other.stylize(image(), made)
    with pytest.raises(InputError, match="not a bare image"):
        model.stylize(image(), image())  # pyright: ignore[reportArgumentType]


def test_a_checkpoint_is_known_by_what_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"

    class Replaced(Echo):
        def _build(self) -> None:
            super()._build()
            path.write_bytes(b"another")

    path.write_bytes(b"one")
    model = Echo(device="cpu", checkpoint=path)
    assert model.checkpoint_sha256 == hashlib.sha256(b"one").hexdigest()
    style = model.encode_style(image())
    with pytest.raises(WeightsError, match="was replaced while it was read: try again"):
        Replaced(device="cpu", checkpoint=path)
    assert model.checkpoint_sha256 == hashlib.sha256(b"one").hexdigest()
    model.stylize(image(), style)
    # The same path is not the same weights.
    with pytest.raises(InputError, match="with other options or weights"):
        Echo(device="cpu", checkpoint=path).stylize(image(), style)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((), "at least one"),
        ((1.5, -0.5), "not negative"),
        ((0.5, 0.4), "sum to 1"),
        ((1.0, 1.0), "sum to 1"),
        ((math.nan, 1.0), "finite"),
        ((math.inf, 0.0), "finite"),
        ((0.0, 0.0), "sum to 1"),
    ],
)
def test_weights_that_are_no_mix_are_refused(weights: tuple[float, ...], message: str) -> None:
    made = code(method())
    with pytest.raises(InputError, match=message):
        Mix([(made, w) for w in weights])


@pytest.mark.parametrize("weight", ["x", None, 10**400], ids=["text", "none", "huge"])
def test_a_weight_that_is_no_number_is_one_sentence(weight: Any) -> None:
    made = code(method())
    with pytest.raises(InputError, match="Style weights must be numbers"):
        Mix([(made, weight)])
    for parts in (made, [made], [(made, 0.5, 0.5)]):
        with pytest.raises(InputError, match="style codes, each with a number"):
            Mix(parts)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="encode each style with encode_style first"):
        Mix([(image(), 1.0)])  # pyright: ignore[reportArgumentType]


def test_thirds_sum_to_one() -> None:
    made = code(method())
    assert len(Mix([(made, 1 / 3)] * 3)) == 3
    assert [w for _, w in Mix(part for part in [(made, 1)])] == [1.0]  # pyright: ignore[reportArgumentType]


def test_a_style_of_weight_zero_never_reaches_the_method() -> None:
    model = method(texture=True, context=frozenset({"content_masks"}))
    a, b = code(model, 1), code(model, 2)
    model.stylize(image(), Mix([(a, 1.0), (b, 0.0)]))
    model.synthesize(Mix([(b, 0.0), (a, 1.0)]), (8, 8))
    assert [[part.style for part, _ in mix] for mix in model.mixes] == [[a.style], [a.style]]
    # With masks the weights choose nothing: each region has its style.
    masks = Context(content_masks=torch.ones(2, 8, 10) / 2)
    model.stylize(image(), Mix([(a, 1.0), (b, 0.0)]), context=masks)
    assert len(model.mixes[-1]) == 2


def test_two_styles_need_the_trait() -> None:
    model = method(mixes=False)
    made = code(model)
    with pytest.raises(UnsupportedError, match="one style at a time"):
        model.stylize(image(), Mix([(made, 0.5), (made, 0.5)]))
    model.stylize(image(), Mix([(made, 1.0)]))


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([0.5], "must be a torch tensor"),
        (torch.rand(3, 8, 8), "must have shape"),
        (torch.rand(0, 3, 8, 8), "must have shape"),
        (torch.rand(1, 4, 8, 8), "must have shape"),
        (torch.rand(1, 3, 8, 8).double(), "must be float32"),
        (torch.full((1, 3, 8, 8), math.nan), "not finite"),
        (torch.full((1, 3, 8, 8), math.inf), "not finite"),
        (torch.full((1, 3, 8, 8), 255.0), "divide 8-bit values by 255"),
        (torch.full((1, 3, 8, 8), -0.01), "must lie in"),
        (torch.rand(1, 3, 3, 8), "is 8 x 3 pixels; this method needs at least 4 a side"),
        (torch.rand(1, 3, 8, 0), "needs at least 4"),
    ],
)
@pytest.mark.parametrize("role", ["content", "style"])
def test_a_malformed_picture_is_one_sentence(role: str, wrong: Any, message: str) -> None:
    model = method()
    made = code(model)
    with pytest.raises(InputError) as caught:
        model.stylize(wrong, made) if role == "content" else model.encode_style(wrong)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"The {role}")
    with pytest.raises(InputError, match=f"The {role}"):
        model(*((wrong, image()) if role == "content" else (image(), wrong)))


def test_rounding_beyond_the_range_and_gradients_are_taken() -> None:
    check_images(torch.full((1, 3, 4, 4), 1 + 5e-5), "content")
    model = method()
    with torch.enable_grad():
        result = model.stylize(image().requires_grad_(), code(model))
    assert not result.image.requires_grad


def test_one_style_is_one_picture() -> None:
    with pytest.raises(InputError, match="mix several with Mix"):
        method().encode_style(image(batch=2))


def test_a_name_is_no_style_where_any_picture_is() -> None:
    with pytest.raises(UnsupportedError, match="has no trained styles by name"):
        method().encode_style("starry")
    model = method(styles="trained")
    assert model.encode_style("starry").label == "starry"
    assert model.style_names == ()


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (Style(image(), mask=torch.ones(1, 1, 8, 9)), "must have shape"),
        (Style(image(), mask=torch.full((1, 1, 8, 10), 2.0)), "must lie in"),
        (Style(image(), mask=torch.full((1, 1, 8, 10), math.nan)), "not finite"),
        (Style(name="starry", mask=torch.ones(1, 1, 8, 10)), "goes with a style image"),
    ],
)
def test_a_mask_covers_its_style_picture(style: Style, message: str) -> None:
    with pytest.raises(InputError, match=message):
        method(styles="trained").encode_style(style)


def test_a_mask_of_true_and_false_is_taken() -> None:
    model = method(context=frozenset({"content_masks"}))
    model.encode_style(Style(image(), mask=torch.ones(1, 1, 8, 10, dtype=torch.bool)))
    assert model.styles[0][0].mask is not None


@pytest.mark.parametrize("strength", [-0.01, 1.01, math.nan, math.inf])
def test_strength_lies_between_zero_and_one(strength: float) -> None:
    model = method()
    with pytest.raises(InputError, match="between 0 and 1"):
        model.stylize(image(), code(model), strength=strength)


def test_strength_needs_the_trait() -> None:
    model = method(strength="none")
    with pytest.raises(UnsupportedError, match="no strength control"):
        model.stylize(image(), code(model), strength=0.5)
    model.stylize(image(), code(model), strength=1)


ALL_FIELDS = {
    "init": image(),
    "content_masks": torch.ones(1, 8, 10),
    "content_labels": torch.zeros(1, 1, 8, 10, dtype=torch.int64),
}


def labeled(model: Echo, labels: Sequence[int] = (0, 1, 3)) -> StyleCode:
    """A style whose rows show these labels by turns."""
    rows = torch.tensor(labels)[torch.arange(8) % len(labels)]
    return model.encode_style(Style(image(), labels=rows.view(1, 1, 8, 1).expand(1, 1, 8, 10)))


@pytest.mark.parametrize("field", list(ALL_FIELDS))
def test_each_context_field_needs_the_trait(field: str) -> None:
    context = Context(**{field: ALL_FIELDS[field]})
    assert list(context.given()) == [field]
    model = method()
    with pytest.raises(UnsupportedError, match=f"does not take {field.replace('_', ' ')}"):
        model.stylize(image(), code(model), context=context)
    able = method(context=frozenset({field}))
    able.stylize(image(), labeled(able) if field == "content_labels" else code(able), context=context)
    assert getattr(able.calls[0].context, field) is not None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("init", image(height=9), "init must have the content's shape"),
        ("init", torch.full((1, 3, 8, 10), math.nan), "init image holds values that are not finite"),
        ("init", image() * 255, "init image must lie in"),
        ("content_masks", torch.ones(2, 8, 10), r"must have shape \(1, 8, 10\)"),
        ("content_masks", torch.ones(1, 1, 8, 10), r"must have shape \(1, 8, 10\)"),
        ("content_masks", torch.ones(1, 8, 10) * 3, "content masks must lie in"),
    ],
)
def test_a_context_field_that_does_not_fit_is_refused(field: str, value: Tensor, message: str) -> None:
    model = method(context=frozenset({field}))
    with pytest.raises(InputError, match=message):
        model.stylize(image(), code(model), context=Context(**{field: value}))


def whole_numbers(value: int = 0, height: int = 8, width: int = 10) -> Tensor:
    return torch.full((1, 1, height, width), value)


def test_labels_go_together_and_fit() -> None:
    model = method(context=frozenset({"content_labels"}))
    for labels, message in [
        (whole_numbers(2), "labels that the style lacks: 2"),
        (whole_numbers(width=9), r"must have shape \(1, 1, 8, 10\)"),
        (whole_numbers(-1), "whole numbers from 0"),
        (whole_numbers().float(), "whole numbers from 0"),
        (None, "Labels of the style need labels of the content"),
    ]:
        with pytest.raises(InputError, match=message):
            model.stylize(image(), labeled(model), context=Context(content_labels=labels))
    with pytest.raises(InputError, match="Labels of the content need labels of the style"):
        model.stylize(image(), code(model), context=Context(content_labels=whole_numbers()))
    with pytest.raises(InputError, match="style's labels must have shape"):
        model.encode_style(Style(image(), labels=whole_numbers(width=9)))
    with pytest.raises(UnsupportedError, match="does not take a style's labels"):
        method().encode_style(Style(image(), labels=whole_numbers()))


def test_a_style_mask_needs_regions_and_something_in_it() -> None:
    with pytest.raises(UnsupportedError, match="one whole image"):
        method().encode_style(Style(image(), mask=torch.ones(1, 1, 8, 10)))
    with pytest.raises(InputError, match="covers nothing"):
        method(context=frozenset({"content_masks"})).encode_style(Style(image(), mask=torch.zeros(1, 1, 8, 10)))


# -- what the hooks see --------------------------------------------------------------------------


def test_hooks_get_the_call_as_it_was_made() -> None:
    model = method()
    made = model.encode_style(image(), (8, 10))
    model.stylize(image(), made, strength=0.25, seed=5)
    assert model.styles[0][1] == (8, 10)
    call = model.calls[0]
    assert (call.strength, call.seed) == (0.25, 5)
    assert torch.equal(torch.rand(3, generator=call.generator()), torch.rand(3, generator=call.generator()))
    other = dataclasses.replace(call, seed=6)
    assert not torch.equal(torch.rand(3, generator=call.generator()), torch.rand(3, generator=other.generator()))


def test_pictures_in_picture_out() -> None:
    model = method()
    result = model(image(), image(seed=1), strength=0.5)
    assert torch.equal(result, 1 - image())
    assert model.calls[0].strength == 0.5
    assert model.styles[0][1] == (8, 10)
    model(image(), code(model))
    model(image(), Mix([(code(model), 1.0)]))
    assert [len(mix) for mix in model.mixes] == [1, 1, 1]


@pytest.mark.parametrize(("height", "width"), [(8, 10), (9, 15), (5, 16), (16, 16)])
def test_padding_reflects_and_is_cropped_again(height: int, width: int) -> None:
    model = method(multiple_of=8, min_size=5, context=frozenset({"content_masks", "content_labels", "init"}))
    content = image(height=height, width=width)
    labels = torch.arange(width).expand(1, 1, height, width) % 3
    context = Context(init=content, content_masks=torch.ones(1, height, width), content_labels=labels)
    result = model.stylize(content, labeled(model, (0, 1, 2)), context=context)
    assert torch.equal(result.image, 1 - content)
    seen, given = model.contents[0], model.calls[0].context
    size = (-(-height // 8) * 8, -(-width // 8) * 8)
    assert seen.shape[-2:] == size
    assert torch.equal(seen[..., :height, :width], content)
    for extra in range(size[1] - width):
        assert torch.equal(seen[..., :height, width + extra], content[..., width - 2 - extra])
    assert given.init is not None
    assert torch.equal(given.init, seen)
    assert given.content_masks is not None
    assert given.content_masks.shape == (1, *size)
    assert given.content_labels is not None
    assert given.content_labels.dtype == torch.int64
    assert given.content_labels.shape == (1, 1, *size)


def test_without_multiple_of_nothing_is_padded() -> None:
    model = method()
    model.stylize(image(height=7, width=5), code(model))
    assert model.contents[0].shape == (1, 3, 7, 5)


def test_a_batch_runs_at_once_or_one_by_one() -> None:
    together, apart = method(), method(batched=False, context=frozenset({"init", "content_masks"}))
    batch = image(batch=3)
    assert torch.equal(together.stylize(batch, code(together)).image, 1 - batch)
    assert [c.shape[0] for c in together.contents] == [3]

    context = Context(init=batch.flip(0), content_masks=torch.ones(1, 8, 10))
    result = apart.stylize(batch, code(apart), context=context)
    assert torch.equal(result.image, 1 - batch)
    assert [c.shape[0] for c in apart.contents] == [1, 1, 1]
    for index, call in enumerate(apart.calls):
        assert call.context.init is not None
        assert torch.equal(call.context.init[0], batch[2 - index])
        assert call.context.content_masks is not None
        assert call.context.content_masks.shape == (1, 8, 10)
    assert result.steps == 3
    assert [(row["image"], row["step"]) for row in result.losses] == [(0, 1), (1, 1), (2, 1)]


def test_masks_of_as_many_styles_as_images_stay_whole() -> None:
    model = method(batched=False, context=frozenset({"content_masks"}))
    mix = Mix([(code(model, 1), 0.5), (code(model, 2), 0.5)])
    model.stylize(image(batch=2), mix, context=Context(content_masks=torch.ones(2, 8, 10)))
    assert [call.context.content_masks.shape for call in model.calls if call.context.content_masks is not None] == [
        (2, 8, 10),
        (2, 8, 10),
    ]


def test_stopping_a_loop_leaves_the_rest_as_it_came() -> None:
    model = method(batched=False)
    batch = image(batch=3)
    result = model.stylize(batch, code(model), progress=lambda *report: len(model.contents) == 2)
    assert result.stopped
    assert torch.equal(result.image[:2], 1 - batch[:2])
    assert torch.equal(result.image[2], batch[2])


# -- what comes back -----------------------------------------------------------------------------


def test_blending_is_between_content_and_result() -> None:
    model = method(strength="blend")
    content, made = image(), code(model)
    assert torch.equal(model.stylize(content, made, strength=0).image, content)
    assert torch.equal(model.stylize(content, made, strength=1).image, 1 - content)
    quarter = model.stylize(content, made, strength=0.25).image
    torch.testing.assert_close(quarter, 0.75 * content + 0.25 * (1 - content))
    assert {call.strength for call in model.calls} == {1.0}


def test_what_a_network_takes_beyond_the_range_is_cut_before_it_is_blended() -> None:
    content = image()
    for beyond, cut in ((lambda c: c + 9, 1.0), (lambda c: c - 9, 0.0)):
        model = method(strength="blend", answer=beyond)
        half = model.stylize(content, code(model), strength=0.5).image
        torch.testing.assert_close(half, (content + cut) / 2)
        (shown,) = _watch(model, content, strength=0.5)
        assert torch.equal(shown, half)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize(
    "answer", [lambda c: c[..., :-1], lambda c: c[:, :1], lambda c: c[0], lambda c: torch.cat([c, c])]
)
def test_a_result_of_another_shape_is_an_error(answer: Callable[[Tensor], Tensor], strength: float) -> None:
    model = method(strength="blend", answer=answer)
    with pytest.raises(InputError, match="returned shape"):
        model.stylize(image(), code(model), strength=strength)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_result_that_is_not_finite_is_an_error(value: float) -> None:
    model = method(answer=lambda content: content.clone().fill_(value), texture=True)
    made = code(model)
    with pytest.raises(NumericalError, match="not finite"):
        model.stylize(image(), made)
    with pytest.raises(NumericalError, match="not finite"):
        model.synthesize(made, (8, 8))


def test_a_result_is_clamped_float32_and_new() -> None:
    model = method(answer=lambda content: (content * 4 - 1).double())
    content = image()
    result = model.stylize(content, code(model)).image
    assert result.dtype == torch.float32
    assert torch.equal(result, (content * 4 - 1).clamp(0, 1))
    same = method(answer=lambda content: content)
    result = same.stylize(content, code(same)).image
    assert result.data_ptr() != content.data_ptr()


def test_a_texture_has_the_size_asked_for() -> None:
    model = method(texture=True)
    made = code(model)
    assert model.synthesize(made, (7, 9)).image.shape == (1, 3, 7, 9)
    with pytest.raises(InputError, match="at least 4 pixels a side"):
        model.synthesize(made, (3, 9))
    for answer in (lambda t: t[..., 1:], lambda t: t[:, :1], lambda t: t[0]):
        wrong = method(texture=True, answer=answer)
        with pytest.raises(InputError, match="returned a texture of shape"):
            wrong.synthesize(code(wrong), (7, 9))
    plain = method()
    with pytest.raises(UnsupportedError, match="cannot synthesise"):
        plain.synthesize(code(plain), (7, 9))


# -- progress ------------------------------------------------------------------------------------


def _watch(model: Stylizer, content: Tensor, **arguments: Any) -> list[Tensor]:
    seen: list[Tensor] = []

    def progress(step: int, total: int, losses: Mapping[str, float], read: Callable[[], Tensor], /) -> None:
        assert (step, total, losses) == (1, 1, {"total": 0.0})
        seen.append(read())

    model.stylize(content, code(model), progress=progress, **arguments)
    return seen


def test_progress_shows_the_picture_as_it_will_be_returned() -> None:
    content = image(height=9, width=13)
    (shown,) = _watch(method(multiple_of=8, min_size=5), content)
    assert torch.equal(shown, 1 - content)
    (shown,) = _watch(method(strength="blend"), content, strength=0.5)
    torch.testing.assert_close(shown, torch.full_like(content, 0.5))
    (shown,) = _watch(method(answer=lambda c: c.double() * 3), content)
    assert torch.equal(shown, (content * 3).clamp(0, 1))


def test_progress_shows_the_whole_batch_of_a_loop() -> None:
    batch = image(batch=3)
    shown = _watch(method(batched=False), batch)
    assert len(shown) == 3
    for done, picture in enumerate(shown, start=1):
        assert torch.equal(picture, torch.cat([1 - batch[:done], batch[done:]]))


def test_an_exception_out_of_progress_passes_and_leaves_gradients_on() -> None:
    def fail(*report: Any) -> bool:
        raise KeyboardInterrupt

    model = method()
    with torch.enable_grad(), pytest.raises(KeyboardInterrupt):
        model.stylize(image(), code(model), progress=fail)
    assert torch.is_grad_enabled()


# -- building, device and precision --------------------------------------------------------------


class Networked(Echo):
    def _build(self) -> None:
        super()._build()
        self.layer = torch.nn.Linear(3, 3)


def test_building_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    model = Networked(device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.layer.weight.std() > 0


def test_with_config_keeps_all_else() -> None:
    model = Echo(EchoConfig(gain=2), device="cpu", precision="bf16", name="echo.loud")
    other = model.with_config(gain="3")
    assert (other.config, other.name, other.precision) == (EchoConfig(gain=3), "echo.loud", "bf16")
    assert model.config == EchoConfig(gain=2)
    with pytest.raises(ConfigError, match="did you mean 'gain'"):
        model.with_config(gian=3)
    with pytest.raises(ConfigError, match="Echo takes a EchoConfig, not Config"):
        Echo(Config(), device="cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu-9000", "Unknown device"),
        ("cuda:99", "not available on this machine"),
        ("meta", "not available on this machine"),
    ],
)
def test_a_device_that_is_not_there_is_told(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_device(name)


def test_auto_is_a_device_of_this_machine() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_auto_precision_is_the_methods_wish_where_hardware_has_it() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu, "fp32") == "fp32"
    assert resolve_precision("auto", cpu, "bf16") == ("bf16" if fast_bf16(cpu) else "fp32")
    assert resolve_precision("fp16", cpu, "fp32") == "fp16"
    with pytest.raises(ConfigError, match="Unknown precision 'fp64'"):
        resolve_precision("fp64", cpu, "fp32")


def test_auto_precision_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolve_precision("auto", torch.device("cpu"), "bf16") == "fp32"


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_rules_inside_and_ends_outside(name: Any, dtype: torch.dtype) -> None:
    cpu = torch.device("cpu")
    matrix = torch.eye(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with autocast(cpu, name):
            assert (matrix @ matrix).dtype == dtype
        assert (matrix @ matrix).dtype == torch.bfloat16
    assert (matrix @ matrix).dtype == torch.float32


def test_autocast_sees_weights_that_change() -> None:
    weight = torch.eye(4, requires_grad=True)
    ones = torch.ones(1, 4)
    with autocast(torch.device("cpu"), "bf16"):
        first = ones @ weight
        with torch.no_grad():
            weight.mul_(2)
        assert torch.equal(ones @ weight, 2 * first)


# -- checkpoints ---------------------------------------------------------------------------------


def test_tensors_that_do_not_fit_are_named() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3, 3)}
    require_tensors({"b": torch.ones(3, 3), "a": torch.ones(2)}, expected, "weights")
    with pytest.raises(WeightsError) as caught:
        require_tensors({"b": torch.zeros(3), "c": torch.zeros(1)}, expected, "weights.safetensors")
    message = str(caught.value)
    for part in ("weights.safetensors does not fit", "missing a", "unknown c", "b is (3,), expected (3, 3)"):
        assert part in message
