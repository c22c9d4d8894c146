"""Files that are either complete or absent."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path, *, former: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success the file there is renamed to `path`.

    The bytes reach the disk before the rename: a reader at any time, even after a kill or a power
    cut, finds the old file, the new file, or none. On any exception the temporary file is removed.

    Args:
        path: the file to write.
        former: path beside it where the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows syncs no file that is open for reading
            os.fsync(file.fileno())
        if former is not None and path.exists():
            _keep(path, former)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _keep(path: Path, former: Path) -> None:
    """Give a file a second name, so that it is never absent; or another, where it can have one."""
    former.unlink(missing_ok=True)
    try:
        os.link(path, former)
    except OSError:  # such as exFAT; a kill now leaves the file under the other name alone
        os.replace(path, former)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically; bytes of file names that are not UTF-8 are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def atomic_folder(folder: Path, *, complete: Callable[[], bool]) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success it is renamed to `folder`.

    Where another process does the same meanwhile, the first rename wins. The second raises only if
    the folder in place is not complete.

    Args:
        folder: the target, which does not exist yet.
        complete: returns whether `folder` exists and is complete.

    Raises:
        OSError: other content occupies the path, or the disk refuses the write.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        try:
            os.rename(temporary, folder)
        except OSError:
            if not complete():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
