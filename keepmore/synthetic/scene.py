"""Composing a picture: a lit background, clutter, one object of a class, then the camera.

Compression removes noise first: more noise makes files shrink further, but makes compressed pictures differ more from
uncompressed ones.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from keepmore.synthetic.paint import Array, Part, Rng, Scene, cut, noise_fields, some_colour, texture
from keepmore.synthetic.shapes import CLASSES, UPRIGHT, arc, line, moved, polar, rotated, strip

SIZES = ((400, 300), (400, 320), (400, 360), (400, 400), (300, 400), (320, 400))
SUPERSAMPLE = 2  # ImageDraw does not smooth edges, so outlines are drawn larger and reduced
# Ranges, one value per picture or layer.
GRAIN = (0.1, 0.35)  # texture of objects
MOTTLE = (0.15, 0.45)  # texture of the ground
EXPOSURE = (0.55, 1.35)
CAST = (0.75, 1.25)  # of the light, in each colour
SOFTNESS = (0.0, 0.25)  # of the lens: the share of its neighbour in each pixel
LUMA_NOISE = (0.003, 0.016)
CHROMA_NOISE = (0.002, 0.007)
BEND = 0.1  # how far an outline strays from its pattern


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


def draw(parts: list[Part], scene: Scene, defocus: int) -> list[Image.Image]:
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
    """The cover blurred, as a rounded form and as a shadow; a small copy blurs faster."""
    shrink = 1 + radius / 2
    width, height = (max(round(side / shrink), 2) for side in cover.size)
    small = cover.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
    small = small.filter(ImageFilter.GaussianBlur(radius / shrink))
    return plane(small.resize(cover.size, Image.Resampling.BICUBIC))


def lit(form: Array, light: tuple[float, float]) -> Array:
    """How brightly a surface of this height is lit, about 1 where it is flat."""
    slope = np.zeros_like(form)
    slope[:, 1:] = np.diff(form, axis=1) * light[0]
    slope[1:] += np.diff(form, axis=0) * light[1]
    gloss = np.clip(slope - 0.8, 0, 1)
    shade: Array = np.clip(1 + 0.55 * slope, 0.25, 1.7) + 0.5 * gloss * gloss
    return shade


def add_layer(canvas: Array, parts: list[Part], scene: Scene, bulge: float, defocus: int) -> None:
    """Lay the parts over the canvas, shaded, textured and casting a shadow."""
    colours, relief, cover = draw(parts, scene, defocus)
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
    """A mottled ground, which in half the pictures meets a plainer wall at a horizon."""
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
    """The picture as a camera takes it: uneven light, vignetting, a soft lens and noise."""
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
