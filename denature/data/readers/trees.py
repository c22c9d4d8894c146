"""Files under slash-separated names, in a folder or an archive; nothing is unpacked."""

import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, final

from denature.core.errors import DataError
from denature.data.listing import hidden, list_folder
from denature.data.source import line_of, stats_of


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


@final
@dataclass(frozen=True)
class TarTree:
    path: Path

    @cached_property
    def _file(self) -> tarfile.TarFile:
        return tarfile.open(self.path)

    @cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        with reading(self.path):
            infos = self._file.getmembers()
            members = {_plain(info.name): info for info in infos if info.isfile()}
            # The checksum of the packed data comes last, and is verified on reading it.
            while self._file.fileobj is not None and self._file.fileobj.read(1 << 20):
                pass
        return members

    @property
    def names(self) -> Sequence[str]:
        return _visible(self._members)

    @property
    def left_out(self) -> Mapping[str, int]:
        return +Counter({"hidden": len(self._members) - len(self.names)})

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with reading(self.path, name):
            opened = self._file.extractfile(member)
            assert opened is not None  # it is a file
            return opened.read()

    image = read


@final
@dataclass(frozen=True)
class ZipTree:
    path: Path

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        with reading(self.path):
            infos = self._file.infolist()
            return {_plain(info.filename): info for info in infos if not info.is_dir()}

    @property
    def names(self) -> Sequence[str]:
        return _visible(self._members)

    @property
    def left_out(self) -> Mapping[str, int]:
        return +Counter({"hidden": len(self._members) - len(self.names)})

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with reading(self.path, name):
            return self._file.read(member)

    image = read


def _plain(name: str) -> str:
    """The name without `./`, which some archives put before each name."""
    return PurePosixPath(name).as_posix()


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not any(map(hidden, name.split("/"))))


def lines_of(data: bytes) -> list[str]:
    """The lines of a list, without empty ones."""
    return [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


def stats_in(tree: Tree, names: Sequence[str]) -> list[Any]:
    """Stats that change with the files; an archive is one file."""
    if not isinstance(tree, FolderTree):
        return stats_of([tree.path])
    files = (tree.path / name for name in names)
    return stats_of(file for file in files if file.is_file())
