"""Render the example triple: scene -> rays -> visible and thermal cameras -> fusions -> PNG.

No real infrared-visible pair may be redistributed, so the example is a night street of our own
(`street.py`). Boxes and cut-out cards are hit exactly, cars and people by sphere tracing; what is
hit has an albedo and light of its own for the visible camera, a temperature for the thermal one.

    python fuscore_metric/assets/example/render.py [--out DIR]    # 6 s on one busy core
"""

from __future__ import annotations

import argparse
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from fuscore_metric.assets.example.fusions import Pixels, degrade, fuse, to_bytes
from fuscore_metric.assets.example.shapes import AIR, SEED, Array, Shape, Surface, noise
from fuscore_metric.assets.example.street import Light, lights, scene

Bytes = npt.NDArray[np.int16]
Index = npt.NDArray[np.intp]

WIDTH, HEIGHT = 640, 480
EYE, FOCAL, HORIZON = np.array([0.5, 1.75, 0.0]), 560.0, 212.0  # metres, pixels, row
OFFSETS = ((0.25, 0.25), (0.75, 0.75))  # the rays of a pixel
STRIP = 60  # rows rendered at once, so that arrays stay in cache
REACH = 24.0  # metres a lamp shines
SKY_LIGHT, ZENITH = (0.022, 0.028, 0.042), np.array([0.0, 400.0, 20.0])


def _dot(a: Array, b: Array) -> Array:
    out: Array = np.einsum("nc,nc->n", a, b)
    return out


def _unit(a: Array) -> Array:
    return a / np.sqrt(_dot(a, a) + 1e-18)[:, None]


def rays(top: int) -> Array:
    """Aim the rays of a strip: directions (n, 3) with unit z, pixel by pixel."""
    row, col = np.mgrid[top : top + STRIP, :WIDTH]
    cells = [((col + x - WIDTH / 2), (HORIZON - row - y)) for x, y in OFFSETS]
    flat = [np.stack([x / FOCAL, y / FOCAL, np.ones_like(x)], axis=-1) for x, y in cells]
    return np.stack(flat, axis=2).reshape(-1, 3)


def _window(shape: Shape, top: int) -> Index:
    """Index the rays of a strip in the screen rectangle that holds the shape's box."""
    box = np.array([shape.low, shape.high]) - EYE
    box[:, 2] = np.maximum(box[:, 2], 0.3)
    cols = np.outer(1 / box[:, 2], box[:, 0]) * FOCAL + WIDTH / 2
    rows = HORIZON - np.outer(1 / box[:, 2], box[:, 1]) * FOCAL - top
    a, b = np.clip([cols.min() - 1, cols.max() + 2], 0, WIDTH).astype(int)
    c, d = np.clip([rows.min() - 1, rows.max() + 2], 0, STRIP).astype(int)
    pixels = np.arange(c, d)[:, None] * WIDTH + np.arange(a, b)
    return (pixels.reshape(-1, 1) * len(OFFSETS) + np.arange(len(OFFSETS))).ravel()


def _box(shape: Shape, d: Array) -> tuple[Array, Array, Index]:
    """Find the depths at which rays enter and leave a box, and the axis they enter along."""
    with np.errstate(divide="ignore"):
        inverse = 1 / d
    one, two = (np.array(shape.low) - EYE) * inverse, (np.array(shape.high) - EYE) * inverse
    near, far = np.minimum(one, two), np.maximum(one, two)
    axis = np.where(near[:, 0] > near[:, 1], 0, 1)
    enter = np.maximum(near[:, 0], near[:, 1])
    axis[near[:, 2] >= enter] = 2
    leave = np.minimum(np.minimum(far[:, 0], far[:, 1]), far[:, 2])
    return np.maximum(enter, near[:, 2]), leave, axis


def _march(shape: Shape, d: Array, near: Array, far: Array) -> tuple[Array, Array]:
    """Sphere-trace a body: depths (inf where missed) and normals (n, 3)."""
    distance = shape.distance
    n, t, live = np.zeros_like(d), near.copy(), np.arange(len(d))
    if distance is None:
        return t, n
    speed = 1 / np.sqrt(_dot(d, d))
    for _ in range(32):
        gap = distance(EYE + t[live, None] * d[live], shape)
        t[live] += gap * speed[live]
        live = live[(gap > 0.005) & (t[live] < far[live])]
        if not len(live):
            break
    t[t >= far] = np.inf
    hit = np.isfinite(t)
    p = EYE + t[hit, None] * d[hit]
    steps = [distance(p + e, shape) - distance(p - e, shape) for e in np.eye(3) * 0.004]
    n[hit] = np.stack(steps, axis=1)
    return t, _unit(n)


def cast(d: Array, top: int) -> tuple[Array, Array, Index]:
    """Find what every ray of a strip meets first: depth, normal, number of the shape (-1: sky)."""
    depth, normal, owner = np.full(len(d), np.inf), np.zeros_like(d), np.full(len(d), -1)
    for k, shape in enumerate(scene()):
        at = _window(shape, top)
        if not len(at):
            continue
        near, far, axis = _box(shape, d[at])
        keep = (near <= far) & (near > 0.3) & (near < depth[at])
        at, near, far, axis = at[keep], near[keep], far[keep], axis[keep]
        n = np.zeros((len(at), 3))
        n[np.arange(len(at)), axis] = -np.sign(d[at, axis])
        if shape.distance is not None:
            near, n = _march(shape, d[at], near, far)
        if shape.solid is not None:
            near = np.where(shape.solid(EYE + near[:, None] * d[at], shape), near, np.inf)
        won = near < depth[at]
        depth[at[won]], normal[at[won]], owner[at[won]] = near[won], n[won], k
    return depth, normal, owner


def surfaces(p: Array, normal: Array, owner: Index) -> Surface:
    """Paint every point that is not sky."""
    n = len(p)
    out = Surface(np.zeros((n, 3)), np.zeros(n), np.zeros(n), np.zeros((n, 3)), normal.copy())
    for k in np.unique(owner):
        at, shape = np.flatnonzero(owner == k), scene()[k]
        for whole, part in zip(out, shape.paint(p[at], normal[at], shape), strict=True):
            whole[at] = part
    return out


def _shadow(p: Array, owner: Index, source: Array, reach: float) -> Array:
    """Share of a light that passes the cars and people, taken as ellipsoids."""
    out = np.ones(len(p))
    for k, s in enumerate(scene()):
        half = (np.array(s.high) - np.array(s.low)) / 2
        mid = np.array(s.low) + half
        if s.distance is None or (np.linalg.norm(mid - source) > 14 and source[1] < 50):
            continue
        radii = half * (np.array([0.9, 0.9, 0.97]) if half[2] > 1 else np.array([0.36, 1, 0.36]))
        close = (np.abs(p[:, 0] - mid[0]) < reach) & (np.abs(p[:, 2] - mid[2]) < reach)
        at = np.flatnonzero(close & (owner != k))
        a, b = (p[at] - mid) / radii, (source - p[at]) / radii
        a += (-_dot(a, b) / _dot(b, b)).clip(0, 1)[:, None] * b  # where the ray passes nearest
        out[at] *= (3.2 * (np.sqrt(_dot(a, a)) - 0.72)).clip(0.03, 1)
    return out


def _lamplight(p: Array, view: Array, owner: Index, s: Surface, light: Light) -> Array:
    """Diffuse light and sheen that n points send to the eye from one lamp."""
    to = np.array(light.at) - p
    square = _dot(to, to)
    to = _unit(to)
    facing = _dot(s.normal, to).clip(0, None)
    lobe = (-(to @ np.array(light.aim))).clip(0, None) ** light.sharp
    flux = light.power * lobe / (square + 0.5) * (1 - (square / REACH**2) ** 2) ** 2
    ground = np.flatnonzero(s.normal[:, 1] > 0.5)
    flux[ground] *= _shadow(p[ground], owner[ground], np.array(light.at), 9)
    spark = 6 * s.shine * _dot(_unit(to + view), s.normal).clip(0, None) ** 50
    out: Array = flux[:, None] * (facing[:, None] * s.albedo + spark[:, None]) * light.colour
    return out


def shade(p: Array, d: Array, owner: Index, s: Surface) -> Array:
    """Visible radiance of points: light of their own, the sky's and the lamps'."""
    dome, view = 0.5 + 0.5 * s.normal[:, 1], -_unit(d)
    ground = np.flatnonzero(s.normal[:, 1] > 0.5)
    dome[ground] *= _shadow(p[ground], owner[ground], ZENITH, 2.6)
    out: Array = s.glow + dome[:, None] * (s.albedo * SKY_LIGHT + 0.006 * s.shine[:, None])
    low, high = p.min(axis=0), p.max(axis=0)
    for light in lights():
        if (np.abs(np.clip(light.at, low, high) - light.at) > REACH).any():
            continue  # too far from the whole strip
        to = p - np.array(light.at)
        ahead = (to @ np.array(light.aim) > 0) & (_dot(to, s.normal) < 0)
        at = np.flatnonzero(ahead & (_dot(to, to) < REACH**2))
        part = Surface(*(a[at] for a in s))
        out[at] += _lamplight(p[at], view[at], owner[at], part, light)
    return out


def sky(d: Array) -> Array:
    """Light and apparent temperature of the clouded night sky."""
    up = _unit(d)[:, 1].clip(0, 1)
    cloud = np.tanh(0.7 * noise(d[:, 0] * 4, d[:, 1] * 9 / (0.3 + up), 9.0))
    light = np.exp(-3.5 * up)[:, None] * [0.02, 0.015, 0.013] + [0.003, 0.005, 0.01]
    heat = 1 + 6.5 * np.exp(-3 * up) + 1.5 * cloud
    return np.column_stack([light * (1 + 0.3 * cloud[:, None]), heat])


def strip(top: int) -> Array:
    """Render STRIP rows: visible radiance and apparent temperature, (STRIP, WIDTH, 4)."""
    d = rays(top)
    out = np.empty((len(d), 4))
    depth, normal, owner = cast(d, top)
    out[owner < 0] = sky(d[owner < 0])
    at = np.flatnonzero(owner >= 0)
    d, owner, depth = d[at], owner[at], depth[at]
    p = EYE + depth[:, None] * d
    s = surfaces(p, normal[at], owner)
    mirror = AIR - 14 * (0.35 + s.normal[:, 1]).clip(0, 1)  # the cold sky, off what faces up
    heat = (1 - s.shine) * s.heat + s.shine * mirror
    both = np.concatenate([shade(p, d, owner, s).clip(0, 40), heat[:, None]], axis=1)
    clear = np.exp(-depth / 260)[:, None]
    out[at] = clear * both + (1 - clear) * [0.02, 0.016, 0.014, AIR]
    cells = out.reshape(STRIP, WIDTH, len(OFFSETS), 4)
    return sum((cells[:, :, i] for i in range(len(OFFSETS))), np.zeros(())) / len(OFFSETS)


def visible_frame(light: Array, rng: np.random.Generator) -> Pixels:
    """Expose, with bloom about the lamps, shot and read noise, denoising and gamma."""
    image = light.copy()
    for sigma, share in ((1.5, 0.1), (6, 0.02), (20, 0.012)):
        image += share * gaussian_filter(light.clip(0, 25), (sigma, sigma, 0), truncate=3)
    image *= 1.35
    image += rng.standard_normal(image.shape) * np.sqrt(2e-4 * image + 6e-4**2)
    smooth = gaussian_filter(image.clip(0, None), (0.8, 0.8, 0))
    return to_bytes((1 - np.exp(-1.6 * smooth)) ** (1 / 2.2), step=2)


def infrared_frame(heat: Array, rng: np.random.Generator) -> Pixels:
    """Thermal blur, gain, column and pixel fixed pattern, temporal noise."""
    image = gaussian_filter(heat, 0.8)
    image += 0.05 * rng.standard_normal(WIDTH) + 0.06 * rng.standard_normal(image.shape)
    image += 0.06 * rng.standard_normal(image.shape)
    return to_bytes(((image - 3) / 31).clip(0.012, 1))


def render() -> tuple[Pixels, Pixels]:
    """Render both modalities.

    Returns:
        The infrared (480, 640) and the visible (480, 640, 3) frame.
    """
    rng = np.random.default_rng(SEED)
    frame = np.concatenate([strip(top) for top in range(0, HEIGHT, STRIP)])
    return infrared_frame(frame[..., 3], rng), visible_frame(frame[..., :3], rng)


def _paeth(left: Bytes, up: Bytes, corner: Bytes) -> Bytes:
    """Predict a byte as PNG does: whichever neighbour is nearest left + up - corner."""
    to_left, to_up = np.abs(up - corner), np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    straight = np.where(to_left <= to_up, left, up)
    return np.where(np.minimum(to_left, to_up) <= to_corner, straight, corner)


def encode(pixels: Pixels) -> bytes:
    """Write a PNG with the one row filter that packs best (on noise, 2/3 of Pillow's)."""
    height, width, depth = (*pixels.shape, 1)[:3]
    x = np.pad(pixels.reshape(height, -1).astype(np.int16), ((1, 0), (depth, 0)))
    here, left, up, corner = x[1:, depth:], x[1:, :-depth], x[:-1, depth:], x[:-1, :-depth]
    packed = []
    for kind, guess in ((0, 0 * up), (2, up), (4, _paeth(left, up, corner))):
        rows = np.pad((here - guess).astype(np.uint8), ((0, 0), (1, 0)), constant_values=kind)
        packed.append(zlib.compress(rows.tobytes(), 9))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if depth == 3 else 0, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", min(packed, key=len)), (b"IEND", b"")):
        out += (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )
    return out


def main() -> None:
    """Write the example's images."""
    parser = argparse.ArgumentParser(description="Render the example scene and its fusions.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    ir, vis = render()
    good = fuse(ir, vis)
    images = {"ir": ir, "vis": vis, "fused_good": good}
    images |= {f"fused_{name}": bad for name, bad in degrade(ir, vis, good).items()}
    for name, pixels in images.items():
        (out / f"{name}.png").write_bytes(encode(pixels))


if __name__ == "__main__":
    main()
