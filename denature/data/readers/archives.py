"""CIFAR-10, CIFAR-100 and Tiny-ImageNet as their authors publish them: folders or archives.

Archives are read in place, and no code in them is executed: see `denature.data.readers.pickles`.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from denature.core.errors import DataError
from denature.core.sniffing import instead_of
from denature.data.decode import Block
from denature.data.readers import pickles
from denature.data.readers.tiny_imagenet import ANNOTATIONS, WNIDS, tiny_imagenet
from denature.data.readers.trees import (
    FolderTree,
    TarTree,
    Tree,
    ZipTree,
    lines_of,
    reading,
    stats_in,
)
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

PACKED: Mapping[str, tuple[str, ...]] = {
    "cifar10": (
        "cifar-10-batches-bin",
        "cifar-10-batches-py",
        "cifar-10-binary.tar.gz",
        "cifar-10-python.tar.gz",
    ),
    "cifar100": (
        "cifar-100-binary",
        "cifar-100-python",
        "cifar-100-binary.tar.gz",
        "cifar-100-python.tar.gz",
    ),
    "tiny-imagenet": ("tiny-imagenet-200", "tiny-imagenet-200.zip"),
}
"""The published archives and their folders; a folder that holds one of them serves too."""


def archived(path: Path) -> DataSource | None:
    """The source in a folder or an archive of one of these layouts; None for other paths.

    Raises:
        DataError: the layout matches, and a file is damaged.
    """
    if path.is_dir():
        if (found := _unpacked(path)) is not None:
            return found
        inside = {
            title: sources
            for title, names in PACKED.items()
            if (sources := [source for name in names if (source := _at(path / name)) is not None])
        }
        if len(inside) > 1:
            raise DataError(
                f"{path} holds several data sets: {', '.join(inside)}. Name one by its path."
            )
        return next((sources[0] for sources in inside.values()), None)
    tree: Tree
    with reading(path):
        if zipfile.is_zipfile(path) and path.suffix.lower() != ".npz":
            tree = ZipTree(path)
        elif path.suffix.lower() in (".gz", ".tgz", ".tar") and tarfile.is_tarfile(path):
            tree = TarTree(path)
        else:
            return None
    return _inside(tree)


def _at(path: Path) -> DataSource | None:
    return archived(path) if path.is_file() else _unpacked(path)


def _unpacked(root: Path) -> DataSource | None:
    """The source in a folder of one of these layouts; None for other folders."""
    for cifar in CIFARS:
        if (root / cifar.test).is_file() and (root / cifar.train[0]).is_file():
            return _cifar(FolderTree(root), "", cifar)
    if (root / WNIDS).is_file() and (root / ANNOTATIONS).is_file():
        return tiny_imagenet(FolderTree(root), "")
    return None


def _inside(tree: Tree) -> DataSource | None:
    """The source in an archive, in any of its folders; None where there is none."""
    names = set(tree.names)
    for cifar in CIFARS:
        for name in names:
            place = PurePosixPath(name)
            prefix = "" if place.parent == PurePosixPath() else f"{place.parent}/"
            if place.name == cifar.test and prefix + cifar.train[0] in names:
                return _cifar(tree, prefix, cifar)
    for name in names:
        prefix = name.removesuffix(ANNOTATIONS)
        if prefix != name and prefix + WNIDS in names:
            return tiny_imagenet(tree, prefix)
    return None


def _cifar(tree: Tree, prefix: str, cifar: Cifar) -> DataSource:
    def read(files: Sequence[str]) -> Opener:
        def blocks() -> Iterator[Block]:
            for name in files:
                where = f"{tree.path}, {name}"
                try:
                    data = tree.read(prefix + name)
                except KeyError:
                    raise DataError(f"{where} is missing. Copy it again.") from None
                images, labels = cifar.unpack(data, where)
                if len(labels) and not 0 <= labels.min() <= labels.max() < cifar.classes:
                    raise DataError(
                        f"{where} has labels from {labels.min()} to {labels.max()}; wanted are 0 "
                        f"to {cifar.classes - 1}."
                    )
                pixels = np.ascontiguousarray(images).reshape(-1, 3, 32, 32)
                yield Block(pixels, labels.astype(np.int64))

        return blocks

    classes = None
    try:
        names = cifar.unpack_names(tree.read(prefix + cifar.names), f"{tree.path}, {cifar.names}")
        classes = tuple(names) if len(names) == cifar.classes else None
    except KeyError:
        pass
    return DataSource(
        {"train": read(cifar.train), "test": read([cifar.test])},
        classes or tuple(str(label) for label in range(cifar.classes)),
        ("cifar", classes, *stats_in(tree, [prefix + name for name in (*cifar.train, cifar.test)])),
    )
