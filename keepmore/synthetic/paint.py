"""Colours and textures, and the scene that the layers of a picture share."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating]
Rng = np.random.Generator

FIELD_SIDE = 768
# (strength of an octave relative to the one before, stretch in one direction)
FIELDS = ((0.5, 1), (0.62, 1), (0.74, 1), (0.86, 1), (0.66, 10), (0.8, 5))
ODD_COLOUR = 0.65  # how often an object does not have its class's usual colours


class Part(NamedTuple):
    """One flat-coloured piece of an object; `height` (0 to 255) gives it relief under the light."""

    outline: Array
    colour: Array
    height: int = 200


class Scene(NamedTuple):
    """What the layers of one picture share; `light` is the direction in which the light travels."""

    rng: Rng
    width: int
    height: int
    light: tuple[float, float]
    fields: Array

    @property
    def side(self) -> int:
        """The shorter side, to which objects are scaled."""
        return min(self.width, self.height)


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
    """Fields of 1/f-like noise, from which textures are cut; the last is white noise."""
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
