"""Pointillism: a river bank in late light, laid in dots of pure colour that only the eye mixes."""

from __future__ import annotations

import numpy as np

from benchmarks.styles.canvas import Array, fractal, grid, lab, lit, noise, ramp, sample, smoothstep, weave
from benchmarks.styles.strokes import scattered


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    k = n / 1024
    scene = _scene(rng, n)
    # Tone is left to the dots: a divisionist's darks are blues and greens, hardly darker than his lights.
    scene[..., 0] = 0.66 + 0.5 * (scene[..., 0] - 0.66)
    image = np.broadcast_to(lab("e9dcc0")[0], (n, n, 3)).astype(np.float32).copy()
    image += 0.25 * (scene - image)
    relief = np.zeros((n, n), np.float32)
    # Chevreul's contrast: beside every colour a few dots of its opposite, which make it glow.
    warm = lab("f6a823", "f2c94c", "e8743b", "f7d9a0", "d9483b")
    cool = lab("2b5fa8", "5b4fa0", "2f8f83", "8fb8de", "3f7f4a")
    for spacing, radius, jitter, contrast in (
        (13.0, 9.0, 0.05, 0.06),
        (10.0, 6.6, 0.08, 0.14),
        (8.5, 5.0, 0.09, 0.2),
        (11.0, 3.6, 0.1, 0.28),
    ):
        points = scattered(rng, n, spacing * k)
        tints = sample(scene, points[:, 0], points[:, 1])
        tints = tints + rng.standard_normal((len(points), 3)) * np.array([jitter, 0.5 * jitter, 0.6 * jitter])
        # purer than the scene: each dot is one tube of paint
        tints[:, 1:] *= rng.uniform(1.1, 1.75, (len(points), 1))
        opposite = rng.random(len(points)) < contrast
        bluish = tints[:, 2] < 0.0
        for pool, who in ((warm, opposite & bluish), (cool, opposite & ~bluish)):
            chosen = pool[rng.integers(0, len(pool), int(who.sum()))]
            keep = tints[who, :1]
            tints[who] = np.concatenate([0.65 * keep + 0.35 * chosen[:, :1], chosen[:, 1:]], axis=1)
        sizes = radius * k * rng.uniform(0.75, 1.2, len(points))
        _dots(rng, image, relief, points, tints.astype(np.float32), sizes)
    relief += 0.05 * weave(rng, n, 4.5 * k) + 0.03 * noise(rng, (n, n), 2 * k)
    return lit(image, relief, 1.1 / k, gloss=0.15)


def _dots(rng: np.random.Generator, image: Array, relief: Array, at: Array, tints: Array, sizes: Array) -> None:
    """Lay slightly oval dabs, each a little domed and darker to one side, one over the other."""
    n = image.shape[0]
    stretch = rng.uniform(0.8, 1.25, len(at))
    turn = rng.uniform(0, np.pi, len(at))
    for (x, y), tint, size, ratio, angle in zip(at, tints, sizes, stretch, turn, strict=True):
        reach = int(np.ceil(size * 1.3)) + 1
        x0, x1 = max(int(x) - reach, 0), min(int(x) + reach + 1, n)
        y0, y1 = max(int(y) - reach, 0), min(int(y) + reach + 1, n)
        if x1 <= x0 or y1 <= y0:
            continue
        dx = np.arange(x0, x1, dtype=np.float32)[None, :] - x
        dy = np.arange(y0, y1, dtype=np.float32)[:, None] - y
        u = (np.cos(angle) * dx + np.sin(angle) * dy) / ratio
        v = (np.cos(angle) * dy - np.sin(angle) * dx) * ratio
        r = np.sqrt(u * u + v * v)
        alpha = np.clip(size - r + 0.5, 0, 1)[..., None]
        window = np.s_[y0:y1, x0:x1]
        paint = tint + (0.02 * (-u - v) / size)[..., None] * np.array([1, 0, 0], np.float32)
        image[window] += alpha * (paint - image[window])
        dome = np.sqrt(np.clip(1 - (r / size) ** 2, 0, 1))
        relief[window] += alpha[..., 0] * (0.9 * dome - 0.7 * relief[window])


def _scene(rng: np.random.Generator, n: int) -> Array:
    """What the dots depict: sky with a low sun, far hills, water with its reflection, a bank with trees."""
    x, y = (axis / n for axis in grid(n))
    wobble = fractal(rng, (n, n), n / 5, 4)
    sky = ramp([0.0, 0.2, 0.38, 0.5], lab("6f9fd0", "a9c6dd", "f4dcae", "f7b56a"), np.clip(y + 0.02 * wobble, 0, 1))
    sun = np.exp(-(((x - 0.66) ** 2 + (y - 0.36) ** 2) / 0.011))[..., None]
    sky += sun * (lab("fff0b8")[0] - sky)
    drift = noise(rng, (n, n), (n / 16, n / 4)) + 0.6 * noise(rng, (n, n), (n / 30, n / 10))
    clouds = smoothstep(0.0, 1.2, drift - np.abs(y - 0.15) / 0.13)[..., None]
    sky += 0.75 * clouds * (lab("f6c9b6")[0] - sky)
    image = sky

    hills = 0.43 + 0.03 * noise(rng, (n, n), n / 4)[n // 2][None, :] - 0.05 * np.exp(-(((x - 0.2) / 0.2) ** 2))
    far = ramp([0, 1], lab("7d87b8", "8fae9a"), np.clip((y - hills) / 0.08, 0, 1))
    image = np.where((y > hills)[..., None], far, image)

    shore = 0.505
    water = ramp([0, 0.35, 1.0], lab("e9b878", "5f9fb0", "24506f"), np.clip((y - shore) / 0.5, 0, 1))
    glitter = np.exp(-(((x - 0.66 + 0.02 * wobble) / (0.035 + 0.16 * (y - shore))) ** 2))
    ripple = 0.5 + 0.5 * np.sin(2 * np.pi * (y - shore) * 34 + 2.2 * wobble)
    water += (glitter * ripple)[..., None] * (lab("ffd98a")[0] - water)
    water += 0.35 * (ripple * smoothstep(0.3, 1.4, wobble))[..., None] * (lab("b9d4cf")[0] - water)
    image = np.where((y > shore)[..., None], water, image)

    edge = 0.9 - 0.36 * (1 - smoothstep(0.0, 0.62, x)) + 0.02 * noise(rng, (n, n), n / 9)
    meadow = ramp([0, 0.4, 1], lab("c9b44a", "6f9a3f", "2f5f3a"), np.clip((y - edge) / 0.32, 0, 1))
    flowers = smoothstep(0.9, 1.6, noise(rng, (n, n), n / 90))[..., None]
    meadow += 0.8 * flowers * (lab("d9536a")[0] - meadow)
    image = np.where((y > edge)[..., None], meadow, image)

    for cx, cy, rx, ry, deep in (
        (0.13, 0.3, 0.2, 0.26, 0.0),
        (0.36, 0.4, 0.1, 0.15, 0.15),
        (0.92, 0.72, 0.15, 0.2, 0.05),
    ):
        lump = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 - 0.3 * fractal(rng, (n, n), n / 16, 3)
        lump -= 0.22 * noise(rng, (n, n), n / 7)
        light = np.clip(0.5 + 0.55 * (x - cx) / rx - 0.4 * (y - cy) / ry + 0.3 * noise(rng, (n, n), n / 20), 0, 1)
        leaves = ramp([0, 0.5, 1], lab("1f3f3a", "3f7a45", "c2b84a"), np.clip(light - deep, 0, 1))
        image = np.where((lump < 0.75)[..., None], leaves, image)
    for cx, top, bottom, width in ((0.12, 0.42, 0.76, 0.016), (0.2, 0.44, 0.72, 0.01), (0.36, 0.5, 0.68, 0.008)):
        bend = cx + 0.012 * np.sin(9 * y + 20 * cx)
        trunk = (np.abs(x - bend) < width * (0.6 + 0.6 * (y - top))) & (y > top) & (y < bottom)
        image = np.where(trunk[..., None], lab("4a3350")[0], image)
    return image.astype(np.float32)
