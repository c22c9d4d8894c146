"""Values as others may read them: paths of this machine become relative, or a name alone."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from denature.core.record import Record
from denature.core.schema import decode

_PATH = re.compile(
    r"(?:(?<=file://)|(?<=\s[`|])|(?<=^[`|])|(?<![^\s\"'(=@,;:\[{]))"
    r"(?:/|[A-Za-z]:[/\\])[^\s/\\\"'`(),;|\]}<>][^\s\"'`(),;|\]}<>]*"
)
"""An absolute path in a text; the slashes of a URL stand after others."""

_CODED = frozenset({"hits", "png", "pngs"})
"""Keys of values in base64, whose slashes part nothing."""


def without_paths(value: Any, base: Path | None = None) -> Any:
    """A value of JSON whose texts name no absolute path.

    A path below `base` becomes relative to it, one below the working directory relative to that,
    and of any other its last part stays.
    """
    if isinstance(value, str):
        return _PATH.sub(partial(_short, base), value) if "/" in value or "\\" in value else value
    if isinstance(value, Mapping):
        return {k: v if k in _CODED else without_paths(v, base) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(member, base) for member in value]
    return value


def record_without_paths(record: Record) -> Record:
    """A record whose texts name no absolute path; it is there to be read, and restarts nothing."""
    plain = asdict(record)
    found = without_paths(plain)
    return record if found == _listed(plain) else decode(Record, found, where="the record")


def _listed(value: Any) -> Any:
    """A value with lists in the place of tuples, as JSON has it."""
    if isinstance(value, Mapping):
        return {key: _listed(member) for key, member in value.items()}
    return [_listed(member) for member in value] if isinstance(value, list | tuple) else value


def _short(base: Path | None, found: re.Match[str]) -> str:
    path = Path(found[0])
    for folder in (base, Path()):
        if folder is not None and path.is_relative_to(folder.absolute()):
            return path.relative_to(folder.absolute()).as_posix()
    return re.split(r"[/\\]", found[0].rstrip("/\\"))[-1]
