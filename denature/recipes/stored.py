"""Measurements that take minutes, each kept in a file for the next call."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from denature.core.errors import ConfigError, Stopped
from denature.core.files import write_text
from denature.core.schema import decode
from denature.core.sealed import sealed, unsealed
from denature.core.stopping import Stopper
from denature.core.untrusted import read_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def stored(
    path: Path,
    of: Mapping[str, Any],
    kind: type[T],
    measure: Callable[[], T],
    *,
    what: str,
    stopper: Stopper,
) -> T:
    """A measurement as a file holds it; a missing, damaged or older one is made, and written.

    Args:
        path: the file.
        of: all that the measurement depends on, as plain values of JSON.
        kind: dataclass of the measurement.
        measure: makes it.
        what: its name, for messages.
        stopper: checked before it is made.

    Raises:
        Stopped: the time limit or a signal came before it.
    """
    with suppress(OSError, ValueError, KeyError, ConfigError):
        found = unsealed(read_json(path))
        if found["of"] == of:
            return decode(kind, found["found"], where=str(path))
    if reason := stopper.reason:
        raise Stopped(
            reason,
            f"Stopped by {reason} before {what}. Run the same command again to go on.",
        )
    made = measure()
    plain = {"of": of, "found": asdict(cast("DataclassInstance", made))}
    write_text(path, json.dumps(sealed(plain)) + "\n")
    return made
