"""The commands, and what is the same for all of them."""

import os
import sys
import traceback
from collections.abc import Sequence
from itertools import product

import cyclopts
from cyclopts import App

from denature import __version__
from denature.cli.options import SWEPT, config_file
from denature.core.errors import DenatureError, Stopped

COMMANDS = {
    "demo": ("demo:demo", "The main job on real digits: two teachers, and what students learn."),
    "train": ("training:train", "Train a network on the true labels."),
    "nasty": ("training:nasty", "Train a nasty teacher: accurate, and a bad example."),
    "distill": ("training:distill", "Train a student on a teacher's answers."),
    "harden": ("hardening:harden", "Train a network that is harder to fool, or said to be."),
    "robustness": (
        "robustness:robustness",
        "Attack networks, and say whether what looks robust is.",
    ),
    "flatness": ("robustness:flatness", "Look around weights: are minima flat, do answers move?"),
    "dafl": ("training:dafl", "Train a student from a teacher's weights, without data."),
    "invert": ("inversion:invert", "Make images out of a network's weights (DeepInversion)."),
    "run": ("upstream:run", "Run experiment folders of the official repository as they are."),
    "reproduce": (
        "reproduce:app",
        "Make published experiments: nasty teachers, a stolen nose.",
    ),
    "serve": ("serving:serve", "Serve networks over the Open Inference Protocol."),
    "keys": ("serving:keys", "Who may ask a server, how much and how fast."),
    "steal": ("stealing:steal", "Ask a served model, and train clones on its answers."),
    "ledger": ("stealing:ledger", "What a theft asked, and what it may have cost."),
    "speed": (
        "stealing:speed",
        "How fast a clone is, and what the service takes for as many images.",
    ),
    "mark": ("annotate:mark", "Draw into pictures what models found in them."),
    "export": ("serving:export", "Write a network as ONNX or as torch's exported program."),
    "eval": ("inspect:evaluate", "Measure a run's accuracy on the test split of a data set."),
    "predict": ("inspect:predict", "Say what a run's network sees in image files."),
    "runs": ("storage:runs", "List runs, compare them, remove what nobody needs of them."),
    "answers": ("storage:answers", "List, verify and remove stored answers; ask ahead of time."),
    "import": ("inspect:import_weights", "Make a run of your own weights."),
    "report": ("inspect:report", "Write one HTML report of any runs."),
    "data": ("inspect:data", "Describe a data set, and decode it into the cache."),
    "nets": ("inspect:nets", "List the catalogue of networks with their parameter counts."),
}
"""Each command with the function behind it, which is imported when it is called, and its help."""

LISTS = {"--milestones", "--mean", "--std", "--track", "--budget", "--budgets", "--points"}
LISTS |= {"--linf", "--l2", "--l0", "--attacks"}
"""Options that take several values, also with commas between them."""

TRAINERS = ("train", "nasty", "distill", "dafl")
"""Commands that make a run of each combination where their options are lists."""

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
    """Run one command; returns the exit code.

    0 it did its work, 1 it could not (one line on standard error says why), 2 the command line is
    wrong, 75 it stopped in good order and goes on when it is called again, 130 interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "-v" in tokens or "--verbose" in tokens
    try:
        results = [
            app(_split_lists(one), exit_on_error=False, print_error=False,
                result_action="return_value")
            for one in _combinations(tokens)
        ]  # fmt: skip
        if tokens and tokens[0] in TRAINERS and all(results):
            from denature.cli.training import carry_out

            carry_out(results)
        return 0
    except cyclopts.CycloptsError as error:
        return _fail(str(error), 2)
    except Stopped as error:
        return _fail(str(error), 130 if error.reason == "SIGINT" else 75)
    except DenatureError as error:
        if verbose:
            traceback.print_exc()
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail(
            "Interrupted. What was finished or put aside is kept; the same command goes on.", 130
        )
    except BrokenPipeError:
        # The reader of our output went away, as `head` does: not worth a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if verbose:
            traceback.print_exc()
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}.", 1)


def _fail(message: str, code: int) -> int:
    print(f"denature: {' '.join(message.split())}", file=sys.stderr)
    return code


def _combinations(tokens: list[str]) -> list[list[str]]:
    """`--alpha 0.1,0.9 --seed 0,1` as the four command lines that it stands for."""
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
    """`--milestones 80,120` and `--milestones=80,120` as `--milestones 80 --milestones 120`."""
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
