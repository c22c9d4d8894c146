"""Untrusted files and texts: what they declare is checked before memory is allocated for it.

Files are read where they are regular files only, since a pipe or a device could block its reader
or never end. JSON and TOML are parsed within a budget of memory, which is estimated from the text,
and give values that other code can walk without recursion errors and hand to the system.
"""

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20

MOST_JSON = 32 * MIB
"""Bytes of a JSON file at most."""

MOST_TOML = MIB // 4
"""Bytes of a TOML file at most."""

MOST_VALUES = 128 * MIB
"""Estimated bytes of the values of a JSON text at most."""

MOST_DOTS = 200
"""Dots in a line of TOML at most."""

DEEPEST = 64
"""Nesting of lists and objects at most."""

LARGEST_NUMBER = 2**64
"""Bound of the magnitude of whole numbers."""

COSTS = {"{": 200, "[": 96, ",": 96, ":": 96}
"""Bytes that CPython 3.11 takes at most for the value that a character stands for, text aside."""


MOST_MEMBERS = 200_000
"""Files in an archive at most; Tiny-ImageNet has 120,000."""

CENTRAL = b"PK\x01\x02"
"""First bytes of an entry in the list of files of a zip archive."""


class Unreadable(OSError):
    """A file that is not read for what it is; the text gives the reason."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, without waiting for a pipe to be written.

    Raises:
        OSError: the file cannot be opened, or is a pipe, a device or a socket.
    """
    if "\0" in str(path):
        raise Unreadable(f"{str(path)!r} has a NUL character, which no path can hold")
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    file = open(descriptor, "rb")  # noqa: SIM115 - the caller closes it
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder; wanted is a file")
    raise Unreadable(f"{path} is a pipe, a device or a socket; wanted is a regular file")


def read_bytes(path: Path, most: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: the file cannot be read, is no regular file, or has more than `most` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if size > most or len(data) > most:  # a file may grow, and those of /proc state no size
        raise Unreadable(f"it has {max(size, len(data)):,} bytes; wanted are at most {most:,}")
    return data


def read_text(path: Path, most: int) -> str:
    """The text of a regular file in UTF-8.

    Raises:
        OSError: see `read_bytes`.
        UnicodeDecodeError: the file is no UTF-8.
    """
    return read_bytes(path, most).decode("utf-8")


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip archive of few files, each stored or deflated.

    Raises:
        zipfile.BadZipFile: it lists too many files, or one in a format that allots memory by what
            the file declares.
    """
    with open_regular(path) as file:
        # The list of files is the end of an archive; each of its entries has 46 bytes or more.
        file.seek(-min(os.fstat(file.fileno()).st_size, 32 * MIB), os.SEEK_END)
        count = file.read().count(CENTRAL)
    if count > MOST_MEMBERS:
        raise zipfile.BadZipFile(f"it lists {count:,} files; wanted are at most {MOST_MEMBERS:,}")
    archive = zipfile.ZipFile(path)
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            archive.close()
            raise zipfile.BadZipFile(
                f"{info.filename} is packed by method {info.compress_type}; wanted is deflate"
            )
    return archive


def read_json(path: Path, *, most: int = MOST_JSON, values: int = MOST_VALUES) -> Any:
    """The values of a JSON file.

    Raises:
        OSError: see `read_bytes`.
        ValueError: see `parse_json`.
    """
    return parse_json(read_text(path, most), values=values)


def parse_json(text: str, *, values: int = MOST_VALUES) -> Any:
    """The values of a JSON text.

    Raises:
        ValueError: no JSON; more than `values` bytes of values; or values that `check_plain`
            refuses.
    """
    import json

    check_cost(text, values)
    return _parsed(json.loads, text)


def check_cost(text: str | bytes, most: int = MOST_VALUES) -> None:
    """Check that the values of a JSON text take at most so many bytes of memory.

    Raises:
        ValueError: they may take more.
    """
    cost = len(text) * (1 if text.isascii() else 4)
    for mark, each in COSTS.items():
        cost += each * (text.count(mark) if isinstance(text, str) else text.count(mark.encode()))
    if cost > most:
        raise ValueError(
            f"its values may take {cost / MIB:,.0f} MiB of memory; wanted are at most "
            f"{most / MIB:,.0f}"
        )


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        OSError: see `read_bytes`.
        ValueError: no TOML, or values that `check_plain` refuses.
    """
    import tomllib

    text = read_text(path, MOST_TOML)
    # The parser keeps each beginning of a dotted key: 16 KB of them took 260 MB.
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {MOST_DOTS} dots")
    found: dict[str, Any] = _parsed(tomllib.loads, text)
    return found


_TOO_DEEP = f"its values are nested deeper than {DEEPEST} levels"


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        found = parse(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_plain(found)
    return found


def check_plain(value: Any) -> None:
    """Check values of a file for what breaks the code that takes them.

    Raises:
        ValueError: they are nested too deep, a text has a NUL character, or a whole number has a
            magnitude of 2^64 or more.
    """
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.keys()
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            else:
                _check_scalar(each)
        if not inner:
            return
        level = inner
    raise ValueError(_TOO_DEEP)


def _check_scalar(value: Any) -> None:
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"the text {value[:40]!r} has a NUL character")
    if isinstance(value, int) and not -LARGEST_NUMBER < value < LARGEST_NUMBER:
        raise ValueError(f"a whole number has {value.bit_length()} bits; wanted are at most 64")
