"""Small images as PNG files in base64, which JSON can hold."""

import base64
import io

import numpy as np

from denature.data.pictures import open_image

MOST_PIXELS = 2**24
"""Pixels of an image in a record at most: 4096 a side."""


def to_png(image: np.ndarray) -> str:
    """Encode an image, channels x height x width; uint8, or float in [0, 1]."""
    from PIL import Image

    if image.dtype != np.uint8:
        image = (255 * image).round().clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def from_png(png: str) -> np.ndarray:
    """Decode an image: height x width, with a third axis where it has colours; uint8."""
    return np.asarray(open_image(base64.b64decode(png), formats=("PNG",), most_pixels=MOST_PIXELS))
