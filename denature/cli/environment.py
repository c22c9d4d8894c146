"""Options of a command from environment variables, as parts of its command line."""

import os
from collections.abc import Iterable, Sequence

from cyclopts import App, Argument

from denature.cli.commands import COMMANDS
from denature.core.errors import ConfigError, unknown

PREFIX = "DENATURE_"

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def with_environment(app: App, tokens: Sequence[str]) -> list[str]:
    """The command line with the options that environment variables set and the line does not.

    `DENATURE_AUDIT_MAX_QUERIES=100` stands for `--max-queries 100` of `denature audit`. Lists,
    sweeps and fractions are then those of any command line.

    Raises:
        ConfigError: a variable of the command names none of its options, or is neither yes nor no
            where it stands for a flag.
    """
    command = tokens[0] if tokens else ""
    prefix = f"{PREFIX}{command.upper()}_"
    found = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
    if command not in COMMANDS or not found:
        return list(tokens)
    given = {token.partition("=")[0] for token in tokens}
    options = {
        name.removeprefix("--").replace("-", "_").upper(): argument
        for argument in app[command].assemble_argument_collection()
        for name in argument.names
        if argument.index is None
    }
    added = []
    for variable, value in sorted(found.items()):
        name = variable.removeprefix(prefix)
        if name not in options:
            raise ConfigError(f"{variable}: {_unknown(command, name, options.values())}")
        if not given & {*options[name].names}:
            added += _words(options[name], variable, value)
    return [*tokens, *added]


def _unknown(command: str, name: str, options: Iterable[Argument]) -> ConfigError:
    """The error for an option that a command lacks, without the second names of options."""
    return unknown(
        f"option of {command}",
        name.lower().replace("_", "-"),
        [option.name.removeprefix("--") for option in options],
    )


def _words(argument: Argument, variable: str, value: str) -> list[str]:
    if argument.token_count()[0]:
        return [f"{argument.name}={value}"]
    if value.lower() not in (*YES, *NO):
        raise ConfigError(f"{variable} is {value!r}; wanted is 1 or 0.")
    return [argument.name] if value.lower() in YES else []
