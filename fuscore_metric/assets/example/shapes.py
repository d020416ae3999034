"""Shapes of the example scene, and its two bodies: a car and a walker.

shapes -> street -> render: a shape says where it is, its `paint` what both cameras see there.
Metres (x right, y up, z ahead), degrees Celsius, linear light.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Vec = tuple[float, float, float]

SEED = 20240
AIR = 9.0  # degrees


class Surface(NamedTuple):
    """What the cameras see of n points."""

    albedo: Array  # (n, 3)
    heat: Array  # (n,) degrees
    shine: Array  # (n,) mirror part, 1 - emissivity in the thermal band
    glow: Array  # (n, 3) light of its own
    normal: Array  # (n, 3) bumped


@dataclass(frozen=True, eq=False)
class Shape:
    """A box, a box cut out by `solid`, or a body inside it given by its `distance`."""

    paint: Callable[[Array, Array, Shape], Surface]  # points, normals, self
    low: Vec
    high: Vec
    tone: Vec = (0.3, 0.3, 0.3)
    at: Vec = (0.0, 0.0, 0.0)
    turn: float = 0.0  # radians about y
    kind: float = 0.0  # stride of a walker; 1 for a running car; a seed or a switch elsewhere
    distance: Callable[[Array, Shape], Array] | None = None
    solid: Callable[[Array, Shape], Mask] | None = None

    def local(self, points: Array) -> Array:
        """Bring world points (n, 3) into the shape's own frame."""
        return self.face(points - np.array(self.at))

    def face(self, vectors: Array) -> Array:
        """Turn world directions (n, 3) into the shape's own frame."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        x, y, z = vectors.T
        return np.stack([c * x - s * z, y, s * x + c * z], axis=1)


@functools.cache
def _tiles() -> tuple[Array, Array]:
    """Make a wrapping 1/f noise tile of unit deviation, and a table of uniform numbers."""
    rng, size = np.random.default_rng(SEED), 1024
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    f[0, 0] = np.inf
    tile = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) / f).real
    return tile / tile.std(), rng.random((128, 128))


def noise(u: Array, v: Array, period: float) -> Array:
    """Sample multi-octave noise at (u, v) metres, repeating every `period` metres."""
    scaled = np.stack([v, u]) * (1024 / period)
    out: Array = map_coordinates(_tiles()[0], scaled, order=1, mode="grid-wrap")
    return out


def dice(u: Array, v: Array, seed: float = 0.0) -> Array:
    """Give each integer cell (u, v) a fixed uniform number."""
    i, j = np.floor(u).astype(int) + int(seed * 37), np.floor(v).astype(int) + int(seed * 11)
    return np.asarray(_tiles()[1][i % 128, j % 128])


def surface(
    normal: Array,
    albedo: Array | Vec,
    heat: Array | float,
    shine: Array | float = 0.04,
    glow: Array | Vec = (0.0, 0.0, 0.0),
) -> Surface:
    """Broadcast constants to all n points."""
    n = len(normal)
    flat = [np.broadcast_to(np.asarray(a, float), (n,)) for a in (heat, shine)]
    full = [np.broadcast_to(np.asarray(a, float), (n, 3)) for a in (albedo, glow)]
    return Surface(full[0], flat[0], flat[1], full[1], normal)


def bump(normal: Array, a: Array, b: Array) -> Array:
    """Tilt normals by two small slopes, whatever way they face."""
    tilted = normal + np.stack([a, 0.5 * (a + b), b], axis=1)
    out: Array = tilted / np.sqrt(np.einsum("nc,nc->n", tilted, tilted))[:, None]
    return out


def _smax(a: Array, b: Array, k: float) -> Array:
    """Take a smooth maximum, which rounds the edge where two half-spaces meet."""
    out: Array = 0.5 * (a + b + np.sqrt((a - b) ** 2 + k * k))
    return out


def car_distance(p: Array, shape: Shape) -> Array:
    """Bound the distance to a hatchback, rear at z = -2.1 of its own frame."""
    x, y, z = shape.local(p).T
    x, ends = np.abs(x), np.abs(z)
    top = y - 0.97 + 0.1 * np.maximum(z - 0.7, 0) ** 1.5
    wide = x - 0.9 + 0.022 * z**2 + 0.3 * (y - 0.62) ** 2
    tips = ends - 2.1 + 0.5 * (y - 0.5) ** 2 + 0.16 * x**2
    body = _smax(_smax(wide, tips, 0.16), _smax(0.2 - y, top, 0.12), 0.1)
    screen = ((y - 0.9) * 0.7 + (z - 1.15) * 0.52 + 0.1 * x**2) / 0.87
    hatch = ((y - 0.9) * 0.36 - (z + 2.0) * 0.52 + 0.1 * x**2) / 0.63
    roof = _smax(y - 1.5 + 0.05 * (z + 0.5) ** 2, (x - 0.83 + 0.36 * (y - 0.9)) / 1.06, 0.14)
    cabin = np.maximum(_smax(_smax(screen, hatch, 0.05), roof, 0.12), 0.85 - y)
    shell = -_smax(-body, -cabin, 0.05)
    axle = np.hypot(y - 0.32, ends - 1.3)
    shell = np.maximum(shell, -np.maximum(axle - 0.37, 0.6 - x))
    wheel = _smax(axle - 0.32, np.abs(x - 0.74) - 0.1, 0.03)
    return np.asarray(np.minimum(shell, wheel) * 0.85)


def _car_parts(x: Array, y: Array, z: Array, side: Mask) -> dict[str, Mask]:
    """Name the parts of a car at points of its frame, x folded to the right half."""
    axle, slope = np.hypot(y - 0.32, np.abs(z) - 1.3), (y - 0.9) / 0.52
    wheel = (axle < 0.34) & (x > 0.6)
    spoke = np.sin(5 * np.arctan2(y - 0.32, np.abs(z) - 1.3)) > -0.3
    pillar = np.where(side, np.abs(z + 0.35) < 0.05, x > 0.76 - 0.36 * (y - 0.9))
    along = (z < 1.02 - 0.7 * slope) & (z > -1.88 + 0.36 * slope)
    return {
        "wheel": wheel,
        "rim": wheel & (axle < 0.21) & spoke,
        "glass": (y > 0.99) & (y < 1.38) & ~pillar & (along | ~side),
        "seam": (np.abs((z + 0.5) % 1.08 - 0.02) < 0.012) & side & (y > 0.3) & (y < 0.95),
        "trim": (y < 0.3) | (np.abs(y - 0.47) < 0.012) & (np.abs(z) > 1.7),
        "tail": (z < -1.75) & (x > 0.57) & (np.abs(y - 0.83) < 0.08),
        "head": (z > 1.7) & (x > 0.5) & (x < 0.8) & (np.abs(y - 0.68) < 0.07),
        "grille": (z > 1.8) & (x < 0.42) & (np.abs(y - 0.55) < 0.13) & (y * 16 % 1 < 0.7),
        "plate": (np.abs(z) > 1.8) & (x < 0.26) & (np.abs(y - 0.6) < 0.06),
    }


def car_paint(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint lacquer, glass, lamps, plates and tyres, warm where the engine works."""
    x, y, z = shape.local(p).T
    x, m, on = np.abs(x), np.abs(shape.face(n)), shape.kind
    part = _car_parts(x, y, z, m[:, 0] > 0.6)
    albedo = np.exp(0.08 * noise(x + z, y, 3.3))[:, None] * np.array(shape.tone)
    albedo[part["trim"] | part["seam"] | part["grille"] | part["wheel"] | part["glass"]] = 0.02
    albedo[part["rim"] | part["plate"]] = 0.35
    albedo[part["tail"]] = (0.3, 0.015, 0.015)
    glow = np.zeros((len(p), 3))
    glow[part["tail"]] = np.array([2.2, 0.07, 0.03]) * (on >= 1)
    glow[part["head"]] = np.array([50.0, 48, 43]) * (on >= 1)
    heat = 10.6 + 9 * on * np.exp(-(((z - 1.5) / 0.7) ** 2) - ((y - 0.8) / 0.4) ** 2)
    heat += 16 * on * np.exp(-(((x - 0.5) / 0.1) ** 2) - ((y - 0.28) / 0.1) ** 2) * (z < -1.7)
    heat += part["wheel"] * (1.5 + on * (6 + 6 * part["rim"])) + part["glass"] * (0.8 + 2.5 * on)
    heat += 6 * on * (part["grille"] | part["head"]) + 1.2 * part["plate"] + 1.5 * part["tail"]
    heat += 0.8 * part["trim"] + 2.0 * on * np.exp(-(((y - 0.3) / 0.2) ** 2)) - 0.6 * part["seam"]
    dull = part["wheel"] | part["trim"] | part["plate"]
    return surface(n, albedo, heat, np.where(dull, 0.04, np.where(part["glass"], 0.2, 0.3)), glow)


def _limbs(stride: float) -> tuple[Array, Array, Array]:
    """Place the ends and radii of a walker's limbs, for 1.75 m of height looking along z."""
    limbs: list[tuple[float, ...]] = [(0, 1.0, 0, 0, 1.3, 0.02, 0.145)]
    limbs += [(-0.13, 1.37, 0, 0.13, 1.37, 0, 0.08)]
    limbs += [(-0.07, 0.95, 0, 0.07, 0.95, 0, 0.11), (0, 1.42, 0, 0, 1.55, 0.02, 0.055)]
    limbs += [(0, 1.6, 0.01, 0, 1.65, 0.02, 0.1)]
    for s in (-1.0, 1.0):
        k = s * stride
        knee, foot = (0.1 * s, 0.5, 0.32 * k + 0.06 * stride), (0.1 * s, 0.08, 0.62 * k)
        elbow, hand = (0.25 * s, 1.12, -0.3 * k - 0.03), (0.24 * s, 0.9, -0.55 * k + 0.08)
        limbs += [(0.09 * s, 0.92, 0, *knee, 0.078), (*knee, *foot, 0.055)]
        limbs += [(*foot, 0.11 * s, 0.05, 0.62 * k + 0.17, 0.042)]
        limbs += [(0.17 * s, 1.38, 0, *elbow, 0.05), (*elbow, *hand, 0.04)]
    table = np.array(limbs)
    return table[:, :3], table[:, 3:6], table[:, 6]


def person_distance(p: Array, shape: Shape) -> Array:
    """Bound the distance to a smooth union of limbs."""
    a, b, r = _limbs(shape.kind)
    along = b - a
    rel = shape.local(p)[:, None, :] - a  # (n, limbs, 3)
    t = (np.einsum("nlc,lc->nl", rel, along) / (along**2).sum(axis=1)).clip(0, 1)
    rel -= t[:, :, None] * along
    gap = np.sqrt(np.einsum("nlc,nlc->nl", rel, rel)) - r
    out: Array = -0.03 * np.log(np.einsum("nl->n", np.exp(-gap / 0.03)))
    return out


def person_paint(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint dark clothes, and heat by height: shoes, trousers, coat, hands and face."""
    x, y, z = shape.local(p).T
    fold = noise(x + z, y, 1.7)
    face = (y > 1.46) & (y < 1.68) & (z > 0.0)
    hair = (y > 1.5) & ~face
    hand = (np.abs(x) > 0.17) & (y < 0.93) & (y > 0.8)
    leg = (y < 0.94) & ~hand
    albedo = np.exp(0.3 * fold)[:, None] * np.array(shape.tone)
    albedo[leg] *= 0.7
    albedo[face | hand] = (0.3, 0.21, 0.17)
    albedo[hair | (y < 0.12)] = 0.02
    heat = 24.5 + 1.3 * fold - 1.5 * leg + 2.5 * (np.abs(y - 1.42) < 0.06)
    heat = np.where(face, 32.5, np.where(hand, 29.5, np.where(hair, 26.0, heat)))
    return surface(n, albedo, np.where(y < 0.12, 16.0, heat))
