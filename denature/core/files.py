"""Files that are either complete or absent."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path` on success.

    The bytes reach the disk before the name does, so a reader, a killed process and a power cut
    find the old file, the new one, or none. On any exception the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically; bytes of file names that are not UTF-8 are spelt out."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def atomic_folder(folder: Path, *, complete: Callable[[], bool]) -> Iterator[Path]:
    """Yield a new folder beside `folder`; what was written there becomes `folder` on success.

    Another process may do the same meanwhile: the first wins, and that is no error where what it
    left is what was wanted.

    Args:
        folder: does not exist yet.
        complete: whether `folder` is there and whole.

    Raises:
        OSError: something else lies in its place, or the disk does not take it.
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
