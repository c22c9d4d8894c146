"""Files below a folder: links are followed, and what is left out is counted by reason."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from denature.core.classes import composed
from denature.core.errors import DataError

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}

SYSTEM_FILES = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
    *("system volume information", "lost+found"),
}
"""Files that operating systems leave beside data, in lower case."""


@dataclass(slots=True)
class ListedFolder:
    """A folder with the files of the wanted suffixes in it and below it."""

    path: Path
    files: list[Path] = field(default_factory=list)
    folders: list["ListedFolder"] = field(default_factory=list)
    """Subfolders that are not left out, empty ones included, by name."""
    total: int = 0
    """Files in it and below it."""

    @property
    def name(self) -> str:
        """Name in composed form: file systems and archives write an accent in two ways."""
        return composed(self.path.name)

    @property
    def filled(self) -> list["ListedFolder"]:
        """Subfolders that hold files, at any depth."""
        return [folder for folder in self.folders if folder.total]

    def everything(self) -> list[Path]:
        """Its files and those below it, sorted."""
        return sorted(self._walk())

    def _walk(self) -> Iterator[Path]:
        yield from self.files
        for folder in self.folders:
            yield from folder._walk()


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: `.git`, `._a.png`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def list_folder(
    root: Path, suffixes: Collection[str] | None, *, used: Collection[str] = ()
) -> tuple[ListedFolder, Counter[str]]:
    """The files below a folder, and how many files and folders are left out, by reason.

    Args:
        root: the outermost folder, which may be hidden itself.
        suffixes: of the wanted files, in lower case; None for all files.
        used: names and suffixes of files that are neither wanted here nor left out.

    Raises:
        DataError: a folder cannot be read.
    """
    lister = _Lister(suffixes, frozenset(used))
    return lister.listed(root, frozenset([_identity(os.stat(root))])), lister.left_out


class _Lister:
    def __init__(self, suffixes: Collection[str] | None, used: frozenset[str]) -> None:
        self.suffixes, self.used = suffixes, used
        self.left_out: Counter[str] = Counter()
        self.linked: set[tuple[int, int]] = set()
        """Folders behind links, each listed once: links to links double with each level."""

    def listed(self, path: Path, around: frozenset[tuple[int, int]]) -> ListedFolder:
        folder = ListedFolder(path)
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if (reason := _unreadable(entry, around)) is not None:
                self.left_out[reason] += 1
            elif entry.is_dir():
                if entry.is_symlink():
                    if (where := _identity(entry.stat())) in self.linked:
                        self.left_out["repeated link"] += 1
                        continue
                    self.linked.add(where)
                inner = self.listed(path / entry.name, around | {_identity(entry.stat())})
                folder.folders.append(inner)
                folder.total += inner.total
            elif self.suffixes is None or suffix in self.suffixes:
                folder.files.append(path / entry.name)
            elif not {suffix, entry.name} & self.used:
                self.left_out[suffix or "no suffix"] += 1
        folder.total += len(folder.files)
        return folder


def _unreadable(entry: "os.DirEntry[str]", around: frozenset[tuple[int, int]]) -> str | None:
    """Reason to leave an entry out, whatever its suffix; None where there is none."""
    if hidden(entry.name):
        return "hidden"
    try:
        if entry.is_dir():
            # A folder that holds a link to itself, or to one above it, would have no end.
            return "circular link" if _identity(entry.stat()) in around else None
        if not entry.is_file():  # a pipe or a device would block its reader
            return "broken link" if entry.is_symlink() else "no regular file"
    except OSError:  # a link to itself
        return "broken link"
    return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
