"""The pixel optimiser: exact step counts, stopping, the best image, and convergence whatever the loss's scale."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.errors import ConfigError, NumericalError
from zoo.nn.losses import total_variation
from zoo.nn.optimize import Fitting, Optimized
from zoo.nn.optimize import optimize_pixels as fit
from zoo.nn.pyramid import LaplacianPyramid
from zoo.stylizer import Call

Loss = Callable[[Tensor], dict[str, Tensor]]
BOTH = pytest.mark.parametrize(("optimizer", "rate"), [("lbfgs", 1.0), ("adam", 5.0)])


def optimize_pixels(start: Tensor, loss: Loss, **options: Any) -> Optimized:
    how = {name: options.pop(name) for name in list(options) if name in Fitting.__dataclass_fields__}
    return fit(start, loss, Fitting(**how), **options)


@pytest.fixture
def target() -> Tensor:
    return torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def start() -> Tensor:
    return torch.full((1, 3, 9, 11), 0.5)


def bowl(target: Tensor, scale: float = 1.0) -> Loss:
    """A stretched quadratic: curvatures from 1 to 100."""
    curvature = torch.linspace(1, 100, target.numel()).view_as(target)
    return lambda image: {"total": scale * (curvature * (image - target).square()).sum()}


class Count:
    """A loss that counts its evaluations."""

    def __init__(self, loss: Loss) -> None:
        self.loss, self.calls = loss, 0

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return self.loss(image)


@BOTH
@pytest.mark.parametrize("num_steps", [1, 2, 21, 45])
def test_a_step_is_one_evaluation(target: Tensor, start: Tensor, optimizer, rate: float, num_steps: int) -> None:
    loss = Count(bowl(target))
    result = optimize_pixels(start, loss, optimizer=optimizer, num_steps=num_steps, learning_rate=rate, call=Call())
    assert loss.calls == result.steps == num_steps == len(result.losses)
    assert [row["step"] for row in result.losses] == list(range(1, num_steps + 1))
    assert not result.stopped


@pytest.mark.numerical
@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e9, 1e30])
def test_lbfgs_converges_whatever_the_scale_of_the_loss(target: Tensor, start: Tensor, scale: float) -> None:
    result = optimize_pixels(start, bowl(target, scale), optimizer="lbfgs", num_steps=80, call=Call())
    assert result.losses[-1]["total"] < 1e-6 * result.losses[0]["total"]
    torch.testing.assert_close(result.image, target, atol=1e-3, rtol=0)


def test_lbfgs_forgets_the_oldest_pair(target: Tensor, start: Tensor) -> None:
    """The move after the k-th evaluation knows k - 1 pairs: with room for three, the sixth evaluation differs first."""
    short, long = (
        [
            row["total"]
            for row in optimize_pixels(
                start, bowl(target), optimizer="lbfgs", num_steps=12, call=Call(), history=history
            ).losses
        ]
        for history in (3, 40)
    )
    assert short[:5] == long[:5]
    assert all(a != b for a, b in zip(short[5:], long[5:], strict=True))


def test_adam_is_torch_adam(target: Tensor, start: Tensor) -> None:
    loss = bowl(target)
    seen: list[float] = []
    pixels = (start * 255).requires_grad_()
    reference = torch.optim.Adam([pixels], lr=5.0, eps=1e-8 / 255)
    for _ in range(12):
        reference.zero_grad()
        total = loss(pixels / 255)["total"]
        total.backward()
        seen.append(total.item())
        reference.step()
    ours = optimize_pixels(start, loss, optimizer="adam", num_steps=12, learning_rate=5.0, call=Call())
    assert [row["total"] for row in ours.losses] == pytest.approx(seen, rel=1e-4)


@pytest.mark.parametrize("size", [(9, 11), (16, 8), (1, 5)])
def test_a_pyramid_is_its_image(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    pyramid = LaplacianPyramid(size, 4)
    torch.testing.assert_close(pyramid.unpack(pyramid.pack(image)), image)


def test_coefficients_of_a_pyramid_are_fitted_by_torchs_rmsprop(target: Tensor, start: Tensor) -> None:
    loss, pyramid = bowl(target), LaplacianPyramid((9, 11), 3)
    vector = pyramid.pack(start * 255).requires_grad_()
    reference = torch.optim.RMSprop([vector], lr=2.0, eps=1e-8 / 255)
    seen = []
    for _ in range(9):
        reference.zero_grad()
        total = loss(pyramid.unpack(vector) / 255)["total"]
        total.backward()
        seen.append(total.item())
        reference.step()
    ours = optimize_pixels(
        start, loss, optimizer="rmsprop", num_steps=9, learning_rate=2.0, call=Call(), pyramid=3, keep="last"
    )
    assert [row["total"] for row in ours.losses] == pytest.approx(seen, rel=1e-4)
    assert float(loss(ours.image)["total"]) == pytest.approx(seen[-1], rel=1e-4)


@pytest.mark.numerical
def test_lbfgs_is_torch_lbfgs_where_no_move_is_bounded(target: Tensor, start: Tensor) -> None:
    """The two-loop recursion against torch's, both begun with the same move, close to the minimum."""
    start = target + 0.02 * (start - target)
    loss = bowl(target, 1e3)
    seen: list[float] = []
    pixels = (start * 255).requires_grad_()
    gradient = torch.autograd.grad(loss(pixels / 255)["total"], pixels)[0]
    # torch begins with the learning rate over the gradient's L1 norm; this rate makes the root mean square one level.
    rate = gradient.abs().sum() / gradient.square().mean().sqrt()
    reference = torch.optim.LBFGS([pixels], lr=rate.item(), max_iter=1, history_size=100)

    def closure() -> Tensor:
        reference.zero_grad()
        total = loss(pixels / 255)["total"]
        total.backward()
        seen.append(total.item())
        return total

    for _ in range(12):
        reference.step(closure)
        reference.param_groups[0]["lr"] = 1.0
    ours = optimize_pixels(start, loss, optimizer="lbfgs", num_steps=12, call=Call())
    assert [row["total"] for row in ours.losses] == pytest.approx(seen, rel=1e-2)


@pytest.mark.numerical
def test_lbfgs_moves_no_further_than_ten_levels(start: Tensor) -> None:
    """A line without curvature: moves of 1, 2, 4, 8, 10, 10 levels, however steep it is."""
    for slope in (1e-6, 1e6):
        images: list[Tensor] = []

        def loss(image: Tensor, slope: float = slope, images: list[Tensor] = images) -> dict[str, Tensor]:
            images.append(image.detach() * 255)
            return {"total": slope * image.sum()}

        optimize_pixels(start, loss, optimizer="lbfgs", num_steps=7, call=Call())
        moves = [(b - a).square().mean().sqrt().item() for a, b in pairwise(images)]
        assert moves == pytest.approx([1, 2, 4, 8, 10, 10], rel=1e-3)


@BOTH
def test_stopping_by_progress_keeps_the_best_image(target: Tensor, start: Tensor, optimizer, rate: float) -> None:
    shown: list[Tensor] = []
    totals: list[float] = []

    def progress(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
        assert total == 50
        shown.append(image())
        totals.append(losses["total"])
        return step == 7

    loss = bowl(target)
    result = optimize_pixels(
        start, loss, optimizer=optimizer, num_steps=50, learning_rate=rate, call=Call(progress=progress)
    )
    assert (result.steps, result.stopped) == (7, True)
    assert len({float(image.sum()) for image in shown}) == 7
    torch.testing.assert_close(result.image.clamp(0, 1), shown[totals.index(min(totals))])


def test_the_best_image_is_handed_over_and_not_the_last(target: Tensor, start: Tensor) -> None:
    result = optimize_pixels(start, bowl(target), optimizer="adam", num_steps=9, learning_rate=300.0, call=Call())
    totals = [row["total"] for row in result.losses]
    assert min(totals) < totals[-1]
    assert float(bowl(target)(result.image)["total"]) == pytest.approx(min(totals), rel=1e-5)


def test_time_limit_ends_after_the_step_that_exceeds_it(target: Tensor, start: Tensor) -> None:
    result = optimize_pixels(
        start, bowl(target), optimizer="lbfgs", num_steps=10**6, call=Call(), deadline=time.monotonic() - 1
    )
    assert (result.steps, result.stopped) == (1, True)
    assert torch.equal(result.image, start)


def test_levels_number_their_steps_on(target: Tensor, start: Tensor) -> None:
    seen: list[tuple[int, int]] = []

    def progress(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> None:
        seen.append((step, total))
        assert image().shape == (1, 3, 18, 22)

    optimize_pixels(
        start,
        bowl(target),
        optimizer="lbfgs",
        num_steps=3,
        call=Call(progress=progress),
        first_step=10,
        total_steps=20,
        show=lambda image: image.repeat(1, 1, 2, 2),
    )
    assert seen == [(11, 20), (12, 20), (13, 20)]


def test_clamping_holds_at_every_evaluation(start: Tensor) -> None:
    outside = torch.full_like(start, 2.0)
    ranges: list[float] = []

    def loss(image: Tensor) -> dict[str, Tensor]:
        ranges.append(image.max().item())
        return {"total": (image - outside).square().sum()}

    free = optimize_pixels(start, loss, optimizer="lbfgs", num_steps=60, call=Call())
    assert max(ranges) > 1.5
    ranges.clear()
    held = optimize_pixels(start, loss, optimizer="lbfgs", num_steps=60, call=Call(), clamp=True)
    assert max(ranges) <= 1
    assert float(free.image.max()) > 1.5
    assert torch.equal(held.image, torch.ones_like(start))


@pytest.mark.numerical
def test_ends_at_an_exact_minimum(start: Tensor) -> None:
    result = optimize_pixels(start, bowl(start), optimizer="lbfgs", num_steps=30, call=Call())
    assert (result.steps, result.stopped) == (1, False)
    torch.testing.assert_close(result.image, start)


def test_the_start_is_left_alone(target: Tensor, start: Tensor) -> None:
    before = start.clone()
    optimize_pixels(start, bowl(target), optimizer="adam", num_steps=3, learning_rate=9.0, call=Call(), clamp=True)
    assert torch.equal(start, before)
    assert not start.requires_grad


@BOTH
def test_a_loss_that_is_not_finite_is_an_error(start: Tensor, optimizer, rate: float) -> None:
    with pytest.raises(NumericalError, match="became nan at step 1"):
        optimize_pixels(
            start,
            lambda image: {"total": (image * math.nan).sum()},
            optimizer=optimizer,
            num_steps=3,
            learning_rate=rate,
            call=Call(),
        )


def test_a_gradient_that_is_not_finite_is_an_error(start: Tensor) -> None:
    with pytest.raises(NumericalError, match="gradient became inf"):
        optimize_pixels(
            start, lambda image: {"total": (image - 0.5).sqrt().sum()}, optimizer="adam", num_steps=3, call=Call()
        )


# -- networks in float16 -----------------------------------------------------------------------------------------------


def through_half(loss: Loss, gain: float = 1.0) -> Loss:
    """``loss`` of an image that passed through float16, where its gradient is ``gain`` times as large."""

    class Pass(torch.autograd.Function):
        @staticmethod
        def forward(ctx, image):  # type: ignore[no-untyped-def]
            return image.clone()

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            return (gain * gradient).half().float() / gain

    return lambda image: loss(Pass.apply(image))


@pytest.mark.parametrize("gain", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("scale", [1e-18, 1e-9, 1.0, 1e9, 1e18])
def test_in_fp16_a_loss_of_any_scale_is_minimised(target: Tensor, start: Tensor, scale: float, gain: float) -> None:
    """Unscaled, its gradient vanishes, or is infinite, at all of these scales but one."""
    loss = Count(through_half(bowl(target, scale), gain))
    result = optimize_pixels(start, loss, optimizer="lbfgs", num_steps=40, call=Call(), precision="fp16")
    assert result.steps == 40
    # What the scale takes to find: evaluations beside the steps.
    assert loss.calls <= 40 + 12
    wanted = optimize_pixels(start, bowl(target, scale), optimizer="lbfgs", num_steps=40, call=Call())
    begun, ended = result.losses[0]["total"], min(row["total"] for row in result.losses)
    assert ended < 1e-3 * begun or ended < 2 * min(row["total"] for row in wanted.losses)


def test_in_fp16_a_gradient_that_is_finite_at_no_scale_is_an_error(start: Tensor) -> None:
    with pytest.raises(NumericalError, match="use precision fp32"):
        optimize_pixels(
            start,
            lambda image: {"total": (image - 0.5).abs().sqrt().sum()},
            optimizer="lbfgs",
            num_steps=3,
            call=Call(),
            precision="fp16",
        )


@pytest.mark.numerical
def test_in_fp16_an_exact_minimum_ends_it(start: Tensor) -> None:
    result = optimize_pixels(start, bowl(start), optimizer="lbfgs", num_steps=9, call=Call(), precision="fp16")
    assert result.steps == 1


def test_no_steps_is_refused(start: Tensor) -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        optimize_pixels(start, bowl(start), optimizer="adam", num_steps=0, call=Call())


def test_total_variation_has_the_gradient_of_the_lua_layer() -> None:
    """jcjohnson/neural-style, TVLoss:updateGradInput: differences added to one pixel and taken from its neighbour."""
    image = torch.rand(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(total_variation(image), image)
    x = image.detach() * 255
    along_x = x[..., :-1, :-1] - x[..., :-1, 1:]
    along_y = x[..., :-1, :-1] - x[..., 1:, :-1]
    wanted = torch.zeros_like(x)
    wanted[..., :-1, :-1] += along_x + along_y
    wanted[..., :-1, 1:] -= along_x
    wanted[..., 1:, :-1] -= along_y
    torch.testing.assert_close(gradient, wanted * 255)
