"""Drawn faces: pictures with known landmarks that need no download, as digits do for classes.

Networks learn the landmarks of these cartoons in seconds. Results need not carry over to
photographs.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from denature.core.seeds import generator
from denature.data.decode import DecodedBlock
from denature.data.landmarks import PLACES
from denature.data.source import DataSource

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SIZE = 64
FINE = 4
"""Drawn pixels a side of each final pixel, which is their mean."""

PEOPLE = {"train": 72, "test": 18}
FRAMES = 16
"""Frames of each person."""


def drawn_faces() -> DataSource:
    """Cartoons of faces with five landmarks, 64x64, in colour."""
    openers = {split: partial(_blocks, split) for split in PEOPLE}
    total = FRAMES * sum(PEOPLE.values())
    return DataSource(openers, PLACES, ("drawn-faces", 1), total, landmarks=True)


def _blocks(split: str) -> Iterator[DecodedBlock]:
    """One block for each person of a split."""
    for person in range(PEOPLE[split]):
        rng = generator(0, "drawn", split, person)
        looks = _looks(rng)
        frames = [_frame(looks, rng) for _ in range(FRAMES)]
        yield DecodedBlock(
            np.stack([image for image, _ in frames]),
            np.stack([places for _, places in frames]),
            tuple(f"{split}-{person:03d}_{number:02d}.png" for number in range(FRAMES)),
        )


def _looks(rng: np.random.Generator) -> dict[str, Any]:
    """Features that all pictures of a person share; lengths as fractions of the picture's side."""
    tone = rng.uniform(0.35, 1.0)
    return {
        "skin": tuple(int(tone * level) for level in (235, 190, 160)),
        "hair": tuple(int(level) for level in rng.integers(0, 160, 3)),
        "shirt": tuple(int(level) for level in rng.integers(0, 256, 3)),
        "width": rng.uniform(0.2, 0.27),
        "height": rng.uniform(0.28, 0.35),
        "eyes": rng.uniform(0.09, 0.125),
        "eye": rng.uniform(0.022, 0.035),
        "brow": rng.uniform(0.045, 0.075),
        "nose": rng.uniform(0.07, 0.11),
        "mouth": rng.uniform(0.06, 0.11),
    }


def _frame(looks: dict[str, Any], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a person, uint8, 3 x size x size, and the five places, float32."""
    from PIL import Image, ImageDraw

    side = SIZE * FINE
    low, high = np.sort(rng.uniform(30, 220, (2, 3)), axis=0)
    ramp = np.stack([low, high]).astype(np.uint8)[:, None]
    image = Image.fromarray(ramp).resize((side, side), Image.Resampling.BILINEAR)
    centre, turn = rng.uniform(0.38, 0.62, 2), rng.uniform(-0.35, 0.35)
    scale, yaw, smile = rng.uniform(0.8, 1.15), rng.uniform(-0.05, 0.05), rng.uniform(-0.01, 0.03)
    cos, sin = math.cos(turn), math.sin(turn)

    def at(x: float, y: float) -> tuple[float, float]:
        """Map lengths within the face to a point of the picture."""
        x, y = scale * x, scale * y
        return float(centre[0] + cos * x - sin * y), float(centre[1] + sin * x + cos * y)

    places = {
        "eyeLeft": at(yaw - looks["eyes"], -0.06),
        "eyeRight": at(yaw + looks["eyes"], -0.06),
        "mouthLeft": at(0.8 * yaw - looks["mouth"], 0.14),
        "mouthRight": at(0.8 * yaw + looks["mouth"], 0.14),
        "nose": at(1.5 * yaw, -0.05 + looks["nose"]),
    }
    pen = Pen(ImageDraw.Draw(image), side)
    pen.oval(at(0, 0.62), 0.34 * scale, 0.32 * scale, looks["shirt"])
    across, down = looks["width"] * scale, looks["height"] * scale
    pen.oval(at(0, -0.05), 1.12 * across, 1.1 * down, looks["hair"])
    pen.oval(centre, across, down, looks["skin"])
    shade = tuple(int(0.7 * level) for level in looks["skin"])
    for eye, way in (("eyeLeft", -1), ("eyeRight", 1)):
        x = yaw + way * looks["eyes"]
        pen.oval(places[eye], 1.3 * looks["eye"] * scale, looks["eye"] * scale, (250, 250, 250))
        pen.oval(places[eye], 0.5 * looks["eye"] * scale, 0.5 * looks["eye"] * scale, (20, 20, 20))
        ends = at(x - 0.04, -0.06 - looks["brow"]), at(x + 0.04, -0.06 - looks["brow"])
        pen.line(ends, 0.012, looks["hair"])
    pen.line((at(yaw, -0.05), places["nose"]), 0.016, shade)
    pen.oval(places["nose"], 0.022 * scale, 0.016 * scale, shade)
    lip = at(0.8 * yaw, 0.14 + smile)
    pen.line((places["mouthLeft"], lip, places["mouthRight"]), 0.014, (150, 50, 60))
    pixels = np.asarray(image.reduce(FINE)).astype(np.float32)
    noisy = pixels * rng.uniform(0.7, 1.1) + rng.normal(0, 6, pixels.shape)
    label = np.array([places[name] for name in PLACES], np.float32).ravel()
    planes = noisy.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(planes), label


class Pen:
    """Draws at fractions of a picture's side."""

    def __init__(self, draw: "ImageDraw", side: int) -> None:
        self._draw, self._side = draw, side

    def oval(self, centre: Any, across: float, down: float, colour: tuple[int, ...]) -> None:
        x, y = centre
        box = [x - across, y - down, x + across, y + down]
        self._draw.ellipse([self._side * value for value in box], fill=colour)

    def line(self, ends: Any, width: float, colour: tuple[int, ...]) -> None:
        points = [(self._side * x, self._side * y) for x, y in ends]
        self._draw.line(points, fill=colour, width=round(self._side * width), joint="curve")
