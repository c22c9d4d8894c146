"""The commands, and the handling of lists, errors and exit codes that all of them share."""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import product

import cyclopts
from cyclopts import App, Group

from denature import __version__
from denature.cli.commands import COMMANDS, GROUPS, epilogue
from denature.cli.environment import with_environment
from denature.cli.former import translated
from denature.cli.options import SWEPT, TRAINERS, config_file
from denature.cli.terminal import print, waiting_for_torch
from denature.cli.tree import arguments_of, path_of
from denature.core.errors import ConfigError, DenatureError, GateFailed, Stopped, unknown
from denature.core.text import printable
from denature.core.threads import choose_threads

LISTS = {"--milestones", "--mean", "--std", "--track", "--budget", "--points"}
LISTS |= {"--linf", "--l2", "--l0", "--attacks", "--defense", "--thief"}
"""Options that take several values, also separated by commas."""

EXPLAINED = (
    "`denature help COMMAND` explains a command. Start with `denature demo`, then "
    "`denature audit MODEL --data DATA`."
)

FRACTIONS = {"--linf", "--l2", "--epsilon"}
"""Options whose numbers may be fractions, such as 8/255."""


def _default_text(value: object) -> str | None:
    """A default for help texts; None for empty ones and flags that are off, which say nothing."""
    if value in ((), "", False, None):
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


app = App(
    name="denature",
    help="Can this neural network be cloned through its answers, and what stops that?",
    version=f"denature {__version__}",
    config=config_file,
    suppress_keyboard_interrupt=False,
    default_parameter=cyclopts.Parameter(negative_iterable=(), show_default=_default_text),
    help_epilogue=EXPLAINED,
    group_commands=Group("Other", sort_key=len(GROUPS)),
)
app.register_install_completion_command(help="Install completion for the shell, and exit.")
for _place, (_name, _commands) in enumerate(GROUPS.items()):
    _group = Group(_name, sort_key=_place)
    for _number, (_command, _about) in enumerate(_commands.items()):
        app.command(
            f"denature.cli.{_about.home}",
            name=_command,
            help=_about.help,
            group=_group,
            sort_key=_number,
            # An app of its own sets it itself.
            **(
                {} if _about.home.endswith(":app") else {"help_epilogue": epilogue(_about.examples)}
            ),
        )
for _script in ("train_scratch", "train_nasty", "train_kd"):
    app.command("denature.cli.upstream:script", name=_script, show=False)


@app.command(name="help")
def explain(*command: str) -> None:
    """Explain a command, or list all commands.

    Args:
        command: Its name.
    """
    if command and command[0] not in app:
        raise unknown("command", command[0], COMMANDS)
    app.help_print(list(command))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code.

    0: the command succeeded. 1: it failed, and one line on standard error gives the reason. 2: the
    command line is invalid. 3: a gate such as --fail-above did not hold. 75: the command saved its
    state and stopped; the same command line resumes it. 130: interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    with waiting_for_torch(quiet="-q" in tokens or "--quiet" in tokens):
        return _run(tokens)


def _run(tokens: list[str]) -> int:
    """The exit code of a command line; see `main`."""
    verbose = "-v" in tokens or "--verbose" in tokens
    try:
        tokens = with_environment(app, translated(app, tokens))
        if threads := _threads(tokens):
            choose_threads(threads)  # before a command imports torch
        results = [
            app(_split_lists(words), exit_on_error=False, print_error=False,
                result_action="return_value")
            for words in _combinations(tokens)
        ]  # fmt: skip
        if tokens and tokens[0] in TRAINERS and all(results):
            from denature.cli.training import carry_out

            carry_out(results)
        return 0
    except cyclopts.UnknownOptionError as error:
        name = error.token.keyword or error.token.value
        return _fail(_explained(str(_unknown(name, tokens)), tokens), 2)
    except cyclopts.MissingArgumentError as error:
        return _fail(_explained(_missing(error, tokens), tokens), 2)
    except cyclopts.CycloptsError as error:
        return _fail(_explained(str(error), tokens), 2)
    except Stopped as error:
        return _fail(str(error), 130 if error.reason == "SIGINT" else 75)
    except GateFailed as error:
        return _fail(str(error), 3)
    except DenatureError as error:
        if verbose:
            print(traceback.format_exc(), file=sys.stderr)
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail(
            "Interrupted. Finished runs and saved states are kept; the same command resumes.", 130
        )
    except BrokenPipeError:
        # The reader of standard output closed the pipe, as `head` does: no error message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if verbose:
            print(traceback.format_exc(), file=sys.stderr)
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}.", 1)


def _unknown(name: str, tokens: Sequence[str]) -> ConfigError:
    """The error for an option that this command has not, or none."""
    path = path_of(app, tokens)
    arguments = arguments_of(app, path) if path else ()
    known = [name for argument in arguments for name in argument.names if name.startswith("--")]
    of = f"option of {' '.join(path)}" if path else "option"
    return unknown(of, name.partition("=")[0], known)


def _missing(error: cyclopts.MissingArgumentError, tokens: Sequence[str]) -> str:
    """The error for an option without its value, or for an argument that is required."""
    assert error.argument is not None
    given = error.keyword or next((token.keyword for token in error.argument.tokens), None)
    if given is not None:
        return f"{given} stands without a value."
    # A misspelt option may be the one that is missing.
    for token in error.unused_tokens or ():
        if token.startswith("--"):
            return str(_unknown(token, tokens))
    name = error.argument.name
    if error.argument.index is not None:  # as the usage line spells an argument without dashes
        name = name.removeprefix("--").replace("-", "_").upper()
    return f"{' '.join(error.command_chain or ('The command',))} needs {name}."


def _explained(message: str, tokens: Sequence[str]) -> str:
    """An error in a command's options with the next step, where it names none itself."""
    path = path_of(app, tokens)
    return (
        f"{message} See `denature help {' '.join(path)}`."
        if path and "Did you mean" not in message
        else message
    )


def _fail(message: str, code: int) -> int:
    print(f"denature: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _threads(tokens: Sequence[str]) -> int | None:
    """The number after `--threads`; a wrong one is refused where options are read."""
    for token, following in zip(tokens, (*tokens[1:], ""), strict=True):
        option, equals, value = token.partition("=")
        number = value if equals else following
        if option == "--threads" and number.isdecimal():
            return int(number) or None
    return None


def _combinations(tokens: list[str]) -> list[list[str]]:
    """Expand lists, such as `--alpha 0.1,0.9 --seed 0,1`, into a command line per combination."""
    if not tokens or tokens[0] not in TRAINERS:
        return [tokens]
    choices: list[list[list[str]]] = []
    words = iter(tokens)
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in SWEPT:
            given = value if equals else next(words, None)
            parts = [] if given is None else given.split(",")
            choices.append([[option, part] for part in parts] or [[option]])
        elif place == 1 and not word.startswith("-"):
            choices.append([[net] for net in word.split(",")])
        else:
            choices.append([[word]])
    return [[word for part in choice for word in part] for choice in product(*choices)]


def _split_lists(tokens: list[str]) -> list[str]:
    """Rewrite `--milestones 80,120`, also with `=`, as `--milestones 80 --milestones 120`.

    Numbers of `FRACTIONS` become decimals.
    """
    split: list[str] = []
    waiting = iter(tokens)
    for token in waiting:
        option, equals, value = token.partition("=")
        if option not in LISTS | FRACTIONS:
            split.append(token)
            continue
        given = value if equals else next(waiting, "")
        for part in given.split(",") if option in LISTS else [given]:
            split += [option, _decimal(part) if option in FRACTIONS else part]
    return split


def _decimal(text: str) -> str:
    """`8/255` as a decimal; other texts as they are."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)/([1-9]\d*)", text)
    return repr(float(found[1]) / int(found[2])) if found else text
