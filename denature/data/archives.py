"""CIFAR-10, CIFAR-100 and Tiny-ImageNet as their authors publish them: folders, or the archives.

Nothing is unpacked and nothing in them is executed: the pickles of CIFAR's Python version may name
NumPy's arrays and nothing else.
"""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, final

import numpy as np

from denature.core.errors import DataError
from denature.data.decode import Block, Encoded
from denature.data.sources import Opener, Source, line_of, stat_of

PIXELS = 3 * 32 * 32
WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


class Tree(Protocol):
    """Files under slash-separated names."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> Sequence[str]:
        """All files, sorted."""

    def read(self, name: str) -> bytes: ...

    def image(self, name: str) -> bytes | Path:
        """An image for the decoder: its path, or its bytes where it has none of its own."""


@final
@dataclass(frozen=True)
class Folder:
    path: Path

    @cached_property
    def names(self) -> Sequence[str]:
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in files)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def image(self, name: str) -> bytes | Path:
        return self.path / name


@final
@dataclass(frozen=True)
class Tar:
    path: Path

    @cached_property
    def _file(self) -> tarfile.TarFile:
        return tarfile.open(self.path)

    @cached_property
    def names(self) -> Sequence[str]:
        return sorted(member.name for member in self._file.getmembers() if member.isfile())

    def read(self, name: str) -> bytes:
        opened = self._file.extractfile(name)
        assert opened is not None
        return opened.read()

    image = read


@final
@dataclass(frozen=True)
class Zip:
    path: Path

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    @cached_property
    def names(self) -> Sequence[str]:
        return sorted(name for name in self._file.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        return self._file.read(name)

    image = read


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
    """Of the binary version: labels, then the pixels plane by plane; the last label is the fine."""

    def unpack(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        width = label_bytes + PIXELS
        if not data or len(data) % width:
            raise DataError(
                f"{where} has {len(data)} bytes, which are no records of {width}. Is it cut off? "
                "Copy it again."
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, width)
        return records[:, label_bytes:], records[:, label_bytes - 1]

    return unpack


@final
class _Arrays(pickle.Unpickler):
    """Unpickles dictionaries, lists, texts and NumPy arrays of plain numbers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 pickles bytes at protocol 2
            return _latin
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which an array does not need")


def _latin(text: str, coding: str) -> bytes:
    return text.encode("latin1")


def _unpickled(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = _Arrays(io.BytesIO(data), encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else str(key): found[key] for key in found}
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{where} is no pickle of CIFAR: {line_of(error)}.") from None


def _batch(key: str) -> Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]:
    def unpack(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        found = _unpickled(data, where)
        try:
            images, labels = np.asarray(found["data"]), np.asarray(found[key], np.int64)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where} lacks `data` or `{key}`; it is no batch of CIFAR.") from None
        shape = (len(labels), PIXELS)
        if images.dtype != np.uint8 or images.shape != shape:
            raise DataError(
                f"{where} holds {images.dtype} of the shape {images.shape}; wanted is uint8 of "
                f"{shape}."
            )
        return images, labels

    return unpack


def _lines(data: bytes, where: str) -> list[str]:
    return [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


def _listed(key: str) -> Callable[[bytes, str], list[str]]:
    def unpack(data: bytes, where: str) -> list[str]:
        names = _unpickled(data, where).get(key, [])
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]

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

INNER = (
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
    "cifar-100-binary",
    "cifar-100-python",
    "tiny-imagenet-200",
)
"""What the archives unpack into; the folder around it is as good."""


def archived(path: Path) -> Source | None:
    """The source in a folder or an archive of one of these layouts; None where it is none.

    Raises:
        DataError: it is one, and damaged.
    """
    if path.is_dir():
        for root in (path, *(path / name for name in INNER)):
            markers = [cifar for cifar in CIFARS if (root / cifar.test).is_file()]
            markers = [cifar for cifar in markers if (root / cifar.train[0]).is_file()]
            if markers:
                return _cifar(Folder(root), "", markers[0])
            if (root / WNIDS).is_file() and (root / ANNOTATIONS).is_file():
                return _tiny_imagenet(Folder(root), "")
        return None
    tree: Tree
    try:
        if zipfile.is_zipfile(path) and path.suffix != ".npz":
            tree = Zip(path)
        elif path.suffix in (".gz", ".tgz", ".tar") and tarfile.is_tarfile(path):
            tree = Tar(path)
        else:
            return None
        return _inside(tree)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {line_of(error)}. Copy it again.") from None


def _inside(tree: Tree) -> Source | None:
    """What an archive holds, in whatever folder inside of it."""
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
            return _tiny_imagenet(tree, prefix)
    return None


def _cifar(tree: Tree, prefix: str, cifar: Cifar) -> Source:
    def read(files: Sequence[str]) -> Opener:
        def blocks() -> Iterator[Block]:
            for name in files:
                where = f"{tree.path}, {name}"
                try:
                    data = tree.read(prefix + name)
                except (KeyError, FileNotFoundError):
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
    except (KeyError, FileNotFoundError):
        pass
    return Source(
        {"train": read(cifar.train), "test": read([cifar.test])},
        classes or tuple(str(label) for label in range(cifar.classes)),
        ("cifar", *_stats(tree, [prefix + name for name in (*cifar.train, cifar.test)])),
    )


def _tiny_imagenet(tree: Tree, prefix: str) -> Source:
    """train/<wnid>/images/*, and val/images/* with a file that says which is of which class."""
    where = f"{tree.path}, {ANNOTATIONS}"
    wnids = sorted(_lines(tree.read(prefix + WNIDS), WNIDS))
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train: list[tuple[str, int]] = []
    for name in tree.names:
        parts = name.removeprefix(prefix).split("/")
        if parts[0] == "train" and name.lower().endswith(IMAGE_SUFFIXES):
            if parts[1] not in label_of:
                raise DataError(f"{tree.path}: {name} is of no class in {WNIDS}.")
            train.append((name, label_of[parts[1]]))
    test: list[tuple[str, int]] = []
    for line in _lines(tree.read(prefix + ANNOTATIONS), where):
        image, *rest = line.split("\t")
        if not rest or rest[0] not in label_of:
            raise DataError(f"{where} has the line {line[:60]!r}; wanted is image, tab, class.")
        test.append((f"{prefix}val/images/{image}", label_of[rest[0]]))
    if not train:
        raise DataError(f"{tree.path} holds no image in train/<class>/images/.")

    def read(files: Sequence[tuple[str, int]]) -> Opener:
        def images() -> Iterator[Encoded]:
            for name, label in files:
                try:
                    yield Encoded(tree.image(name), label, f"{tree.path}, {name}")
                except KeyError:
                    raise DataError(f"{tree.path} lacks {name}. Copy it again.") from None

        return images

    classes = tuple(wnids)
    try:
        words = dict(
            line.split("\t", 1) for line in _lines(tree.read(prefix + WORDS), WORDS) if "\t" in line
        )
        classes = tuple(f"{wnid}\t{words.get(wnid, '')}".strip() for wnid in wnids)
    except (KeyError, FileNotFoundError):
        pass
    return Source(
        {"train": read(train), "validation": read(test)},
        classes,
        ("tiny-imagenet", len(train), *_stats(tree, [n for n, _ in train + test])),
        len(train) + len(test),
    )


def _stats(tree: Tree, names: Sequence[str]) -> list[Any]:
    """What changes when the files do; an archive is one file."""
    if not isinstance(tree, Folder):
        return [stat_of(tree.path)]
    return [stat_of(tree.path / name) for name in names if (tree.path / name).is_file()]
