"""Files under slash-separated names, in a folder or an archive; nothing is unpacked."""

import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeAlias, final

from denature.core.errors import DataError
from denature.data.listing import hidden, list_folder
from denature.data.source import line_of, stats_of

TAR_SUFFIXES = (".gz", ".tgz", ".tar")
"""Suffixes of tar archives; of other files the content is not probed."""


class Tree(Protocol):
    """Files under slash-separated names."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> Sequence[str]:
        """All files but hidden ones, sorted."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Number of files that are not among the names, by reason."""

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            KeyError: no file has that name.
            DataError: the file is damaged.
        """

    def image(self, name: str) -> bytes | Path:
        """An image for the decoder: its path, or its bytes where it has no path."""

    def stats(self, names: Sequence[str]) -> list[Any]:
        """Stats that change with files of these names; an archive is one file."""


@contextmanager
def reading(path: Path, name: str = "") -> Iterator[None]:
    """Turn the exceptions of a damaged file into an error that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise KeyError(name) from None
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as e:
        where = f"{path}, {name}" if name else str(path)
        raise DataError(f"{where} cannot be read: {line_of(e)}. Copy it again.") from None


@final
@dataclass(frozen=True)
class FolderTree:
    path: Path

    @cached_property
    def _listed(self) -> tuple[Sequence[str], Counter[str]]:
        listed, left_out = list_folder(self.path, None)
        names = (file.relative_to(self.path).as_posix() for file in listed.everything())
        return sorted(names), left_out

    @property
    def names(self) -> Sequence[str]:
        return self._listed[0]

    @property
    def left_out(self) -> Mapping[str, int]:
        return self._listed[1]

    def read(self, name: str) -> bytes:
        with reading(self.path, name):
            return (self.path / name).read_bytes()

    def image(self, name: str) -> bytes | Path:
        return self.path / name

    def stats(self, names: Sequence[str]) -> list[Any]:
        files = (self.path / name for name in names)
        return stats_of(file for file in files if file.is_file())


Members: TypeAlias = Mapping[str, Callable[[], bytes]]
"""Readers of an archive's files, hidden ones included, by name."""


@final
@dataclass(frozen=True)
class ArchiveTree:
    path: Path
    open_members: Callable[[], Members]
    """Opens the archive."""

    @cached_property
    def _members(self) -> Members:
        with reading(self.path):
            return self.open_members()

    @cached_property
    def names(self) -> Sequence[str]:
        return sorted(name for name in self._members if not any(map(hidden, name.split("/"))))

    @property
    def left_out(self) -> Mapping[str, int]:
        return +Counter({"hidden": len(self._members) - len(self.names)})

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with reading(self.path, name):
            return member()

    image = read

    def stats(self, names: Sequence[str]) -> list[Any]:
        return stats_of([self.path])


def open_archive(path: Path) -> ArchiveTree | None:
    """The files in a zip or tar archive; None for files of other formats."""
    with reading(path):
        if zipfile.is_zipfile(path):
            return ArchiveTree(path, lambda: _zip_members(zipfile.ZipFile(path)))
        if path.suffix.lower() in TAR_SUFFIXES and tarfile.is_tarfile(path):
            return ArchiveTree(path, lambda: _tar_members(tarfile.open(path)))
    return None


def _zip_members(archive: zipfile.ZipFile) -> Members:
    infos = archive.infolist()
    return {_plain(i.filename): partial(archive.read, i) for i in infos if not i.is_dir()}


def _tar_members(archive: tarfile.TarFile) -> Members:
    infos = archive.getmembers()
    # The checksum of the packed data comes last, and is verified on reading it.
    while archive.fileobj is not None and archive.fileobj.read(1 << 20):
        pass

    def read(info: tarfile.TarInfo) -> bytes:
        opened = archive.extractfile(info)
        assert opened is not None  # it is a file
        return opened.read()

    return {_plain(info.name): partial(read, info) for info in infos if info.isfile()}


def _plain(name: str) -> str:
    """The name without `./`, which some archives put before each name."""
    return PurePosixPath(name).as_posix()


def lines_of(data: bytes) -> list[str]:
    """The lines of a list, without empty ones."""
    return [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
