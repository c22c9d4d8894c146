"""Exceptions that callers may catch.

DenatureError                 everything below, and errors of parts, such as a failed gate
├── ConfigError (ValueError)  a value, name or option that cannot be used
├── DataError                 a data set is missing, unreadable or not what it claims to be
├── RunError                  a run's folder cannot be read, or must not be changed
├── TrainingError             training diverged: its loss is no longer finite
├── Stopped                   work was interrupted cleanly and can be resumed
└── MissingExtra              an optional dependency is not installed

Each message names the fault, the value found, the value wanted and the next step, in one line.
"""

import difflib
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from denature.core.synonyms import synonyms


class DenatureError(Exception):
    """Base of all errors that denature raises on purpose."""


class ConfigError(DenatureError, ValueError):
    """A value, name or option that cannot be used."""


class DataError(DenatureError):
    """A data set is missing, unreadable or not what it claims to be."""


class RunError(DenatureError):
    """A run's folder cannot be read, or must not be changed."""


class TrainingError(DenatureError):
    """Training diverged: its loss is no longer finite."""


class GateFailed(DenatureError):
    """A measured value is above what a gate allows; commands exit with 3."""


class Stopped(DenatureError):
    """Work was interrupted cleanly, at a deadline or a signal, and can be resumed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["Stopped"], tuple[str, str]]:
        return Stopped, (self.reason, str(self))  # worker processes send it back pickled


class MissingExtra(DenatureError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self._given = (package, extra, purpose)
        self.package = package
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: {install_line(f'denature[{extra}]')}"
        )

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str, str]]:
        return MissingExtra, self._given


def install_line(requirement: str) -> str:
    """The pip command that installs a requirement for the running interpreter.

    In a checkout the command passes the constraints file: without it an extra may replace torch's
    CPU build by the CUDA build of five gigabytes.
    """
    constraints = Path(__file__).parents[2] / "constraints.txt"
    given = f" -c {shlex.quote(str(constraints))}" if constraints.is_file() else ""
    python = shlex.quote(sys.executable)
    return f"{python} -m pip install {shlex.quote(requirement)}{given}"


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Guard imports of packages that `extra` installs.

    Raises:
        MissingExtra: a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtra(error.name or extra, extra, purpose) from None


MOST_LISTED = 30
"""Names that an error lists, where none is near."""


NEAR, FURTHER = 0.6, 0.1
"""Likeness of a near name to the one that was given, and by how much less than the nearest."""


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is missing from a catalogue, with the nearest known names."""
    names = sorted(set(known))
    near = synonyms(name, names) or _near(name, names)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {brief(names, MOST_LISTED)}."
    return ConfigError(f"There is no {what} {name!r}. {hint}")


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that look like a name, without those that are clearly further off."""
    # Dashes that all options have in common would make each of them look alike.
    likeness = {
        other: difflib.SequenceMatcher(None, other.lstrip("-"), name.lstrip("-")).ratio()
        for other in known
    }
    best = max(likeness.values(), default=0.0)
    least = max(NEAR, best - FURTHER)
    near = [other for other, ratio in likeness.items() if ratio >= least]
    return sorted(near, key=lambda other: -likeness[other])[:3]


def brief(names: Iterable[str], most: int = 5) -> str:
    """The first of some names and the number of the others, for errors."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
