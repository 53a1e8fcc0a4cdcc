"""Ink marbling: drops let fall on water, combed and stirred, then lifted with a sheet of paper.

Every act of the marbler moves the whole surface by a map with an exact inverse (Lu, Jaffer, Jin, Zhao & Mao,
"Mathematical Marbling", 2012). So each point of the sheet is followed backwards through the acts until it is found
inside the drop that coloured it; nothing is resampled and filaments stay as fine as the pixels allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from benchmarks.styles.canvas import Array, fractal, lab, noise

_PALETTE = (
    "16233f",
    "f3e9d2",
    "a3262c",
    "d79a2b",
    "2f7a78",
    "e9c9a6",
    "5d1a2b",
    "7fb0a6",
    "f0e0bd",
    "284a7e",
)


@dataclass(frozen=True)
class _Drop:
    """A drop of colour number ``ink`` at (x, y) of radius r (pixels): p' = c + (p - c) sqrt(1 + r^2 / |p - c|^2)."""

    x: float
    y: float
    r: float
    ink: int


@dataclass(frozen=True)
class _Comb:
    """Teeth ``gap`` pixels apart drawn along ``angle``: the surface shifts by z sharp / (sharp + d),
    d being its distance to the nearest one.

    ``wave`` is the side-to-side swing of the hand and ``period`` its length (pixels); ``turns`` makes every second
    tooth go the other way.
    """

    angle: float
    gap: float
    offset: float
    z: float
    sharp: float
    wave: float = 0.0
    period: float = 1.0
    turns: bool = False


@dataclass(frozen=True)
class _Swirl:
    """A stylus turned about (x, y): points at distance d turn by ``angle`` exp(-(d / r)^2)."""

    x: float
    y: float
    r: float
    angle: float


def _undo_comb(comb: _Comb, x: Array, y: Array) -> tuple[Array, Array]:
    c, s = np.cos(comb.angle), np.sin(comb.angle)
    along, across = x * c + y * s, -x * s + y * c
    number = (across - comb.offset) / comb.gap
    nearest = np.round(number)
    distance = np.abs(number - nearest) * comb.gap
    pull = comb.z * comb.sharp / (comb.sharp + distance)
    if comb.turns:
        pull = np.where(nearest % 2 == 0, pull, -pull)
    # two shears, undone one after the other: the surface is neither stretched nor folded
    along = along - pull
    across = across - comb.wave * np.sin(along * (2 * np.pi / comb.period))
    return along * c - across * s, along * s + across * c


def _undo_swirl(swirl: _Swirl, x: Array, y: Array) -> tuple[Array, Array]:
    dx, dy = x - swirl.x, y - swirl.y
    turn = -swirl.angle * np.exp(-(dx * dx + dy * dy) / swirl.r**2)
    c, s = np.cos(turn), np.sin(turn)
    return swirl.x + c * dx - s * dy, swirl.y + s * dx + c * dy


def _acts(rng: np.random.Generator, n: int) -> list[_Drop | _Comb | _Swirl]:
    """The marbler's acts in order."""
    k = n / 1024
    acts: list[_Drop | _Comb | _Swirl] = []

    def shower(count: int, low: float, high: float, inks: tuple[int, ...]) -> None:
        placed: list[Array] = []
        for i in range(count):
            # of several places the one farthest from the drops before it: an even shower
            options = rng.uniform(-0.12, 1.12, (8, 2)) * n
            if placed:
                gaps = np.hypot(*(options[:, None] - np.array(placed)[None]).transpose(2, 0, 1)).min(axis=1)
                options = options[np.argsort(-gaps)]
            placed.append(options[0])
            acts.append(_Drop(options[0][0], options[0][1], rng.uniform(low, high) * k, int(inks[i % len(inks)])))

    def rings(count: int, pairs: list[list[int]], most: int) -> None:
        """Suminagashi: two brushes touched to one spot in turn."""
        placed: list[Array] = []
        for i in range(count):
            options = rng.uniform(-0.05, 1.05, (8, 2)) * n
            if placed:
                gaps = np.hypot(*(options[:, None] - np.array(placed)[None]).transpose(2, 0, 1)).min(axis=1)
                options = options[np.argsort(-gaps)]
            placed.append(options[0])
            pair = pairs[i % len(pairs)]
            for turn in range(int(rng.integers(most // 2, most + 1))):
                acts.append(_Drop(options[0][0], options[0][1], rng.uniform(14, 21) * k, pair[turn % 2]))

    shower(40, 60, 85, (0, 2, 4, 3, 9, 6))
    shower(60, 34, 52, (4, 0, 8, 3, 2, 1, 9))
    rings(40, [[0, 1], [2, 5], [4, 8], [9, 1], [6, 3], [1, 4], [0, 7]], 10)
    shower(60, 20, 40, (2, 4, 3, 0, 9, 6, 8))
    acts.append(_Comb(0.18, 118 * k, 31 * k, 120 * k, 16 * k, turns=True))
    acts.append(_Comb(np.pi / 2 + 0.12, 104 * k, 10 * k, 95 * k, 13 * k, 20 * k, 310 * k, turns=True))
    rings(24, [[0, 8], [1, 2], [3, 6], [4, 1]], 8)
    acts.append(_Comb(0.1, 39 * k, 5 * k, 40 * k, 6 * k, 12 * k, 260 * k))
    for i in rng.permutation(16):
        x, y = (np.array([i % 4, i // 4]) + rng.uniform(0.1, 0.9, 2)) / 4 * n
        acts.append(_Swirl(x, y, rng.uniform(60, 115) * k, rng.choice([-1, 1]) * rng.uniform(1.6, 3.4)))
    shower(30, 8, 19, (1, 0, 3, 8, 2))
    acts.append(_Comb(np.pi / 2 - 0.25, 150 * k, 60 * k, 60 * k, 10 * k, 26 * k, 420 * k, turns=True))
    shower(70, 2.5, 6, (1, 3, 0))
    return acts


@dataclass(frozen=True)
class _Ground:
    """Strips of ink trailed over the bare water before anything else: their edges (pixels) and inks, in order."""

    edges: Array
    inks: Array

    def at(self, x: Array, y: Array, k: float) -> Array:
        across = 0.8 * y + 0.6 * x + 22 * k * np.sin((0.8 * x - 0.6 * y) / (70 * k))
        return self.inks[np.searchsorted(self.edges, across)]


def _ground(rng: np.random.Generator, n: int) -> _Ground:
    """Broad strips of the deep inks with thin light ones between them."""
    k = n / 1024
    broad = rng.choice([9, 0, 4, 0, 9, 6, 2], 240)
    fine = rng.choice([1, 7, 3, 8, 5], 240)
    widths = np.stack([rng.uniform(16, 48, 240), rng.uniform(4, 13, 240)], -1).ravel() * k
    edges = np.cumsum(widths) - 2.5 * n
    return _Ground(edges[:-1].astype(np.float32), np.stack([broad, fine], -1).ravel().astype(np.int16))


def _trace(
    acts: list[_Drop | _Comb | _Swirl], ground: _Ground, x: Array, y: Array, k: float
) -> tuple[Array, Array, Array]:
    """Ink number, relative radius inside its drop, and the drop's number, for positions (m,)."""
    ink = np.zeros(x.shape, np.int16)
    inner = np.full(x.shape, 0.5, np.float32)
    drop = np.zeros(x.shape, np.int16)
    left = np.arange(x.size)
    for number in range(len(acts) - 1, -1, -1):
        act = acts[number]
        if isinstance(act, _Comb):
            x, y = _undo_comb(act, x, y)
        elif isinstance(act, _Swirl):
            x, y = _undo_swirl(act, x, y)
        else:
            dx, dy = x - act.x, y - act.y
            squared = dx * dx + dy * dy
            hit = squared < act.r**2
            if hit.any():
                found = left[hit]
                ink[found] = act.ink
                drop[found] = number + 1
                inner[found] = np.sqrt(squared[hit]) / act.r
                miss = ~hit
                left, x, y = left[miss], x[miss], y[miss]
                dx, dy, squared = dx[miss], dy[miss], squared[miss]
            scale = np.sqrt(1 - act.r**2 / squared)
            x, y = act.x + dx * scale, act.y + dy * scale
    ink[left] = ground.at(x, y, k)
    return ink, inner, drop


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    k = n / 1024
    acts = _acts(rng, n)
    ground = _ground(rng, n)
    inks = lab(*_PALETTE)
    shade = rng.normal(0, 0.022, len(acts) + 1).astype(np.float32)
    # The water never stands quite still: everything is drawn through a slight, slow ripple.
    ripple_x = 7 * k * fractal(rng, (n, n), 150 * k, 3)
    ripple_y = 7 * k * fractal(rng, (n, n), 150 * k, 3)
    rows, columns = np.mgrid[0:n, 0:n].astype(np.float32)
    image = np.zeros((n, n, 3), np.float32)
    offsets = ((-0.25, -0.08), (0.25, 0.08)) if n >= 512 else ((0.0, 0.0),)
    for ox, oy in offsets:
        x = (columns + ox + ripple_x).ravel()
        y = (rows + oy + ripple_y).ravel()
        ink, inner, drop = _trace(acts, ground, x, y, k)
        color = inks[ink]
        # Ink is pushed to the rim of a drop as it spreads.
        color[:, 0] += shade[drop] + 0.03 - 0.085 * inner**5
        image += color.reshape(n, n, 3) / len(offsets)

    # Ink granulates on the wet sheet, more where it is dark; the paper's fibres and lift lines show through.
    thin = np.clip((image[..., 0] - 0.2) / 0.75, 0, 1)
    grain = noise(rng, (n, n), 2.2 * k) * 0.6 + noise(rng, (n, n), 1.2 * k) * 0.5 + 0.5 * noise(rng, (n, n), 7 * k)
    image[..., 0] += (0.016 + 0.014 * (1 - thin)) * grain
    lift = noise(rng, (n, n), (3 * k, 260 * k)) * np.clip(noise(rng, (n, n), (40 * k, 300 * k)), 0, 2)
    image[..., 0] += 0.010 * lift + 0.012 * fractal(rng, (n, n), 120 * k, 4)
    fibre = np.maximum(noise(rng, (n, n), (1.6 * k, 12 * k)), noise(rng, (n, n), (12 * k, 1.6 * k)))
    image[..., 0] += 0.012 * np.clip(fibre - 1.0, 0, 2) * (0.4 + thin)
    # Gall breaks the film into tiny clear pinholes.
    holes = ndimage.gaussian_filter((rng.random((n, n)) < 0.0009 / k**2).astype(np.float32), 1.1 * k)
    holes = np.clip(holes * 9 * k**2 * (0.5 + np.clip(noise(rng, (n, n), 60 * k), 0, 2)), 0, 0.75)
    image += holes[..., None] * (lab("f4ead6")[0] - image)
    return image.astype(np.float32)
