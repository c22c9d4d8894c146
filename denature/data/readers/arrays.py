"""Arrays in NumPy's .npz files, read in pieces; what they declare is checked before."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from denature.core.errors import DataError
from denature.core.sniffing import head_of, instead_of
from denature.core.text import line_of
from denature.core.untrusted import MIB, open_zip

SUFFIX = ".npy"

PIECE = 8 * MIB
"""Bytes of a piece at most, unless one row has more."""

MOST_ROW = 64 * MIB
"""Bytes of a row, such as an image, at most."""

MOST_WHOLE = 32 * MIB
"""Bytes of an array that is read whole at most, unless it is packed to a quarter or more."""

MOST_UNPACKED = 64 * MIB
"""Bytes that an array may unpack to, however well it is packed."""

MOST_RATIO = 200
"""How far a larger array may unpack: zeros are packed a thousand times."""


@final
@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in an archive that is open."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool
    """Whether the first index changes fastest, as in Fortran."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def whole(self) -> np.ndarray:
        """The array.

        Raises:
            ValueError: it is too large to be read whole.
        """
        if self.nbytes > max(MOST_WHOLE, 4 * self.info.compress_size):
            hint = ", or write it in C order" if self.by_columns else ""
            raise ValueError(
                f"{self.info.filename} unpacks to {self.nbytes:,} bytes; wanted are at most "
                f"{MOST_WHOLE:,}{hint}"
            )
        with self.archive.open(self.info) as file:
            _header(file)
            flat = np.frombuffer(_exactly(file, self.nbytes), self.dtype)
        return flat.reshape(self.shape, order="F" if self.by_columns else "C")

    def pieces(self) -> Iterator[np.ndarray]:
        """Parts along the first axis, in order; one that is empty where the array is.

        Raises:
            ValueError: a row is too large.
        """
        if self.by_columns or not self.nbytes:
            yield self.whole()
            return
        row = self.nbytes // self.shape[0]
        if row > MOST_ROW:
            raise ValueError(f"{self.info.filename} has rows of {row:,} bytes")
        each = max(1, PIECE // row)
        with self.archive.open(self.info) as file:
            _header(file)
            for start in range(0, self.shape[0], each):
                count = min(each, self.shape[0] - start)
                flat = np.frombuffer(_exactly(file, count * row), self.dtype)
                yield flat.reshape(count, *self.shape[1:])
            file.read(1)  # the end, where the checksum is verified


@contextmanager
def open_npz(path: Path, *wanted: str) -> Iterator[Mapping[str, StoredArray]]:
    """The arrays of a file by name, without pickles: all, or the wanted ones.

    Raises:
        DataError: the file cannot be read, lacks an array, or declares sizes that do not fit.
    """
    try:
        with open_zip(path) as archive:
            infos = {info.filename.removesuffix(SUFFIX): info for info in archive.infolist()}
            if missing := [name for name in wanted if name not in infos]:
                raise ValueError(f"{', '.join(missing)} is missing")
            yield {name: _stored(archive, infos[name]) for name in wanted}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        part = f" ({', '.join(wanted)})" if wanted else ""
        found = path.is_file() and instead_of(head_of(path), "Wanted is a file that NumPy saved")
        why = f"it {found}" if found else line_of(error)
        raise DataError(f"{path}{part} cannot be read as .npz: {why}.") from None


def names_in(path: Path) -> set[str]:
    """Names of the arrays in a file; see `open_npz`."""
    with open_npz(path), open_zip(path) as archive:
        return {info.filename.removesuffix(SUFFIX) for info in archive.infolist()}


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    if info.file_size > max(MOST_UNPACKED, MOST_RATIO * info.compress_size):
        raise ValueError(
            f"{info.filename} unpacks {info.compress_size:,} bytes to {info.file_size:,}; wanted "
            f"are at most {MOST_RATIO} times as many"
        )
    with archive.open(info) as file:
        shape, by_columns, dtype = _header(file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    array = StoredArray(archive, info, shape, dtype, by_columns)
    if any(size < 0 for size in shape) or start + array.nbytes != info.file_size:
        raise ValueError(
            f"{info.filename} declares {_brief(shape)} of {dtype}, and has "
            f"{info.file_size - start:,} bytes"
        )
    return array


def _brief(shape: tuple[int, ...]) -> str:
    return "x".join(f"{size:.3g}" if size > 10**9 else str(size) for size in shape[:8])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array, whose values follow in the file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"it is of version {version[0]}.{version[1]}; wanted is 1.0 or 2.0")


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError("it is cut off")
    return data
