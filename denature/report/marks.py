"""Pictures with the places that models found: a cross on the nose, points elsewhere."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from denature.report.figures import BLUE, GREEN, ORANGE, PINK

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

COLOURS = (ORANGE, BLUE, GREEN, PINK, "#F0E442", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's: of the first model, the second, and so on."""

COLOUR_NAMES = ("orange", "blue", "green", "pink", "yellow", "sky blue", "amber", "black")

SMALLEST = 256
"""Pixels of a picture's shorter side, below which it is enlarged: marks need room."""

LINE = 18
"""Height of a line of the legend, in pixels."""


class Mark(NamedTuple):
    """The places that one model found in one picture."""

    model: str
    colour: str
    places: Mapping[str, tuple[float, float]]
    """Points as fractions of width and height."""


def marked(picture: "Image", marks: Sequence[Mark], *, legend: bool = True) -> "Image":
    """A copy of a picture with marks, enlarged if small; the legend below it names the models."""
    from PIL import Image, ImageDraw

    wide, tall = picture.size
    times = max(1, -(-SMALLEST // min(wide, tall)))
    wide, tall = wide * times, tall * times
    below = LINE * len(marks) if legend else 0
    canvas = Image.new("RGB", (wide, tall + below), "white")
    canvas.paste(picture.convert("RGB").resize((wide, tall), Image.Resampling.BICUBIC))
    draw = ImageDraw.Draw(canvas)
    reach = max(3, min(wide, tall) // 40)
    for mark in marks:
        for name, (x, y) in mark.places.items():
            _point(draw, x * wide, y * tall, reach, mark.colour, cross=name == "nose")
    if legend:
        entries = [(m.model if m.places else f"{m.model}: found nothing", m.colour) for m in marks]
        _legend(draw, entries, top=tall)
    return canvas


def _legend(draw: "ImageDraw", entries: Sequence[tuple[str, str]], *, top: int) -> None:
    for number, (name, colour) in enumerate(entries):
        y = top + LINE * number
        draw.rectangle((4, y + 4, 14, y + 14), fill=colour)
        draw.text((20, y + 3), name, fill="black")


def _point(draw: "ImageDraw", x: float, y: float, reach: int, colour: str, *, cross: bool) -> None:
    thick = max(1, reach // 3)
    if not cross:
        r = max(2, reach // 2)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline="white")
        return
    # A white edge keeps the cross visible on a ground of its own colour.
    for colour_, width in (("white", 3 * thick), (colour, thick)):
        draw.line((x - reach, y, x + reach, y), fill=colour_, width=width)
        draw.line((x, y - reach, x, y + reach), fill=colour_, width=width)


def sheet(
    pictures: Sequence["Image"], *, columns: int, legend: Sequence[tuple[str, str]]
) -> "Image":
    """Pictures of one size side by side, with a legend of the colours below."""
    from PIL import Image, ImageDraw

    wide, tall = pictures[0].size
    lines = -(-len(pictures) // columns)
    height = lines * (tall + 4) - 4
    page = Image.new("RGB", (columns * (wide + 4) - 4, height + LINE * len(legend)), "white")
    for number, picture in enumerate(pictures):
        page.paste(picture, (number % columns * (wide + 4), number // columns * (tall + 4)))
    _legend(ImageDraw.Draw(page), legend, top=height)
    return page
