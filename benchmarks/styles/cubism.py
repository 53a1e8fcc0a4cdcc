"""Cubism: guitars, bottles and glasses taken apart into overlapping shaded planes, brushed in short dabs.

A plane is a convex polygon that is dark or light along one edge and melts into its neighbours on the far side
("passage"); broken outlines, arcs, strings and sound holes run over the planes and tie them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from benchmarks.styles.canvas import Array, fractal, grid, lab, lit, noise, ramp, sample, smoothstep, weave
from benchmarks.styles.strokes import Brush, Paint, scattered

_OCHRE = ("2b2118", "5e4426", "94703a", "c29a58", "e3cb95", "f6ecd0")
_GRAY = ("1f2224", "464b4c", "757a77", "a3a69d", "cccabb", "efece0")
_GREEN = ("1d2620", "38493a", "5f7256", "8d9c78", "b9bf9c", "e6e4c8")
_UMBER = ("20140f", "4b2d1e", "7a4b2f", "a87650", "cfa986", "efdcc4")


@dataclass(frozen=True)
class _Plane:
    """Corners (m, 2) in order, tones at the hard and the soft side, direction from hard to soft, family of colours."""

    corners: Array
    hard: float
    soft: float
    angle: float
    family: int


class _Easel:
    """The underpainting: tone, family of colour and brush direction at every pixel, and the drawn lines."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.rng, self.n, self.k = rng, n, n / 1024
        self.x, self.y = grid(n)
        self.families = np.stack([lab(*names) for names in (_OCHRE, _GRAY, _GREEN, _UMBER)])
        self.color = self._paint(0, 0.45 + 0.1 * fractal(rng, (n, n), 200 * self.k, 3))
        self.turn = np.full((n, n), 0.2, np.float32)
        self.line = np.zeros((n, n), np.float32)
        self.light = np.zeros((n, n), np.float32)

    def _paint(self, family: int, tone: Array) -> Array:
        return ramp(np.linspace(0, 1, 6), self.families[family], np.clip(tone, 0, 1))

    def plane(self, plane: _Plane) -> None:
        k, n = self.k, self.n
        x0, y0 = np.maximum(np.floor(plane.corners.min(0) - 4), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(plane.corners.max(0) + 5), n).astype(int)
        if x1 - x0 < 4 or y1 - y0 < 4:
            return
        window = np.s_[y0:y1, x0:x1]
        x, y = self.x[window], self.y[window]
        inside = np.full(x.shape, np.inf, np.float32)
        for (ax, ay), (bx, by) in zip(plane.corners, np.roll(plane.corners, -1, axis=0), strict=True):
            length = np.hypot(bx - ax, by - ay) + 1e-6
            inside = np.minimum(inside, ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length)
        cover = np.clip(inside / k + 0.5, 0, 1)
        across = x * np.cos(plane.angle) + y * np.sin(plane.angle)
        reach = plane.corners @ np.array([np.cos(plane.angle), np.sin(plane.angle)])
        t = np.clip((across - reach.min()) / (np.ptp(reach) + 1e-6), 0, 1)
        tone = plane.hard + (plane.soft - plane.hard) * t**0.75
        # the far side melts away
        alpha = cover * (0.98 - 0.8 * smoothstep(0.58, 1.0, t))
        self.color[window] += alpha[..., None] * (self._paint(plane.family, tone) - self.color[window])
        hard = alpha > 0.45
        self.turn[window][hard] = plane.angle + np.pi / 2 + 0.25 * self.rng.standard_normal()
        # The plane throws a little shadow on what lies behind its hard side.
        outside = np.clip(-inside / (13 * k), 0, 1)
        shade = (1 - cover) * np.exp(-3 * outside) * (t < 0.45) * 0.10
        self.color[window][..., 0] -= shade
        rim = np.exp(-((inside / (2.2 * k) - 1.4) ** 2)) * (t < 0.5)
        self.light[window] = np.maximum(self.light[window] * (1 - cover), 0.8 * rim * (plane.hard > 0.5))
        self.line[window] *= 1 - 0.6 * alpha

    def draw(self, path: Array, width: float, strength: float = 0.9, fade: bool = True) -> None:
        """A line of dark paint through ``path``, broken and uneven, fading at its end."""
        k, rng = self.k, self.rng
        lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
        count = int(lengths[-1] / 0.7)
        if count < 8:
            return
        at = np.linspace(0, lengths[-1], count)
        px, py = np.interp(at, lengths, path[:, 0]), np.interp(at, lengths, path[:, 1])
        press = noise(rng, (1, count), (1, 26 * k))[0]
        px = px + 0.8 * k * noise(rng, (1, count), (1, 40 * k))[0]
        py = py + 0.8 * k * noise(rng, (1, count), (1, 40 * k))[0]
        wide = width * k * (1 + 0.3 * press)
        power = strength * np.linspace(1, 0.25 if fade else 1, count) * np.clip(1.1 + 0.35 * press, 0.2, 1)
        i, j = np.round(px).astype(int), np.round(py).astype(int)
        reach = int(np.ceil(wide.max() / 2 + 0.5))
        for dj in range(-reach, reach + 1):
            for di in range(-reach, reach + 1):
                a, b = i + di, j + dj
                value = power * np.clip(wide / 2 + 0.5 - np.hypot(a - px, b - py), 0, 1)
                hit = (value > 0) & (a >= 0) & (b >= 0) & (a < self.n) & (b < self.n)
                np.maximum.at(self.line, (b[hit], a[hit]), value[hit].astype(np.float32))


def _polygon(rng: np.random.Generator, x: float, y: float, size: float, grain: float) -> Array:
    """A convex shard of three to five corners, clockwise on the paper, turned to one of a few leading directions."""
    count = int(rng.choice([3, 4, 4, 4, 5]))
    angles = np.sort(np.arange(count) * 2 * np.pi / count + rng.uniform(-0.42, 0.42, count))
    radii = size * rng.uniform(0.75, 1.15, count)
    lengthen = rng.uniform(1.0, 2.1)
    u, v = radii * np.cos(angles) * lengthen, radii * np.sin(angles) / np.sqrt(lengthen)
    c, s = np.cos(grain), np.sin(grain)
    corners = np.stack([x + c * u - s * v, y + s * u + c * v], -1)
    # convex hull of so few points: drop corners that turn the wrong way
    keep = []
    for i in range(count):
        a, b, d = corners[i - 1], corners[i], corners[(i + 1) % count]
        if (b[0] - a[0]) * (d[1] - b[1]) - (b[1] - a[1]) * (d[0] - b[0]) > 0:
            keep.append(i)
    return corners[keep].astype(np.float32) if len(keep) >= 3 else corners[[0, 1, 2]].astype(np.float32)


def _leading(rng: np.random.Generator) -> float:
    """Directions gather about two diagonals and the upright, which holds the picture together."""
    return float(rng.choice([0.52, -0.62, np.pi / 2, 0.95, -1.05]) + rng.normal(0, 0.13))


def _shards(easel: _Easel, size: float, count: int) -> None:
    rng, k, n = easel.rng, easel.k, easel.n
    places = scattered(rng, n, n / np.sqrt(count))
    for x, y in places:
        corners = _polygon(rng, x, y, size * k * rng.uniform(0.7, 1.3), _leading(rng))
        light = rng.random() < 0.52
        hard = rng.uniform(0.74, 1.05) if light else rng.uniform(0.0, 0.24)
        soft = hard + (-1 if light else 1) * rng.uniform(0.3, 0.6)
        family = int(rng.choice(4, p=[0.36, 0.28, 0.2, 0.16]))
        # the gradient runs across one of the sides
        side = int(rng.integers(0, len(corners)))
        a, b = corners[side], corners[(side + 1) % len(corners)]
        angle = float(np.arctan2(b[0] - a[0], -(b[1] - a[1])))
        easel.plane(_Plane(corners, hard, soft, angle, family))
        if rng.random() < 0.9:
            past = rng.uniform(0.0, 0.3)
            edge = np.stack([a - past * (b - a), b + past * (b - a)])
            easel.draw(edge, rng.uniform(3.2, 8.0), rng.uniform(0.75, 1.0))
        if rng.random() < 0.5:
            c = corners[(side + 2) % len(corners)]
            easel.draw(np.stack([b, c]), rng.uniform(2.4, 5.0), 0.85)
        if rng.random() < 0.22:
            _rule(easel, a, b, np.array([np.cos(angle), np.sin(angle)]), size)


def _rule(easel: _Easel, a: Array, b: Array, inward: Array, size: float) -> None:
    """Short parallel strokes set along an edge."""
    count = int(np.hypot(*(b - a)) / (9 * easel.k))
    for t in np.linspace(0.06, 0.94, max(count, 2)):
        start = a + t * (b - a)
        length = size * easel.k * easel.rng.uniform(0.22, 0.4)
        easel.draw(np.stack([start, start + inward * length]), 2.2, 0.75)


def _arc(x: float, y: float, rx: float, ry: float, turn: float, low: float, high: float) -> Array:
    t = np.linspace(low, high, 60)
    u, v = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], -1)


def _motifs(easel: _Easel) -> None:
    """Parts of guitars, bottles and glasses, scattered, each seen from its own side."""
    rng, k, n = easel.rng, easel.k, easel.n
    for number, (x, y) in enumerate(scattered(rng, n, 262 * k)):
        turn = _leading(rng)
        c, s = np.cos(turn), np.sin(turn)
        along, across = np.array([c, s]), np.array([-s, c])
        at = np.array([x, y])
        size = rng.uniform(1.15, 1.7) * k
        kind = number % 4
        if kind == 0:  # strings over a sound hole
            hole = np.hypot(easel.x - x, easel.y - y) < 30 * size
            half = (easel.x - x) * across[0] + (easel.y - y) * across[1] > -6 * size
            easel.color[hole & half] = easel.color[hole & half] * 0.25 + 0.75 * lab("1d1712")[0]
            easel.draw(_arc(x, y, 30 * size, 30 * size, 0, 0, 2 * np.pi), 3.6, 0.9, False)
            easel.draw(_arc(x, y, 41 * size, 41 * size, turn, 0.6, 4.4), 2.6, 0.8)
            for string in np.linspace(-16, 16, 5):
                start = at - along * 135 * size + across * string * size
                easel.draw(np.stack([start, start + along * rng.uniform(220, 300) * size]), 2.8, 0.9, False)
            for bar in (-132, -122, 96):
                middle = at + along * bar * size
                easel.draw(np.stack([middle - across * 30 * size, middle + across * 30 * size]), 4.4, 0.9)
        elif kind == 1:  # the waist of a guitar
            for sign in (-1, 1):
                center = at + sign * along * 52 * size
                easel.draw(_arc(center[0], center[1], 62 * size, (72 - 12 * sign) * size, turn, 0.35, 2.75), 7.0)
                easel.draw(_arc(center[0], center[1], 52 * size, (61 - 12 * sign) * size, turn, 0.5, 2.3), 2.6, 0.7)
        elif kind == 2:  # neck and shoulders of a bottle
            t = np.linspace(0, 1, 40)[:, None]
            for sign in (-1, 1):
                wide = 15 + 30 * smoothstep(0.42, 0.72, t)
                side = at + along * (t - 0.5) * 230 * size + sign * across * wide * size
                easel.draw(side, 4.6 if sign > 0 else 3.2, 0.9)
            for place, wide in ((-0.5, 18), (-0.44, 20), (-0.1, 15), (0.45, 45)):
                middle = at + along * place * 230 * size
                easel.draw(
                    _arc(middle[0], middle[1], wide * size, 7 * size, turn + np.pi / 2, 0, 2 * np.pi), 2.8, 0.85, False
                )
        else:  # bowl of a glass and a scroll
            easel.draw(_arc(x, y, 46 * size, 15 * size, turn, 0, 2 * np.pi), 3.0, 0.85, False)
            easel.draw(_arc(x, y, 46 * size, 74 * size, turn, 0, np.pi), 5.6)
            t = np.linspace(0, 3.6 * np.pi, 120)
            r = (30 - 2.2 * t) * size
            spiral = at - across * 60 * size + np.stack([r * np.cos(t + turn), r * np.sin(t + turn)], -1)
            easel.draw(spiral, 5.0, 0.95)


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    k = n / 1024
    easel = _Easel(rng, n)
    _shards(easel, 175, 30)
    _shards(easel, 115, 60)
    _motifs(easel)
    _shards(easel, 72, 80)
    _motifs(easel)
    _shards(easel, 42, 60)

    # Short flat dabs, laid side by side in the direction of each plane.
    paint = Paint(easel.color, rng)
    for spacing, width, length, low in ((12.0, 14.0, 30.0, 0.0), (10.0, 9.0, 21.0, -0.4)):
        starts = scattered(rng, n, spacing * k)
        tints = sample(easel.color, starts[:, 0], starts[:, 1])
        busy = noise(rng, (n, n), 90 * k)
        for (x, y), tint in zip(starts, tints, strict=True):
            i, j = int(np.clip(x, 0, n - 1)), int(np.clip(y, 0, n - 1))
            if low and busy[j, i] < low:
                continue
            turn = easel.turn[j, i] + rng.normal(0, 0.1)
            reach = 0.5 * length * k * rng.uniform(0.6, 1.1)
            heading = np.array([np.cos(turn), np.sin(turn)])
            # a dab stops where its plane does
            for _ in range(3):
                ends = np.array([[x, y] - reach * heading, [x, y] + reach * heading], np.float32)
                if np.abs(sample(easel.color, ends[:, 0], ends[:, 1])[:, 0] - tint[0]).max() < 0.09:
                    break
                reach *= 0.6
            step = reach * heading
            path = (np.array([x, y]) + np.stack([-step, 0.06 * step[::-1], step])).astype(np.float32)
            shifted = tint + (np.array([0.055, 0.008, 0.013]) * rng.standard_normal(3)).astype(np.float32)
            brush = Brush(min(width * k * rng.uniform(0.7, 1.15), 1.3 * reach), 0.25, 0.7, 0.75, 0.06, 0.9)
            paint.stroke(path, brush, shifted, float(rng.random()))
    image = paint.color
    # Planes keep their edges: some of the clean underpainting is worked back in.
    image = 0.75 * image + 0.25 * easel.color
    grain = noise(rng, (n, n), 2 * k)
    ink = easel.line * np.clip(0.92 - 0.1 * np.clip(grain, 0, 2) - 0.12 * (paint.relief > 0.9), 0, 1)
    image += ink[..., None] * (lab("17120f")[0] - image)
    image += (0.6 * easel.light * np.clip(0.7 + 0.4 * grain, 0, 1))[..., None] * (lab("fbf4e0")[0] - image)
    cloth = weave(rng, n, 4.6 * k)
    image[..., 0] += 0.010 * grain + 0.012 * fractal(rng, (n, n), 50 * k, 4)
    relief = paint.relief + 0.5 * ndimage.gaussian_filter(easel.line, k) + 0.16 * cloth
    return lit(image, relief.astype(np.float32), 0.75 / k, gloss=0.15)
