"""Draw a labelled set of photograph-like JPEGs, so that the demonstration needs no download.

Every picture is a lit, textured scene: a backdrop, clutter and distractors, one object of the
class with a cast shadow, sometimes something in front of it, then lens blur and sensor noise.
The class is in the object's shape, parts and colours, all of which vary; nothing else tells it.
"""

import math
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.floating]
Rng = np.random.Generator

SPLITS = ("train", "test")
SIZES = ((400, 300), (400, 320), (400, 360), (400, 400), (300, 400), (320, 400))
JPEG_QUALITY = 85
SERIAL_UP_TO = 100  # below this many images, starting processes costs more than it saves
SUPERSAMPLE = 2  # ImageDraw does not smooth edges, so outlines are drawn larger and reduced
FIELD_SIDE = 768
# (how much of one octave's strength the next has, how far it is drawn out to one side)
FIELDS = ((0.5, 1), (0.62, 1), (0.74, 1), (0.86, 1), (0.66, 10), (0.8, 5))
# Ranges, one value a picture or a layer. Noise is what compression removes first: more of it makes
# the files shrink further, but compressed pictures differ more from uncompressed ones.
GRAIN = (0.1, 0.35)  # texture of things
MOTTLE = (0.15, 0.45)  # texture of the ground
EXPOSURE = (0.55, 1.35)
CAST = (0.75, 1.25)  # of the light, on each colour
SOFTNESS = (0.0, 0.25)  # of the lens: how much of its neighbour each pixel takes
LUMA_NOISE = (0.003, 0.016)
CHROMA_NOISE = (0.002, 0.007)
BEND = 0.1  # how far an outline strays from its pattern
ODD_COLOUR = 0.65  # how often an object is not of its class's usual colours


class Part(NamedTuple):
    """One flat-coloured piece of an object; `height` (0 to 255) gives it relief under the light."""

    outline: Array
    colour: Array
    height: int = 200


class Scene(NamedTuple):
    """What the layers of one picture share; `light` is the way the light travels."""

    rng: Rng
    width: int
    height: int
    light: tuple[float, float]
    fields: Array

    @property
    def side(self) -> int:
        """The shorter side, the unit in which things are scaled."""
        return min(self.width, self.height)


# Colours and textures


def some_colour(rng: Rng, vivid: float = 0.15) -> Array:
    """Any colour, more often warm and muted than cold and vivid, as real surfaces are."""
    grey = rng.uniform(0.17, 0.8)
    warmth = rng.normal(0.4, 1) * vivid * np.array([1, 0.15, -1])
    return np.clip(grey + warmth + rng.normal(0, vivid / 2, 3), 0.03, 0.97).astype(np.float32)


def colour_near(rng: Rng, *choices: tuple[float, float, float]) -> Array:
    """One of the class's usual colours, varied, or now and then any colour at all."""
    if rng.random() < ODD_COLOUR:
        return some_colour(rng)
    usual = np.array(choices[rng.integers(len(choices))])
    varied = usual * rng.uniform(0.6, 1.15) + rng.normal(0, 0.09, 3)
    return np.clip(varied, 0.03, 0.97).astype(np.float32)


def toned(colour: Array, factor: float | Array) -> Array:
    """The colour made darker or lighter."""
    tone: Array = np.clip(colour * factor, 0, 1).astype(np.float32)
    return tone


@lru_cache(maxsize=1)
def noise_fields(seed: int) -> Array:
    """Fields of 1/f-like noise, from which textures are cut; the last is plain white noise."""
    rng = np.random.default_rng(seed)
    fields = np.zeros((len(FIELDS), FIELD_SIDE, FIELD_SIDE), np.float32)
    for field, (persistence, stretch) in zip(fields, FIELDS, strict=True):
        for octave in range(9):
            cells = 3 * 2**octave
            grid = rng.standard_normal((cells, max(cells // stretch, 2)), np.float32)
            smooth = Image.fromarray(grid).resize((FIELD_SIDE,) * 2, Image.Resampling.BICUBIC)
            field += persistence**octave * np.asarray(smooth)
        field /= field.std()
    return np.concatenate([fields, rng.standard_normal((1, FIELD_SIDE, FIELD_SIDE), np.float32)])


def cut(scene: Scene, field: Array) -> Array:
    """A picture-sized piece of a field, turned at random."""
    rng = scene.rng
    if rng.random() < 0.5:
        field = field.T
    top = rng.integers(FIELD_SIDE - scene.height)
    left = rng.integers(FIELD_SIDE - scene.width)
    piece = field[top : top + scene.height, left : left + scene.width]
    return piece[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]


def texture(scene: Scene) -> Array:
    """A piece of any field but the white noise."""
    return cut(scene, scene.fields[scene.rng.integers(len(FIELDS))])


# Outlines, in a square from -1 to 1 with y downwards


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


# The classes


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
    """A cylinder with an open top and a handle, which may be turned half out of sight."""
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


# Composing a picture


def posed(parts: list[Part], scene: Scene, size: float, spin: float) -> list[Part]:
    """The parts turned, foreshortened, bent a little and put somewhere in the frame."""
    rng = scene.rng
    squeeze = np.diag([rng.choice((-1, 1)), rng.uniform(0.5, 1)])
    view = rotated(squeeze, rng.uniform(-spin, spin)) + rng.normal(0, 0.1, (2, 2))
    wave, phase = rng.normal(0, 2, (2, 2)), rng.uniform(0, 6, 2)
    middle = np.array([scene.width, scene.height]) * rng.uniform(0.22, 0.78, 2)
    place = [(p.outline + BEND * np.sin(p.outline @ wave + phase)) @ view * size + middle for p in parts]
    return [part._replace(outline=outline) for part, outline in zip(parts, place, strict=True)]


def scrap(rng: Rng) -> Array:
    """The outline of a pebble, a twig, a block or a shard: things that belong to no class."""
    kind = rng.integers(4)
    if kind == 0:
        radius = 0.8 + rng.normal(0, 0.1, 12)
        return polar(radius, arc(0, 11 / 12, 12)) * (1, rng.uniform(0.4, 1))
    if kind == 1:
        twig = line(-2, 0, 2, 0, rng.normal(0, 0.15))
        return strip(twig, rng.uniform(0.05, 0.2), rng.uniform(0, 1))
    if kind == 2:
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (1, rng.uniform(0.2, 1))
    return rng.normal(0, 0.7, (3, 2))


def clutter(scene: Scene, count: int, largest: float) -> list[Part]:
    """Scraps in a few colours, strewn over the frame."""
    rng = scene.rng
    palette = [some_colour(rng) for _ in range(4)]
    parts = []
    for _ in range(count):
        outline = rotated(scrap(rng), rng.uniform(0, 2 * np.pi))
        size = rng.uniform(0.02, largest) * scene.side
        x, y = rng.uniform(-0.05, 1.05, 2) * (scene.width, scene.height)
        colour = palette[rng.integers(4)] * rng.uniform(0.7, 1.2)
        parts.append(Part(moved(outline * size, x, y), colour, int(rng.integers(120, 255))))
    return parts


def drawn(parts: list[Part], scene: Scene, defocus: int) -> list[Image.Image]:
    """The parts' colours, their relief and the area they cover, each as the lens would blur it."""
    size = (scene.width, scene.height)
    drawn_size = (scene.width * SUPERSAMPLE, scene.height * SUPERSAMPLE)
    images = [Image.new(mode, drawn_size) for mode in ("RGB", "L", "L")]
    colours, relief, cover = (ImageDraw.Draw(image) for image in images)
    for part in parts:
        outline = [tuple(xy) for xy in (part.outline * SUPERSAMPLE).tolist()]
        colours.polygon(outline, tuple((np.clip(part.colour, 0, 1) * 255).astype(int).tolist()))
        relief.polygon(outline, part.height)
        relief.line([*outline, outline[0]], part.height // 2, width=3)  # a groove round the part
        cover.polygon(outline, 255)
    reduced = [image.reduce(SUPERSAMPLE * (1 + defocus)) for image in images]
    return [image.resize(size, Image.Resampling.BILINEAR) for image in reduced]


def plane(image: Image.Image) -> Array:
    """A grey image, from 0 to 1."""
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def planes(image: Image.Image) -> Array:
    """The image's bands one after the other, from 0 to 1: broadcasting over planes is fast."""
    return np.stack([plane(band) for band in image.split()])


def planar(colour: Array) -> Array:
    """A colour shaped to spread over planes of pixels."""
    return colour.astype(np.float32)[:, None, None]


def rounded(cover: Image.Image, radius: float) -> Array:
    """The cover blurred, as a swelling form and as a shadow; a small copy blurs faster."""
    shrink = 1 + radius / 2
    width, height = (max(round(side / shrink), 2) for side in cover.size)
    small = cover.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
    small = small.filter(ImageFilter.GaussianBlur(radius / shrink))
    return plane(small.resize(cover.size, Image.Resampling.BICUBIC))


def lit(form: Array, light: tuple[float, float]) -> Array:
    """How brightly the light strikes a surface of this height, about 1 where it is flat."""
    slope = np.zeros_like(form)
    slope[:, 1:] = np.diff(form, axis=1) * light[0]
    slope[1:] += np.diff(form, axis=0) * light[1]
    gloss = np.clip(slope - 0.8, 0, 1)
    shade: Array = np.clip(1 + 0.55 * slope, 0.25, 1.7) + 0.5 * gloss * gloss
    return shade


def add_layer(canvas: Array, parts: list[Part], scene: Scene, bulge: float, defocus: int) -> None:
    """Lay the parts over the canvas, shaded, textured and casting a shadow."""
    colours, relief, cover = drawn(parts, scene, defocus)
    form = rounded(cover, bulge)
    shade = lit(3 * bulge * form + plane(relief), scene.light)
    shade *= 1 + scene.rng.uniform(*GRAIN) * texture(scene)
    right, down = (round(0.6 * bulge * towards) for towards in scene.light)
    canvas *= 1 - scene.rng.uniform(0.35, 0.75) * np.roll(form, (down, right), (0, 1))
    surface = planes(colours)
    surface *= shade
    surface -= canvas
    surface *= plane(cover)
    canvas += surface


def backdrop(scene: Scene) -> Array:
    """A mottled ground, in half the pictures meeting a plainer wall at a horizon."""
    rng = scene.rng
    first, wall = some_colour(rng, 0.1), some_colour(rng, 0.1)
    second = np.clip(first * rng.uniform(0.5, 1.6) + rng.normal(0, 0.06, 3), 0, 1)
    blend = 0.5 + 0.3 * texture(scene)
    ground = planar(first) + blend * planar(second - first)
    ground *= 1 + rng.uniform(*MOTTLE) * np.clip(texture(scene), -1.7, 2)
    if rng.random() < 0.5:
        rows = np.linspace(0, 1, scene.height, dtype=np.float32)[:, None]
        edge = np.clip((rng.uniform(0.2, 0.6) - rows) * rng.uniform(8, 80) + 0.5, 0, 1)
        ground += edge * (planar(wall) * (1 + 0.12 * texture(scene)) - ground)
    return ground


def developed(canvas: Array, scene: Scene) -> Image.Image:
    """The picture as a camera gives it: uneven light, vignetting, a soft lens and noise."""
    rng = scene.rng
    y = np.linspace(-1, 1, scene.height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, scene.width, dtype=np.float32)
    light = 1 - rng.uniform(0, 0.35) * (x * scene.light[0] + y * scene.light[1])
    light += rng.uniform(0, 0.2) * cut(scene, scene.fields[0])
    light -= rng.uniform(0, 0.2) * (x * x + y * y)
    canvas *= light * rng.uniform(*EXPOSURE)
    canvas *= planar(rng.uniform(*CAST, 3))
    softness = rng.uniform(*SOFTNESS)
    canvas[:, 1:] += softness * (canvas[:, :-1] - canvas[:, 1:])
    canvas[:, :, 1:] += softness * (canvas[:, :, :-1] - canvas[:, :, 1:])
    white = scene.fields[-1]
    noise = rng.uniform(*CHROMA_NOISE) * np.stack([cut(scene, white) for _ in range(3)])
    noise += rng.uniform(*LUMA_NOISE) * cut(scene, white)
    canvas += noise * np.sqrt(np.clip(canvas[1], 0, 1) + 0.1)  # brighter is noisier, as in sensors
    levels = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(band) for band in levels])


def picture(seed: int, split: int, kind: int, number: int) -> Image.Image:
    """The picture of that number, in that split, of that class: the same whenever it is drawn."""
    rng = np.random.default_rng([seed, split, kind, number])
    width, height = SIZES[rng.integers(len(SIZES))]
    towards = rng.uniform(0, 2 * np.pi)
    light = (math.cos(towards), math.sin(towards))
    scene = Scene(rng, width, height, light, noise_fields(seed))
    name = list(CLASSES)[kind]
    canvas = backdrop(scene)
    behind = clutter(scene, int(rng.integers(2, 12)), 0.2)
    add_layer(canvas, behind, scene, 4, int(rng.integers(4)))
    size = scene.side * rng.uniform(0.22, 0.48)
    spin = 0.5 if name in UPRIGHT and rng.random() < 0.6 else np.pi
    thing = posed(CLASSES[name](rng), scene, size, spin)
    add_layer(canvas, thing, scene, size * 0.2, 0)
    if rng.random() < 0.6:
        front = clutter(scene, int(rng.integers(2, 9)), 0.15)
        add_layer(canvas, front, scene, 5, int(rng.integers(3)))
    return developed(canvas, scene)


# Writing the set


def write_picture(root: Path, seed: int, job: tuple[int, int, int]) -> None:
    """Draw one picture and put it in its place in one step."""
    split, kind, number = job
    path = root / SPLITS[split] / list(CLASSES)[kind] / f"{number:04}.jpg"
    partial_path = path.with_suffix(".tmp")
    picture(seed, split, kind, number).save(partial_path, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    os.replace(partial_path, path)


def write_sample(
    root: Path,
    *,
    train_per_class: int = 240,
    test_per_class: int = 60,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Write root/train/<class>/<nnnn>.jpg and root/test/<class>/<nnnn>.jpg, the same every time.

    `on_image` is called with (done, total) after each image. A folder that already holds
    something is refused with ValueError, so that nothing is mixed with or written over.
    """
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty: name a new folder, or empty this one first")
    counts = (train_per_class, test_per_class)
    jobs = [
        (split, kind, number)
        for split, count in enumerate(counts)
        for kind in range(len(CLASSES))
        for number in range(count)
    ]
    for split_name in SPLITS:
        for name in CLASSES:
            (root / split_name / name).mkdir(parents=True, exist_ok=True)
    write = partial(write_picture, root, seed)
    if len(jobs) <= SERIAL_UP_TO:
        report(map(write, jobs), len(jobs), on_image)
        return
    context = multiprocessing.get_context("spawn")  # a fork may copy the caller's locks, held
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        report(pool.map(write, jobs, chunksize=8), len(jobs), on_image)


def report(written: Iterable[None], total: int, on_image: Callable[[int, int], None] | None) -> None:
    """Go through the writes, telling the caller after each."""
    for done, _ in enumerate(written, start=1):
        if on_image:
            on_image(done, total)
