"""Files under slash-separated names, in a folder or an archive; nothing is unpacked."""

import gzip
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol, TypeAlias, cast, final

from denature.core.errors import DataError
from denature.core.text import line_of
from denature.core.untrusted import MIB, MOST_MEMBERS, open_regular, open_zip
from denature.data.listing import hidden, list_folder
from denature.data.source import stats_of

TAR_SUFFIXES = (".gz", ".tgz", ".tar")
"""Suffixes of tar archives; of other files the content is not probed."""

MOST_LIST = 4 * MIB
"""Bytes of a list of names at most; the longest that is published has 2.7 million."""

MOST_PICTURE = 32 * MIB
"""Bytes of a picture in an archive at most."""

MOST_HEADER = 64 * 1024
"""Bytes of a tar header's name or attributes at most."""

MOST_MEMBER = 256 * MIB
"""Bytes of a file in a tar archive at most; the largest that is published has 156 million."""

MOST_UNPACKED = 4096 * MIB
"""Bytes that a tar archive unpacks to at most."""

GZIP = b"\x1f\x8b"


class Member(NamedTuple):
    """A file in a folder or an archive."""

    size: int
    """Bytes, as the archive declares them."""
    open: Callable[[], IO[bytes]]


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

    def member(self, name: str) -> Member:
        """A file, which `reading` guards.

        Raises:
            KeyError: no file has that name.
        """

    def image(self, name: str) -> bytes | Path:
        """An image for the decoder: its path, or its bytes where it has no path."""

    def stats(self, names: Sequence[str]) -> list[Any]:
        """Stats that change with files of these names; an archive is one file."""


OF_ARCHIVES = (tarfile.TarError, zipfile.BadZipFile, zlib.error)


@contextmanager
def reading(path: Path, name: str = "") -> Iterator[None]:
    """Turn the exceptions of a damaged file into an error that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise KeyError(name) from None
    except (OSError, EOFError, RuntimeError, ValueError, *OF_ARCHIVES) as e:
        where = f"{path}, {name}" if name else str(path)
        raise DataError(f"{where} cannot be read: {line_of(e)}. Copy it again.") from None


def read_file(tree: Tree, name: str, most: int) -> bytes:
    """The bytes of a file of a tree.

    Raises:
        KeyError: no file has that name.
        DataError: the file is damaged, or has more than `most` bytes.
    """
    member = tree.member(name)
    check_size(member, most, f"{tree.path}, {name}")
    with reading(tree.path, name), member.open() as file:
        return file.read(most)


def check_size(member: Member, most: int, where: str) -> None:
    """Check the size of a file before any of it is read.

    Raises:
        DataError: it has more than `most` bytes.
    """
    if member.size > most:
        raise DataError(
            f"{where} has {member.size:,} bytes; wanted are at most {most:,}. It is no file of a "
            "published data set; fetch the data set from its authors."
        )


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

    def member(self, name: str) -> Member:
        with reading(self.path, name):
            size = (self.path / name).stat().st_size
        return Member(size, partial(open_regular, self.path / name))

    def image(self, name: str) -> bytes | Path:
        return self.path / name

    def stats(self, names: Sequence[str]) -> list[Any]:
        files = (self.path / name for name in names)
        return stats_of(file for file in files if file.is_file())


Members: TypeAlias = Mapping[str, Member]
"""An archive's files, hidden ones included, by name."""


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

    def member(self, name: str) -> Member:
        return self._members[name]

    def image(self, name: str) -> bytes | Path:
        return read_file(self, name, MOST_PICTURE)

    def stats(self, names: Sequence[str]) -> list[Any]:
        return stats_of([self.path])


def open_archive(path: Path) -> ArchiveTree | None:
    """The files in a zip or tar archive; None for files of other formats."""
    with reading(path):
        if zipfile.is_zipfile(path):
            return ArchiveTree(path, lambda: _zip_members(open_zip(path)))
        if path.suffix.lower() in TAR_SUFFIXES and _open_tar(path) is not None:
            return ArchiveTree(path, lambda: _tar_members(_open_tar(path)))
    return None


def _zip_members(archive: zipfile.ZipFile) -> Members:
    return {
        _plain(info.filename): Member(info.file_size, partial(archive.open, info))
        for info in archive.infolist()
        if not info.is_dir()
    }


@final
class _Limited:
    """The bytes of a tar archive, read in pieces of a limited size."""

    def __init__(self, path: Path) -> None:
        self._raw = self._file = cast(IO[bytes], open_regular(path))
        packed = self._raw.read(2) == GZIP
        self._raw.seek(0)
        if packed:
            self._file = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw))
        self.most = MOST_HEADER

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.most:
            raise tarfile.ReadError(f"a header declares {size:,} bytes; wanted are {self.most:,}")
        if self._file.tell() > MOST_UNPACKED:
            raise tarfile.ReadError(f"it unpacks to more than {MOST_UNPACKED:,} bytes")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    __del__ = close


class _PlainInfo(tarfile.TarInfo):
    """A member that is no sparse file: maps of those are lists without a limit."""

    def _proc_gnusparse_10(self, *_: Any) -> Any:
        raise tarfile.ReadError("it holds a sparse file, whose map has no limit")


def _open_tar(path: Path) -> tarfile.TarFile | None:
    """Open a tar archive, packed with gzip or not; None for files of other formats."""
    limited = _Limited(path)
    try:
        return tarfile.TarFile(fileobj=cast(IO[bytes], limited), tarinfo=_PlainInfo)
    except tarfile.ReadError:
        limited.close()
        return None


def _tar_members(archive: tarfile.TarFile | None) -> Members:
    if archive is None:  # it changed meanwhile
        raise tarfile.ReadError("it is no tar archive")
    limited = cast(_Limited, archive.fileobj)
    infos, held = [], 0
    for info in archive:
        # Attributes of all files may be repeated for each file.
        held += 1 + len(info.pax_headers)
        if held > MOST_MEMBERS:
            raise tarfile.ReadError(f"it lists more than {MOST_MEMBERS:,} files and attributes")
        if info.size > MOST_MEMBER:
            raise tarfile.ReadError(
                f"{info.name} has {info.size:,} bytes; wanted are at most {MOST_MEMBER:,}"
            )
        infos.append(info)
    # The checksum of the packed data comes last, and is verified on reading it.
    while limited.read(limited.most):
        pass
    limited.most = MOST_MEMBER  # which no listed file exceeds

    def opened(info: tarfile.TarInfo) -> IO[bytes]:
        file = archive.extractfile(info)
        assert file is not None  # it is a file
        return file

    return {
        _plain(info.name): Member(info.size, partial(opened, info))
        for info in infos
        if info.isreg() and not info.issparse()
    }


def _plain(name: str) -> str:
    """The name without `./`, which some archives put before each name."""
    return PurePosixPath(name).as_posix()


def lines_of(data: bytes) -> list[str]:
    """The lines of a list, without empty ones."""
    return [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
