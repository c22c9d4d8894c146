"""The tree of commands: which one a command line names, and its options."""

from collections.abc import Iterator, Sequence

from cyclopts import App, Argument

Path = tuple[str, ...]
"""A command by its names, such as ("reproduce", "nose")."""


def path_of(app: App, tokens: Sequence[str]) -> Path:
    """The command that a command line names; empty for none."""
    return app.parse_commands(list(tokens))[0]


def paths_below(app: App, path: Path) -> Iterator[Path]:
    """A command and its subcommands."""
    yield path
    of = command_at(app, path)
    for name in of:
        if not name.startswith("-"):
            yield from paths_below(app, (*path, name))


def command_at(app: App, path: Path) -> App:
    for name in path:
        app = app[name]
    return app


def arguments_of(app: App, path: Path) -> Sequence[Argument]:
    """All that a command takes, as the command line reads it; none of subcommands."""
    command = command_at(app, path)
    if command.default_command is None:
        return ()
    return command.assemble_argument_collection(default_parameter=app.default_parameter)


def options_of(app: App, path: Path) -> Iterator[Argument]:
    """The options of a command: what has a name with dashes and no place on the command line."""
    for argument in arguments_of(app, path):
        if argument.index is None and argument.name.startswith("--"):
            yield argument
