"""Mosaic: fish in a swirling sea, laid in rows of stone tesserae that follow their outlines (opus vermiculatum).

Tiles are squares set along level lines of the distance to the nearest outline; where rows meet, the tiles are cut to
fit, which is a Voronoi diagram in every tile's own square norm (after Hausner 2001, "Simulating decorative mosaics").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import find_contours

from benchmarks.styles.canvas import Array, fractal, grid, lab, lit, noise, ramp, sample

_SCALES = (
    ("7c1f1a", "b8371f", "d9622b", "eb9447", "f6c98a"),
    ("8a4d12", "c07d1c", "e0a833", "f0cb6a", "f8e8b8"),
    ("4d1b3c", "7f2b52", "b04a6a", "d78a94", "f0c9bf"),
    ("3d3a36", "6b655c", "9c948a", "c9c2b4", "ece6d8"),
)
_SEA = ("0b2a3c", "124a5e", "1c6f7d", "3a978f", "77bda6", "bcdcc3", "e9efdc")


@dataclass(frozen=True)
class _Fish:
    """A fish: middle, half-length, heading, bend of the body, and its colours (number in ``_SCALES``)."""

    x: float
    y: float
    size: float
    heading: float
    bend: float
    colors: int

    def local(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Position along the body, -1 (tail fin) to 1 (mouth), and across it, both in half-lengths."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        u = ((x - self.x) * c + (y - self.y) * s) / self.size
        v = (-(x - self.x) * s + (y - self.y) * c) / self.size
        return u, v - self.bend * (u * u - 0.3) - 0.35 * self.bend * np.clip(-u, 0, 2) ** 3

    def shape(self, u: Array, v: Array) -> tuple[Array, Array, Array]:
        """Body, fins, and both together as fields that are positive inside."""
        t = np.clip((u + 0.72) / 1.72, 0, 1)
        half = 0.385 * np.sqrt(np.clip(1 - t**3.2, 0, 1)) * (0.1 + 0.9 * np.sin(np.pi * np.clip(t, 0, 0.55) / 1.1))
        body = np.where((u > -0.74) & (u < 1), half - np.abs(v), -1)
        a = np.clip((-0.6 - u) / 0.45, 0, 1)
        tail = np.where((u < -0.6) & (u > -1.08), 0.05 + 0.36 * a**1.1 - np.abs(v), -1)
        tail = np.where(u < -0.97 - 0.4 * (np.abs(v) - 0.12), -1, tail)
        b = np.clip((u + 0.45) / 0.75, 0, 1)
        crest = np.where((u > -0.45) & (u < 0.3), 0.27 + 0.2 * np.sin(np.pi * b**0.6) - np.abs(v - 0.02), -1)
        fins = np.maximum(tail, crest)
        return body, fins, np.maximum(body, fins)


def _school(rng: np.random.Generator, n: int) -> list[_Fish]:
    """Fish of three sizes that keep clear of one another and swim along a common, turning current."""
    out: list[_Fish] = []
    for size, count in ((0.185, 6), (0.135, 8), (0.092, 14)):
        for _ in range(count):
            options = rng.uniform(-0.03, 1.03, (300, 2))
            clear = np.full(300, 1.0)
            for fish in out:
                apart = np.hypot(options[:, 0] - fish.x / n, options[:, 1] - fish.y / n)
                clear = np.minimum(clear, apart - 0.82 * (size + fish.size / n))
            best = int(np.argmax(clear))
            if clear[best] < 0:
                break
            x, y = options[best]
            heading = 1.1 * np.sin(2 * np.pi * (0.8 * y + 0.3 * x) + 0.6) + (np.pi if rng.random() < 0.45 else 0)
            heading += rng.normal(0, 0.25)
            colors = int(rng.choice(4, p=[0.34, 0.3, 0.2, 0.16]))
            half, bend = size * n * rng.uniform(0.92, 1.08), rng.uniform(-0.35, 0.35)
            out.append(_Fish(x * n, y * n, half, heading, bend, colors))
    return out


def _picture(rng: np.random.Generator, n: int, k: float, pitch: float) -> tuple[Array, Array]:
    """The cartoon under the tiles: colours (n, n, 3) and the distance to the nearest outline."""
    x, y = grid(n)
    school = _school(rng, n)
    region = np.zeros((n, n), np.int32)
    for number, fish in enumerate(school):
        body, fins, _ = fish.shape(*fish.local(x, y))
        region[(fins > 0) & (region == 0)] = 3 * number + 2
        region[body > 0] = 3 * number + 1
    outline = ndimage.maximum_filter(region, 3) != ndimage.minimum_filter(region, 3)
    distance = np.asarray(ndimage.distance_transform_edt(~outline), np.float32)

    # The sea: bands that run round the fish and break into waves of their own away from them.
    away = np.asarray(ndimage.distance_transform_edt(region == 0), np.float32)
    drift = fractal(rng, (n, n), 230 * k, 2)
    phase = away / (12 * k) + 2.4 * drift
    tone = 0.38 + 0.34 * np.sin(phase) + 0.09 * drift
    sea = lab(*_SEA)
    image = ramp(np.linspace(0, 1, len(sea)), sea, np.clip(tone, 0, 1))
    for number, fish in enumerate(school):
        inside = (region == 3 * number + 1) | (region == 3 * number + 2)
        if not inside.any():
            continue
        u, v = fish.local(x[inside], y[inside])
        body, _, _ = fish.shape(u, v)
        palette = lab(*_SCALES[fish.colors])
        light = np.cos(fish.heading) >= 0
        back = v if light else -v
        stripes = 0.2 * np.sin(15 * u + 8 * np.abs(v))
        shade = np.clip(0.52 + 1.25 * back + stripes + 0.5 * (0.16 - np.abs(back)) * (back < 0), 0, 1)
        skin = ramp(np.linspace(0, 1, len(palette)), palette, shade)
        fin = ramp(np.linspace(0, 1, len(palette)), palette, np.clip(0.35 + 0.35 * np.sin(26 * v) + 0.3 * u, 0, 1))
        color = np.where((body > 0)[:, None], skin, fin)
        gill = np.abs(np.hypot(u - 0.98, v) - 0.5) < 0.04
        color[gill & (body > 0)] = palette[0]
        # one row of dark stones holds the outline
        color[distance[inside] < 0.95 * pitch] = 0.75 * palette[0] + 0.25 * palette[1]
        eye = np.hypot(u - 0.68, v + (0.1 if light else -0.1))
        color[eye < 0.17] = lab("fbf3dc")[0]
        color[eye < 0.08] = lab("14100f")[0]
        image[inside] = color
    halo = (region == 0) & (away < 0.98 * pitch)
    image[halo] = 0.7 * lab("f1e9d2")[0] + 0.3 * image[halo]
    return image, distance


def _seeds(rng: np.random.Generator, distance: Array, pitch: float) -> tuple[Array, Array]:
    """Middles of the tiles (m, 2) and the directions (radians) of their rows, nearest to the outlines first."""
    n = distance.shape[0]
    gy, gx = map(np.asarray, np.gradient(np.asarray(ndimage.gaussian_filter(distance, 0.3 * pitch))))
    cell = pitch / 3
    taken: dict[tuple[int, int], list[int]] = {}
    middles: list[tuple[float, float]] = []
    angles: list[float] = []

    def put(px: float, py: float, least: float) -> None:
        a, b = int(px // cell), int(py // cell)
        reach = int(np.ceil(least / cell))
        for i in range(a - reach, a + reach + 1):
            for j in range(b - reach, b + reach + 1):
                for other in taken.get((i, j), ()):
                    ox, oy = middles[other]
                    if (ox - px) ** 2 + (oy - py) ** 2 < least**2:
                        return
        row, column = min(max(int(py), 0), n - 1), min(max(int(px), 0), n - 1)
        taken.setdefault((a, b), []).append(len(middles))
        middles.append((px, py))
        angles.append(float(np.arctan2(gx[row, column], -gy[row, column])))

    smooth = ndimage.gaussian_filter(distance, 0.12 * pitch)
    for level in np.arange(0.52, float(smooth.max()) / pitch, 1.0):
        lines = find_contours(smooth, level * pitch)
        for line in sorted(lines, key=len, reverse=True):
            lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
            count = round(lengths[-1] / (1.02 * pitch))
            if count < 1:
                continue
            gaps = rng.uniform(0.82, 1.18, count)
            at = (np.cumsum(gaps) - gaps / 2) / gaps.sum() * lengths[-1]
            for px, py in zip(np.interp(at, lengths, line[:, 1]), np.interp(at, lengths, line[:, 0]), strict=True):
                put(float(px), float(py), 0.74 * pitch)
    # What the rows left open is filled with cut tiles.
    free = rng.uniform(0, n, (int(8 * (n / pitch) ** 2), 2))
    for px, py in free:
        put(float(px), float(py), 0.8 * pitch)
    return np.array(middles, np.float32), np.array(angles, np.float32)


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    k = n / 1024
    pitch = 14.0 * k
    picture, distance = _picture(rng, n, k, pitch)
    middles, angles = _seeds(rng, distance, pitch)
    angles = angles + rng.normal(0, 0.07, len(angles)).astype(np.float32)
    half = pitch * rng.uniform(0.43, 0.52, (len(angles), 2)).astype(np.float32)

    x, y = grid(n)
    # tiles are broken by hammer: no edge is straight
    px = x + 0.55 * k * noise(rng, (n, n), 4 * k) + 0.7 * k * noise(rng, (n, n), 9 * k)
    py = y + 0.55 * k * noise(rng, (n, n), 4 * k) + 0.7 * k * noise(rng, (n, n), 9 * k)
    near = np.asarray(KDTree(middles).query(np.column_stack([px.ravel(), py.ravel()]), k=6)[1])
    best = np.full(n * n, np.inf, np.float32)
    second = best.copy()
    tile = np.zeros(n * n, np.int64)
    c, s = np.cos(angles), np.sin(angles)
    for column in range(near.shape[1]):
        i = near[:, column]
        dx, dy = px.ravel() - middles[i, 0], py.ravel() - middles[i, 1]
        u = np.abs(dx * c[i] + dy * s[i])
        v = np.abs(-dx * s[i] + dy * c[i])
        # square norm with slightly rounded corners, in units of the tile's own size
        reach = (u / half[i, 0]) ** 6 + (v / half[i, 1]) ** 6
        reach = reach ** np.float32(1 / 6)
        closer = reach < best
        second = np.where(closer, best, np.minimum(second, reach))
        tile = np.where(closer, i, tile)
        best = np.where(closer, reach, best)
    tile = tile.reshape(n, n)
    best, second = best.reshape(n, n), second.reshape(n, n)
    # how far inside its tile a pixel lies, in pixels
    inner = np.minimum((1.12 - best) * pitch / 2, (second - best) * pitch / 4 - 0.9 * k)
    stone = np.clip(inner / k + 0.5, 0, 1).astype(np.float32)

    # A tile takes the colour of the cartoon under its middle, from a box of stones that are never quite alike.
    mx, my = middles[:, 0], middles[:, 1]
    tint = sample(picture, mx, my)
    mean = np.stack([ndimage.mean(picture[..., ch], tile, np.arange(len(middles))) for ch in range(3)], -1)
    nearest = picture[np.clip(my, 0, n - 1).astype(int), np.clip(mx, 0, n - 1).astype(int)]
    tint = 0.6 * nearest + 0.2 * tint + 0.2 * np.nan_to_num(mean)
    tint = tint + rng.normal(0, 1, tint.shape) * np.array([0.034, 0.011, 0.014])
    odd = rng.random(len(tint)) < 0.035
    box = lab("e8dcc0", "c9803a", "2a2430", "7fa8a0", "d8b45a", "6b2a2a")
    tint[odd] = 0.55 * tint[odd] + 0.45 * box[rng.integers(0, len(box), int(odd.sum()))]

    image = tint.astype(np.float32)[tile]
    veins = fractal(rng, (n, n), 16 * k, 4)
    offset = rng.integers(0, n, (len(middles), 2))
    # every stone was cut from somewhere else: its veins are another patch of the same rock
    vein = veins[(y.astype(int) + offset[tile, 0]) % n, (x.astype(int) + offset[tile, 1]) % n]
    speck = noise(rng, (n, n), 1.7 * k)
    image[..., 0] += 0.026 * vein + 0.012 * speck
    image[..., 2] += 0.008 * vein
    grout = lab("8b7f70")[0] + np.zeros((n, n, 3), np.float32)
    grout[..., 0] += 0.035 * noise(rng, (n, n), 2 * k) + 0.03 * fractal(rng, (n, n), 60 * k, 3) - 0.10
    image = grout + stone[..., None] * (image - grout)

    # Light: bevelled edges, and every stone set at its own slight tilt, so that the wall glitters.
    tilt = rng.normal(0, 0.035, (len(middles), 2)).astype(np.float32)
    plane = tilt[tile, 0] * (x - mx[tile]) + tilt[tile, 1] * (y - my[tile])
    bevel = 2.3 * k * np.sqrt(np.clip(inner / (3.2 * k), 0, 1))
    relief = bevel + stone * (plane + 0.22 * k * vein + 0.1 * k * speck) + 0.15 * k * speck
    image[..., 0] += 1.1 * (tilt[tile, 0] + tilt[tile, 1]) * stone * 0.5
    return lit(image, ndimage.gaussian_filter(relief, 0.6 * k).astype(np.float32), 1.0, gloss=0.35)
