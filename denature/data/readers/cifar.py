"""CIFAR-10 and CIFAR-100 in the binary and the Python version of their authors.

No code in a pickle is executed: see `denature.data.readers.pickles`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from denature.core.errors import DataError
from denature.core.sniffing import instead_of
from denature.data.decode import Block
from denature.data.readers import pickles
from denature.data.readers.trees import Tree, lines_of
from denature.data.source import DataSource, Opener, line_of

PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the four layouts of CIFAR."""

    train: tuple[str, ...]
    test: str
    names: str
    """File of the class names."""
    classes: int
    unpack: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]
    """Images and labels of a file's bytes."""
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
            data = tree.read(prefix + self.names)
        except KeyError:
            return None
        names = self.unpack_names(data, f"{tree.path}, {self.names}")
        return tuple(names) if len(names) == self.classes else None

    def _opener(self, tree: Tree, prefix: str, files: Sequence[str]) -> Opener:
        def blocks() -> Iterator[Block]:
            for name in files:
                where = f"{tree.path}, {name}"
                try:
                    data = tree.read(prefix + name)
                except KeyError:
                    raise DataError(f"{where} is missing. Copy it again.") from None
                images, labels = self.unpack(data, where)
                if len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
                    raise DataError(
                        f"{where} has labels from {labels.min()} to {labels.max()}; wanted are 0 "
                        f"to {self.classes - 1}."
                    )
                pixels = np.ascontiguousarray(images).reshape(-1, 3, 32, 32)
                yield Block(pixels, labels.astype(np.int64))

        return blocks


def _records(label_bytes: int) -> Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]:
    """Unpacker of the binary version: labels, then pixels by plane; the last label is the fine."""

    def unpack(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        width = label_bytes + PIXELS
        if not data or len(data) % width:
            _check_download(data, where)
            raise DataError(
                f"{where} has {len(data)} bytes; wanted is a multiple of {width}, the bytes of a "
                "record. Copy it again: the file may be cut off."
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, width)
        return records[:, label_bytes:], records[:, label_bytes - 1]

    return unpack


def _check_download(data: bytes, where: str) -> None:
    """Raise DataError where a failed download lies in place of a file."""
    if data and (found := instead_of(data)) is not None:
        raise DataError(f"{where} {found}.")


def _unpickled(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = pickles.loads(data)
        return {key.decode() if isinstance(key, bytes) else str(key): found[key] for key in found}
    except Exception as error:  # a damaged pickle may raise anything
        _check_download(data, where)
        raise DataError(f"{where} is no pickle of CIFAR: {line_of(error)}.") from None


def _batch(key: str) -> Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]:
    def unpack(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        found = _unpickled(data, where)
        images, labels = found.get("data"), found.get(key)
        try:
            labels = np.array(labels if isinstance(labels, list) else None, np.int64)
        except (TypeError, ValueError, OverflowError):
            labels = None
        if not isinstance(images, np.ndarray) or labels is None or labels.ndim != 1:
            raise DataError(f"{where} lacks `data` or `{key}`; it is no batch of CIFAR.")
        if images.dtype != np.uint8 or images.shape != (len(labels), PIXELS):
            raise DataError(
                f"{where} holds {images.dtype} of the shape {images.shape}; wanted is uint8 of "
                f"{(len(labels), PIXELS)}."
            )
        return images, labels

    return unpack


def _lines(data: bytes, where: str) -> list[str]:
    return lines_of(data)


def _listed(key: str) -> Callable[[bytes, str], list[str]]:
    def unpack(data: bytes, where: str) -> list[str]:
        names = _unpickled(data, where).get(key)
        names = names if isinstance(names, list) else []
        return [
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
            for name in names
        ]

    return unpack


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
