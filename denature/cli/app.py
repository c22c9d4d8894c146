"""The commands, and the handling of lists, errors and exit codes that all of them share."""

import os
import sys
import traceback
from collections.abc import Sequence
from itertools import product

import cyclopts
from cyclopts import App

from denature import __version__
from denature.cli.options import SWEPT, TRAINERS, config_file
from denature.cli.terminal import print
from denature.core.errors import DenatureError, GateFailed, Stopped
from denature.core.text import printable
from denature.core.threads import choose_threads

COMMANDS = {
    "audit": (
        "audit:audit",
        "Audit a model: what the worst thief gets of it at each budget, behind each defense.",
    ),
    "demo": (
        "demo:demo",
        "Compare the students of a normal and of a nasty teacher, on real digits.",
    ),
    "train": ("training:train", "Train a network on the true labels."),
    "nasty": (
        "training:nasty",
        "Train a nasty teacher: accurate itself, harmful to students that imitate it.",
    ),
    "distill": ("training:distill", "Train a student on a teacher's answers."),
    "skeptical": (
        "training:skeptical",
        "Train a student that distils through auxiliary heads: an attack on nasty teachers.",
    ),
    "harden": (
        "hardening:harden",
        "Train with defensive distillation, label smoothing or adversarial training.",
    ),
    "robustness": (
        "robustness:robustness",
        "Evaluate adversarial robustness and detect gradient masking.",
    ),
    "flatness": (
        "robustness:flatness",
        "Measure the flatness of minima, and the sensitivity of answers to the image.",
    ),
    "dafl": ("training:dafl", "Train a student from a teacher's weights, without data (DAFL)."),
    "invert": ("inversion:invert", "Reconstruct images from a network's weights (DeepInversion)."),
    "run": ("upstream:run", "Run experiment folders of the official repository as they are."),
    "reproduce": (
        "reproduce:app",
        "Reproduce experiments: nasty teachers, defensive distillation, a stolen nose detector.",
    ),
    "serve": ("serving:serve", "Serve networks over the Open Inference Protocol."),
    "keys": ("serving:keys", "Manage the keys of a server, with their budgets and rates."),
    "steal": (
        "stealing:steal",
        "Query a served model within a budget, and train clones on its answers.",
    ),
    "rest": ("rest:rest", "Try the description of an HTTP API on one image."),
    "ledger": ("stealing:ledger", "List the queries of a theft, and their cost."),
    "speed": (
        "stealing:speed",
        "Time a clone and the service that it copies, and compute the service's price.",
    ),
    "mark": ("annotate:mark", "Draw the landmarks that models find into pictures."),
    "export": ("serving:export", "Write a network as ONNX or as torch's exported program."),
    "eval": ("inspect:evaluate", "Measure a run's accuracy on the test split of a data set."),
    "predict": ("inspect:predict", "Print the most probable classes of image files."),
    "runs": ("storage:runs", "List and compare runs; remove unfinished runs and snapshots."),
    "answers": (
        "storage:answers",
        "List, verify and remove stored answers; fill a store ahead of training.",
    ),
    "import": ("inspect:import_weights", "Make a run from your own weights."),
    "report": ("inspect:report", "Write one HTML report of any runs."),
    "data": ("inspect:data", "Describe a data set, and decode it into the cache."),
    "nets": ("inspect:nets", "List the catalogue of networks with their parameter counts."),
}
"""Each command with its function, which is imported when the command is called, and its help."""

LISTS = {"--milestones", "--mean", "--std", "--track", "--budget", "--budgets", "--points"}
LISTS |= {"--linf", "--l2", "--l0", "--attacks", "--defense", "--thief"}
"""Options that take several values, also separated by commas."""

app = App(
    name="denature",
    help="Can this neural network be cloned through its answers, and what stops that?",
    version=f"denature {__version__}",
    config=config_file,
    suppress_keyboard_interrupt=False,
    default_parameter=cyclopts.Parameter(negative_iterable=()),
    help_epilogue="`denature COMMAND --help` explains a command. Start with `denature demo`.",
    group_commands=cyclopts.Group("Commands", sort_key=None),
)
for _script in ("train_scratch", "train_nasty", "train_kd"):
    app.command("denature.cli.upstream:script", name=_script, show=False)
for _place, (_name, (_home, _help)) in enumerate(COMMANDS.items()):
    app.command(f"denature.cli.{_home}", name=_name, help=_help, sort_key=_place)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code.

    0: the command succeeded. 1: it failed, and one line on standard error gives the reason. 2: the
    command line is invalid. 3: a gate such as --fail-above did not hold. 75: the command saved its
    state and stopped; the same command line resumes it. 130: interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "-v" in tokens or "--verbose" in tokens
    if threads := _threads(tokens):
        choose_threads(threads)  # before a command imports torch
    try:
        results = [
            app(_split_lists(words), exit_on_error=False, print_error=False,
                result_action="return_value")
            for words in _combinations(tokens)
        ]  # fmt: skip
        if tokens and tokens[0] in TRAINERS and all(results):
            from denature.cli.training import carry_out

            carry_out(results)
        return 0
    except cyclopts.CycloptsError as error:
        return _fail(str(error), 2)
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
    """Rewrite `--milestones 80,120`, also with `=`, as `--milestones 80 --milestones 120`."""
    split: list[str] = []
    waiting = iter(tokens)
    for token in waiting:
        option, equals, value = token.partition("=")
        if option not in LISTS:
            split.append(token)
            continue
        for part in (value if equals else next(waiting, "")).split(","):
            split += [option, part]
    return split
