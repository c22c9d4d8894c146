"""Options of a command from environment variables, as parts of its command line."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cyclopts import App, Argument

from denature.cli import former
from denature.cli.commands import COMMANDS
from denature.cli.tree import Path, options_of, path_of, paths_below
from denature.core.errors import ConfigError, unknown

PREFIX = "DENATURE"

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class Variable(NamedTuple):
    """A variable that sets an option."""

    name: str
    option: Argument
    present: str
    """The variable itself, or under a former name of its option the one that it is now."""


def with_environment(app: App, tokens: Sequence[str]) -> list[str]:
    """The command line with the options that environment variables set and the line does not.

    `DENATURE_AUDIT_MAX_QUERIES=100` stands for `--max-queries 100` of `denature audit`. Lists,
    sweeps and fractions are then those of any command line. A subcommand, such as `denature
    reproduce nose`, reads `DENATURE_REPRODUCE_NOSE_SCALE` before `DENATURE_REPRODUCE_SCALE`.

    Raises:
        ConfigError: a variable of the command names no option of it or of its subcommands, or is
            neither yes nor no where it stands for a flag.
    """
    path = path_of(app, tokens)
    found = {name for name in os.environ if path and name.startswith(f"{_name(path[:1])}_")}
    if not found or path[0] not in COMMANDS:
        return list(tokens)
    options = {each: list(options_of(app, each)) for each in paths_below(app, path[:1])}
    known = {variable.name for each, of in options.items() for variable in _variables(each, of)}
    for name in sorted(found - known):
        raise ConfigError(f"{name}: {_unknown(name, options)}")
    given = {token.partition("=")[0] for token in tokens}
    added = []
    for variable in _variables(path, options[path]):
        if variable.name not in found or given & {*variable.option.names}:
            continue
        given |= {*variable.option.names}
        if variable.name != variable.present:
            former.note(variable.name, variable.present)
        added += _words(variable.option, variable.name, os.environ[variable.name])
    return [*tokens, *added]


def _variables(path: Path, options: Iterable[Argument]) -> Iterator[Variable]:
    """The variables of a command's options: its own first, and present names before former ones."""
    former_names = former.OPTIONS.get(path, {}).items()
    of = {name: option for option in options for name in option.names}
    for depth in range(len(path), 0, -1):
        for name, option in of.items():
            variable = _name((*path[:depth], name))
            yield Variable(variable, option, variable)
        for name, present in former_names:
            variable = _name((*path[:depth], name))
            yield Variable(variable, of[f"--{present}"], _name((*path[:depth], present)))


def _name(parts: Iterable[str]) -> str:
    words = (part.lstrip("-").replace("-", "_").upper() for part in parts)
    return "_".join((PREFIX, *words))


def _unknown(name: str, options: Mapping[Path, Sequence[Argument]]) -> ConfigError:
    """The error for an option that a command lacks, without the second names of options."""
    path = max((path for path in options if name.startswith(f"{_name(path)}_")), key=len)
    return unknown(
        f"option of {' '.join(path)}",
        name.removeprefix(f"{_name(path)}_").lower().replace("_", "-"),
        [
            option.name.removeprefix("--")
            for each, own in options.items()
            if each[: len(path)] == path
            for option in own
        ],
    )


def _words(argument: Argument, variable: str, value: str) -> list[str]:
    if argument.token_count()[0]:
        return [f"{argument.name}={value}"]
    if value.lower() not in (*YES, *NO):
        raise ConfigError(f"{variable} is {value!r}; wanted is 1 or 0.")
    return [argument.name] if value.lower() in YES else []
