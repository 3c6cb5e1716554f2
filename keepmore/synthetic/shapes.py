"""The objects of the eight classes, as outlines in a square from -1 to 1 with y downwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keepmore.synthetic.paint import Array, Part, Rng, colour_near, some_colour, toned


def arc(start: float, stop: float, count: int = 24) -> Array:
    """Angles from start to stop, in turns."""
    return np.linspace(start, stop, count) * 2 * np.pi


def ellipse(x: float, y: float, rx: float, ry: float) -> Array:
    """An ellipse about (x, y)."""
    turn = arc(0, 1)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def polar(radius: Array, angle: Array) -> Array:
    """The outline with these radii at these angles."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def lathe(*profile: tuple[float, float]) -> Array:
    """An outline symmetrical about the vertical, from (half-width, y) pairs, smoothed."""
    half, y = np.array(profile).T
    fine = np.linspace(0, len(half) - 1, 40)
    knots = np.arange(len(half))
    smooth = np.convolve(np.pad(np.interp(fine, knots, half), 2, "edge"), np.ones(5) / 5, "valid")
    right = np.stack([smooth, np.interp(fine, knots, y)], axis=1)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def strip(path: Array, width: float, taper: float = 1.0) -> Array:
    """A band along a path, its far end `taper` times as wide as its near end."""
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    offset = across * width * np.linspace(1, taper, len(path))[:, None]
    return np.concatenate([path + offset, (path - offset)[::-1]])


def line(x0: float, y0: float, x1: float, y1: float, bend: float = 0.0) -> Array:
    """A path between two points, bowed sideways by `bend`."""
    t = np.linspace(0, 1, 9)
    bow = bend * np.sin(np.pi * t)
    return np.stack([x0 + (x1 - x0) * t - (y1 - y0) * bow, y0 + (y1 - y0) * t + (x1 - x0) * bow], 1)


def rotated(outline: Array, angle: float) -> Array:
    """The outline turned about the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    turned: Array = outline @ np.array([[cos, sin], [-sin, cos]])
    return turned


def moved(outline: Array, x: float, y: float) -> Array:
    """The outline shifted."""
    shifted: Array = outline + np.array([x, y])
    return shifted


def stalk_and_leaf(rng: Rng, top: float) -> list[Part]:
    """The stalk of a fruit and perhaps its leaf; either may be missing."""
    brown, green = colour_near(rng, (0.35, 0.24, 0.12)), colour_near(rng, (0.3, 0.5, 0.15))
    parts = [Part(strip(line(0, top + 0.14, rng.uniform(-0.2, 0.2), top - 0.3), 0.05), brown)]
    if rng.random() < 0.4:
        blade = ellipse(0.3, 0, 0.3, 0.12)
        parts.append(Part(moved(rotated(blade, rng.uniform(-1, 0.3)), 0, top - 0.05), green))
    return parts if rng.random() < 0.75 else []


def apple(rng: Rng) -> list[Part]:
    """A round fruit, dimpled at the stalk, often blushed on one side."""
    skin = colour_near(rng, (0.75, 0.12, 0.1), (0.55, 0.7, 0.2), (0.85, 0.65, 0.2))
    angle = arc(0, 1, 48)
    up = np.clip(-np.sin(angle), 0, 1)
    dimple = rng.uniform(0.1, 0.3)
    radius = 0.85 - dimple * up**8 + 0.06 * np.cos(2 * angle) + rng.uniform(-0.1, 0.06) * (1 - up)
    body = polar(radius, angle)
    blush = moved(body * 0.55, rng.uniform(-0.25, 0.25), rng.uniform(-0.1, 0.25))
    tint = toned(skin, rng.uniform(0.75, 1.3, 3))
    return [Part(body, skin), Part(blush, (skin + tint) / 2), *stalk_and_leaf(rng, -0.75)]


def pear(rng: Rng) -> list[Part]:
    """A fruit with a neck, of about an apple's colours."""
    skin = colour_near(rng, (0.7, 0.72, 0.25), (0.5, 0.6, 0.2), (0.75, 0.4, 0.2))
    neck, hips = rng.uniform(0.22, 0.42), rng.uniform(0.6, 0.8)
    body = lathe(
        (0, -0.9), (neck, -0.82), (neck * 1.1, -0.4), (hips * 0.85, 0), (hips, 0.4),
        (hips * 0.75, 0.8), (0, 0.9),
    )  # fmt: skip
    return [Part(body, skin), *stalk_and_leaf(rng, -0.85)]


def bottle(rng: Rng) -> list[Part]:
    """A tall vessel with a neck, perhaps a cap and a label."""
    glass = colour_near(rng, (0.15, 0.35, 0.2), (0.4, 0.22, 0.1), (0.6, 0.75, 0.8))
    belly, neck = rng.uniform(0.28, 0.5), rng.uniform(0.1, 0.18)
    shoulder = rng.uniform(-0.4, 0.1)
    body = lathe((neck, -0.95), (neck, shoulder - 0.25), (belly, shoulder + 0.1), (belly, 0.5), (belly, 0.95))
    parts = [Part(body, glass)]
    if rng.random() < 0.6:
        paper = np.array([[-1, 0.1], [1, 0.1], [1, 0.65], [-1, 0.65]]) * (belly, 1)
        parts += [Part(paper, some_colour(rng), 210), Part(moved(paper * 0.5, 0, 0.2), glass)]
    if rng.random() < 0.6:
        parts.append(Part(ellipse(0, -0.95, neck * 1.3, 0.1), some_colour(rng), 230))
    return parts


def mug(rng: Rng) -> list[Part]:
    """A cylinder with an open top and a handle, which may be half hidden."""
    glaze = colour_near(rng, (0.85, 0.83, 0.78), (0.2, 0.3, 0.55), (0.65, 0.2, 0.15))
    tall, waist, tilt = rng.uniform(0.55, 0.95), rng.uniform(0.4, 0.62), rng.uniform(0.06, 0.2)
    reach = rng.uniform(0.1, 0.45)
    ring = polar(np.full(24, 0.36 * tall + 0.1), arc(-0.27, 0.27)) * (reach * 2, 1)
    body = lathe((waist, -tall), (waist * rng.uniform(0.75, 1), tall), (waist * 0.5, tall + tilt))
    band = np.array([[-1, -0.15], [1, -0.15], [1, 0.2], [-1, 0.2]]) * (waist * 0.9, 1)
    parts = [Part(strip(moved(ring, waist * 0.85, 0), 0.08), glaze * 0.9), Part(body, glaze)]
    if rng.random() < 0.5:
        parts.append(Part(band, some_colour(rng)))
    rim, drink = ellipse(0, -tall, waist, tilt), ellipse(0, -tall + 0.03, waist * 0.86, tilt * 0.8)
    return [*parts, Part(rim, glaze, 240), Part(drink, some_colour(rng) * 0.5, 60)]


def fish(rng: Rng) -> list[Part]:
    """A spindle with a forked tail, fins, an eye and often bars."""
    scales = colour_near(rng, (0.85, 0.45, 0.12), (0.5, 0.55, 0.6), (0.25, 0.45, 0.6))
    fins = toned(scales, rng.uniform(0.6, 1.4, 3))
    deep = rng.uniform(0.25, 0.5)
    body = strip(line(-0.95, 0, 0.6, 0), 1) * (1, 0)
    x = np.linspace(0, 1, 9)
    half = deep * np.sin(np.pi * x**0.75) ** 0.8 + 0.05
    body[:, 1] = np.concatenate([-half, half[::-1]])
    spread = rng.uniform(0.3, 0.55)
    tail = np.array([[0.45, 0], [1, -spread], [0.85, 0], [1, spread]])
    back = np.array([[-0.35, -deep * 0.8], [0.1, -deep * 1.5], [0.35, -deep * 0.5]])
    parts = [Part(tail, fins, 150), Part(back, fins, 150), Part(body, scales)]
    bars, marking = rng.choice((0, 0, 2, 3)), some_colour(rng)
    for bar in range(bars):
        at = -0.4 + 0.25 * bar
        parts.append(Part(strip(line(at, -deep * 0.8, at, deep * 0.8, 0.1), 0.05), marking))
    fin = np.array([[-0.3, 0.05], [0.05, 0.3], [0.0, 0.05]])
    eye, pupil = ellipse(-0.7, -0.06, 0.07, 0.07), ellipse(-0.7, -0.06, 0.035, 0.035)
    white, black = np.full(3, 0.9), np.zeros(3)
    return [*parts, Part(fin, fins, 230), Part(eye, white), Part(pupil, black)]


def leaf(rng: Rng) -> list[Part]:
    """A blade, smooth or toothed, with veins and a stalk."""
    blade = colour_near(rng, (0.25, 0.45, 0.12), (0.75, 0.4, 0.1), (0.6, 0.15, 0.1))
    vein = toned(blade, rng.uniform(0.6, 1.5))
    wide, teeth = rng.uniform(0.3, 0.6), rng.choice((0, 0, 0.05, 0.1))
    t = np.linspace(0, 1, 41)
    half = wide * np.sin(np.pi * t ** rng.uniform(0.7, 1.2)) * (1 - teeth * (np.arange(41) % 4))
    x = 1.7 * t - 0.8
    outline = np.concatenate([np.stack([x, -half], 1), np.stack([x, half], 1)[::-1]])
    parts = [Part(strip(line(-1.1, 0, 0.85, 0), 0.03, 0.3), vein, 230), Part(outline, blade)]
    for at in np.linspace(-0.55, 0.45, 5):
        for side in (-0.6, 0.6):
            rib = line(at, 0, at + 0.3, side * wide)
            parts.append(Part(strip(rib, 0.018, 0.3), vein, 230))
    return [*parts, Part(strip(line(-0.8, 0, 0.8, 0), 0.025, 0.3), vein, 240)]


def flower(rng: Rng) -> list[Part]:
    """Petals, pointed or round, about a disc."""
    petal = colour_near(rng, (0.9, 0.85, 0.85), (0.85, 0.35, 0.5), (0.9, 0.7, 0.15), (0.5, 0.35, 0.7))
    heart = colour_near(rng, (0.85, 0.65, 0.15), (0.35, 0.22, 0.12))
    count, wide = rng.integers(5, 10), rng.uniform(0.5, 1.3)
    shape = ellipse(0.58, 0, 0.42, wide * 1.5 / count)
    parts = []
    for n in rng.permutation(count):
        angle = 2 * np.pi * n / count + rng.normal(0, 0.08)
        shade = toned(petal, rng.uniform(0.85, 1.1))
        parts.append(Part(rotated(shape * rng.uniform(0.85, 1.1), angle), shade, 180))
    disc = rng.uniform(0.1, 0.3)
    return [*parts, Part(ellipse(0, 0, disc, disc), heart, 250)]


def starfish(rng: Rng) -> list[Part]:
    """Five arms or so, tapering from a body, with rows of spots."""
    skin = colour_near(rng, (0.8, 0.4, 0.15), (0.7, 0.25, 0.25), (0.55, 0.4, 0.6), (0.8, 0.7, 0.5))
    arms, slim = rng.choice((5, 5, 5, 6, 7)), rng.uniform(0.7, 2.5)
    angle = arc(0, 1, 90)
    radius = 0.3 + 0.68 * ((1 + np.cos(arms * angle)) / 2) ** slim
    spot = toned(skin, rng.uniform(0.6, 1.5))
    parts = [Part(polar(radius, angle), skin)]
    for n in range(arms):
        for out in (0.2, 0.4, 0.6)[: rng.integers(4)]:
            dot = ellipse(out, 0, 0.05, 0.05)
            parts.append(Part(rotated(dot, 2 * np.pi * n / arms), spot, 240))
    return parts


CLASSES: dict[str, Callable[[Rng], list[Part]]] = {
    draw.__name__: draw for draw in (apple, bottle, fish, flower, leaf, mug, pear, starfish)
}
UPRIGHT = ("apple", "bottle", "mug", "pear")
