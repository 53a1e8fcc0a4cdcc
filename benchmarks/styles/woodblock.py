"""Woodblock wave: rows of breaking waves in the manner of a colour print, cut, inked and rubbed by hand.

Every wave is a fan of curves between its back and its hollow face. The curves carry the bands of blue, the key block's
dark lines run along their edges, and where they meet at the crest they break into claws of foam.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from benchmarks.styles.canvas import Array, fractal, grid, lab, noise, ramp

# From a wave's own units (crest at height 1, y upwards) to pixels.
Place = Callable[[Array], Array]

_ANGLES = np.linspace(0, 2 * np.pi, 18, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
INK, DEEP, BLUE, PALE, FOAM, PAPER = lab("16233f", "1f3f6e", "3f6f9a", "9fbcc4", "f3ead2", "e6d8b4")


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    image = _sky(rng, n)
    rows = 7
    for row in range(rows):
        depth = row / (rows - 1)
        base = n * (0.17 + 0.95 * depth)
        size = n * (0.105 + 0.1 * depth)
        x = -size * rng.uniform(0.2, 1.4)
        while x < n * 1.1:
            scale = size * rng.uniform(0.85, 1.3)
            _wave(rng, image, np.array([x, base + 0.05 * size * rng.standard_normal()]), scale)
            x += scale * rng.uniform(1.15, 1.5)
    return _printed(rng, image)


def _sky(rng: np.random.Generator, n: int) -> Array:
    """Graded ink wiped off the block by hand (bokashi), bars of cloud, and a snow-capped mountain."""
    x, y = (axis / n for axis in grid(n))
    image = ramp(
        [0, 0.06, 0.16, 0.4], lab("54708c", "b9b69a", "e6d3a4", "e9ddba"), y + 0.01 * noise(rng, (n, n), n / 8)
    )
    for _ in range(7):
        height, center, length = rng.uniform(0.03, 0.2), rng.uniform(0, 1), rng.uniform(0.12, 0.3)
        thick = rng.uniform(0.006, 0.012)
        bar = np.hypot(np.maximum(np.abs(x - center) - length, 0), y - height) < thick
        edge = np.hypot(np.maximum(np.abs(x - center) - length, 0), y - height) < thick + 0.0025
        image[edge] = 0.5 * INK + 0.5 * PAPER
        image[bar] = lab("d9a58a")[0]
    slope = 0.055 + 0.5 * np.abs(x - 0.62) ** 0.9 + 0.004 * noise(rng, (n, n), n / 60)
    image[(y > slope) & (y < 0.4)] = lab("5f7f9c")[0]
    ragged = 0.115 + 0.02 * np.sin(70 * x) + 0.012 * np.sin(131 * x + 1)
    image[(y > slope) & (y < ragged)] = FOAM
    image[np.abs(y - slope) < 0.0022] = INK
    return image


def _back(t: Array) -> Array:
    """The long slope up to the crest, t in [0, 1]: positions (m, 2) in units of the wave, y upwards."""
    return np.stack([-1.25 + 1.5 * t + 0.12 * t**6, 1.0 * t**1.7], axis=1)


def _face(t: Array) -> Array:
    """From the foot of the hollow face up and over to the falling lip."""
    angle = np.pi * (-0.32 + 1.12 * t)
    return np.stack([0.62 - 0.44 * np.cos(angle - 0.35) * (1 - 0.18 * t), 0.42 + 0.47 * np.sin(angle - 0.35)], axis=1)


def _wave(rng: np.random.Generator, image: Array, at: Array, size: float) -> None:
    lean, stretch = rng.uniform(-0.1, 0.12), rng.uniform(0.9, 1.12)

    def place(points: Array) -> Array:
        bent = points + np.stack([lean * points[:, 1], np.zeros(len(points))], axis=1)
        return at + size * stretch * bent * np.array([1, -1])

    t = np.linspace(0, 1, 60)
    back, face = _back(t), _face(t)
    below = np.array([[1.05, -0.9], [-1.35, -0.9]])
    _fill(image, place(np.concatenate([back, face[::-1], below])), BLUE)
    # Bands: curves between the back and the face, alternately deep, pale and blue.
    cuts = np.sort(np.concatenate([[0.0, 1.0], (np.arange(1, 10) + rng.uniform(-0.28, 0.28, 9)) / 10]))
    shades = [DEEP, PALE, BLUE, DEEP, PALE, DEEP, FOAM, DEEP, PALE, BLUE]
    for k, (low, high) in enumerate(itertools.pairwise(cuts)):
        one, two = _between(back, face, low), _between(back, face, high)
        tint = shades[k % len(shades)] + 0.012 * rng.standard_normal(3)
        _fill(image, place(np.concatenate([one, two[::-1]])), tint.astype(np.float32))
    for cut in cuts:
        _line(rng, image, place(_between(back, face, cut)), INK, size * 0.011)
    for cut in rng.uniform(0.02, 0.98, 9):  # short cuts of the knife between the key lines
        start = rng.uniform(0.0, 0.55)
        part = slice(int(60 * start), int(60 * (start + rng.uniform(0.2, 0.4))))
        _line(rng, image, place(_between(back, face, float(cut))[part]), DEEP, size * 0.006)
    # The swell below: lines that follow the water's roll.
    for k in range(9):
        u = np.linspace(-1.35, 1.05, 40)
        v = -0.06 - 0.085 * k + 0.045 * np.sin(3.1 * u + 0.8 * k + rng.uniform(0, 1)) - 0.03 * u
        swell = place(np.stack([u, v], axis=1))
        if k % 3 == 1:
            lower = place(np.stack([u, v - 0.07], axis=1))
            _fill(image, np.concatenate([swell, lower[::-1]]), PALE if k % 2 else DEEP)
        _line(rng, image, swell, INK, size * 0.008)
    _foam(rng, image, place, size, face)


def _between(back: Array, face: Array, share: float) -> Array:
    # Eased, so that the bands crowd towards the face as they do in a curling sheet of water.
    s = share**0.8
    return (1 - s) * back + s * face


def _foam(rng: np.random.Generator, image: Array, place: Place, size: float, face: Array) -> None:
    """Claws along the lip: each a hooked finger of white, outlined, with smaller fingers on it, and flying drops."""
    lip = face[34:]
    for index in np.linspace(0, len(lip) - 1, 13).astype(int)[rng.permutation(13)]:
        root = lip[index] + 0.03 * rng.standard_normal(2)
        heading = -0.35 - 1.5 * index / len(lip) + 0.45 * rng.standard_normal()
        for branch in range(3):
            _finger(rng, image, place, size, root, heading + 0.75 * (branch - 1), 0.2 * rng.uniform(0.7, 1.25))
    for _ in range(26):
        spot = lip[rng.integers(len(lip))] + np.array([0.22, 0.1]) + rng.normal(0, 0.15, 2)
        _disc(image, place(spot[None])[0], size * rng.uniform(0.008, 0.022), size * 0.007)


def _finger(
    rng: np.random.Generator, image: Array, place: Place, size: float, root: Array, heading: float, reach: float
) -> None:
    bend = rng.uniform(-2.4, -1.2)
    steps = np.linspace(0, 1, 9)
    turn = heading + bend * steps
    path = root + reach * np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1), axis=0) / len(steps)
    centers = place(path)
    widths = size * reach * 0.24 * (1 - 0.8 * steps)
    for grown, tint in ((size * 0.009, INK), (0.0, FOAM)):
        for center, width in zip(centers, widths, strict=True):
            _spot(image, center, width + grown, tint)


def _disc(image: Array, center: Array, radius: float, rim: float) -> None:
    _spot(image, center, radius + rim, INK)
    _spot(image, center, radius, FOAM)


def _spot(image: Array, center: Array, radius: float, tint: Array) -> None:
    _fill(image, center + radius * _CIRCLE, tint)


def _fill(image: Array, outline: NDArray[np.floating], tint: Array) -> None:
    rows, columns = polygon(outline[:, 1], outline[:, 0], image.shape[:2])
    image[rows, columns] = tint


def _line(rng: np.random.Generator, image: Array, path: Array, tint: Array, width: float) -> None:
    """A cut line: swelling in the middle, pointed at its ends, never quite even."""
    if len(path) < 3:
        return
    along = np.gradient(path, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / (np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-6)
    t = np.linspace(0, 1, len(path))
    uneven = 1 + 0.25 * np.interp(t, np.linspace(0, 1, 9), rng.standard_normal(9))
    half = (width * (0.35 + np.sin(np.pi * t) ** 0.7) * uneven / 1.2)[:, None] * normal
    _fill(image, np.concatenate([path + half, (path - half)[::-1]]), tint)


def _printed(rng: np.random.Generator, image: Array) -> Array:
    """What printing adds: the plank's grain in the ink, ink pressed unevenly, and the fibres of the paper."""
    n = image.shape[0]
    x, y = (axis / n for axis in grid(n))
    grain = np.sin(2 * np.pi * (y * 46 + 1.6 * noise(rng, (n, n), (n / 6, n / 2)) + 2.5 * (x - 0.5) ** 2))
    grain = 0.5 * grain + 0.7 * noise(rng, (n, n), (2.5, n / 9))
    pressed = fractal(rng, (n, n), n / 24, 4)
    fibres = noise(rng, (n, n), (2.0, 14.0)) + noise(rng, (n, n), (14.0, 2.0))
    darkness = np.clip((0.95 - image[..., 0]) / 0.6, 0.15, 1)
    out = image.copy()
    out[..., 0] += darkness * (0.014 * grain + 0.012 * pressed) + 0.006 * fibres
    # Where the pad barely touched, paper shows through in flecks along the grain.
    bare = np.clip(noise(rng, (n, n), (3.0, 16.0)) + 0.5 * pressed - 2.0, 0, 0.6)[..., None]
    return (out + bare * (PAPER - out)).astype(np.float32)
