"""The street of the example scene: what is where, and what it is made of.

shapes -> street -> render. One list of shapes (`scene`) serves both cameras.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fuscore_metric.assets.example.shapes import (
    AIR,
    Array,
    Mask,
    Shape,
    Surface,
    Vec,
    bump,
    car_distance,
    car_paint,
    dice,
    noise,
    person_distance,
    person_paint,
    surface,
)

WARM, COOL = (1.0, 0.72, 0.38), (0.8, 0.93, 1.0)
LEAF, GREY = (0.07, 0.13, 0.035), (0.25, 0.26, 0.27)


class Light(NamedTuple):
    """A lamp with a cosine-power lobe about `aim`."""

    at: Vec
    colour: Vec
    power: float
    aim: Vec = (0.0, -1.0, 0.0)
    sharp: float = 0.7


def road(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint asphalt: stains, cracks, a repair, worn markings, a zebra crossing and a manhole."""
    x, z = p[:, 0], p[:, 2]
    fade = 1 / (1 + (z / 14) ** 2)
    fine, coarse, grain = noise(x, z / 1.4, 2.1), noise(x, z / 3, 29), noise(x, z / 1.7, 0.4)
    tone = 0.08 * np.exp(0.1 * coarse + fade * (0.08 * fine + 0.2 * grain))
    tone *= np.where(np.abs(noise(x + 7, z + 3, 17) - 0.4) < 0.01, 0.5, 1)  # cracks
    tone *= np.where((np.abs(x - 1.9) < 0.7) & (np.abs(z - 8) < 2.1), 0.66, 1)  # a repair
    dash = (np.abs(x) < 0.07) & (z % 6 < 3.2) & (np.abs(z - 13.2) > 3)
    zebra = (np.abs(z - 13.2) < 1.4) & (np.abs(x) < 3.9) & ((x + 0.25) % 1.0 < 0.5)
    stop = (np.abs(z - 10.6) < 0.2) & (x > 0.1) & (x < 3.9)
    mark = dash | zebra | stop | (np.abs(np.abs(x) - 3.75) < 0.06)
    mark &= fine + 0.6 * coarse + 0.5 * grain < 1.5
    tone = np.where(mark, 0.4 * np.exp(0.1 * fine + 0.1 * grain), tone)
    lid = np.hypot(x + 0.9, z - 7.2) < 0.33
    tone = np.where(lid, 0.05 + 0.05 * ((x * 14 % 1 < 0.5) ^ (z * 14 % 1 < 0.5)), tone)
    heat = 12.4 + 0.35 * coarse + 0.15 * fine - 0.9 * mark + 2.5 * lid
    heat += 0.7 * np.exp(-(((np.abs(x - 1.9) - 0.75) / 0.25) ** 2))  # where tyres roll
    for car in (s for s in scene() if s.paint is car_paint):
        q = car.local(p)
        heat += (6 * car.kind - 0.8) * np.exp(-((q[:, 0] / 0.9) ** 2) - (q[:, 2] - 1) ** 2)
    normal = bump(n, 0.08 * fade * grain, 0.05 * fade * (fine + grain))
    return surface(normal, tone[:, None] * [1, 1, 1.04], heat, np.where(mark | lid, 0.05, 0.1))


def pavement(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint slabs with dark joints, and the kerb stone."""
    x, z = p[:, 0], p[:, 2]
    fade = 1 / (1 + (z / 14) ** 2)
    row = np.floor(x / 0.5)
    slab = (z + 0.3 * (row % 2)) / 0.6
    joint = (x % 0.5 < 0.025) | (slab % 1 < 0.05)
    tone = 0.2 * np.exp(0.18 * noise(x, z, 2.3) * fade + 0.12 * noise(x, z, 19))
    tone *= (0.85 + 0.3 * dice(row, slab)) * (1 - 0.6 * joint * fade)
    kerb = np.abs(np.abs(x) - 4.3) < 0.13
    tone = np.where(kerb, 0.3 * np.exp(0.2 * noise(x + z, z, 1.7)), tone)
    heat = 11.0 + 0.4 * noise(x, z, 23) - 0.3 * joint + 1.0 * kerb + 0.6 * dice(row, slab)
    heat += 1.6 * np.exp(-np.abs(9.0 - np.abs(x)) / 0.5)  # a warm strip at the foot of the walls
    normal = bump(n, 0.1 * noise(x, z, 1.3), 0.1 * noise(z, x, 1.3))
    return surface(normal, tone[:, None] * [1, 0.96, 0.9], heat)


def _bricks(u: Array, v: Array) -> tuple[Array, Mask]:
    """Lay bricks: the tone of each, and where the mortar is."""
    course = np.floor(v / 0.085)
    run = u / 0.25 + 0.5 * (course % 2)
    return 0.75 + 0.5 * dice(run, course), (v % 0.085 < 0.014) | (run % 1 < 0.06)


def facade(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint brick or render, with a grid of lit and dark windows over a floor of shops."""
    u, v, seed = np.where(np.abs(n[:, 0]) > 0.5, p[:, 2], p[:, 0]), p[:, 1], shape.turn
    fade, brick = 1 / (1 + (p[:, 2] / 24) ** 2), shape.kind > 0
    stain, rough = noise(u, v, 13 + seed), noise(u, v, 2.1)
    each, mortar = _bricks(u, v)
    tone = np.exp(0.1 * stain + 0.12 * fade * rough)
    tone *= each * (1 + 0.7 * mortar * fade) if brick else 1.0
    albedo = tone[:, None] * np.array(shape.tone)
    shop = v < 3.5
    cu, cv = np.where(shop, u / 4.6, u / 2.7) + seed, np.where(shop, 0, (v - 3.5) / 3.1)
    fu, fv = np.abs(cu % 1 - 0.5), np.where(shop, v / 3.5, cv % 1)
    hole = (fu < np.where(shop, 0.42, 0.22)) & (fv > np.where(shop, 0.16, 0.24))
    hole &= (fv < np.where(shop, 0.72, 0.8)) & (v < shape.high[1] - 0.8)
    bars = hole & ((fu > 0.2) & ~shop | (fu < 0.012) | (np.abs(fv - 0.6) < 0.012))
    ledge = (np.abs(fv - 0.2) < 0.035) & (fu < 0.26) & ~shop | (np.abs(v - 3.5) < 0.12)
    band = shop & (fv > 0.77) & (fv < 0.95) & (fu < 0.44)
    luck, shade = dice(cu, cv, seed), dice(cv + 5, cu, seed + 3)
    albedo[hole] = 0.025
    albedo[bars] = 0.25
    albedo[ledge] = 0.34 * tone[ledge, None]
    albedo[band] = (0.08 + 0.3 * shade[band, None]) * np.array([1, 0.5, 0.4])
    lit = hole & ~bars & (luck < np.where(shop, 0.28, 0.23))
    glow = (lit * _room(u, v, fu, fv, shade))[:, None]
    glow = glow * np.where((shade < 0.6)[:, None], WARM, COOL)
    heat = 10.0 + 0.4 * stain + 0.2 * rough + 1.0 * ledge + (0.5 * mortar if brick else 0.0)
    heat += 2.4 * np.exp(-((fu / 0.2) ** 2) - ((fv - 0.86) / 0.1) ** 2) * (shade > 0.3)
    heat += hole * (1.5 * (luck < 0.25) + 3.2 * shade - 2.6) + 1.5 * bars
    rough = np.where(hole, 0, rough)
    normal = bump(n, 0.25 * fade * (mortar if brick else rough), 0.2 * fade * rough)
    return surface(normal, albedo, heat, np.where(hole, 0.25, 0.03), glow)


def _room(u: Array, v: Array, fu: Array, fv: Array, shade: Array) -> Array:
    """Light a room behind a window: brighter above, furniture below, curtains at the sides."""
    clutter = 0.35 + 0.65 * (dice(u * 2.3, v * 1.7, 5) * (v % 3.1 < 1.9) < 0.45)
    room = np.exp(0.15 * noise(u * 1.3, v, 4.4)) * clutter * (0.3 + 0.7 * fv) * (0.15 + shade)
    drawn = (fu > 0.12) & (shade > 0.4)
    out: Array = 0.85 * room * np.where(drawn, 0.45 + 0.12 * np.sin(60 * u), 1)
    return out


def leaves(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint a layer of foliage, lit as the outside of a rough ball."""
    out = p - np.array(shape.at)
    a, b = noise(p[:, 0], p[:, 1], 1.9), noise(p[:, 1] + 3, p[:, 0], 1.3)
    normal = bump(out / np.linalg.norm(out, axis=1, keepdims=True) + 0.6 * n, 0.5 * a, 0.5 * b)
    albedo = np.exp(0.35 * a + 0.25 * b)[:, None] * np.array(shape.tone)
    return surface(normal, albedo, 9.2 + 0.5 * a + 0.6 * b)


def leafy(p: Array, shape: Shape) -> Mask:
    """Say where a foliage layer has leaves: thick in the crown, ragged at its edge."""
    half = (np.array(shape.high) - np.array(shape.low)) / 2
    q = (p - np.array(shape.at))[:, :2] / half[:2]
    rough = noise(p[:, 0] + 9 * shape.kind, p[:, 1], 5.3) + noise(p[:, 1], p[:, 0], 1.7)
    out: Mask = 0.8 - 1.9 * (q**2).sum(axis=1) + 0.62 * rough > 0
    return out


@functools.cache
def _branches(seed: int) -> Mask:
    """Draw a bare tree, 1024 pixels to its height."""
    rng, image = np.random.default_rng(seed), Image.new("1", (1024, 1024))
    pen = ImageDraw.Draw(image)

    def grow(x: float, y: float, angle: float, length: float, thick: float) -> None:
        ex, ey = x + length * np.sin(angle), y - length * np.cos(angle)
        pen.line([x, y, ex, ey], fill=1, width=max(2, round(thick)))
        for _ in range((thick > 1.6) * (3 if thick < 14 else 2)):
            bend = angle * 0.9 + rng.normal(0, 0.42)
            grow(ex, ey, bend, length * rng.uniform(0.66, 0.86), thick * 0.62)

    grow(512, 1023, 0.0, 290, 36)
    return np.asarray(image)


def twiggy(p: Array, shape: Shape) -> Mask:
    """Say where a card has trunk or branches."""
    low, high = np.array(shape.low), np.array(shape.high)
    u, v = (((p - low)[:, :2] / (high - low)[:2]) * 1023).round().astype(int).T
    tree = _branches(3 + int(shape.kind) % 3)
    return np.asarray(tree[1023 - v.clip(0, 1023), u.clip(0, 1023)])


def bark(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint rough wood, a little warmer than the air."""
    a, b = noise(p[:, 0] * 3, p[:, 1], 1.3), noise(p[:, 1], p[:, 0] * 4, 2.7)
    albedo = np.exp(0.35 * a)[:, None] * np.array(shape.tone)
    return surface(bump(n, 0.8 * b, 0.3 * a), albedo, 11.4 + 0.5 * b)


def plain(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint metal or concrete, a little dirty."""
    dirt = np.exp(0.15 * noise(p[:, 0] + p[:, 2], p[:, 1], 2.3))
    return surface(n, dirt[:, None] * np.array(shape.tone), AIR + 0.6, 0.1)


def lamp(p: Array, n: Array, shape: Shape) -> Surface:
    """Paint a shining lamp."""
    glow = 14 * np.array(shape.tone)
    return surface(n, (0.5, 0.5, 0.5), 31.0, 0.0, (glow[0], glow[1], glow[2]))


def _tree(x: float, z: float, tall: float, kind: float, leaf: Vec | None = LEAF) -> list[Shape]:
    """Plant a trunk and, unless bare, layers of foliage about it."""
    half, wood = tall / 2, (0.12, 0.1, 0.08)
    low, high = (x - half, 0.0, z), (x + half, tall, z)
    out = [Shape(bark, low, high, wood, kind=kind, solid=twiggy)]
    for i, dz in enumerate((-1.0, -0.5, 0.4, 1.0) if leaf else ()):
        w, mid = half * (0.72 - 0.12 * abs(dz)), (x, tall * 0.72, z)
        low, high = (x - w, tall * 0.42, z + dz), (x + w, tall * 1.04, z + dz)
        out.append(Shape(leaves, low, high, leaf or LEAF, mid, kind=kind + i, solid=leafy))
    return out


def _block(
    x: float, z: tuple[float, float], tall: float, tone: Vec, seed: float, brick: int
) -> Shape:
    """Build a house along the street, its front at x."""
    low, high = sorted((x, 40.0 * np.sign(x)))
    return Shape(facade, (low, 0.0, z[0]), (high, tall, z[1]), tone, turn=seed, kind=brick)


def _post(x: float, z: float) -> list[Shape]:
    """Put up a street lamp with an arm over the road."""
    end = x - 1.3 * np.sign(x)
    low, high = sorted((x, end))
    return [
        Shape(plain, (x - 0.07, 0.0, z - 0.07), (x + 0.07, 6.4, z + 0.07), GREY),
        Shape(plain, (low, 6.3, z - 0.04), (high, 6.4, z + 0.04), GREY),
        Shape(lamp, (end - 0.3, 6.18, z - 0.15), (end + 0.3, 6.29, z + 0.15), WARM),
    ]


def _car(x: float, z: float, turn: float, tone: Vec, on: float) -> Shape:
    """Park a car, or drive it."""
    low, high = (x - 1.0, 0.0, z - 2.2), (x + 1.0, 1.6, z + 2.2)
    return Shape(car_paint, low, high, tone, (x, 0.0, z), turn, on, car_distance)


def _person(x: float, y: float, z: float, turn: float, stride: float, tone: Vec) -> Shape:
    """Let somebody walk."""
    low, high = (x - 0.6, y, z - 0.6), (x + 0.6, y + 1.78, z + 0.6)
    return Shape(person_paint, low, high, tone, (x, y, z), turn, stride, person_distance)


@functools.cache
def scene() -> tuple[Shape, ...]:
    """List every shape of the street."""
    red, sand, dun = (0.3, 0.15, 0.1), (0.34, 0.31, 0.26), (0.22, 0.13, 0.1)
    out = [
        Shape(road, (-4.3, -1.0, 0.6), (4.3, 0.0, 130.0)),
        Shape(pavement, (-60.0, -1.0, 0.6), (-4.2, 0.13, 130.0)),
        Shape(pavement, (4.2, -1.0, 0.6), (60.0, 0.13, 130.0)),
        _block(-9.0, (2.0, 21.0), 17.0, red, 8.0, 1),
        _block(-9.4, (21.0, 40.0), 12.5, sand, 4.0, 0),
        _block(-9.0, (48.0, 90.0), 20.0, dun, 2.0, 1),
        _block(9.0, (6.0, 26.0), 10.5, sand, 3.0, 0),
        _block(9.2, (26.0, 46.0), 15.0, red, 5.0, 1),
        _block(9.0, (58.0, 100.0), 13.0, sand, 6.0, 0),
        Shape(facade, (-40.0, 0.0, 128.0), (40.0, 16.0, 140.0), dun, turn=7.0),
    ]
    for x, z in ((-4.9, 24.0), (4.9, 34.0), (-4.9, 52.0), (4.9, 74.0), (-4.9, 96.0)):
        out += _post(x, z)
    for z in (9.0, 11.2, 15.5, 17.7, 19.9):
        out += [Shape(plain, (x - 0.05, 0.0, z), (x + 0.05, 0.95, z + 0.1)) for x in (-4.55, 4.55)]
    out += [Shape(plain, (7.7, 0.0, 15.3), (8.4, 1.2, 16.0), (0.05, 0.09, 0.06))]
    out += _tree(-6.9, 11.0, 7.4, 3, None) + _tree(-6.8, 27.0, 8.0, 5) + _tree(6.9, 18.0, 6.6, 8)
    out += _tree(6.7, 41.0, 8.5, 11) + _tree(-6.6, 43.0, 9.0, 14)
    out += [
        _car(2.9, 8.0, 0.0, (0.12, 0.14, 0.19), 0.35),
        _car(3.05, 20.0, 0.0, (0.25, 0.04, 0.03), 0.0),
        _car(3.0, 26.0, 0.0, (0.3, 0.3, 0.3), 0.0),
        _car(-1.9, 29.0, np.pi, (0.35, 0.35, 0.35), 1.0),
        _car(1.2, 50.0, 0.0, (0.3, 0.3, 0.3), 1.0),
    ]
    out += [
        _person(0.3, 0.0, 13.0, 1.5, 0.55, (0.05, 0.05, 0.06)),
        _person(-5.1, 0.13, 12.0, 0.3, 0.4, (0.05, 0.045, 0.06)),
        _person(-6.0, 0.13, 12.9, 3.4, -0.3, (0.07, 0.03, 0.03)),
        _person(6.1, 0.13, 11.0, 3.3, 0.4, (0.04, 0.05, 0.05)),
        _person(-5.8, 0.13, 33.0, 3.0, 0.4, (0.06, 0.06, 0.06)),
    ]
    return tuple(out)


def lights() -> list[Light]:
    """List the lamps of the street and the headlights."""
    out = []
    for s in scene():
        x, y, z = ((a + b) / 2 for a, b in zip(s.low, s.high, strict=True))
        if s.paint is lamp:
            out.append(Light((x, y - 0.2, z), WARM, 26.0))
        if s.paint is car_paint and s.kind >= 1 and s.turn:
            out.append(Light((x, 0.7, s.low[2] - 0.3), COOL, 80.0, (-0.04, -0.07, -1.0), 80.0))
    return out
