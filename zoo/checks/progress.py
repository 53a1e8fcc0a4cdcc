"""What a caller sees while waiting, and how it ends the wait."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping

from torch import Tensor

from zoo.checks.core import ContractError, Subject, check, require


class InterruptionError(Exception):
    """Stands for whatever a caller's progress function may raise, Ctrl-C among it."""


def interrupt(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
    raise InterruptionError


@check("progress", "Progress sees steps in order, finite losses and the current image, and disturbs nothing.")
def _progress(s: Subject) -> None:
    seen: list[tuple[int, int]] = []

    def watch(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
        seen.append((step, total))
        require(
            all(isinstance(v, int | float) and math.isfinite(v) for v in losses.values()),
            f"losses must be finite numbers, got {dict(losses)}",
        )
        shown = image()
        require(shown.shape == s.content().shape, f"image() has shape {tuple(shown.shape)}")
        require(bool(shown.min() >= 0) and bool(shown.max() <= 1), "image() leaves [0, 1]")
        shown.zero_()  # The caller may do with it as it likes.
        return False

    image = s.stylize(s.content(), progress=watch).image
    if s.traits.iterative:
        require(bool(seen), "an optimisation must call progress at every step")
    steps = [step for step, _ in seen]
    require(steps == sorted(set(steps)) and all(1 <= a <= b for a, b in seen), f"steps (of total) {seen}")
    require(s.same(image, s.baseline) or not s.traits.deterministic, "other pixels with somebody watching")


@check("stop", "Progress that returns True ends an optimisation there, with the image so far.", "iterative")
def _stop(s: Subject) -> None:
    seen: list[tuple[int, int]] = []

    def stop(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
        seen.append((step, total))
        return len(seen) >= 2

    result = s.stylize(s.content(), progress=stop)
    require(len(seen) == 2, f"asked to stop at its second call, progress was called {len(seen)} times")
    require(result.stopped, "the result does not say that it was stopped")
    require(1 <= result.steps <= seen[-1][0], f"stopped at step {seen[-1][0]}, the result counts {result.steps}")


@check("interrupt", "An exception out of progress reaches the caller, and the next call is as good.", "iterative")
def _interrupted(s: Subject) -> None:
    with contextlib.suppress(InterruptionError):
        s.stylize(s.content(), progress=interrupt)
        raise ContractError("the exception was swallowed")
    image = s.stylize(s.content()).image
    require(s.same(image, s.baseline) or not s.traits.deterministic, "other pixels after an interrupted call")


@check("losses", "An optimisation hands over its losses, one row a step.", "iterative")
def _losses(s: Subject) -> None:
    result = s.result
    require(len(result.losses) > 0, "the result holds no losses")
    for row in result.losses:
        require("step" in row and len(row) > 1, f"a row needs 'step' and at least one loss, got {dict(row)}")
        require(
            all(isinstance(v, int | float) and math.isfinite(v) for v in row.values()),
            f"losses must be finite numbers, got {dict(row)}",
        )
    steps = [row["step"] for row in result.losses]
    require(steps == sorted(set(steps)), f"steps are not in order: {steps}")
    require(steps[-1] <= result.steps, f"the result counts {result.steps} steps, its losses {steps[-1]}")
