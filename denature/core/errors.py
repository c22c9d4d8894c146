"""What a caller may catch.

DenatureError                 everything below
├── ConfigError (ValueError)  a value, name or option that cannot be used
├── DataError                 a data set is missing, unreadable or not what it claims to be
├── RunError                  a run's folder cannot be read, or must not be touched
├── TrainingError             training broke down: its loss is no longer a finite number
├── Stopped                   work was put aside in good order and can be taken up again
└── MissingExtra              an optional dependency is not installed

Each message says what was wrong, what was found, what was wanted and what to do next, in one line.
"""

import difflib
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class DenatureError(Exception):
    """Base of all errors that denature raises on purpose."""


class ConfigError(DenatureError, ValueError):
    """A value, name or option that cannot be used."""


class DataError(DenatureError):
    """A data set is missing, unreadable or not what it claims to be."""


class RunError(DenatureError):
    """A run's folder cannot be read, or must not be touched."""


class TrainingError(DenatureError):
    """Training broke down: its loss is no longer a finite number."""


class Stopped(DenatureError):
    """Work was put aside in good order, at a deadline or a signal, and can be taken up again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["Stopped"], tuple[str, str]]:
        return Stopped, (self.reason, str(self))  # it comes back from other processes


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
    """The command that installs something where this package runs.

    In a checkout it carries the constraints: without them an extra may bring torch's CUDA build,
    five gigabytes, in the place of the CPU's.
    """
    constraints = Path(__file__).parents[2] / "constraints.txt"
    given = f" -c {shlex.quote(str(constraints))}" if constraints.is_file() else ""
    python = shlex.quote(sys.executable)
    return f"{python} -m pip install {shlex.quote(requirement)}{given}"


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Imports of packages that `extra` installs; the outermost of several says what is missing.

    Raises:
        MissingExtra: one of them is not installed.
    """
    try:
        yield
    except MissingExtra as error:
        raise MissingExtra(error.package, extra, purpose) from None
    except ImportError as error:
        package = error.name or extra
        if package.partition(".")[0] == "denature":
            raise
        raise MissingExtra(package, extra, purpose) from None


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not in a catalogue, with the nearest names that are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
    return ConfigError(f"There is no {what} {name!r}. {hint}")
