"""Pickles of CIFAR, read without trusting them: dictionaries, lists, texts and plain arrays.

No object that a pickle names is imported or called. References to NumPy resolve to stand-ins that
take an array's shape, kind and bytes, and check that they fit: NumPy's own constructors would take
pointers from the file.
"""

import io
import math
import pickle
from typing import Any, final

import numpy as np

KINDS = frozenset(["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
"""Types of numbers in an array; none of them holds pointers."""


def loads(data: bytes) -> Any:
    """The plain values in a pickle, with NumPy arrays as `np.ndarray`.

    Raises:
        Exception: of any kind, where the pickle is damaged or holds other objects.
    """
    return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load())


@final
class _Dtype:
    def __init__(self, code: str | bytes, align: object = False, copy: object = False) -> None:
        text = code.decode() if isinstance(code, bytes) else code
        if text not in KINDS:
            raise pickle.UnpicklingError(f"it has an array of the kind {text!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


@final
class _Array:
    values = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, data = state
        if not (
            isinstance(kind, _Dtype)
            and isinstance(data, bytes)
            and all(type(size) is int and size >= 0 for size in shape)
            and math.prod(shape) * kind.dtype.itemsize == len(data)
        ):
            raise pickle.UnpicklingError("it has an array whose bytes do not fit its shape")
        flat = np.frombuffer(data, kind.dtype)
        self.values = flat.reshape(shape, order="F" if by_columns else "C")


def _latin(text: str, coding: object) -> bytes:
    return text.encode("latin1")


# The class in Python, as the one in C allocates as many memo entries as a pickle claims.
@final
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # A new function for each reference: a pickle can set attributes of the objects it gets.
        if (module, name) == ("_codecs", "encode"):  # how Python 3 pickles bytes at protocol 2
            return lambda text, coding: _latin(text, coding)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda kind, shape, code: _Array()
        if (module, name) == ("numpy", "ndarray"):
            return None  # an argument of `_reconstruct`, which ignores it
        if (module, name) == ("numpy", "dtype"):
            return lambda *given: _Dtype(*given)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which an array does not need")


def _plain(value: Any) -> Any:
    """The value with arrays in the place of stand-ins, as deep as CIFAR nests them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not isinstance(item, dict)}
    return value.values if isinstance(value, _Array) else value
