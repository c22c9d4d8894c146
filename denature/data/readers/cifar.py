"""CIFAR-10 and CIFAR-100 in the binary and the Python version of their authors.

No code in a pickle is executed: see `denature.data.readers.pickles`.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np

from denature.core.errors import DataError
from denature.core.sniffing import HEAD, instead_of
from denature.core.text import line_of
from denature.core.untrusted import MIB
from denature.data.decode import DecodedBlock
from denature.data.readers import pickles
from denature.data.readers.trees import MOST_LIST, Tree, check_size, lines_of, read_file, reading
from denature.data.source import DataSource, Opener

PIXELS = 3 * 32 * 32

RECORDS = 2048
"""Images of the binary version that are in memory at once."""

MOST_BYTES = 160 * MIB
"""Bytes of a file at most; the largest of CIFAR-100 has 156 million."""

Batches: TypeAlias = Iterator[tuple[np.ndarray, np.ndarray]]
"""Images and labels of parts of a file."""


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the four layouts of CIFAR."""

    train: tuple[str, ...]
    test: str
    names: str
    """File of the class names."""
    classes: int
    unpack: Callable[[IO[bytes], int, str], Batches]
    """From a file and its size to its images and labels."""
    unpack_names: Callable[[bytes, str], list[str]]

    @property
    def marks(self) -> tuple[str, str]:
        """Files that identify the layout."""
        return self.test, self.train[0]

    def read(self, tree: Tree, prefix: str) -> DataSource:
        """The source whose files have this prefix in a tree.

        Raises:
            DataError: the class names cannot be read.
        """
        classes = self._classes(tree, prefix)
        files = [prefix + name for name in (*self.train, self.test)]
        return DataSource(
            {
                "train": self._opener(tree, prefix, self.train),
                "test": self._opener(tree, prefix, [self.test]),
            },
            classes or tuple(str(label) for label in range(self.classes)),
            ("cifar", classes, *tree.stats(files)),
        )

    def _classes(self, tree: Tree, prefix: str) -> tuple[str, ...] | None:
        """Class names; None where their file is missing or lists another number of classes."""
        try:
            data = read_file(tree, prefix + self.names, MOST_LIST)
        except KeyError:
            return None
        names = self.unpack_names(data, f"{tree.path}, {self.names}")
        return tuple(names) if len(names) == self.classes else None

    def _opener(self, tree: Tree, prefix: str, files: Sequence[str]) -> Opener:
        def blocks() -> Iterator[DecodedBlock]:
            for name in files:
                where = f"{tree.path}, {name}"
                try:
                    member = tree.member(prefix + name)
                except KeyError:
                    raise DataError(f"{where} is missing. Copy it again.") from None
                check_size(member, MOST_BYTES, where)
                with reading(tree.path, name), member.open() as file:
                    for images, labels in self.unpack(file, member.size, where):
                        self._check_labels(labels, where)
                        pixels = np.ascontiguousarray(images).reshape(-1, 3, 32, 32)
                        yield DecodedBlock(pixels, labels.astype(np.int64))

        return blocks

    def _check_labels(self, labels: np.ndarray, where: str) -> None:
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
            raise DataError(
                f"{where} has labels from {labels.min()} to {labels.max()}; wanted are 0 to "
                f"{self.classes - 1}."
            )


def _records(label_bytes: int) -> Callable[[IO[bytes], int, str], Batches]:
    """Unpacker of the binary version: labels, then pixels by plane; the last label is the fine."""
    width = label_bytes + PIXELS

    def unpack(file: IO[bytes], size: int, where: str) -> Batches:
        if not size or size % width:
            _check_download(file.read(HEAD), where)
            raise DataError(
                f"{where} has {size} bytes; wanted is a multiple of {width}, the bytes of a "
                "record. Copy it again: the file may be cut off."
            )
        while data := file.read(RECORDS * width):
            if len(data) % width:
                raise DataError(f"{where} is shorter than it says. Copy it again.")
            records = np.frombuffer(data, np.uint8).reshape(-1, width)
            yield records[:, label_bytes:], records[:, label_bytes - 1]

    return unpack


def _check_download(data: bytes, where: str) -> None:
    """Raise DataError where a failed download lies in place of a file."""
    if data and (found := instead_of(data)) is not None:
        raise DataError(f"{where} {found}.")


def _unpickled(file: IO[bytes], size: int, where: str) -> dict[str, Any]:
    try:
        found = pickles.load(file, size)
        return {key.decode() if isinstance(key, bytes) else str(key): found[key] for key in found}
    except Exception as error:  # a damaged pickle may raise anything
        with suppress(OSError, EOFError, zlib.error, zipfile.BadZipFile):  # damaged here too
            file.seek(0)
            _check_download(file.read(HEAD), where)
        raise DataError(f"{where} is no pickle of CIFAR: {line_of(error)}.") from None


def _batch(key: str) -> Callable[[IO[bytes], int, str], Batches]:
    def unpack(file: IO[bytes], size: int, where: str) -> Batches:
        found = _unpickled(file, size, where)
        images, numbers = found.get("data"), found.get(key)
        if not isinstance(images, np.ndarray) or not _are_labels(numbers):
            raise DataError(f"{where} lacks `data` or `{key}`; it is no batch of CIFAR.")
        labels = np.array(numbers, np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), PIXELS):
            raise DataError(
                f"{where} holds {images.dtype} of the shape {images.shape}; wanted is uint8 of "
                f"{(len(labels), PIXELS)}."
            )
        yield images, labels

    return unpack


def _are_labels(value: object) -> bool:
    """Whether a value is a list of small numbers: lists in it may name each other many times."""
    return isinstance(value, list) and all(type(n) is int and abs(n) < 2**63 for n in value)


def _lines(data: bytes, where: str) -> list[str]:
    return lines_of(data)


def _listed(key: str) -> Callable[[bytes, str], list[str]]:
    def unpack(data: bytes, where: str) -> list[str]:
        names = _unpickled(io.BytesIO(data), len(data), where).get(key)
        if not isinstance(names, list) or len(names) > MOST_NAMES:
            return []
        if not all(isinstance(name, bytes | str) and len(name) <= LONGEST_NAME for name in names):
            return []
        return [
            name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names
        ]

    return unpack


MOST_NAMES, LONGEST_NAME = 100, 256
"""Names of classes in a list, and characters of a name, at most: one text may be listed often."""

_FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFARS = (
    Cifar(
        tuple(f"{name}.bin" for name in _FIVE), "test_batch.bin", "batches.meta.txt", 10,
        _records(1), _lines,
    ),
    Cifar(("train.bin",), "test.bin", "fine_label_names.txt", 100, _records(2), _lines),
    Cifar(_FIVE, "test_batch", "batches.meta", 10, _batch("labels"), _listed("label_names")),
    Cifar(
        ("train",), "test", "meta", 100, _batch("fine_labels"), _listed("fine_label_names")
    ),
)  # fmt: skip
