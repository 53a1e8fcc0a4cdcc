"""Stained glass: blossoms and winding leaves of streaky glass, held in lead, with the light behind them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from benchmarks.styles.canvas import Array, fractal, grid, lab, lit, noise, smoothstep
from benchmarks.styles.strokes import scattered

# Families of glass; a pane takes one of its family's sheets.
_FAMILIES = (
    lab("8c1220", "b3202a", "c8452e", "5e0f24"),  # ruby
    lab("173a8a", "1f58b0", "0f2560", "3a78c4"),  # cobalt
    lab("0f5a45", "2a8056", "5a9a3c", "0b3f3a"),  # emerald
    lab("d99a1e", "eebf3f", "c4741c", "f2d778"),  # amber
    lab("5a2a7c", "7d4aa0", "3a1f5e", "a070b4"),  # violet
    lab("7fb0c4", "a8cfd0", "cfe0d2", "5f90b0"),  # sky
)


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    k = n / 1024
    x, y = grid(n)
    # Cut glass has few straight edges: panes are Voronoi cells seen through a gentle bend.
    bend = 13 * k
    u = x + bend * noise(rng, (n, n), n / 7)
    v = y + bend * noise(rng, (n, n), n / 7)
    blossoms = _apart(scattered(rng, n, 150 * k), 236 * k)
    panes = _panes(rng, n, blossoms)
    found = KDTree(panes).query(np.stack([u.ravel(), v.ravel()], axis=1), k=2)
    distance, nearest = map(np.asarray, found)
    gap = ((distance[:, 1] - distance[:, 0]) / 2).reshape(n, n).astype(np.float32)
    pane = nearest[:, 0].reshape(n, n)

    image = _glass(rng, pane, len(panes), _sheets(rng, panes, blossoms, n), x, y)
    image = _bubbles(rng, image)
    # Trace lines fired onto the glass, in the middle of larger panes.
    depth = ndimage.gaussian_filter(gap, 2 * k)
    veins = np.abs(np.sin(depth * (0.36 / k) + 1.5 * noise(rng, (n, n), n / 30)))
    trace = smoothstep(0.16, 0.03, veins) * smoothstep(8 * k, 14 * k, depth)
    image[..., 0] -= 0.17 * trace
    # Glass gathers dirt along the lead, and light bleeds around it.
    image[..., 0] -= 0.2 * np.exp(-gap / (4.5 * k))
    image[..., 0] += 0.05 * smoothstep(6 * k, 22 * k, gap)
    return _leaded(rng, image, gap, pane, nearest[:, 1].reshape(n, n), k)


def _apart(points: Array, distance: float) -> Array:
    """Those of ``points`` that keep ``distance`` from all taken before them."""
    kept: list[Array] = []
    for point in points:
        if all(np.hypot(*(point - other)) >= distance for other in kept):
            kept.append(point)
    return np.array(kept, np.float32)


def _panes(rng: np.random.Generator, n: int, blossoms: Array) -> Array:
    """Seeds of the panes: rings of petals around each blossom, loose pieces between them."""
    k = n / 1024
    seeds = [scattered(rng, n, 58 * k)]
    keep = np.ones(len(seeds[0]), bool)
    for center in blossoms:
        keep &= np.hypot(*(seeds[0] - center).T) > 118 * k
        seeds.append(center[None])
        for radius, petals in ((38 * k, 6), (76 * k, 9), (108 * k, 14)):
            angle = rng.uniform(0, 7) + 2 * np.pi * (np.arange(petals) + rng.uniform(-0.16, 0.16, petals)) / petals
            reach = radius * rng.uniform(0.93, 1.07, petals)
            seeds.append(center + np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1))
    seeds[0] = seeds[0][keep]
    return np.concatenate(seeds).astype(np.float32)


def _sheets(rng: np.random.Generator, panes: Array, blossoms: Array, n: int) -> Array:
    """The glass each pane is cut from, Oklab (panes, 3): petals by ring, the rest by a winding band."""
    k = n / 1024
    away = np.hypot(*(panes[:, None] - blossoms[None]).transpose(2, 0, 1))
    ring, which = away.min(axis=1), away.argmin(axis=1)
    hue = rng.permutation(np.arange(len(blossoms)) % 3)
    petal_families = np.array([[0, 3, 0], [4, 0, 3], [3, 0, 4]])[hue[which]]
    band = np.sin(panes[:, 0] / (120 * k) + 2.2 * np.sin(panes[:, 1] / (160 * k)))
    family = np.where(band > 0.25, 2, np.where(band < -0.45, 5, 1))
    family = np.where(ring < 20 * k, petal_families[:, 1], family)
    family = np.where((ring >= 20 * k) & (ring < 57 * k), petal_families[:, 0], family)
    family = np.where((ring >= 57 * k) & (ring < 92 * k), petal_families[:, 2], family)
    stray = rng.random(len(panes)) < 0.07
    family = np.where(stray, rng.integers(0, len(_FAMILIES), len(panes)), family)
    choice = rng.integers(0, 4, len(panes))
    sheets = np.stack([_FAMILIES[f][c] for f, c in zip(family, choice, strict=True)])
    return (sheets + rng.normal(0, 1, sheets.shape) * np.array([0.025, 0.008, 0.008])).astype(np.float32)


def _glass(rng: np.random.Generator, pane: Array, count: int, sheets: Array, x: Array, y: Array) -> Array:
    """Every pane in its colour, streaked in its own direction, thicker (darker) towards one side."""
    n = pane.shape[0]
    image = sheets[pane].copy()
    turn = rng.uniform(0, np.pi, count)[pane].astype(np.float32)
    along = np.cos(turn) * x + np.sin(turn) * y
    across = np.cos(turn) * y - np.sin(turn) * x
    wander = 14 * n / 1024 * noise(rng, (n, n), n / 12)
    streak = _stripes(rng, across + wander, n / 60) + 0.6 * _stripes(rng, across + 0.4 * wander, n / 200)
    slope = rng.normal(0, 1, (3, count)).astype(np.float32)[:, pane]
    area = np.maximum(np.bincount(pane.ravel(), minlength=count), 1)
    middle = (np.bincount(pane.ravel(), along.ravel(), count) / area)[pane]
    tilt = np.tanh((along - middle) / (0.03 * n)) * slope[0]
    image[..., 0] += 0.04 * streak + 0.045 * tilt + 0.03 * fractal(rng, (n, n), n / 30, 4)
    image[..., 1] += 0.012 * streak * slope[1]
    image[..., 2] += 0.012 * streak * slope[2]
    return image.astype(np.float32)


def _stripes(rng: np.random.Generator, at: Array, width: float) -> Array:
    """Uneven parallel bands at positions ``at``; deviation about 1."""
    values = rng.standard_normal(4096)
    values = ndimage.gaussian_filter1d(values, 1.0, mode="wrap")
    values /= values.std()
    return np.interp(at / width % 4096, np.arange(4096), values).astype(np.float32)


def _bubbles(rng: np.random.Generator, image: Array) -> Array:
    """Seeds of air: small bright ellipses with a dark rim below."""
    n = image.shape[0]
    seeds = np.zeros((n, n), np.float32)
    spots = rng.integers(0, n, (n * n // 900, 2))
    seeds[spots[:, 0], spots[:, 1]] = rng.uniform(0.4, 1, len(spots))
    glow = ndimage.gaussian_filter(seeds, n / 1024 * 1.5)
    glow /= glow.max()
    image[..., 0] += 0.3 * glow - 0.2 * np.roll(glow, n // 300, axis=0)
    return image


def _leaded(rng: np.random.Generator, image: Array, gap: Array, pane: Array, other: Array, k: float) -> Array:
    """Cames between the panes: some heavier than others, rounded, hammered, catching the light on one edge."""
    n = image.shape[0]
    # One width for each pair of neighbours, so that it stays the same along an edge.
    pair = np.minimum(pane, other) * 7919 + np.maximum(pane, other) * 104729
    heavy = ((pair % 1009) / 1009).astype(np.float32)
    width = (4.2 + 4.8 * heavy**3) * k * (1 + 0.12 * noise(rng, (n, n), n / 40))
    lead = smoothstep(width + 0.8 * k, width - 0.8 * k, gap)
    profile = np.sqrt(np.clip(1 - (gap / np.maximum(width, 1)) ** 2, 0, 1))
    metal = np.broadcast_to(lab("23242a")[0], image.shape).copy()
    metal[..., 0] += 0.03 * noise(rng, (n, n), 3 * k) + 0.05 * profile
    out = image + lead[..., None] * (metal - image)
    relief = lead * (profile * 5 * k + 0.4 * k * noise(rng, (n, n), 5 * k))
    ripple = (1 - lead) * 0.45 * k * fractal(rng, (n, n), 16 * k, 3)
    return lit(out.astype(np.float32), relief + ripple, 0.55 / k, gloss=0.5)
