"""CIFAR-10, CIFAR-100 and Tiny-ImageNet as their authors publish them: folders, or the archives.

Nothing is unpacked and nothing in them is executed: see `denature.data.pickles`.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, final

import numpy as np

from denature.core.errors import DataError
from denature.data import pickles
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

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            KeyError: there is none of that name.
            DataError: it is damaged.
        """

    def image(self, name: str) -> bytes | Path:
        """An image for the decoder: its path, or its bytes where it has none of its own."""


@contextmanager
def _reading(path: Path, name: str = "") -> Iterator[None]:
    """Whatever a damaged file raises, as an error that says which it is."""
    try:
        yield
    except FileNotFoundError:
        raise KeyError(name) from None
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as e:
        where = f"{path}, {name}" if name else str(path)
        raise DataError(f"{where} cannot be read: {line_of(e)}. Copy it again.") from None


@final
@dataclass(frozen=True)
class Folder:
    path: Path

    @cached_property
    def names(self) -> Sequence[str]:
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in files)

    def read(self, name: str) -> bytes:
        with _reading(self.path, name):
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
    def _members(self) -> dict[str, tarfile.TarInfo]:
        with _reading(self.path):
            members = {_plain(it.name): it for it in self._file.getmembers() if it.isfile()}
            # The checksum of what was packed is the last of it, and looked at there.
            while self._file.fileobj is not None and self._file.fileobj.read(1 << 20):
                pass
        return members

    @property
    def names(self) -> Sequence[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with _reading(self.path, name):
            opened = self._file.extractfile(member)
            assert opened is not None  # it is a file
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
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        with _reading(self.path):
            return {_plain(it.filename): it for it in self._file.infolist() if not it.is_dir()}

    @property
    def names(self) -> Sequence[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with _reading(self.path, name):
            return self._file.read(member)

    image = read


def _plain(name: str) -> str:
    """Without `./`, which some archives put before each name."""
    return PurePosixPath(name).as_posix()


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


def _unpickled(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = pickles.loads(data)
        return {key.decode() if isinstance(key, bytes) else str(key): found[key] for key in found}
    except Exception as error:  # a damaged pickle may raise anything
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
    return [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


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
"""The published archives and what they unpack into; the folder around them is as good."""


def archived(path: Path) -> Source | None:
    """The source in a folder or an archive of one of these layouts; None where it is none.

    Raises:
        DataError: it is one, and damaged.
    """
    if path.is_dir():
        inside = (path / name for names in PACKED.values() for name in names)
        for root in (path, *inside):
            if root.is_file() and (found := archived(root)) is not None:
                return found
            markers = [cifar for cifar in CIFARS if (root / cifar.test).is_file()]
            markers = [cifar for cifar in markers if (root / cifar.train[0]).is_file()]
            if markers:
                return _cifar(Folder(root), "", markers[0])
            if (root / WNIDS).is_file() and (root / ANNOTATIONS).is_file():
                return _tiny_imagenet(Folder(root), "")
        return None
    tree: Tree
    with _reading(path):
        if zipfile.is_zipfile(path) and path.suffix != ".npz":
            tree = Zip(path)
        elif path.suffix in (".gz", ".tgz", ".tar") and tarfile.is_tarfile(path):
            tree = Tar(path)
        else:
            return None
    return _inside(tree)


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
        if not rest or rest[0] not in label_of or PurePosixPath(image).name != image:
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
    except KeyError:
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
