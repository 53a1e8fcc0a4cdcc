"""Cross-hatching: a heap of gourds and fruit in black ink on buff paper, heightened with white.

Every pass of hatching is a set of evenly spaced lines along its own direction (round the forms, straight across, along
the forms, ...) that exists only where the tone is deeper than the pass's threshold, as a draughtsman builds up shadow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from benchmarks.styles.canvas import Array, fractal, grid, lab, noise, sample, smoothstep
from benchmarks.styles.strokes import scattered, trace

_LIGHT = np.array([-0.56, -0.62, 0.55], np.float32)  # towards the lamp: upper left, in front of the paper


@dataclass(frozen=True)
class _Form:
    """An ellipsoid: centre and half-axes in pixels, its turn on the paper, its pole (unit vector), ribs, skin."""

    x: float
    y: float
    a: float
    b: float
    turn: float
    pole: Array
    ribs: int
    depth: float
    skin: float

    def local(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Positions in the frame in which the form is the unit disc."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return ((x - self.x) * c + (y - self.y) * s) / self.a, (-(x - self.x) * s + (y - self.y) * c) / self.b

    def paper(self, u: Array, v: Array) -> Array:
        """Positions on the paper, (m, 2), of points of the unit disc."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return np.stack([self.x + c * u * self.a - s * v * self.b, self.y + s * u * self.a + c * v * self.b], -1)


class _Scene:
    """Darkness (0 is lit, 1 is black), form number, and the two directions over the surface at every pixel."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.n, self.k = n, n / 1024
        self.x, self.y = grid(n)
        # The cloth under the heap: folds across which the first pass runs.
        bend = self.y * 0.8 + self.x * 0.5 + 60 * self.k * noise(rng, (n, n), 170 * self.k)
        fold = np.sin(bend / (30 * self.k))
        self.dark = (0.62 + 0.36 * fold).astype(np.float32)
        self.form = np.zeros((n, n), np.int32)
        gy, gx = np.gradient(ndimage.gaussian_filter(bend, 6 * self.k))
        size = np.hypot(gx, gy) + 1e-6
        self.round = np.stack([gx / size, gy / size], -1).astype(np.float32)
        self.along = np.stack([-gy / size, gx / size], -1).astype(np.float32)
        self.forms: list[_Form] = []
        for radius, gap, count in ((172, 0.8, 11), (112, 0.74, 15), (72, 0.85, 20), (44, 0.9, 22)):
            self._heap(rng, radius * self.k, gap, count)

    def _heap(self, rng: np.random.Generator, radius: float, gap: float, count: int) -> None:
        """Put forms of about this radius where they hide least of their own kind."""
        own: list[_Form] = []
        for _ in range(count):
            options = rng.uniform(-0.03, 1.03, (60, 2)) * self.n
            if own:
                clear = np.min([np.hypot(options[:, 0] - f.x, options[:, 1] - f.y) for f in own], axis=0)
                options = options[np.argsort(-clear)]
                if clear.max() < 2 * gap * radius:
                    break
            tilt, lean = rng.uniform(0.25, 1.25), rng.uniform(-np.pi, np.pi)
            pole = np.array([np.sin(tilt) * np.cos(lean), np.sin(tilt) * np.sin(lean), np.cos(tilt)], np.float32)
            size = radius * rng.uniform(0.85, 1.15)
            ribs = int(rng.choice([9, 11, 14])) if rng.random() < 0.62 else 0
            x, y = options[0]
            form = _Form(
                x, y, size, size * rng.uniform(0.74, 0.95), lean + np.pi / 2, pole, ribs,
                rng.uniform(0.35, 0.6) if ribs else 0.0, rng.uniform(-0.08, 0.16),
            )  # fmt: skip
            own.append(form)
            self._lay(form)

    def _lay(self, form: _Form) -> None:
        self.forms.append(form)
        # The shadow it casts on what lies below, to the lower right, and the darkness where they touch.
        u, v = form.local(self.x - 0.3 * form.b, self.y - 0.34 * form.b)
        self.dark += 0.62 * np.exp(-((np.hypot(u, v) / 1.04) ** 6)) * (1 - 0.4 * self.dark)
        u, v = form.local(self.x, self.y)
        r = np.hypot(u, v)
        self.dark += 0.35 * np.exp(-((np.clip(r - 1, 0, None) / 0.07) ** 2)) * (r > 1)
        inside = r < 1
        u, v = u[inside], v[inside]
        c, s = np.cos(form.turn), np.sin(form.turn)
        # normal in the frame of the paper
        normal = np.stack([c * u - s * v, s * u + c * v, np.sqrt(1 - u * u - v * v)], -1)
        across = np.cross(form.pole, normal)
        across /= np.linalg.norm(across, axis=-1, keepdims=True) + 1e-4
        down = np.cross(normal, across)
        height = normal @ form.pole
        bent = normal
        if form.ribs:
            wave = np.sin(form.ribs * _longitude(form.pole, normal))
            bent = normal + form.depth * (1 - height**4)[:, None] * wave[:, None] * across
            bent /= np.linalg.norm(bent, axis=-1, keepdims=True)
        lambert = np.clip(bent @ (_LIGHT / np.linalg.norm(_LIGHT)), -0.35, 1)
        bounce = 0.2 * np.clip(bent @ np.array([0.7, 0.6, 0.1], np.float32), 0, 1) * (1 - normal[:, 2])
        dark = 0.82 - 0.93 * lambert - bounce + form.skin + 0.5 * np.exp(-((1 - height) / 0.035))
        self.dark[inside] = dark
        self.form[inside] = len(self.forms)
        for field, tangent in ((self.round, across), (self.along, down)):
            size = np.hypot(tangent[:, 0], tangent[:, 1])[:, None] + 1e-3
            field[inside] = tangent[:, :2] / size


def _longitude(pole: Array, normal: Array) -> Array:
    """Angle about the pole of each normal (m, 3)."""
    east, north = _equator(pole)
    return np.arctan2(normal @ north, normal @ east)


def _equator(pole: Array) -> tuple[Array, Array]:
    """Two unit vectors that span the plane across the pole."""
    east = np.cross(np.array([0.31, 0.17, 0.94], np.float32), pole)
    east /= np.linalg.norm(east)
    return east, np.cross(pole, east)


class _Ink:
    """Coverage (n, n) by lines of varying width; lines of one pass merge, passes darken one another."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.rng, self.n, self.k = rng, n, n / 1024
        self.coverage = np.zeros((n, n), np.float32)
        self._points: list[Array] = []
        wobble = noise(rng, (1, 65536), (1, 9.0))[0] + 0.6 * noise(rng, (1, 65536), (1, 26.0))[0]
        self._wobble = wobble
        self._pressure = noise(rng, (1, 65536), (1, 20.0))[0]

    def line(self, path: Array, width: float | Array, taper: tuple[float, float] = (0.2, 0.5)) -> None:
        """Add a line through ``path`` (m, 2) of ``width`` pixels, drawn out at its two ends by ``taper``."""
        lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
        count = int(lengths[-1] / 0.6)
        if count < 6:
            return
        at = np.linspace(0, lengths[-1], count)
        points = np.stack([np.interp(at, lengths, path[:, 0]), np.interp(at, lengths, path[:, 1])], -1)
        start = int(self.rng.integers(0, 65536 - 4096))
        index = start + (at / self.k).astype(int) % 4096
        across = np.gradient(points, axis=0)[:, ::-1] * np.array([1, -1])
        across /= np.hypot(*across.T)[:, None] + 1e-6
        points = points + 0.75 * self.k * self._wobble[index][:, None] * across
        t = at / lengths[-1]
        ends = np.clip(t / max(taper[0], 1e-3), 0, 1) ** 0.6 * np.clip((1 - t) / max(taper[1], 1e-3), 0, 1) ** 0.7
        wide = np.interp(at, lengths, width) if isinstance(width, np.ndarray) else width
        wide = wide * ends * (1 + 0.28 * self._pressure[index])
        self._points.append(np.column_stack([points, wide]).astype(np.float32))

    def dry(self, strength: float) -> None:
        """Put the lines added since the last call on the paper."""
        if not self._points:
            return
        points = np.concatenate(self._points)
        self._points = []
        layer = np.zeros((self.n, self.n), np.float32)
        i, j = np.round(points[:, 0]).astype(int), np.round(points[:, 1]).astype(int)
        reach = int(np.ceil(points[:, 2].max() / 2 + 0.6))
        for dj in range(-reach, reach + 1):
            for di in range(-reach, reach + 1):
                x, y = i + di, j + dj
                alpha = np.clip(points[:, 2] / 2 + 0.5 - np.hypot(x - points[:, 0], y - points[:, 1]), 0, 1)
                alpha *= np.clip(points[:, 2] / 0.9, 0, 1)
                hit = (alpha > 0) & (x >= 0) & (y >= 0) & (x < self.n) & (y < self.n)
                np.maximum.at(layer, (y[hit], x[hit]), alpha[hit])
        self.coverage = 1 - (1 - self.coverage) * (1 - strength * layer)


def _hatch(
    ink: _Ink,
    scene: _Scene,
    direction: Array,
    wanted: Array,
    spacing: float,
    reach: float,
    width: tuple[float, float],
) -> None:
    """One pass: evenly spaced lines along ``direction`` where ``wanted`` > 0, wider where it is larger.

    Greedy placement of streamlines (Jobard & Lefer 1997): a line ends where it would come too close to another,
    leaves its form, or is no longer wanted.
    """
    rng, n, k = ink.rng, scene.n, scene.k
    step = 4 * k
    starts = scattered(rng, n, 0.8 * spacing * k)
    keep = sample(wanted, starts[:, 0], starts[:, 1]) > 0.02
    starts = starts[keep]

    def flow(at: Array) -> Array:
        i = np.clip(np.round(at[:, 0]).astype(int), 0, n - 1)
        j = np.clip(np.round(at[:, 1]).astype(int), 0, n - 1)
        return direction[j, i]

    steps = 2 * int(reach / 8)
    middle = steps // 2
    paths = np.stack(trace(starts, flow, step, steps))
    i = np.round(paths[..., 0]).astype(int)
    j = np.round(paths[..., 1]).astype(int)
    outside = (i < -4) | (j < -4) | (i > n + 3) | (j > n + 3)
    i, j = np.clip(i, 0, n - 1), np.clip(j, 0, n - 1)
    own = scene.form[j, i] == scene.form[j[:, middle], i[:, middle]][:, None]
    value = wanted[j, i]
    valid = own & ~outside & (value > 0)
    cell = max(1.0, 2 * k)
    taken = np.zeros((int(n / cell) + 2,) * 2, bool)
    radius = 0.72 * spacing * k / cell
    span = int(np.ceil(radius))
    dj, di = np.mgrid[-span : span + 1, -span : span + 1]
    disc = dj**2 + di**2 <= radius**2
    dj, di = dj[disc], di[disc]
    ci, cj = (i / cell).astype(int), (j / cell).astype(int)
    limits = rng.uniform(0.45, 1, (len(paths), 2))
    for p in range(len(paths)):
        free = valid[p] & ~taken[cj[p], ci[p]]
        if not free[middle]:
            continue
        blocked = np.flatnonzero(~free)
        low = blocked[blocked < middle].max(initial=-1) + 1
        high = blocked[blocked > middle].min(initial=steps + 1)
        low = max(low, int(middle * (1 - limits[p, 0])))
        high = min(high, middle + 1 + int(middle * limits[p, 1]))
        if high - low < 4:
            continue
        part = np.s_[low:high]
        rows, columns = cj[p, part, None] + dj, ci[p, part, None] + di
        taken[np.clip(rows, 0, len(taken) - 1), np.clip(columns, 0, len(taken) - 1)] = True
        wide = (width[0] + (width[1] - width[0]) * np.clip(value[p, part], 0, 1)) * k
        ink.line(paths[p, part], wide.astype(np.float32))


def _straight(scene: _Scene, rng: np.random.Generator, angle: float) -> Array:
    """Nearly one direction over the paper, a little different on every form, as the hand was held."""
    turns = angle + rng.normal(0, 0.2, len(scene.forms) + 1)
    field = turns[scene.form] + 0.07 * noise(rng, (scene.n, scene.n), 90 * scene.k)
    return np.stack([np.cos(field), np.sin(field)], -1).astype(np.float32)


def _outlines(ink: _Ink, scene: _Scene) -> None:
    """Edges, heavier on the shaded side, and the furrows between ribs."""
    n, k, rng = scene.n, scene.k, ink.rng
    for number, form in enumerate(scene.forms, 1):
        t = np.linspace(0, 2 * np.pi, 160) + rng.uniform(0, 6)
        shade = np.clip(-(np.cos(t + form.turn) * _LIGHT[0] + np.sin(t + form.turn) * _LIGHT[1]), -0.6, 1)
        for extra in (1.0, 0.985):
            points = form.paper(extra * np.cos(t), extra * np.sin(t))
            inner = form.paper(0.97 * np.cos(t), 0.97 * np.sin(t))
            _visible(ink, scene, points, inner, number, (3.4 + 3.2 * shade + (extra < 1) * -1.2) * k)
        if form.ribs:
            east, north = _equator(form.pole)
            c, s = np.cos(form.turn), np.sin(form.turn)
            for rib in range(form.ribs):
                # furrows: where the wave of the ribs rises through zero
                lon = 2 * np.pi * rib / form.ribs + rng.normal(0, 0.015)
                latitude = np.linspace(0.12, rng.uniform(1.9, 2.7), 60)
                ring = np.cos(lon) * east + np.sin(lon) * north
                at = np.sin(latitude)[:, None] * ring + np.cos(latitude)[:, None] * form.pole
                at = at[at[:, 2] > 0.05]
                if len(at) < 8:
                    continue
                u, v = c * at[:, 0] + s * at[:, 1], -s * at[:, 0] + c * at[:, 1]
                points = form.paper(u, v)
                _visible(ink, scene, points, points, number, np.full(len(points), 2.8 * k))
        tip = form.pole[:2]
        base = np.array([form.x, form.y]) + tip * np.array([form.a, form.b]).mean() * 0.93
        on_paper = 0 < base[0] < n and 0 < base[1] < n
        if form.pole[2] > 0.3 and on_paper and scene.form[int(base[1]), int(base[0])] == number:
            for offset in np.linspace(-1, 1, 5):
                t = np.linspace(0, 1, 12)[:, None]
                size = 0.3 * form.a
                side = np.array([-0.7, 0.7]) * offset * 0.2 * size
                curl = np.array([0.5, -0.2]) * size * t**2
                stalk = base + side * (1 - 0.4 * t) + t * size * (0.6 * tip + np.array([0.1, -0.7])) + curl
                ink.line(stalk, (3.4 + 1.5 * abs(offset)) * k, (0.02, 0.05))


def _visible(ink: _Ink, scene: _Scene, points: Array, test: Array, number: int, width: Array) -> None:
    """Draw the runs of ``points`` at which ``test`` lies on form ``number``."""
    i, j = np.round(test).astype(int).T
    inside = (i >= 0) & (j >= 0) & (i < scene.n) & (j < scene.n)
    seen = inside & (scene.form[np.clip(j, 0, scene.n - 1), np.clip(i, 0, scene.n - 1)] == number)
    for run in np.split(np.arange(len(points)), np.flatnonzero(np.diff(seen.astype(int))) + 1):
        if len(run) > 4 and seen[run[0]]:
            ink.line(points[run], width[run].astype(np.float32), (0.1, 0.15))


def draw(rng: np.random.Generator, n: int) -> Array:
    """The drawing in Oklab, (n, n, 3)."""
    k = n / 1024
    scene = _Scene(rng, n)
    dark = np.clip(scene.dark + 0.05 * fractal(rng, (n, n), 60 * k, 4), 0, 1.15).astype(np.float32)

    ink = _Ink(rng, n)
    passes = (
        # direction, darkness from which the pass is drawn, spacing, reach, narrowest and widest line
        (scene.round, 0.2, 10.5, 130, (1.5, 3.9)),
        (_straight(scene, rng, -0.85), 0.42, 10.0, 150, (1.7, 3.9)),
        (scene.along, 0.6, 10.0, 120, (1.8, 4.2)),
        (_straight(scene, rng, 0.35), 0.78, 9.0, 110, (2.2, 5.0)),
    )
    for direction, threshold, spacing, reach, width in passes:
        # the edge of a pass is ragged: the hand starts and stops where it likes
        ragged = threshold + 0.035 * noise(rng, (n, n), 14 * k)
        _hatch(ink, scene, direction, (dark - ragged) / 0.5, spacing, reach, width)
        ink.dry(0.93)
    _outlines(ink, scene)
    ink.dry(0.96)
    white = _Ink(rng, n)
    _hatch(white, scene, scene.round, (0.2 - dark) / 0.16, 9.0, 100, (2.0, 5.0))
    white.dry(0.9)

    paper, wash, soft, black, chalk = lab("e0c190", "8a6250", "38242a", "0e0d16", "fffaf0")
    fibre = 0.6 * noise(rng, (n, n), (2.2 * k, 9 * k)) + 0.6 * noise(rng, (n, n), (9 * k, 2.2 * k))
    grain = noise(rng, (n, n), 1.6 * k)
    image = np.broadcast_to(paper, (n, n, 3)).copy()
    image[..., 0] += 0.010 * fibre + 0.008 * grain + 0.012 * fractal(rng, (n, n), 220 * k, 4)
    # a thin wash under the deep shadows holds the tone together from afar
    depth = smoothstep(0.35, 1.0, ndimage.gaussian_filter(dark, 5 * k) + 0.04 * noise(rng, (n, n), 25 * k))
    image += 0.62 * depth[..., None] * (wash - image)
    tone = np.clip(0.55 + 0.25 * noise(rng, (n, n), 30 * k) + 0.5 * (dark - 0.6), 0, 1)[..., None]
    drag = 1 - 0.1 * np.clip(grain + 0.5 * fibre, 0, 2)
    image += (ink.coverage * drag)[..., None] * (soft + tone * (black - soft) - image)
    chalky = np.clip(white.coverage * (0.92 - 0.16 * np.clip(-fibre - 0.5 * grain, 0, 2)), 0, 1)
    return (image + chalky[..., None] * (chalk - image)).astype(np.float32)
