"""Former spellings of the command line, which work for one version, with a note."""

import sys
from collections.abc import Mapping, Sequence

from cyclopts import App

from denature.cli.terminal import print
from denature.cli.tree import Path, options_of, path_of

OPTIONS: Mapping[Path, Mapping[str, str]] = {
    ("audit",): {"service-model": "model"},
    ("eval",): {"service-model": "model"},
    ("invert",): {
        "compete": "compete-weight",
        "features": "bn-weight",
        "size": "l2-weight",
        "student": "student-run",
        "variation": "tv-weight",
    },
    ("mark",): {"model": "detector"},
    ("reproduce", "nose"): {"images": "pictures"},
    ("robustness",): {
        "batch": "batch-size",
        "budget": "max-queries",
        "service-model": "model",
    },
    ("speed",): {"service-model": "model"},
    ("steal",): {"budgets": "budget", "fidelity": "test-images", "service-model": "model"},
}
"""Names of options by command: the former, and the present one."""

NAMES: Mapping[Path, Mapping[str, str]] = {
    ("reproduce",): {"both-worlds": "robustness-and-extraction"},
}
"""Arguments without dashes, likewise."""


def note(former: str, present: str) -> None:
    print(f"{former} is now {present}; the old spelling works in this version.", file=sys.stderr)


def translated(app: App, tokens: Sequence[str]) -> list[str]:
    """A command line in present spellings, with a note on each former one."""
    path = path_of(app, tokens)
    options, names = OPTIONS.get(path, {}), NAMES.get(path, {})
    if not options and not names:
        return list(tokens)
    flags = {
        name for option in options_of(app, path) if not option.token_count()[0]
        for name in option.names
    }  # fmt: skip
    present: list[str] = []
    after_option = False
    for token in tokens:
        if after_option:  # the token is its value
            present.append(token)
            after_option = False
            continue
        option, equals, value = token.partition("=")
        if option.startswith("-"):
            key = option.removeprefix("--").replace("_", "-")
            if key in options:
                note(option, f"--{options[key]}")
                option = f"--{options[key]}"
            after_option = not equals and option not in flags
        elif token in names:
            note(token, names[token])
            option, equals, value = names[token], "", ""
        present.append(f"{option}{equals}{value}")
    return present
