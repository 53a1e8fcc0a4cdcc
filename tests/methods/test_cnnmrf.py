"""Li and Wand's MRF: style copies, pyramid, loss against the formulas, steps and limits, on small images."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.config import describe, describe_source
from zoo.errors import ConfigError, InputError
from zoo.methods import _pixels, cnnmrf
from zoo.methods.cnnmrf import CNNMRF, CNNMRFConfig, inscribed, rotated, scaled, variants
from zoo.modules import module_source
from zoo.nn.patches import PatchBank, match, patch_energy
from zoo.stylizer import Call, Context, Mix, Style, StyleCode, Stylized


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Soft blobs of colour with a little grain, so that features vary."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (smooth + 0.1 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def model(**options: Any) -> CNNMRF:
    return CNNMRF(CNNMRFConfig(**{"num_steps": 2, "levels": 1, **options}), device="cpu", precision="fp32")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small images run faster on one thread, above all where other programs want the rest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plain() -> CNNMRF:
    return model()


@pytest.fixture(scope="module")
def code(plain: CNNMRF) -> StyleCode:
    return plain.encode_style(picture(64, 72, seed=1))


# -- copies of the style ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 64), (60, 90), (90, 60), (40, 200)])
@pytest.mark.parametrize("degrees", [7.5, -7.5, 30.0, 45.0, 90.0])
def test_the_inscribed_rectangle_touches_the_rotated_image_from_inside(height: int, width: int, degrees: float) -> None:
    tall, wide = inscribed(height, width, degrees)
    angle = math.radians(degrees)
    corners = torch.tensor([[x * wide / 2, y * tall / 2] for x in (-1, 1) for y in (-1, 1)])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    reach = (corners @ turn).abs().amax(dim=0)
    assert (reach <= torch.tensor([width / 2, height / 2]) + 1e-3).all()
    # Largest: two pixels more on either side would leave the image.
    grown = (corners + 2 * corners.sign()) @ turn
    assert (grown.abs().amax(dim=0) > torch.tensor([width / 2, height / 2])).any()


def test_rotation_shows_nothing_from_outside_and_turns_about_the_centre() -> None:
    ramp = torch.linspace(0.2, 0.8, 60).expand(1, 3, 40, 60).contiguous()
    turned = rotated(ramp, 30.0)
    assert tuple(turned.shape[-2:]) == inscribed(40, 60, 30.0)
    # A linear ramp is bilinear interpolation's fixed point: the crop is the ramp along the turned axis, exactly.
    tall, wide = turned.shape[-2:]
    y, x = torch.meshgrid(torch.arange(tall) - (tall - 1) / 2, torch.arange(wide) - (wide - 1) / 2, indexing="ij")
    along = x * math.cos(math.pi / 6) - y * math.sin(math.pi / 6)
    torch.testing.assert_close(turned[0, 0], 0.5 + along * 0.6 / 59, atol=1e-5, rtol=0)
    assert torch.equal(rotated(ramp, 0.0), ramp)


def test_sizes_are_rounded_up_but_not_by_the_last_bit() -> None:
    assert scaled((20, 21), 1.05) == (21, 23)
    # 1.05 to the power of -1 times 21 is 20.000000000000004 or 20, as the power is rounded.
    assert scaled((21, 42), 20 / 21 * (1 + 2e-16)) == (20, 40)


def test_every_rotation_in_every_scale_is_there() -> None:
    image = picture(64, 80)
    copies = variants(image, CNNMRFConfig(rotations=1, scales=1))
    assert len(copies) == 9
    assert torch.equal(copies[4], image)
    tall, wide = inscribed(64, 80, 7.5)
    sizes = [tuple(c.shape[-2:]) for c in copies]
    ceil = math.ceil
    assert sizes[0] == sizes[6] == (ceil(tall / 1.05), ceil(wide / 1.05))
    assert sizes[3:6] == [(ceil(64 / 1.05), ceil(80 / 1.05)), (64, 80), (68, 84)]
    assert sizes[1] == (tall, wide)
    assert len(variants(image, CNNMRFConfig(rotations=2, scales=3))) == 35


def test_the_style_keeps_a_map_per_copy_and_leaves_out_those_without_a_patch() -> None:
    tried = model(rotations=1, scales=1)
    code = tried.encode_style(picture(64, 72))
    kept = code.data["levels"][-1]["relu3_1"]
    table, shapes = kept["pixels"], kept["shapes"]
    assert len(shapes) == 9
    assert len(table) == sum(h * w for h, w in shapes)
    assert shapes[4] == (16, 18)
    # At 32 pixels relu4_1 is 4 x 4; of the shrunken rotated copies (15 pixels) less than a patch remains.
    small = model(rotations=1, rotation_step=45.0, scales=1, scale_step=0.5).encode_style(picture(32, 32))
    assert [len(small.data["levels"][-1][tap]["shapes"]) for tap in ("relu3_1", "relu4_1")] == [9, 7]


# -- pyramid ---------------------------------------------------------------------------------------------------------


def test_no_border_of_an_odd_size_is_out_of_reach_of_the_patches(plain: CNNMRF, code: StyleCode) -> None:
    image = picture(37, 45).requires_grad_()
    terms = plain._loss(None, Mix([(code, 1.0)]), -1, Call(), 45)(image)
    (gradient,) = torch.autograd.grad(terms["mrf"], image)
    assert (gradient[..., -1, :] != 0).any()
    assert (gradient[..., -1] != 0).any()


def test_levels_halve_and_stop_where_a_patch_no_longer_fits() -> None:
    tried = model(levels=3)
    assert tried._sizes((130, 300)) == [(33, 75), (65, 150), (130, 300)]
    assert tried._sizes((96, 97)) == [(48, 49), (96, 97)]
    assert tried._sizes((32, 32)) == [(32, 32)]
    assert model(levels=3, patch_size=5)._sizes((130, 300)) == [(65, 150), (130, 300)]


def test_steps_are_shared_over_the_levels_that_image_and_style_both_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = model(levels=3, num_steps=5)
    runs: list[tuple[tuple[int, ...], int]] = []
    real = _pixels.optimize_pixels

    def spied(start: Tensor, *args: Any, **options: Any) -> Any:
        runs.append((tuple(start.shape[-2:]), options["num_steps"]))
        return real(start, *args, **options)

    monkeypatch.setattr(_pixels, "optimize_pixels", spied)
    result = tried.stylize(picture(128, 130), tried.encode_style(picture(64, 70, seed=1)))
    assert runs == [((64, 65), 2), ((128, 130), 3)]
    assert (result.steps, result.stopped) == (5, False)
    assert [row["step"] for row in result.losses] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_num_steps_is_exact_and_each_is_one_evaluation(num_steps: int) -> None:
    tried = model(levels=2, num_steps=num_steps)
    seen: list[tuple[int, int]] = []
    calls = 0
    encoder = tried._encoder(("relu3_1", "relu4_1", "relu4_2"))
    forward = encoder.forward

    def counted(images: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += images.requires_grad
        return forward(images)

    encoder.forward = counted  # type: ignore[method-assign]
    result = tried.stylize(
        picture(72, 64),
        tried.encode_style(picture(64, 64, seed=1)),
        progress=lambda step, total, losses, image: bool(seen.append((step, total))),
    )
    assert result.steps == len(result.losses) == calls == num_steps
    assert seen == [(k + 1, num_steps) for k in range(num_steps)]


# -- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_terms_are_the_formulas_of_the_paper(reduction: str) -> None:
    options = {"mrf_weight": 0.5, "mrf_layer_weights": (1.0, 3.0), "content_weight": 7.0, "tv_weight": 2.0}
    tried = model(mrf_loss=reduction, content_loss=reduction, **options)
    content, painting, image = picture(64, 64), picture(64, 72, seed=1), picture(64, 64, seed=2)
    style = Mix([(tried.encode_style(painting), 1.0)])
    terms = tried._summed(tried._loss(content, style, -1, Call(0.25), 96), None, None)(image)

    ours, photo, theirs = (tried._features(x, ("relu3_1", "relu4_1", "relu4_2")) for x in (image, content, painting))
    mrf = 0.0
    for tap, weight in (("relu3_1", 1.0), ("relu4_1", 3.0)):
        bank = PatchBank.of([theirs[tap]], 3, 2)
        energy = patch_energy(ours[tap], bank, stride=2, overlap=reduction).item()  # type: ignore[arg-type]
        mrf += 0.25 * 0.5 * weight * energy * (0.5 if reduction == "mean" else 1)
    difference = (ours["relu4_2"] - photo["relu4_2"]).square()
    guided = 7.0 * (difference.mean() * (96 / 384) ** 2 if reduction == "mean" else difference.sum()).item()
    assert terms["mrf"].item() == pytest.approx(mrf, rel=1e-5)
    assert terms["content"].item() == pytest.approx(guided, rel=1e-5)
    assert terms["total"].item() == pytest.approx(sum(terms[k].item() for k in ("mrf", "content", "tv")), rel=1e-6)


def test_default_gradient_is_the_mean_difference_times_the_weight(plain: CNNMRF, code: StyleCode) -> None:
    """What the authors' layer adds in feature space: w times the mean over covering patches of current - matched."""
    features = plain._features(picture(64, 64), ["relu3_1"])["relu3_1"].double().requires_grad_()
    kept = code.data["levels"][-1]["relu3_1"]
    table, shapes = kept["pixels"], kept["shapes"]
    style = PatchBank.over(table.double(), shapes, 3, 2)
    (0.5 * patch_energy(features, style, stride=2, overlap="mean")).backward()
    query = PatchBank.of([features.detach()], 3, 2)
    index = match(query, style).index
    pasted, count = torch.zeros_like(query.pixels), torch.zeros(len(query.pixels), 1, dtype=torch.float64)
    for patch, row in enumerate(query.first.tolist()):
        origin = int(style.first[index[patch]])
        for dy in range(3):
            for dx in range(3):
                at = row + dy * 16 + dx
                pasted[at] += style.pixels[origin + dy * shapes[0][1] + dx] - query.pixels[at]
                count[at] += 1
    expected = -(pasted / count).view(1, 16, 16, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(features.grad, expected)


def test_a_style_equal_to_the_content_leaves_nothing_to_do() -> None:
    tried = model(tv_weight=0.0, num_steps=3)
    image = picture(64, 64)
    result = tried.stylize(image, tried.encode_style(image))
    # Not quite zero, because pixels pass through the scale of 255.
    other = tried.stylize(image, tried.encode_style(picture(64, 64, seed=1)))
    assert result.losses[0]["total"] < 1e-9 * other.losses[0]["total"]
    torch.testing.assert_close(result.image, image)


def test_the_loss_falls(plain: CNNMRF) -> None:
    tried = plain.with_config(num_steps=15)
    result = tried.stylize(picture(64, 64), tried.encode_style(picture(64, 72, seed=1)))
    totals = [row["total"] for row in result.losses]
    assert min(totals[8:]) < min(totals[1:8]) < totals[0]
    assert {"step", "total", "mrf", "content", "tv"} == set(result.losses[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_matching_has_its_own_precision(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    asked: list[torch.dtype] = []
    real = cnnmrf.patch_energy

    def spied(*args: Any, dtype: torch.dtype, **options: Any) -> Tensor:
        asked.append(dtype)
        return real(*args, dtype=dtype, **options)

    monkeypatch.setattr(cnnmrf, "patch_energy", spied)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for match_precision in ("auto", "fp32", "bf16"):
        config = CNNMRFConfig(num_steps=1, levels=1, match_precision=match_precision)  # type: ignore[arg-type]
        tried = CNNMRF(config, device="cpu", precision=precision)
        tried.stylize(picture(32, 32), tried.encode_style(picture(32, 32, seed=1)))
        wanted = dtypes[precision if match_precision == "auto" else match_precision]
        assert set(asked) == {wanted}
        asked.clear()


def test_chunks_do_not_change_the_picture() -> None:
    images = []
    for chunk_mb in (1, 64):
        tried = model(chunk_mb=chunk_mb, num_steps=4, stride=1, style_stride=2, rotations=1, scales=1)
        images.append(tried.stylize(picture(64, 96), tried.encode_style(picture(96, 64, seed=1))).image)
    torch.testing.assert_close(images[0], images[1], atol=2e-3, rtol=0)


# -- the public contract ---------------------------------------------------------------------------------------------


def test_strength_zero_is_the_content(plain: CNNMRF, code: StyleCode) -> None:
    content = picture(70, 64)
    result = plain.stylize(content, code, strength=0.0)
    assert torch.equal(result.image, content)
    assert result.steps == 0


def test_strength_scales_the_change() -> None:
    tried = model(num_steps=8)
    content, code = picture(64, 64), tried.encode_style(picture(64, 72, seed=1))
    weak, full = (tried.stylize(content, code, strength=s).image for s in (0.05, 1.0))
    assert 0 < (weak - content).square().mean() < (full - content).square().mean()


def test_same_seed_same_pixels_and_noise_from_the_seed() -> None:
    tried = model(init="noise", num_steps=3, noise_scale=20.0)
    content, code = picture(64, 64), tried.encode_style(picture(64, 72, seed=1))
    first, again, other = (tried.stylize(content, code, seed=s).image for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_starts_from_the_image_it_is_given() -> None:
    tried = model(num_steps=1)
    content, init = picture(64, 64), picture(64, 64, seed=5)
    code = tried.encode_style(picture(64, 72, seed=1))
    result = tried.stylize(content, code, context=Context(init=init))
    torch.testing.assert_close(result.image, init)


def test_texture_of_another_size_and_shape() -> None:
    tried = model(num_steps=4, levels=2)
    code = tried.encode_style(picture(64, 72, seed=1))
    result = tried.synthesize(code, (65, 97), seed=3)
    assert tuple(result.image.shape) == (1, 3, 65, 97)
    assert result.steps == 4
    assert "content" not in result.losses[0]


def test_the_time_limit_ends_it_with_an_image_of_full_size() -> None:
    tried = model(num_steps=100_000, levels=2, time_limit=0.3)
    code = tried.encode_style(picture(64, 64, seed=1))
    before = time.monotonic()
    result = tried.stylize(picture(72, 64), code)
    assert time.monotonic() - before < 30
    assert result.stopped
    assert tuple(result.image.shape) == (1, 3, 72, 64)
    assert result.steps < 100_000


def test_stopping_at_a_coarse_level_gives_an_image_of_full_size() -> None:
    tried = model(num_steps=6, levels=2)
    shapes: list[tuple[int, ...]] = []

    def stop(step: int, total: int, losses: Any, image: Any) -> bool:
        shapes.append(tuple(image().shape))
        return step == 2

    result = tried.stylize(picture(72, 64), tried.encode_style(picture(64, 64, seed=1)), progress=stop)
    assert (result.steps, result.stopped) == (2, True)
    assert tuple(result.image.shape) == (1, 3, 72, 64)
    assert shapes == [(1, 3, 72, 64)] * 2


def test_adam_is_offered() -> None:
    tried = model(optimizer="adam", learning_rate=1.0, num_steps=10)
    result = tried.stylize(picture(64, 64), tried.encode_style(picture(64, 72, seed=1)))
    assert result.losses[-1]["total"] < result.losses[0]["total"]


def test_a_batch_equals_singles(plain: CNNMRF, code: StyleCode) -> None:
    content = torch.cat([picture(64, 64), picture(64, 64, seed=7)])
    both: Stylized = plain.stylize(content, code)
    singles = [plain.stylize(c[None], code).image for c in content]
    torch.testing.assert_close(both.image, torch.cat(singles))
    assert both.steps == 4


def test_regions_take_their_own_style() -> None:
    tried = model(num_steps=6, levels=1, stride=1, style_stride=1)
    content, paintings = picture(64, 72), [picture(64, 72, seed=seed) for seed in (1, 2)]
    codes = [tried.encode_style(painting) for painting in paintings]
    left = torch.zeros(1, 64, 72)
    left[..., :36] = 1
    regions = Context(content_masks=torch.cat([left, 1 - left]))
    result = tried.stylize(content, Mix([(code, 0.5) for code in codes]), context=regions).image
    singles = [tried.stylize(content, code).image for code in codes]
    for columns, near, far in ((slice(0, 24), *singles), (slice(48, 72), *singles[::-1])):
        part = result[..., columns]
        assert (part - near[..., columns]).abs().mean() < 0.5 * (part - far[..., columns]).abs().mean()


def test_a_masked_style_gives_no_patch_from_outside() -> None:
    tried = model(levels=1)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    bank = tried._bank(tried.encode_style(Style(picture(64, 64), mask=mask)), -1, "relu3_1")
    assert bank.allowed is not None
    columns = bank.first % 16
    assert torch.equal(bank.allowed, columns + 3 <= 8)


def test_refusals(plain: CNNMRF) -> None:
    with pytest.raises(InputError, match="at least 32"):
        plain.encode_style(picture(31, 64))
    with pytest.raises(InputError, match="at least 72 pixels a side, not 64 x 80"):
        model(patch_size=9).encode_style(picture(80, 64))
    with pytest.raises(ConfigError, match="3 values for 2 mrf layers"):
        CNNMRFConfig(mrf_layer_weights=(1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="each once"):
        CNNMRFConfig(content_layers=("relu4_2", "relu4_2"))
    with pytest.raises(ConfigError, match="at least one layer"):
        CNNMRFConfig(mrf_layers=())


def test_options_read_from_the_source_are_the_class_s() -> None:
    assert describe_source(module_source("zoo.methods.cnnmrf"), "CNNMRF", module_source) == describe(CNNMRFConfig)


def test_an_image_as_small_as_promised_works(plain: CNNMRF) -> None:
    size = CNNMRF.traits.min_size
    result = plain.stylize(picture(size, size), plain.encode_style(picture(size, size, seed=1)))
    assert tuple(result.image.shape) == (1, 3, size, size)
    assert dataclasses.asdict(plain.config)["stride"] == 2
