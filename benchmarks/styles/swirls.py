"""Swirling brush strokes: a night sky of vortices, painted in four layers from broad to fine, lit as impasto."""

from __future__ import annotations

import numpy as np

from benchmarks.styles.canvas import Array, fractal, grid, lab, lit, noise, ramp, sample, weave
from benchmarks.styles.strokes import Brush, Paint, scattered, trace


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    k = n / 1024
    x, y = grid(n)
    centers, radii, spins = _vortices(rng)
    direction, ring, glow = _flow(rng, x / n, y / n, centers, radii, spins)
    flow = lambda at: sample(direction, at[:, 0], at[:, 1])  # noqa: E731

    night = lab("0e1536", "172a60", "1f4785", "2e6da3", "4f98b3", "94bfb6", "dfe3c0")
    gold = lab("6f6a35", "b98226", "dfa02c", "efc654", "f6e6a8")
    # Bands of light and dark run along the flow; around each vortex they close into rings.
    drift = _smeared(rng, direction, n, 34 * k, 60)
    tone = np.clip(0.42 + 0.17 * drift + 0.2 * np.sin(ring) * (0.35 + 0.65 * glow), 0, 1)
    image = ramp(np.linspace(0, 1, len(night)), night, tone)
    warmth = np.clip(1.05 * glow**1.5 + 0.2 * np.sin(ring + 1.1) * glow, 0, 1)
    warm = ramp(np.linspace(0, 1, len(gold)), gold, np.clip(warmth * 1.05 - 0.05 + 0.05 * drift, 0, 1))
    mixing = np.clip((warmth - 0.22) / 0.3, 0, 1)[..., None]
    image = image * (1 - mixing) + warm * mixing

    paint = Paint(np.broadcast_to(lab("2a2a3a")[0], (n, n, 3)), rng)
    palette_jitter = np.array([0.045, 0.016, 0.022], np.float32)
    accents = lab("f2d98a", "3f8f7a", "6d5a94", "e8f0e0", "0b1030", "b5652f", "7fae9a")
    layers = (
        # spacing, width, step, steps, share of accent colours
        (19, 34, 15, 11, 0.0),
        (14, 21, 10.5, 11, 0.03),
        (12.5, 14, 8.5, 10, 0.06),
        (17, 8.5, 7.0, 10, 0.16),
    )
    for level, (spacing, width, step, steps, share) in enumerate(layers):
        starts = scattered(rng, n, spacing * k)
        paths = trace(starts, flow, step * k, steps)
        tints = sample(image, starts[:, 0], starts[:, 1]) + palette_jitter * rng.standard_normal((len(starts), 3))
        swap = rng.random(len(starts)) < share
        picks = rng.random(len(starts))
        lengths = rng.uniform(0.55, 1.0, len(starts))
        widths = width * k * rng.uniform(0.65, 1.25, len(starts))
        which = rng.integers(0, len(accents), len(starts))
        shift = rng.normal(0, 0.055, len(starts))
        for i, path in enumerate(paths):
            tint = tints[i].astype(np.float32)
            if swap[i]:
                tint = 0.4 * tint + 0.6 * accents[which[i]]
            # neighbours alternate between lighter and darker paint, so that every stroke is seen
            tint[0] += shift[i] + (0.025 if level >= 2 else 0)
            keep = max(3, int(len(path) * lengths[i]))
            brush = Brush(widths[i], taper=0.95, dryness=0.9, streak=0.06, bristles=1.2 / k, body=0.7 + 0.3 * level)
            paint.stroke(path[:keep], brush, tint, picks[i])
    relief = paint.relief + 0.06 * weave(rng, n, 5 * k) + 0.05 * noise(rng, (n, n), 2 * k)
    return lit(paint.color, relief, 1.3 / k, gloss=0.3)


def _vortices(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Centres in the unit square, radii and senses of rotation: large ones first, the rest where there is room."""
    centers, radii = [], []
    for radius, count in ((0.17, 3), (0.115, 5), (0.075, 9)):
        for _ in range(count):
            options = rng.uniform(-0.02, 1.02, (200, 2))
            if centers:
                gaps = np.hypot(*(options[:, None] - np.array(centers)[None]).transpose(2, 0, 1))
                clear = (gaps - np.array(radii)[None] - radius).min(axis=1)
            else:
                clear = -np.abs(options - 0.28).sum(axis=1)
            best = options[np.argmax(clear)] if radius > 0.1 else options[np.argmax(np.minimum(clear, 0.03))]
            centers.append(best)
            radii.append(radius * rng.uniform(0.88, 1.12))
    spins = rng.permutation(np.where(np.arange(len(radii)) % 2, 1.0, -1.0))
    return np.array(centers, np.float32), np.array(radii, np.float32), spins.astype(np.float32)


def _flow(
    rng: np.random.Generator, x: Array, y: Array, centers: Array, radii: Array, spins: Array
) -> tuple[Array, Array, Array]:
    """Unit directions (n, n, 2), phase of the rings and glow of the nearest vortex over the unit square."""
    n = x.shape[0]
    bend = 0.5 * noise(rng, (n, n), n / 3) + 0.25 * noise(rng, (n, n), n / 7)
    u, v = np.cos(bend) * 0.55, np.sin(bend) * 0.55
    glow = np.zeros_like(x)
    ring = np.zeros_like(x)
    wobble = 0.012 * fractal(rng, (n, n), n / 8, 3)
    # not every vortex is a star: some stay eddies of the sky
    bright = rng.permutation(np.linspace(0.5, 1.0, len(radii)))
    for (cx, cy), radius, spin, brightness in zip(centers, radii, spins, bright, strict=True):
        dx, dy = x - cx, y - cy
        r = np.hypot(dx, dy) + 1e-4
        weight = np.exp(-((r / (1.25 * radius)) ** 4))
        inward = 0.22
        u = u * (1 - weight) + weight * (-spin * dy - inward * dx) / r
        v = v * (1 - weight) + weight * (spin * dx - inward * dy) / r
        here = brightness * np.exp(-(((r + wobble) / (0.5 * radius)) ** 2) * 0.9)
        glow = np.maximum(glow, here)
        ring += weight * (2 * np.pi * (r + wobble) / (0.38 * radius) + spin * np.arctan2(dy, dx))
    size = np.hypot(u, v) + 1e-6
    return np.stack([u / size, v / size], axis=-1).astype(np.float32), ring, glow


def _smeared(rng: np.random.Generator, direction: Array, n: int, scale: float, steps: int) -> Array:
    """Noise drawn out along the flow (line integral convolution), deviation 1."""
    source = noise(rng, (n, n), max(1.0, scale / 2))
    x, y = grid(n)
    total = source.copy()
    for sign in (-1, 1):
        at_x, at_y = x.copy(), y.copy()
        for _ in range(steps // 2):
            d = sample(direction, at_x, at_y)
            at_x += sign * scale / 9 * d[..., 0]
            at_y += sign * scale / 9 * d[..., 1]
            total += sample(source, at_x, at_y)
    return ((total - total.mean()) / total.std()).astype(np.float32)
