"""Brush strokes: paths along a flow, and the laying of one bristled, tapered stroke of paint on a drawing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.styles.canvas import Array, noise


class Paint:
    """A drawing in wet paint: Oklab ``color`` (n, n, 3) and ``relief`` (n, n), the height of the paint."""

    def __init__(self, color: Array, rng: np.random.Generator) -> None:
        self.color = color.astype(np.float32).copy()
        self.relief: Array = np.zeros(color.shape[:2], np.float32)
        # Bristles are stripes across the stroke that wander slowly along it: rows along, columns across, tiled.
        self._bristles = noise(rng, (256, 1024), (48.0, 3.0))
        self._streaks = noise(rng, (256, 1024), (90.0, 7.0))

    def stroke(self, path: Array, brush: Brush, tint: Array, pick: float) -> None:
        """Lay one stroke.

        Args:
            path: (m, 2) positions, m >= 2, about evenly spaced.
            brush: the brush's width and habits.
            tint: Oklab colour of the paint on it.
            pick: in [0, 1), which part of the brush's bristles meets the canvas.
        """
        n_rows, n_columns = self.relief.shape
        reach = brush.width / 2 + 2
        x0, y0 = map(math.floor, path.min(0) - reach)
        x1, y1 = (math.ceil(end) + 1 for end in path.max(0) + reach)
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, n_columns), min(y1, n_rows)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        along, across = ribbon(path, x0, y0, x1, y1, reach)
        across = np.clip(across, -2 * reach, 2 * reach)
        half = brush.width / 2 * profile(along, brush.taper)
        length = float(np.hypot(*np.diff(path, axis=0).T).sum())

        column = (pick * 1024 + across * brush.bristles).astype(int) % 1024
        row = (pick * 7919 + along * length).astype(int) % 256
        bristle = self._bristles[row, column]
        streak = self._streaks[row, column]

        # Ends fray: with less paint left, only the bristles that carry most still mark the canvas.
        dry = brush.dryness * np.clip((along - 0.45) / 0.55, 0, 1) ** 1.5
        edge = np.clip(half - np.abs(across) + 0.5 + 0.5 * np.minimum(half / 4, 1) * bristle, 0, 1)
        alpha = brush.opacity * edge * np.clip(1.0 + 1.3 * (bristle + 0.6) * dry - 0.9 * dry, 0, 1)
        alpha = np.where(half > 0.3, alpha, 0).astype(np.float32)

        window = np.s_[y0:y1, x0:x1]
        paint = np.empty((*alpha.shape, 3), np.float32)
        paint[..., 0] = tint[0] + brush.streak * streak + 0.35 * brush.streak * bristle
        chroma = 1 + 1.6 * brush.streak * streak
        paint[..., 1] = tint[1] * chroma
        paint[..., 2] = tint[2] * chroma
        self.color[window] += alpha[..., None] * (paint - self.color[window])
        # Paint is pushed to the stroke's sides and furrowed by the bristles.
        rim = np.clip(np.abs(across) / np.maximum(half, 0.5), 0, 1) ** 4
        height = brush.body * (0.55 + 0.3 * bristle + 0.35 * rim)
        self.relief[window] += alpha * (height - 0.6 * self.relief[window])


@dataclass(frozen=True)
class Brush:
    """Width in pixels; taper, dryness, opacity and body (thickness of paint) in [0, 1]; streak: change of lightness.

    ``bristles``: how many columns of the bristle pattern a pixel spans; more is finer.
    """

    width: float
    taper: float = 0.6
    dryness: float = 0.6
    opacity: float = 0.96
    streak: float = 0.035
    body: float = 1.0
    bristles: float = 1.3


def profile(along: Array, taper: float) -> Array:
    """Relative width of a stroke at ``along`` in [0, 1]: a rounded start and an end drawn out by ``taper``."""
    start = np.sqrt(np.clip(1 - (1 - np.clip(along / 0.16, 0, 1)) ** 2, 0, 1))
    end = np.clip((1 - along) / (0.12 + 0.75 * taper), 0, 1)
    return (start * np.sqrt(np.clip(1 - (1 - end) ** 2, 0, 1))).astype(np.float32)


def ribbon(path: Array, x0: int, y0: int, x1: int, y1: int, reach: float) -> tuple[Array, Array]:
    """Coordinates of the pixels of a window relative to a path, as far as ``reach`` pixels from it.

    Returns position along the path in [0, 1] and signed distance across it in pixels (infinite beyond reach).
    """
    best = np.full((y1 - y0, x1 - x0), np.inf, np.float32)
    along = np.zeros_like(best)
    across = np.full_like(best, np.inf)
    m = len(path) - 1
    for k in range(m):
        (ax, ay), (bx, by) = path[k].tolist(), path[k + 1].tolist()
        left, right = max(x0, int(min(ax, bx) - reach)), min(x1, int(max(ax, bx) + reach) + 2)
        top, bottom = max(y0, int(min(ay, by) - reach)), min(y1, int(max(ay, by) + reach) + 2)
        if left >= right or top >= bottom:
            continue
        px = np.arange(left, right, dtype=np.float32)[None, :] - ax
        py = np.arange(top, bottom, dtype=np.float32)[:, None] - ay
        dx, dy = bx - ax, by - ay
        t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        distance = np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2)
        box = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
        closer = distance < best[box]
        best[box] = np.where(closer, distance, best[box])
        along[box] = np.where(closer, (k + t) / m, along[box])
        across[box] = np.where(closer, np.where(px * dy > py * dx, distance, -distance), across[box])
    return along, across


def trace(
    starts: Array, flow: Callable[[Array], Array], step: float, steps: int, *, backwards: bool = True
) -> list[Array]:
    """Paths through ``starts`` (k, 2) along ``flow`` (positions -> unit directions), half of it each way."""
    forward = steps // 2 if backwards else steps
    halves = []
    for sign, count in ((-1, steps - forward), (1, forward)):
        at = starts.astype(np.float32)
        part = []
        for _ in range(count):
            middle = at + sign * step / 2 * flow(at)
            at = at + sign * step * flow(middle)
            part.append(at)
        halves.append(part)
    points = np.stack([*halves[0][::-1], starts.astype(np.float32), *halves[1]], axis=1)
    return list(points)


def scattered(rng: np.random.Generator, n: int, spacing: float) -> Array:
    """Positions about ``spacing`` apart that cover the square evenly without a visible grid, in random order."""
    cells = max(2, round(n * 1.08 / spacing))
    j, i = np.mgrid[0:cells, 0:cells]
    # rows shifted by half a cell, then jittered by most of a cell
    x = (i + 0.5 * (j % 2) + rng.uniform(-0.45, 0.45, i.shape)) * n * 1.08 / cells - 0.04 * n
    y = (j + rng.uniform(-0.45, 0.45, j.shape)) * n * 1.08 / cells - 0.04 * n
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    return points[rng.permutation(len(points))]
