"""CIFAR-10, CIFAR-100 and Tiny-ImageNet as their authors publish them: folders or archives."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from denature.core.errors import DataError
from denature.data.config import DataConfig
from denature.data.readers.cifar import CIFARS
from denature.data.readers.tiny_imagenet import MARKS, tiny_imagenet
from denature.data.readers.trees import FolderTree, Tree, open_archive
from denature.data.source import DataSource


class ArchiveLayout(NamedTuple):
    """The layout of a published data set."""

    marks: tuple[str, str]
    """Files that identify the layout, relative to its folder."""
    read: Callable[[Tree, str], DataSource]
    """From a tree and the prefix of the names of its files to the source."""


LAYOUTS = (
    *(ArchiveLayout(cifar.marks, cifar.read) for cifar in CIFARS),
    ArchiveLayout(MARKS, tiny_imagenet),
)

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


def archived(path: Path, config: DataConfig) -> DataSource | None:
    """The source in a folder or an archive of one of these layouts; None for other paths.

    Raises:
        DataError: the layout matches, and a file is damaged.
    """
    if not path.is_dir():
        return _packed(path)
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


def _at(path: Path) -> DataSource | None:
    return _packed(path) if path.is_file() else _unpacked(path)


def _unpacked(root: Path) -> DataSource | None:
    """The source in a folder of one of these layouts; None for other folders."""
    for layout in LAYOUTS:
        if all((root / mark).is_file() for mark in layout.marks):
            return layout.read(FolderTree(root), "")
    return None


def _packed(path: Path) -> DataSource | None:
    """The source in an archive, in any of its folders; None for other files."""
    tree = open_archive(path)
    if tree is None:
        return None
    names = set(tree.names)
    for layout in LAYOUTS:
        first, second = layout.marks
        for name in names:
            prefix = name.removesuffix(first)
            below = prefix != name and (not prefix or prefix.endswith("/"))
            if below and prefix + second in names:
                return layout.read(tree, prefix)
    return None
