"""Gatys: the paper's closed forms, what is optimised, and the options."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.checks.core import picture
from zoo.color import color_statistics, luminance
from zoo.errors import ConfigError, InputError, UnknownNameError
from zoo.methods._pixels import layer_weights
from zoo.methods.gatys import Gatys, GatysConfig, GramTarget, Region, content_loss
from zoo.nn.gram import gram
from zoo.stylizer import Context, Mix, Style

SMALL = {
    "style_layers": ("relu1_1", "relu2_1", "relu3_1"),
    "style_layer_weights": (0.01,),
    "content_layers": ("relu2_2",),
}


def build(**options: Any) -> Gatys:
    """A shallow and therefore quick one, unless told otherwise."""
    return Gatys(GatysConfig.make({"num_steps": 6, **SMALL, **options}), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return picture(36, 45, seed=1)


@pytest.fixture(scope="module")
def paintings() -> tuple[Tensor, Tensor]:
    return picture(40, 34, seed=2, stripes=True), picture(34, 42, seed=3, stripes=True)


def totals(result: Any) -> list[float]:
    return [row["total"] for row in result.losses]


# -- closed forms ---------------------------------------------------------------------------------------------------


@pytest.fixture
def layer() -> tuple[Tensor, Tensor]:
    """Activations before the ReLU and features to match, float64, N = 7 filters and M = 5 x 6 positions."""
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(1, 7, 5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    return before, torch.randn(1, 7, 5, 6, dtype=torch.float64, generator=generator).relu()


def test_content_gradient_is_equation_2(layer: tuple[Tensor, Tensor]) -> None:
    before, wanted = layer
    found = before.relu()
    (gradient,) = torch.autograd.grad(content_loss(found, wanted, "half-sum"), before)
    torch.testing.assert_close(gradient, torch.where(before > 0, found - wanted, 0.0))


def test_style_gradient_is_equation_6(layer: tuple[Tensor, Tensor]) -> None:
    before, style = layer
    found = before.relu()
    n, m = 7, 30
    target = GramTarget.of([gram(style, "hw")], [1.0])
    loss = target.loss(gram(found, "hw")) / 4
    (gradient,) = torch.autograd.grad(loss, before)
    f, s = found[0].flatten(1), style[0].flatten(1)
    difference = f @ f.T - s @ s.T
    torch.testing.assert_close(loss, difference.square().sum() / (4 * n**2 * m**2))
    closed = (difference @ f / (n**2 * m**2)).view_as(before)
    torch.testing.assert_close(gradient, torch.where(before > 0, closed, 0.0))


@pytest.mark.parametrize(("divide_by", "divisor"), [("none", 1), ("hw", 30), ("chw", 210)])
def test_gram_is_equation_3_over_its_divisor(layer: tuple[Tensor, Tensor], divide_by: Any, divisor: int) -> None:
    _, features = layer
    found = gram(features, divide_by)
    torch.testing.assert_close(found, torch.einsum("bihw,bjhw->bij", features, features) / divisor)


@pytest.mark.parametrize("batch", [1, 3])
def test_gram_gradient_is_autograds(batch: int) -> None:
    features = torch.randn(batch, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gram(x, "chw"), features)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 2e-3), (torch.float16, 5e-4)])
def test_gram_in_every_format_and_layout(layout: Any, dtype: torch.dtype, tolerance: float) -> None:
    features = torch.rand(2, 32, 19, 23).to(dtype).to(memory_format=layout).requires_grad_()
    wanted = torch.einsum("bihw,bjhw->bij", features.double(), features.double()) / (19 * 23)
    found = gram(features)
    assert found.dtype == torch.float32
    assert (found - wanted).norm().item() < tolerance * wanted.norm().item()
    weights = torch.randn_like(found)
    (gradient,) = torch.autograd.grad((found * weights).sum(), features, retain_graph=True)
    (closed,) = torch.autograd.grad((wanted * weights).sum(), features)
    assert gradient.dtype == dtype
    assert (gradient.double() - closed).norm().item() < 10 * tolerance * closed.norm().item()


@pytest.mark.parametrize("size", [1e-25, 1e-10, 1.0, 1e3])
def test_a_gram_gradient_in_float16_keeps_what_its_format_can_hold(size: float) -> None:
    """Of a mean over millions of numbers the matrix itself is below float16; what it gives the features need not be."""
    features = (1000 * torch.rand(1, 32, 19, 23)).half().requires_grad_()
    weights = size * torch.randn(1, 32, 32)
    found = gram(features, "none")
    # Scaled as a loss is in float16: gradients of the features near 1.
    (gradient,) = torch.autograd.grad((found * weights).sum() / (1e4 * size), features)
    exact = features.detach().double().requires_grad_()
    (closed,) = torch.autograd.grad((gram(exact, "none") * weights.double()).sum() / (1e4 * size), exact)
    assert float((gradient.double() - closed).norm()) < 2e-3 * float(closed.norm())


def test_a_gram_of_large_features_in_float16_is_finite_on_every_device() -> None:
    features = torch.full((1, 4, 64, 64), 500.0)
    torch.testing.assert_close(gram(features.half()), gram(features))


def test_target_of_a_mix_is_the_weighted_loss_and_its_gradient() -> None:
    grams = [torch.rand(1, 5, 5, dtype=torch.float64) for _ in range(3)]
    weights = [0.2, 0.5, 0.3]
    found = torch.rand(1, 5, 5, dtype=torch.float64, requires_grad=True)
    one = GramTarget.of(grams, weights).loss(found)
    each = sum(w * (found - g).square().mean() for w, g in zip(weights, grams, strict=True))
    assert isinstance(each, Tensor)
    torch.testing.assert_close(one, each)
    torch.testing.assert_close(torch.autograd.grad(one, found), torch.autograd.grad(each, found))


# -- style transfer -------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_formula(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    """Every term once, written out."""
    model = build(
        num_steps=1, init="style", content_layer_weights=(0.7,), style_layer_weights=(1.0, 0.5, 0.25),
        content_weight=3.0, style_weight=2.0, tv_weight=0.1, gram_divisor="chw",
    )  # fmt: skip
    start = Context(init=paintings[0][..., :34, :34].repeat(1, 1, 2, 2)[..., :36, :45])
    (row,) = model.stylize(photo, model.encode_style(paintings[1]), context=start, strength=0.5).losses
    encoder = model._encoder(("relu1_1", "relu2_1", "relu2_2", "relu3_1"))
    assert start.init is not None
    x, p, s = encoder(start.init), encoder(photo), encoder(paintings[1])

    def normalized(f: Tensor) -> Tensor:
        flat = f[0].flatten(1)
        return flat @ flat.T / flat.numel()

    content = 3.0 * 0.7 * float((x["relu2_2"] - p["relu2_2"]).square().mean())
    style = sum(
        0.5 * 2.0 * w * float((normalized(x[k]) - normalized(s[k])).square().mean())
        for k, w in (("relu1_1", 1.0), ("relu2_1", 0.5), ("relu3_1", 0.25))
    )
    assert row["content"] == pytest.approx(content, rel=1e-4)
    assert row["style"] == pytest.approx(style, rel=1e-4)
    assert row["total"] == pytest.approx(row["content"] + row["style"] + row["tv"], rel=1e-5)
    assert row["tv"] > 0


@pytest.mark.parametrize(
    "options",
    [
        {"init": "content"},
        {"init": "style"},
        {"init": "noise"},
        {"init": "noise", "optimizer": "adam", "learning_rate": 10.0},
        {"init": "content", "pool": "avg", "content_loss": "half-sum", "content_weight": 1e-3, "clamp": False},
    ],
)
def test_the_loss_falls(photo: Tensor, paintings: tuple[Tensor, Tensor], options: dict[str, Any]) -> None:
    model = build(num_steps=12, **options)
    result = model.stylize(photo, model.encode_style(paintings[0]))
    values = totals(result)
    assert result.steps == 12 == len(values)
    assert min(values) < 0.3 * values[0]


def test_the_first_image_is_the_one_asked_for(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    def first(context: Context | None = None, **options: Any) -> Tensor:
        model = build(num_steps=1, **options)
        return model.stylize(photo, model.encode_style(paintings[0]), seed=3, context=context).image

    assert torch.allclose(first(init="content"), photo, atol=1e-6)
    assert first(init="style").shape == photo.shape
    assert not torch.allclose(first(init="style"), photo, atol=0.1)
    noise = first(init="noise", noise_scale=20.0)
    assert float(noise.mean(dim=(2, 3)).sub(torch.tensor([[123.68, 116.779, 103.939]]) / 255).abs().max()) < 0.01
    assert float(noise.std()) == pytest.approx(20 / 255, rel=0.15)
    assert torch.allclose(first(Context(init=1 - photo), init="noise"), 1 - photo, atol=1e-6)


def test_strength_zero_is_the_content_from_any_start(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    for init in ("content", "noise"):
        model = build(init=init, tv_weight=1e-3)
        assert torch.equal(model.stylize(photo, model.encode_style(paintings[0]), strength=0.0).image, photo)


def test_strength_weighs_the_style(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    model = build(num_steps=20)
    code = model.encode_style(paintings[0])
    weak, strong = (model.stylize(photo, code, strength=s).losses[-1] for s in (1e-4, 1.0))
    assert weak["content"] < 0.5 * strong["content"]
    assert weak["style"] / 1e-4 > 2 * strong["style"]


def test_time_limit_hands_over_the_best_so_far(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    model = build(num_steps=100_000, time_limit=0.3)
    start = time.monotonic()
    result = model.stylize(photo, model.encode_style(paintings[0]))
    assert result.stopped
    assert 1 <= result.steps < 100_000
    assert time.monotonic() - start < 30
    targets = {k: GramTarget.of([g], [1.0]) for k, g in model._grams(paintings[0], None)[-1].items()}
    best = model._summed(model._loss(photo, [Region(targets)]), None, None)
    assert float(best(result.image)["total"]) == pytest.approx(min(totals(result)), rel=1e-3)


def test_batch_equals_singles(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    model = build(num_steps=3, init="noise")
    other = picture(36, 45, seed=9)
    code = model.encode_style(paintings[0])
    batch = model.stylize(torch.cat([photo, other]), code, seed=5)
    for index, single in enumerate((photo, other)):
        assert torch.equal(batch.image[index : index + 1], model.stylize(single, code, seed=5).image)
    assert [row["image"] for row in batch.losses] == [0, 0, 0, 1, 1, 1]


def test_a_mix_of_one_and_nothing_is_the_single_style(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    model = build()
    one, two = (model.encode_style(p) for p in paintings)
    single = model.stylize(photo, one)
    assert torch.equal(model.stylize(photo, Mix([(one, 1.0), (two, 0.0)])).image, single.image)
    mixed = model.stylize(photo, Mix([(one, 0.5), (two, 0.5)]))
    assert not torch.equal(mixed.image, single.image)
    # The loss of the mix at the start is the mean of the two losses there: every start is the content.
    starts = [model.stylize(photo, code).losses[0]["style"] for code in (one, two)]
    assert mixed.losses[0]["style"] == pytest.approx(sum(starts) / 2, rel=1e-4)


def test_bfloat16_stays_close(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    values = {}
    for precision in ("fp32", "bf16"):
        model = Gatys(GatysConfig.make({"num_steps": 12, **SMALL}), device="cpu", precision=precision)
        values[precision] = totals(model.stylize(photo, model.encode_style(paintings[0])))
    assert values["bf16"][0] == pytest.approx(values["fp32"][0], rel=0.03)
    assert values["bf16"][-1] == pytest.approx(values["fp32"][-1], rel=0.2)


# -- coarse to fine ---------------------------------------------------------------------------------------------------


def test_levels_share_the_steps_and_end_at_full_size(paintings: tuple[Tensor, Tensor]) -> None:
    photo = picture(70, 90, seed=4)
    model = build(num_steps=7, levels=2)
    sizes: list[tuple[int, ...]] = []
    steps: list[int] = []

    def progress(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> None:
        steps.append(step)
        sizes.append(tuple(image().shape))
        assert total == 7

    seen: list[tuple[int, int]] = []
    original = model._loss

    def spy(content: Any, *others: Any) -> Any:
        seen.append(tuple(content.shape[-2:]))
        return original(content, *others)

    model._loss = spy  # type: ignore[method-assign]
    result = model.stylize(photo, model.encode_style(paintings[0]), progress=progress)
    assert seen == [(35, 45), (70, 90)]
    assert steps == list(range(1, 8)) == [row["step"] for row in result.losses]
    assert set(sizes) == {tuple(photo.shape)}
    assert result.steps == 7


def test_levels_too_small_for_the_network_are_left_out(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    one, many = build(num_steps=4, levels=1), build(num_steps=4, levels=5)
    images = [m.stylize(photo, m.encode_style(paintings[0])).image for m in (one, many)]
    assert torch.equal(*images)


def test_fewer_steps_than_levels_keep_the_finest(paintings: tuple[Tensor, Tensor]) -> None:
    photo = picture(130, 130, seed=4)
    model = build(num_steps=1, levels=3)
    result = model.stylize(photo, model.encode_style(paintings[0]))
    assert result.steps == 1
    assert torch.allclose(result.image, photo, atol=1e-6)


# -- colour -----------------------------------------------------------------------------------------------------------


def test_luminance_keeps_the_chroma_of_the_content(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    model = build(num_steps=10, preserve_color="luminance")
    muted = 0.5 + 0.3 * (photo - 0.5)  # room for the new luminance before anything is clamped
    shown: list[Tensor] = []
    result = model.stylize(
        muted, model.encode_style(paintings[0]), progress=lambda step, total, losses, image: shown.append(image())
    )
    inside = ((result.image > 0) & (result.image < 1)).all(dim=1, keepdim=True).expand_as(muted)
    assert float(inside.float().mean()) > 0.8
    for image in (result.image, shown[-1]):
        kept = ((image > 0) & (image < 1)).all(dim=1, keepdim=True).expand_as(muted)
        chroma, wanted = image - luminance(image), muted - luminance(muted)
        torch.testing.assert_close(chroma[kept], wanted[kept], atol=1e-5, rtol=0)
    assert float((luminance(result.image) - luminance(muted)).abs().mean()) > 0.003


def test_coral_gives_the_style_the_colours_of_the_content(photo: Tensor, paintings: tuple[Tensor, Tensor]) -> None:
    model = build(preserve_color="coral")
    style, _ = model._recall(model.encode_style(paintings[0]), photo)
    assert style is not None
    found, wanted = color_statistics(style), color_statistics(photo)
    torch.testing.assert_close(found[0], wanted[0], atol=0.02, rtol=0)
    torch.testing.assert_close(found[1], wanted[1], atol=0.01, rtol=0.1)
    red = paintings[0] * torch.tensor([1.0, 0.2, 0.1]).view(1, 3, 1, 1)
    drifts = []
    for mode in ("coral", "none"):
        model = build(num_steps=15, preserve_color=mode)
        result = model.stylize(photo, model.encode_style(red))
        drifts.append(float((color_statistics(result.image)[0] - wanted[0]).abs().max()))
    assert drifts[0] < 0.3 * drifts[1]


# -- the two experiments of the paper ---------------------------------------------------------------------------------


def test_texture_has_the_gram_matrices_of_the_style(paintings: tuple[Tensor, Tensor]) -> None:
    model = build(num_steps=25)
    code = model.encode_style(paintings[0])
    result = model.synthesize(code, (36, 40), seed=1)
    assert result.image.shape == (1, 3, 36, 40)
    assert set(result.losses[0]) == {"step", "total", "style"}
    assert min(totals(result)) < 0.05 * totals(result)[0]
    assert not torch.equal(result.image, model.synthesize(code, (36, 40), seed=2).image)


def test_texture_of_a_mix_and_with_kept_colours(paintings: tuple[Tensor, Tensor]) -> None:
    model = build(num_steps=3, preserve_color="coral")
    codes = [model.encode_style(p) for p in paintings]
    assert model.synthesize(Mix([(codes[0], 0.4), (codes[1], 0.6)]), (34, 34)).steps == 3


def test_content_reconstruction_is_sharper_from_lower_layers(photo: Tensor) -> None:
    model = build(num_steps=20)
    errors = []
    for layer in ("relu1_1", "relu4_1"):
        result = model.reconstruct_content(photo, layer)
        assert set(result.losses[0]) == {"step", "total", "content"}
        assert min(totals(result)) < 0.2 * totals(result)[0]
        errors.append(float((result.image - photo).abs().mean()))
    assert errors[0] < 0.03 < errors[1]
    assert (
        build(num_steps=1).reconstruct_content(photo).losses
        == build(num_steps=1).reconstruct_content(photo, "relu2_2").losses
    )


def test_content_reconstruction_refuses_what_it_cannot_read(photo: Tensor) -> None:
    model = build()
    with pytest.raises(UnknownNameError, match="relu9_1"):
        model.reconstruct_content(photo, "relu9_1")
    with pytest.raises(InputError, match="one image"):
        model.reconstruct_content(photo.repeat(2, 1, 1, 1))
    with pytest.raises(InputError, match="at least 32"):
        model.reconstruct_content(photo[..., :20, :20])


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_layer_weights": (1.0, 2.0)}, "2 values for 5 style layers"),
        ({"content_layer_weights": ()}, "0 values for 1 content layers"),
        ({"style_layers": ("relu1_1", "relu1_1"), "style_layer_weights": (1.0,)}, "each once"),
        ({"content_layers": ()}, "at least one layer"),
        ({"style_weight": 0.0}, "style_weight"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"num_steps": 0}, "num_steps"),
    ],
)
def test_malformed_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GatysConfig.make(options)


def test_one_weight_serves_all_layers() -> None:
    config = GatysConfig(style_layers=("relu1_1", "relu2_1"), style_layer_weights=(3.0,))
    assert layer_weights(config, "style") == {"relu1_1": 3.0, "relu2_1": 3.0}


def test_an_unknown_layer_is_refused_when_the_method_is_built() -> None:
    with pytest.raises(UnknownNameError, match="relu7_1"):
        build(content_layers=("relu7_1",))


def test_a_guided_gram_matrix_leaves_out_what_lies_outside(layer: tuple[Tensor, Tensor]) -> None:
    """Of a region of ones it is the Gram matrix of the part, and no gradient reaches the rest (2017, section 4.1)."""
    features = layer[1].requires_grad_()
    region = torch.zeros(5, 6, dtype=torch.float64)
    region[:3, 1:] = 1
    guided = gram(features, "hw", region)
    torch.testing.assert_close(guided, gram(features[..., :3, 1:], "hw"))
    (gradient,) = torch.autograd.grad(guided.square().sum(), features)
    assert (gradient[..., region == 0] == 0).all()
    assert (gradient[..., region == 1] != 0).any()


def test_regions_take_their_own_style_and_masks_of_everything_change_nothing(
    photo: Tensor, paintings: tuple[Tensor, Tensor]
) -> None:
    model = build(num_steps=4)
    whole = torch.ones(1, 1, *paintings[0].shape[-2:])
    first, masked, second = (
        model.encode_style(s) for s in (paintings[0], Style(paintings[0], mask=whole), paintings[1])
    )
    plain = model.stylize(photo, first).image
    torch.testing.assert_close(model.stylize(photo, masked).image, plain)
    left = torch.zeros(1, 36, 45)
    left[..., :20] = 1
    both = Mix([(first, 0.5), (second, 0.5)])
    result = model.stylize(photo, both, context=Context(content_masks=torch.cat([left, 1 - left])))
    ours, theirs = (model.stylize(photo, code).image for code in (first, second))
    for columns, near, far in ((slice(0, 14), ours, theirs), (slice(26, 45), theirs, ours)):
        part = result.image[..., columns]
        assert (part - near[..., columns]).abs().mean() < 0.7 * (part - far[..., columns]).abs().mean()
    # Where no region is, nothing but the content pulls.
    alone = model.stylize(photo, first, context=Context(content_masks=left)).image
    change = (alone - photo).abs().mean(dim=(0, 1, 2))
    assert change[32:].mean() < 0.2 * change[:14].mean()


def test_style_codes_hold_matrices_and_not_images(paintings: tuple[Tensor, Tensor]) -> None:
    assert build().encode_style(paintings[0]).nbytes == 4 * (64**2 + 128**2 + 256**2)
