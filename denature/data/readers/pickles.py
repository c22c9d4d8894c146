"""Pickles of CIFAR, read without trusting them: dictionaries, lists, texts and plain arrays.

No object that a pickle names is imported or called. References to NumPy resolve to stand-ins that
take an array's shape, kind and bytes, and check that they fit: NumPy's own constructors would take
pointers from the file.
"""

import math
import pickle
import re
from collections.abc import Callable
from typing import IO, Any, final

import numpy as np

from denature.core.untrusted import MIB

KINDS = frozenset(["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
"""Types of numbers in an array; none of them holds pointers."""

MOST_PIECES = 1_000_000
"""Opcodes and arguments of a pickle at most; the largest of CIFAR has 650,000."""

MOST_SIZES = 4
"""Dimensions of an array at most."""

OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND"),
    *("APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL"),
    *("REDUCE", "BUILD", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET"),
    "LONG_BINGET",
)
"""What pickles of numbers are made of; others make objects of a size that the file declares."""


def load(file: IO[bytes], size: int) -> Any:
    """The plain values in a pickle, with NumPy arrays as `np.ndarray`.

    Memory is bounded by a small multiple of the file's size, and by `MOST_PIECES`.

    Args:
        file: the pickle.
        size: bytes of the file.

    Raises:
        Exception: of any kind, where the pickle is damaged or holds other objects.
    """
    return _plain(_Unpickler(_Counted(file), size).load())


@final
class _Counted:
    """A file whose reads are counted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = MOST_PIECES

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise pickle.UnpicklingError(f"it has more than {MOST_PIECES:,} values")

    def read(self, size: int) -> bytes:
        self._count()
        return self._file.read(size)

    def readline(self) -> bytes:
        self._count()
        return self._file.readline()


@final
class _Dtype:
    def __init__(self, code: str | bytes, align: object = False, copy: object = False) -> None:
        text = code.decode() if isinstance(code, bytes) else code
        if not isinstance(text, str) or text not in KINDS:
            raise pickle.UnpicklingError(f"it has an array of the kind {text!r:.40}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


@final
class _Array:
    values: np.ndarray = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, data = state
        if not (
            isinstance(kind, _Dtype)
            and isinstance(data, bytes)
            and isinstance(shape, tuple)
            and len(shape) <= MOST_SIZES
            and all(type(size) is int and 0 <= size <= len(data) for size in shape)
            and math.prod(shape) * kind.dtype.itemsize == len(data)
        ):
            raise pickle.UnpicklingError("it has an array whose bytes do not fit its shape")
        flat = np.frombuffer(data, kind.dtype)
        self.values = flat.reshape(shape, order="F" if by_columns else "C")


@final
class _Opcodes(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise pickle.UnpicklingError(f"it has the opcode {code}, which numbers do not need")


# The class in Python, as the one in C allocates as many memo entries as a pickle claims.
@final
class _Unpickler(pickle._Unpickler):
    read: Callable[[int], bytes]
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: _Counted, size: int) -> None:
        super().__init__(file, encoding="bytes")
        self._left = size
        """Bytes that may still be encoded: a text in the memo can be named any number of times."""

    def find_class(self, module: str, name: str) -> Any:
        # A new function for each reference: a pickle can set attributes of the objects it gets.
        if (module, name) == ("_codecs", "encode"):  # how Python 3 pickles bytes at protocol 2
            return lambda text, coding: self._latin(text)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda kind, shape, code: _Array()
        if (module, name) == ("numpy", "ndarray"):
            return None  # an argument of `_reconstruct`, which ignores it
        if (module, name) == ("numpy", "dtype"):
            return lambda *given: _Dtype(*given)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which an array does not need")

    def _latin(self, text: str) -> bytes:
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it encodes more texts than it holds")
        return text.encode("latin1")

    def _frame(self) -> None:
        self.read(8)  # frames only say where to read ahead

    def _text(self, width: int) -> None:
        data = self.read(int.from_bytes(self.read(width), "little"))
        # Characters beyond Latin-1 take up to four bytes each, also those beside them.
        if len(data) > MIB and re.search(rb"[\xc4-\xff]", data):
            raise pickle.UnpicklingError("it has a long text that is no Latin-1")
        self.append(str(data, "utf-8", "surrogatepass"))

    def _set(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _set_many(self) -> None:
        self._set_items(self.pop_mark())

    def _make(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        # A nested tuple may take as long to hash as its parts are many, shared ones counted anew.
        keys = items[::2]
        if not all(isinstance(key, str | bytes | int) for key in keys):
            raise pickle.UnpicklingError("it has a key that is no name")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    dispatch = _Opcodes(
        {
            code: pickle._Unpickler.dispatch[code]
            for code in (getattr(pickle, n)[0] for n in OPCODES)
        }
        | {
            pickle.FRAME[0]: _frame,
            pickle.BINUNICODE[0]: lambda self: self._text(4),
            pickle.BINUNICODE8[0]: lambda self: self._text(8),
            pickle.SETITEM[0]: _set,
            pickle.SETITEMS[0]: _set_many,
            pickle.DICT[0]: _make,
        }
    )


def _plain(value: Any) -> Any:
    """The value with arrays in the place of stand-ins, as deep as CIFAR nests them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not isinstance(item, dict)}
    return value.values if isinstance(value, _Array) else value
