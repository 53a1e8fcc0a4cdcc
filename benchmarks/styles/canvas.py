"""What every drawing needs: seeded noise, colours in Oklab, light on relief, and the antialiased reduction.

Drawings are made on a square of ``n`` pixels, twice the size of the finished picture, in Oklab (Ottosson 2020,
https://bottosson.github.io/posts/oklab/): mixing and darkening paint there keeps hues as a painter expects, where
sRGB turns blue to violet. Arrays are float32, rows first; positions are ``(x, y)`` in pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Mostly float32; numbers of things are whole.
Array = NDArray[Any]

#: Drawings are this many times as large as the finished picture.
SUPERSAMPLING = 2

# Ottosson's matrices: linear sRGB -> cone response, cube-rooted cone response -> Oklab.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def generator(name: str, seed: int) -> np.random.Generator:
    """The random stream of one drawing; two drawings with the same seed share nothing."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def lab(*colors: str) -> Array:
    """Oklab of colours written ``rrggbb``, shape (number, 3)."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return (np.cbrt(linear @ _CONES.T) @ _LAB.T).astype(np.float32)


def linear_rgb(image: Array) -> Array:
    """Oklab (..., 3) to linear sRGB, clipped to [0, 1]."""
    cones = (image @ np.linalg.inv(_LAB).T.astype(np.float32)) ** 3
    return np.clip(cones @ np.linalg.inv(_CONES).T.astype(np.float32), 0, 1).astype(np.float32)


def finish(image: Array) -> NDArray[np.uint8]:
    """Oklab drawing (2m, 2m, 3) to the finished sRGB picture (m, m, 3) in bytes.

    Reduced in linear light with a Lanczos kernel of two lobes, so that edges stay crisp and fine lines keep their
    tone.
    """
    taps = np.arange(-1.75, 2, 0.5)
    kernel = np.sinc(taps) * np.sinc(taps / 2)
    kernel /= kernel.sum()
    out = linear_rgb(image)
    for axis in (0, 1):
        # An even kernel sits half a pixel to one side, which is where the centre of each pair of pixels lies.
        out = ndimage.correlate1d(out, kernel, axis=axis, origin=-1, mode="mirror")
        out = np.take(out, np.arange(0, out.shape[axis], SUPERSAMPLING), axis=axis)
    out = np.clip(out, 0, 1)
    srgb = np.where(out <= 0.0031308, out * 12.92, 1.055 * out ** (1 / 2.4) - 0.055)
    return np.round(srgb * 255).astype(np.uint8)


def grid(n: int) -> tuple[Array, Array]:
    """x and y of every pixel, each (n, n)."""
    y, x = np.mgrid[0:n, 0:n].astype(np.float32)
    return x, y


def noise(rng: np.random.Generator, shape: tuple[int, int], scale: float | tuple[float, float]) -> Array:
    """Smooth noise of mean 0 and deviation 1 whose features are about ``scale`` pixels (rows, columns) in size."""
    sy, sx = (scale, scale) if isinstance(scale, (int, float)) else scale
    rows, columns = int(np.ceil(shape[0] / sy)) + 4, int(np.ceil(shape[1] / sx)) + 4
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    oy, ox = rng.uniform(1, 2, 2)
    y = np.arange(shape[0]) / sy + oy
    x = np.arange(shape[1]) / sx + ox
    out = _cubic(_cubic(coarse, y).T, x).T
    return ((out - out.mean()) / (out.std() + 1e-9)).astype(np.float32)


def _cubic(values: Array, at: NDArray[np.float64]) -> Array:
    """Cubic B-spline interpolation of the rows of ``values`` at fractional row numbers."""
    base = np.floor(at).astype(int)
    f = (at - base)[:, None].astype(np.float32)
    weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    out = np.zeros((len(at), values.shape[1]), np.float32)
    for k, weight in enumerate(weights):
        out += weight / 6 * values[np.clip(base + k - 1, 0, len(values) - 1)]
    return out


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, octaves: int = 4, gain: float = 0.5
) -> Array:
    """Sum of noises, each half the size of the one before and ``gain`` times its strength; deviation 1."""
    out = np.zeros(shape, np.float32)
    for octave in range(octaves):
        out += gain**octave * noise(rng, shape, max(1.0, scale / 2**octave))
    return out / out.std()


def sample(field: Array, x: Array, y: Array) -> Array:
    """Bilinear value of ``field`` (n, n) or (n, n, c) at positions; beyond the border the nearest pixel."""
    h, w = field.shape[:2]
    x, y = np.clip(x, 0, w - 1.001), np.clip(y, 0, h - 1.001)
    i, j = x.astype(int), y.astype(int)
    fx, fy = (x - i).astype(np.float32), (y - j).astype(np.float32)
    if field.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    top = field[j, i] * (1 - fx) + field[j, i + 1] * fx
    bottom = field[j + 1, i] * (1 - fx) + field[j + 1, i + 1] * fx
    return top * (1 - fy) + bottom * fy


def ramp(stops: Sequence[float] | Array, colors: Array, at: Array) -> Array:
    """Piecewise linear gradient through ``colors`` (k, 3) at ``stops``, evaluated at ``at``: (..., 3)."""
    return np.stack([np.interp(at, stops, colors[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def smoothstep(low: float | Array, high: float | Array, value: Array) -> Array:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def lit(image: Array, relief: Array, strength: float, *, gloss: float = 0.0, across: float = 0.0) -> Array:
    """The drawing as if ``relief`` stood out of it, in light from the upper left.

    ``gloss`` adds the bright ridges of wet or varnished paint; ``across`` turns the light (radians, clockwise).
    """
    gy, gx = np.gradient(relief)
    angle = np.pi / 4 + across
    # tanh keeps steep edges from burning out; shadow is weaker than light, as in a bright room
    shade = np.tanh(strength * (np.cos(angle) * gx + np.sin(angle) * gy))
    out = image.copy()
    out[..., 0] += np.where(shade > 0, 0.16, 0.13) * shade
    if gloss:
        out[..., 0] += gloss * np.clip(shade - 0.45, 0, 1) ** 2
    return out


def weave(rng: np.random.Generator, n: int, pitch: float) -> Array:
    """Relief of a plain-woven canvas whose threads are ``pitch`` pixels apart and of uneven thickness."""
    x, y = grid(n)
    x = x + 0.35 * pitch * noise(rng, (n, n), 9 * pitch)
    y = y + 0.35 * pitch * noise(rng, (n, n), 9 * pitch)
    u, v = x * np.pi / pitch, y * np.pi / pitch
    over = np.sin(u) * np.sin(v)
    warp = np.abs(np.sin(u)) * (over > 0)
    weft = np.abs(np.sin(v)) * (over <= 0)
    return (warp + weft).astype(np.float32) * (1 + 0.25 * noise(rng, (n, n), (2 * pitch, 8 * pitch)))
