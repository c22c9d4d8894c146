"""The numbers of a JSON tensor, to an array, in memory that its declared shape bounds.

No Python object is made before brackets and commas fit the declared shape, and then only those of a
piece at a time, so neither nesting nor a number of elements costs more than the text itself. Each
step holds the interpreter's lock for some milliseconds at most, so an event loop beside it goes on.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from denature.serve.refusal import Refused

RANGE = "UINT8 images must lie in 0 to 255, FP32 ones in [0, 1]."

PIECE = 1 << 16
"""Bytes of text that become Python numbers at a time."""

OF_NUMBERS = b" \t\r\n0123456789+-.eE"
"""What is left out of a list's text for its skeleton of brackets and commas."""

FLATTENED = bytes.maketrans(b"[]", b"  ")


def read_numbers(
    text: bytes, shape: Sequence[int], dtype: np.dtype[Any], *, pixels: bool = True
) -> np.ndarray:
    """Images from a flat list of numbers, or from lists nested in the declared shape.

    Args:
        text: valid JSON of any kind.
        shape: batch x channels x height x width, each at least 1.
        dtype: uint8 or a float.
        pixels: whether floats must be in [0, 1].

    Raises:
        Refused: with 400, if the text has other lists, or values that are no pixels.
    """
    count = math.prod(shape)
    if len(text) <= 2 * count:  # a digit and a comma or bracket each: nothing is made for less
        raise _other(shape, dtype)
    skeleton = text.translate(None, OF_NUMBERS)
    if skeleton != _skeleton((count,)) and skeleton != _skeleton(tuple(shape)):
        raise _other(shape, dtype)
    numbers = text.translate(FLATTENED)
    found, done, at = np.empty(count, dtype), 0, 0
    while at < len(numbers):
        end = numbers.find(b",", at + PIECE)
        end = len(numbers) if end < 0 else end
        part = _values(numbers[at:end], shape, dtype, pixels)
        if done + len(part) > count:
            raise _other(shape, dtype)
        found[done : done + len(part)] = part
        done, at = done + len(part), end + 1
    if done != count:  # a list without the only number that it should have
        raise _other(shape, dtype)
    return found.reshape(shape)


@lru_cache(maxsize=8)
def _skeleton(shape: tuple[int, ...]) -> bytes:
    """The brackets and commas of lists of this shape."""
    text = b""
    for size in reversed(shape):
        text = b"[" + (text + b",") * (size - 1) + text + b"]"
    return text


def _values(numbers: bytes, shape: Sequence[int], dtype: np.dtype[Any], pixels: bool) -> np.ndarray:
    """The array of some numbers between commas."""
    try:
        values = orjson.loads(b"[" + numbers + b"]")
    except orjson.JSONDecodeError:
        raise _other(shape, dtype) from None
    if dtype.kind == "u":
        try:  # takes a fifth of the time of an array of numbers
            return np.frombuffer(bytes(values), dtype)
        except TypeError:
            raise _other(shape, dtype) from None
        except ValueError:
            raise Refused(400, RANGE) from None
    found = np.array(values, np.float64)
    if pixels:
        check_range(found, dtype)
    with np.errstate(over="ignore"):
        found = found.astype(dtype)
    check_finite(found)
    return found


def check_range(values: np.ndarray, dtype: np.dtype[Any]) -> None:
    """Check that values are pixels: 0 to 255 for whole numbers, [0, 1] for others.

    Raises:
        Refused: with 400, if one is not.
    """
    highest = 255 if dtype.kind == "u" else 1
    if len(values) and not (values.min() >= 0 and values.max() <= highest):  # NaN is neither
        raise Refused(400, RANGE)


def check_finite(values: np.ndarray) -> None:
    """Check that values are finite, also of a model that takes any: no answer to others is valid.

    Raises:
        Refused: with 400, if one is not.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Refused(400, "The data hold values that are not finite.")


def _other(shape: Sequence[int], dtype: np.dtype[Any]) -> Refused:
    return Refused(
        400,
        f"The data must be a list of {math.prod(shape)} numbers, flat or nested as the shape "
        f"{list(shape)}{', whole ones' if dtype.kind == 'u' else ''}; or binary_data_size.",
    )
