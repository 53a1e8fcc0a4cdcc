"""Style swap against brute force in float64: the swap, mixes and regions, both inversions, and the training loss."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ConfigError, InputError, WeightsError
from zoo.methods.style_swap import (
    TAP,
    StyleSwap,
    StyleSwapConfig,
    StyleSwapTraining,
    StyleSwapTrainingConfig,
    channel_scales,
    load_swap_encoder,
)
from zoo.nn.decoder import VGGDecoder
from zoo.nn.losses import total_variation
from zoo.nn.patches import PatchBank, corners, match, swap
from zoo.stylizer import Context, Mix, Style
from zoo.training.reconstruction import solve_decoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any inverse network shows what reaches it; this one is random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("style_swap") / "inverse.safetensors"
    save_file(VGGDecoder(3).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> StyleSwap:
    return StyleSwap(device="cpu", precision="fp32", checkpoint=checkpoint)


def _image(seed: int, height: int = 48, width: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def _patches(item: Tensor, size: int, stride: int) -> tuple[Tensor, list[tuple[int, int]]]:
    places = [(y, x) for y in corners(item.shape[-2], size, stride) for x in corners(item.shape[-1], size, stride)]
    return torch.stack([item[:, y : y + size, x : x + size].flatten() for y, x in places]), places


def naive_swap(
    content: Tensor, style: Tensor, size: int = 3, stride: int = 1, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Section 3.1 in float64, patch by patch: swapped features (C, H, W) and how far the second best match lies below
    the best, the least over all patches. ``allowed`` (patches of the style,) excludes some."""
    content, style = content.double(), style.double()
    ours, places = _patches(content, size, stride)
    theirs, _ = _patches(style, size, stride)
    if allowed is not None:
        theirs = theirs[allowed]
    unit = theirs / theirs.norm(dim=1, keepdim=True).clamp_min(1e-12)
    scores = ours / ours.norm(dim=1, keepdim=True).clamp_min(1e-12) @ unit.T
    total, count = torch.zeros_like(content), torch.zeros_like(content)
    for (y, x), chosen in zip(places, theirs[scores.argmax(dim=1)], strict=True):
        total[:, y : y + size, x : x + size] += chosen.view(-1, size, size)
        count[:, y : y + size, x : x + size] += 1
    top = scores.topk(min(2, scores.shape[1]), dim=1).values
    return total / count, (top[:, 0] - top[:, -1]).min()


def _alike(found: Tensor, expected: Tensor) -> float:
    """Share of the positions of (C, h, w) whose features agree. Where two matches are equal to rounding either may win:
    nearly all must, not all."""
    off = (found.double() - expected).norm(dim=0)
    return float((off <= 1e-4 * expected.norm(dim=0)).double().mean())


def _features(model: StyleSwap, image: Tensor) -> Tensor:
    return model._features(image)


# -- the swap ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (3, 3), (5, 1), (5, 4)])
def test_swap_equals_brute_force(size: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(size)
    content = torch.rand(1, 6, 11, 9, generator=generator)
    style = torch.rand(6, 8, 13, generator=generator)
    expected, margin = naive_swap(content[0], style, size, stride)
    assert margin > 1e-6, "an ambiguous example tests nothing"
    found = swap(content, PatchBank.of([style], size, stride), stride=stride)
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_swap_of_features_of_pictures_equals_brute_force(model: StyleSwap) -> None:
    content, style = _features(model, _image(1)), _features(model, _image(2, 40, 64))
    expected, _ = naive_swap(content[0], style[0])
    found = model._swapped(content, model.encode_style(_image(2, 40, 64)))[0].double()
    assert _alike(found, expected) > 0.97


def test_a_map_swapped_with_itself_is_itself(model: StyleSwap) -> None:
    features = _features(model, _image(1))
    torch.testing.assert_close(model._swapped(features, model.encode_style(_image(1))), features, rtol=1e-5, atol=1e-3)


def test_smallest_and_flat_maps_are_swapped(model: StyleSwap) -> None:
    black, white, noise = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), torch.rand(1, 3, 16, 20)
    for content in (black, white, noise):
        for style in (black, white, noise):
            assert torch.isfinite(model(content, style)).all()
    zeros = torch.zeros(1, 4, 5, 5)
    assert torch.equal(swap(zeros, PatchBank.of([zeros], 3, 1)), zeros)


@pytest.mark.parametrize("stride", [1, 2])
def test_swap_does_not_depend_on_the_chunks(stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    content, style = torch.rand(1, 16, 21, 17, generator=generator), torch.rand(16, 19, 23, generator=generator)
    bank = PatchBank.of([style], 3, stride)
    whole = swap(content, bank, stride=stride)
    torch.testing.assert_close(swap(content, bank, stride=stride, chunk_bytes=20_000), whole)


def test_half_precision_swaps_nearly_the_same(model: StyleSwap) -> None:
    content, style = _features(model, _image(1, 96, 96)), _features(model, _image(2, 96, 96))
    bank = PatchBank.of([style], 3, 1)
    query = PatchBank.of([content], 3, 1)
    exact = match(query, bank)
    rough = match(query, bank, dtype=torch.bfloat16)
    assert (rough.index == exact.index).float().mean() > 0.8
    first, second = swap(content, bank), swap(content.bfloat16(), PatchBank.of([style.bfloat16()], 3, 1)).float()
    assert (first - second).norm() < 0.1 * first.norm()
    full = match(query, bank, dtype=torch.float16)
    assert (full.index == exact.index).float().mean() > 0.95


def test_patch_size_and_stride_are_options(checkpoint: Path) -> None:
    config = StyleSwapConfig(patch_size=5, stride=3)
    model = StyleSwap(config, device="cpu", precision="fp32", checkpoint=checkpoint)
    content, style = _features(model, _image(1)), _features(model, _image(2))
    expected, _ = naive_swap(content[0], style[0], 5, 3)
    found = model._swapped(content, model.encode_style(_image(2)))[0].double()
    assert _alike(found, expected) > 0.9


def test_options_that_cannot_be_are_refused(model: StyleSwap, checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="must not exceed 'patch_size'"):
        StyleSwapConfig(patch_size=2, stride=3)
    large = StyleSwap(StyleSwapConfig(patch_size=9), device="cpu", precision="fp32", checkpoint=checkpoint)
    with pytest.raises(InputError, match="use a larger image"):
        large.encode_style(_image(1, 32, 32))


# -- strength, mixes and regions --------------------------------------------------------------------------------------


def test_strength_is_linear_in_features(model: StyleSwap) -> None:
    content, code = _image(1), model.encode_style(_image(2))
    assert model.decoder is not None
    features = _features(model, content)
    target = model._swapped(features, code)
    for strength in (0.0, 0.4, 1.0):
        wanted = model.decoder(features + strength * (target - features)).clamp(0, 1)
        torch.testing.assert_close(model.stylize(content, code, strength=strength).image, wanted, atol=1e-3, rtol=0)


def test_strength_zero_is_the_reconstruction(model: StyleSwap, checkpoint: Path) -> None:
    """The scales folded into the first convolution are those that the training multiplies by."""
    content = _image(1)
    decoder = VGGDecoder(3)
    from zoo.weights import read_state

    decoder.load_state_dict(read_state(checkpoint))
    with torch.no_grad():
        wanted = decoder(load_swap_encoder()(content)[TAP] * channel_scales()).clamp(0, 1)
    found = model.stylize(content, model.encode_style(_image(2)), strength=0).image
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_mixes_of_weights_and_orders(model: StyleSwap) -> None:
    content, one, two = _image(1), model.encode_style(_image(2)), model.encode_style(_image(3, 40, 56))
    single = model.stylize(content, one).image
    assert torch.equal(model.stylize(content, Mix([(one, 1.0), (two, 0.0)])).image, single)
    ab = model.stylize(content, Mix([(one, 0.3), (two, 0.7)])).image
    ba = model.stylize(content, Mix([(two, 0.7), (one, 0.3)])).image
    torch.testing.assert_close(ab, ba, atol=1e-4, rtol=0)
    assert (ab - single).abs().max() > 0.01
    features = _features(model, content)
    wanted = 0.3 * model._swapped(features, one) + 0.7 * model._swapped(features, two)
    torch.testing.assert_close(model._target(features, Mix([(one, 0.3), (two, 0.7)]), None), wanted)


def test_masks_of_all_ones_equal_no_mask(model: StyleSwap) -> None:
    content, style = _image(1), _image(2)
    code = model.encode_style(style)
    plain = model.stylize(content, code).image
    assert torch.equal(model.stylize(content, code, context=Context(content_masks=torch.ones(1, 48, 48))).image, plain)
    whole = model.encode_style(Style(style, mask=torch.ones(1, 1, 48, 48)))
    assert torch.equal(model.stylize(content, whole).image, plain)


@pytest.mark.parametrize("stride", [1, 2])
def test_each_region_is_swapped_with_its_own_style(checkpoint: Path, stride: int) -> None:
    """Against the swap of the whole map, patch by patch in float64: patches reach over a region's edge."""
    model = StyleSwap(StyleSwapConfig(stride=stride), device="cpu", precision="fp32", checkpoint=checkpoint)
    content, styles = _image(1, 48, 80), (_image(2), _image(3))
    masks = torch.zeros(2, 48, 80)
    masks[0, :, :32] = 1
    masks[1, :24, 32:] = 1
    features = _features(model, content)
    target = model._target(features, Mix([(model.encode_style(style), 0.5) for style in styles]), masks)
    regions = ((slice(None), slice(0, 8)), (slice(0, 6), slice(8, 20)))
    for style, (rows, columns) in zip(styles, regions, strict=True):
        wanted, _ = naive_swap(features[0], _features(model, style)[0], stride=stride)
        assert _alike(target[0, :, rows, columns], wanted[:, rows, columns]) > 0.97
    assert torch.equal(target[..., 6:, 8:], features[..., 6:, 8:])


@pytest.mark.parametrize("area", [(0, 0), (1, 1), (8, 8)])
def test_an_empty_or_tiny_region_keeps_to_itself(model: StyleSwap, area: tuple[int, int]) -> None:
    """A position of relu3_1 is 4 x 4 pixels: a region of one pixel has a 16th of one, and that of its own swap."""
    content, one, two = _image(1), _image(2), _image(3)
    masks = torch.zeros(2, 48, 48)
    masks[0] = 1
    masks[:, : area[0], : area[1]] = torch.tensor([0.0, 1.0])[:, None, None]
    mix = Mix([(model.encode_style(style), 0.5) for style in (one, two)])
    features = _features(model, content)
    weight = F.avg_pool2d(masks[1:], 4)[0].double()
    parts = [naive_swap(features[0], _features(model, style)[0])[0] for style in (one, two)]
    wanted = (1 - weight) * parts[0] + weight * parts[1]
    found = model._target(features, mix, masks)[0]
    assert _alike(found, wanted) > 0.97
    torch.testing.assert_close(found[:, :2, :2].double(), wanted[:, :2, :2], rtol=1e-4, atol=1e-3)
    image = model.stylize(content, mix, context=Context(content_masks=masks)).image
    alone = model.stylize(content, model.encode_style(one)).image
    assert torch.isfinite(image).all()
    assert torch.equal(image, alone) == (not any(area))


def test_a_styles_mask_keeps_the_patches_inside(model: StyleSwap) -> None:
    content, style = _image(1), _image(2)
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., :24, :] = 1
    features = _features(model, content)
    bank = PatchBank.of([_features(model, style)], 3, 1)
    allowed = torch.arange(len(bank)) < 4 * 10  # ten patches a line, and those of the first four lines end in line six
    expected, _ = naive_swap(features[0], _features(model, style)[0], allowed=allowed)
    found = model._swapped(features, model.encode_style(Style(style, mask=mask)))[0].double()
    assert _alike(found, expected) > 0.97


@pytest.mark.parametrize("area", [1, 5])
def test_a_styles_mask_too_small_for_a_patch_takes_the_nearest(model: StyleSwap, area: int) -> None:
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 20 : 20 + area, 20 : 20 + area] = 1
    code = model.encode_style(Style(_image(2), mask=mask))
    kept = code.data["allowed"].sum()
    assert 0 < kept <= 9
    assert torch.isfinite(model.stylize(_image(1), code).image).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("dark", [False, True])
def test_patches_without_a_likeness_are_swapped_within_the_mask(
    checkpoint: Path, stride: int, precision: str, dark: bool
) -> None:
    """Zeros are as like to one patch as to another; so is everything to zeros, where the mask holds nothing else."""
    config = StyleSwapConfig(stride=stride)
    model = StyleSwap(config, device="cpu", precision=precision, checkpoint=checkpoint)
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 24:, :] = 1
    code = model.encode_style(Style(_image(2), mask=mask))
    pixels = torch.full((12, 12, 256), 7.0)
    pixels[6:] = 0.0 if dark else torch.rand(6, 12, 256, generator=torch.Generator().manual_seed(0)) + 1
    bank = PatchBank.of([pixels.permute(2, 0, 1).to(code.data["pixels"].dtype)], 3, stride)
    code = dataclasses.replace(code, data={**code.data, "pixels": bank.pixels, "scale": bank.scale})
    content = torch.zeros(1, 256, 10, 9, dtype=bank.pixels.dtype)
    if dark:
        content += 3
    swapped = model._swapped(content, code)
    assert (swapped == 0).all() if dark else ((swapped >= 1) & (swapped <= 2)).all()


def test_sizes_that_are_no_multiple_of_four_keep_their_size(model: StyleSwap) -> None:
    assert model(_image(1, 41, 50), _image(2, 45, 39)).shape == (1, 3, 41, 50)


def test_a_batch_equals_single_images(model: StyleSwap) -> None:
    code = model.encode_style(_image(3))
    both = model.stylize(torch.cat([_image(1), _image(2)]), code).image
    torch.testing.assert_close(both, torch.cat([model.stylize(_image(k), code).image for k in (1, 2)]))


# -- inversion by optimisation ----------------------------------------------------------------------------------------


def test_optimisation_lowers_its_loss_and_needs_no_weights() -> None:
    model = StyleSwap(StyleSwapConfig(inversion="optimisation", num_steps=12), device="cpu", precision="fp32")
    content, code = _image(1), model.encode_style(_image(2))
    steps: list[int] = []

    def progress(step: int, total: int, losses: object, image: object) -> bool:
        steps.append(step)
        assert total == 12
        return False

    result = model.stylize(content, code, progress=progress)
    assert steps == list(range(1, 13)) == [row["step"] for row in result.losses]
    assert min(row["total"] for row in result.losses) < 0.7 * result.losses[0]["total"]
    features = _features(model, content)
    wanted = F.mse_loss(features, model._swapped(features, code)) + 1e-4 * total_variation(content)
    assert result.losses[0]["total"] == pytest.approx(wanted.item(), rel=1e-4)
    stopped = model.stylize(content, code, progress=lambda step, *_: step == 3)
    assert stopped.stopped
    assert stopped.steps == 3


def test_optimisation_at_strength_zero_keeps_the_content() -> None:
    config = StyleSwapConfig(inversion="optimisation", num_steps=3, tv_weight=0.0)
    model = StyleSwap(config, device="cpu", precision="fp32")
    content = _image(1)
    result = model.stylize(content, model.encode_style(_image(2)), strength=0)
    torch.testing.assert_close(result.image, content, atol=1e-3, rtol=0)


def test_the_network_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="needs the weights of its inverse network"):
        StyleSwap(device="cpu")
    save_file(VGGDecoder(2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not fit this network"):
        StyleSwap(device="cpu", checkpoint=tmp_path / "other.safetensors")


# -- training ---------------------------------------------------------------------------------------------------------


def _batch(count: int = 2, side: int = 32) -> dict[str, Tensor]:
    return {
        "content": torch.cat([_image(k, side, side) for k in range(count)]),
        "style": torch.cat([_image(10 + k, side, side) for k in range(count)]),
    }


def test_loss_is_that_of_equation_6() -> None:
    torch.manual_seed(0)
    task = StyleSwapTraining(StyleSwapTrainingConfig(pixel_weight=2.0))
    batch = _batch()
    with torch.no_grad():
        losses = task.loss(batch)
        content, style = (task.encoder(batch[name])[TAP] for name in ("content", "style"))
        swaps = [naive_swap(content[i], style[j])[0].float() for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
        target = torch.cat([content, style, torch.stack(swaps)])
        output = task.invert(target)
        again = task.encoder(output)[TAP]
        power = target.square().mean()
        feature = (again - target).square().mean() / power
        # train-vgg-decoder.lua: 1e-6 of the sum of squares (not of half) over 2 photographs, 2 paintings, 4 swaps.
        variation = 1e-6 * 2 * total_variation(output) / power
        pixel = F.mse_loss(output[:4], torch.cat([batch["content"], batch["style"]]))
    torch.testing.assert_close(losses["feature"], feature, rtol=2e-2, atol=0)
    torch.testing.assert_close(losses["tv"], variation, rtol=2e-2, atol=0)
    torch.testing.assert_close(losses["pixel"], 2 * pixel, rtol=1e-4, atol=0)
    assert losses["total"] == losses["feature"] + losses["tv"] + losses["pixel"]


@pytest.mark.parametrize(("swaps", "expected"), [(None, 9), (0, 0), (4, 4)])
def test_the_number_of_swaps_is_an_option(swaps: int | None, expected: int) -> None:
    task = StyleSwapTraining(StyleSwapTrainingConfig(swaps=swaps))
    batch = _batch(3, 16)
    found = task._swaps(task.encoder(batch["content"])[TAP], task.encoder(batch["style"])[TAP])
    assert len(found) == expected


def test_a_few_steps_lower_the_loss_and_the_result_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    # Of eight positions a weight: a batch of tiny images has few, and 72 of them would be needed.
    monkeypatch.setattr("zoo.methods.style_swap.solve_decoder", functools.partial(solve_decoder, samples=2))
    task = StyleSwapTraining(StyleSwapTrainingConfig(start="least-squares", whiten=True))
    batch = _batch()

    def batches():  # type: ignore[no-untyped-def]
        while True:
            yield batch

    task.prepare(batches())
    optimizer = task.optimizer(task.defaults.make({"lr": 1e-3, "beta2": 0.99}), batches())
    totals = []
    for _ in range(6):
        optimizer.zero_grad()
        losses = task.loss(batch)
        losses["total"].backward()
        optimizer.step()
        totals.append(losses["total"].item())
    assert totals[-1] < totals[0]
    assert all(p.grad is None for p in task.encoder.parameters())
    path = tmp_path / "model.safetensors"
    save_file({k: v.half() for k, v in task.network.state_dict().items()}, path)
    model = StyleSwap(device="cpu", precision="fp32", checkpoint=path)
    assert torch.isfinite(model(_image(1), _image(2))).all()
    other = StyleSwapTraining(StyleSwapTrainingConfig(decoder=str(path)))
    other.prepare(iter(()))
    torch.testing.assert_close(other.network.state_dict(), task.network.state_dict(), rtol=1e-3, atol=1e-4)


def test_evaluation_measures_features_and_pixels() -> None:
    torch.manual_seed(0)
    task = StyleSwapTraining()
    held_out = {"content": [_image(1, 33, 34)], "style": [_image(2)]}
    figures = task.evaluate(held_out)
    image = held_out["content"][0][..., :32, :32]
    with torch.no_grad():
        features = task.encoder(image)[TAP]
        again = task.encoder(task.invert(features).clamp(0, 1))[TAP]
    assert figures["relative_error"] == pytest.approx(((again - features).norm() / features.norm()).item(), rel=1e-4)
    assert set(figures) == {"relative_error", "psnr", "swapped_error"}
    assert set(task.evaluate({"content": [image]})) == {"relative_error", "psnr"}
    (row,) = task.preview(held_out)
    assert [tuple(item.shape[-2:]) for item in row] == [(33, 34), (48, 48), (32, 32), (32, 32)]
