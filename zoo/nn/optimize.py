"""Fitting the pixels of one image to a loss, as the optimisation methods do (Gatys, Li and Wand).

One *step* is one evaluation of the loss and its gradient, for either optimiser, so that step counts compare across
methods and optimisers. Pixels are float32 in [0, 1] outside; inside they are optimised in the 0 to 255 scale of the
papers' code, which fixes the meaning of Adam's learning rate and of L-BFGS's first, unscaled move.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo.device import Precision
from zoo.errors import ConfigError, NumericalError
from zoo.nn.pyramid import LaplacianPyramid
from zoo.nn.tiles import Stopped

if TYPE_CHECKING:
    from zoo.stylizer import Call

PIXEL_SCALE = 255.0
Optimizer = Literal["lbfgs", "adam", "rmsprop"]
Loss = Callable[[Tensor], Mapping[str, Tensor]]

# Root mean square of a move of L-BFGS, in levels of 255: the first one, and the bound on all of them.
_FIRST_MOVE = 1.0
_LARGEST_MOVE = 10.0


@dataclass(frozen=True)
class Fitting:
    """How an image is fitted.

    ``learning_rate`` scales the L-BFGS step (1 is the full step) and is in levels of 255 for Adam and RMSprop.
    ``history`` is the number of curvature pairs L-BFGS keeps: each costs two images of memory. ``clamp`` puts the
    pixels back into [0, 1] before every evaluation; it needs ``pyramid`` 0. ``pyramid`` is the number of levels of the
    Laplacian pyramid whose coefficients are optimised, 0 for the pixels themselves. ``keep`` the ``best`` image
    evaluated, or the ``last`` where losses of two steps do not compare (random samples). ``precision`` is that of the
    networks behind the loss: in fp16 the loss is scaled so that its gradient, on the way back through them, neither
    vanishes nor overflows.
    """

    optimizer: Optimizer = "lbfgs"
    learning_rate: float = 1.0
    history: int = 100
    clamp: bool = False
    pyramid: int = 0
    keep: Literal["best", "last"] = "best"
    precision: Precision = "fp32"


@dataclass(frozen=True, eq=False)
class Optimized:
    """What :func:`optimize_pixels` found.

    ``image`` (1, 3, H, W): the evaluated image of lowest total loss (or the last), not clamped unless asked; ``steps``
    evaluations done; ``losses`` one dict per step, with ``step`` and each term of the loss; ``stopped`` when the
    caller's progress function or the deadline ended it early.
    """

    image: Tensor
    steps: int
    losses: Sequence[Mapping[str, float]]
    stopped: bool


def optimize_pixels(
    start: Tensor,
    loss: Loss,
    how: Fitting,
    *,
    num_steps: int,
    call: Call,
    deadline: float | None = None,
    first_step: int = 0,
    total_steps: int | None = None,
    show: Callable[[Tensor], Tensor] | None = None,
) -> Optimized:
    """Minimise ``loss`` over the pixels of one image, beginning at ``start``.

    ``start`` is (1, 3, H, W) float32 in [0, 1]. ``loss`` takes such an image (values may leave [0, 1] unless clamped)
    and returns scalar tensors by name, among them ``total``, which is differentiated; it picks its own autocast.
    Gradients are enabled here.

    ``deadline`` is a value of ``time.monotonic()``; at least one step is always taken. ``first_step`` and
    ``total_steps`` number the steps of a later level of a pyramid for ``call.report`` and the losses; ``show`` makes
    the picture a watcher sees of the one being fitted (another size, its colours back).
    Ends early at an exact minimum (zero gradient).

    The best image evaluated is handed over and not the last one: without a line search the loss of L-BFGS is not
    monotone. The references return the last iterate, which they never evaluated.

    Raises NumericalError when the loss or its gradient stops being finite, ConfigError for ``num_steps`` under 1,
    Stopped (:mod:`zoo.nn.tiles`) where who watches the tiles asks to end before the first step is done.
    """
    if num_steps < 1:
        raise ConfigError(f"An optimisation needs at least one step, got {num_steps}.")
    total_steps = first_step + num_steps if total_steps is None else total_steps
    pixels = start.detach().to(torch.float32).mul(PIXEL_SCALE).contiguous()
    image_of: Callable[[Tensor], Tensor] = lambda pixels: pixels / PIXEL_SCALE  # noqa: E731
    if how.pyramid:
        pyramid = LaplacianPyramid((start.shape[-2], start.shape[-1]), how.pyramid)
        pixels = pyramid.pack(pixels)
        image_of = lambda vector: pyramid.unpack(vector) / PIXEL_SCALE  # noqa: E731
    update = _updater(how)
    best, best_total = pixels, math.inf
    rows: list[dict[str, float]] = []
    stopped = False
    evaluate = _Scaled(image_of) if how.precision == "fp16" else _Plain(image_of)

    for step in range(1, num_steps + 1):
        if how.clamp:
            pixels.clamp_(0.0, PIXEL_SCALE)
        try:
            values, gradient = evaluate(loss, pixels)
        except Stopped:
            if not rows:
                raise
            stopped = True
            break
        total = values["total"]
        rows.append({"step": first_step + step, **values})
        if not math.isfinite(total):
            raise NumericalError(
                f"The loss became {total} at step {first_step + step}: lower the learning rate or use precision fp32."
            )
        if how.keep == "last":
            best = pixels
        elif total < best_total:
            best, best_total = pixels.clone(), total

        def current(pixels: Tensor = pixels) -> Tensor:
            image = image_of(pixels)
            return (show(image) if show is not None else image).clamp(0, 1)

        stopped = call.report(first_step + step, total_steps, values, current)
        stopped = stopped or (deadline is not None and time.monotonic() >= deadline)
        if stopped or step == num_steps:
            break
        largest = float(gradient.abs().max())
        if not math.isfinite(largest):
            raise NumericalError(f"The gradient became {largest} at step {first_step + step}: use precision fp32.")
        if largest == 0:
            break
        pixels = pixels + update(gradient)
    return Optimized(image_of(best), len(rows), rows, stopped)


def _updater(how: Fitting) -> Callable[[Tensor], Tensor]:
    if how.optimizer == "lbfgs":
        return _lbfgs(how.learning_rate, how.history)
    return (_adam if how.optimizer == "adam" else _rmsprop)(how.learning_rate)


# The largest gradient of a pixel, as a power of two, that :class:`_Scaled` aims at, and from where to where it leaves
# the scale alone. In VGG the gradients of features are up to some hundred times those of pixels, and float16 reaches
# from 2^-24 to 2^16.
_AIM, _LOWEST, _HIGHEST = 4, 0, 8
_SCALES = range(-100, 100)


class _Plain:
    """Evaluates a loss and its gradient at a vector of pixels, or of whatever ``image_of`` makes an image of."""

    def __init__(self, image_of: Callable[[Tensor], Tensor]) -> None:
        self.image_of = image_of

    def __call__(self, loss: Loss, pixels: Tensor, scale: float = 1.0) -> tuple[dict[str, float], Tensor]:
        with torch.enable_grad():
            leaf = pixels.detach().requires_grad_()
            terms = loss(self.image_of(leaf))
            (gradient,) = torch.autograd.grad(terms["total"] * scale, leaf)
        if scale != 1:
            gradient = gradient / scale
        # One transfer for all terms: on a GPU each separate float() would wait for the device.
        numbers = torch.stack([value.detach().float() for value in terms.values()]).tolist()
        return dict(zip(terms, numbers, strict=True)), gradient


class _Scaled(_Plain):
    """The same of a loss through networks in float16: the loss is multiplied by a power of two before it is
    differentiated, and the gradient divided by it (Micikevicius et al., *Mixed Precision Training*, ICLR 2018).

    The scale is kept from step to step, as the gradient changes little. Where it does not fit, in the beginning two or
    three times, the same pixels are evaluated again. A gradient that is finite at no scale is returned as it is.
    """

    def __init__(self, image_of: Callable[[Tensor], Tensor]) -> None:
        super().__init__(image_of)
        self.exponent = 0
        self.ceiling = _SCALES.stop

    def __call__(self, loss: Loss, pixels: Tensor, scale: float = 1.0) -> tuple[dict[str, float], Tensor]:
        while True:
            values, gradient = super().__call__(loss, pixels, 2.0**self.exponent)
            largest = float(gradient.abs().max()) * 2.0**self.exponent
            size = math.frexp(largest)[1]
            if not math.isfinite(largest):
                wanted = self.exponent - 8
                self.ceiling = wanted + 1
            elif largest > 0 and _LOWEST <= size <= _HIGHEST:
                return values, gradient
            else:
                wanted = min(self.exponent + (_AIM - size if largest > 0 else 16), self.ceiling - 1)
            if wanted == self.exponent or wanted not in _SCALES or not math.isfinite(values["total"]):
                return values, gradient
            self.exponent = wanted


def _lbfgs(learning_rate: float, history: int) -> Callable[[Tensor], Tensor]:
    """L-BFGS with a fixed step: Nocedal and Wright, *Numerical Optimization*, algorithm 7.4.

    Own code and not torch.optim.LBFGS, which tests in absolute numbers (curvature y·s over 1e-10, changes under 1e-9)
    and so discards pairs and diverges or stalls where a loss is scaled small, begins with a move of L1 norm 1, which
    over a million pixels drowns in float32 rounding, and falls back to the raw gradient while it knows no curvature.
    Here nothing depends on the scale of the loss: the first move changes pixels by one level, each further one without
    known curvature twice as much, and none by more than ten (root mean square). The last bound replaces a line search.
    The losses of these methods grow with the fourth power of the pixels, and the first curvature that is found, along
    the gradient, says little about other directions: unbounded, the second move often overshoots by orders of
    magnitude and tens of steps pass before the loss falls again.
    """
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=history)
    last_gradient: Tensor | None = None
    last_move: Tensor | None = None
    newest, free_length, unit = 1.0, _FIRST_MOVE, 0.0

    def update(gradient: Tensor) -> Tensor:
        nonlocal last_gradient, last_move, newest, free_length, unit
        # Squares of gradients below 1e-22 vanish in float32, and those above 1e19 are infinite: the first one, by a
        # power of two, which rounds nothing, becomes 1.
        unit = unit or 2.0 ** -max(-100, min(100, math.frexp(float(gradient.abs().max()))[1]))
        g = gradient.flatten() * unit
        if last_gradient is not None and last_move is not None:
            y = g - last_gradient
            curvature, squares = float(y.dot(last_move)), float(y.dot(y))
            # Relative, and a pair without positive curvature would make the approximate Hessian indefinite.
            if squares > 0 and curvature > 1e-8 * math.sqrt(squares) * float(last_move.norm()):
                pairs.append((last_move, y, curvature))
                newest = curvature / squares
        move = -g
        coefficients: list[float] = []
        for s, y, curvature in reversed(pairs):
            coefficients.append(float(s.dot(move)) / curvature)
            move.add_(y, alpha=-coefficients[-1])
        if pairs:
            move.mul_(newest)
        for (s, y, curvature), coefficient in zip(pairs, reversed(coefficients), strict=True):
            move.add_(s, alpha=coefficient - float(y.dot(move)) / curvature)
        length = _root_mean_square(move)
        if pairs:
            move.mul_(learning_rate * min(1.0, _LARGEST_MOVE / length))
        else:
            move.mul_(learning_rate * min(free_length, _LARGEST_MOVE) / length)
            free_length *= 2
        last_gradient, last_move = g, move
        return move.view_as(gradient)

    return update


def _root_mean_square(values: Tensor) -> float:
    return float(values.norm()) / math.sqrt(values.numel())


# What Adam and RMSprop add to the root mean square of a gradient: 1e-8 of pixels in [0, 1], as methods know them whose
# losses are means over positions. Of levels of 255 it would outweigh the gradients of a large picture's finest details.
_EPS = 1e-8 / PIXEL_SCALE


def _adam(
    learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = _EPS
) -> Callable[[Tensor], Tensor]:
    """Adam (Kingma and Ba 2015, algorithm 1) with its default constants."""
    mean: Tensor | None = None
    square: Tensor | None = None
    count = 0

    def update(gradient: Tensor) -> Tensor:
        nonlocal mean, square, count
        if mean is None or square is None:
            mean, square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        count += 1
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (square / (1 - beta2**count)).sqrt_().add_(eps)
        return (mean / scale).mul_(-learning_rate / (1 - beta1**count))

    return update


def _rmsprop(learning_rate: float, decay: float = 0.99, eps: float = _EPS) -> Callable[[Tensor], Tensor]:
    """RMSprop (Hinton, lecture 6e) with the constants of torch.optim.RMSprop."""
    square: Tensor | None = None

    def update(gradient: Tensor) -> Tensor:
        nonlocal square
        if square is None:
            square = torch.zeros_like(gradient)
        square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        return (gradient / square.sqrt().add_(eps)).mul_(-learning_rate)

    return update
