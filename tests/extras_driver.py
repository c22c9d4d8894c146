"""Runs commands as on an installation that lacks some packages; see test_extras.

Reads JSON lines from standard input, each with modules that are not there and command lines;
answers each with the exit code and what was printed of every command line.
"""

import contextlib
import importlib
import io
import json
import pkgutil
import sys
import traceback
from collections.abc import Collection
from importlib.machinery import ModuleSpec
from typing import Any

OURS = "denature"


class Without:
    """A finder of modules that finds none of these, whether they are installed or not."""

    def __init__(self, finder: Any, absent: Collection[str]) -> None:
        self._finder, self._absent = finder, absent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self._absent:
            return None
        found: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return found


def forget(names: Collection[str]) -> None:
    for name in [it for it in sys.modules if it.partition(".")[0] in {*names, OURS}]:
        del sys.modules[name]


def carried_out(words: list[str]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module("denature.cli.app").main(words)
        except BaseException:  # a traceback for people is what is looked for
            code = -1
            traceback.print_exc()
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def imported() -> dict[str, str]:
    """The modules of ours that cannot be imported, with what each raises."""
    faults = {}
    package = importlib.import_module(OURS)
    for found in pkgutil.walk_packages(package.__path__, f"{OURS}.", onerror=lambda name: None):
        if found.name == "denature.__main__":
            continue
        try:
            importlib.import_module(found.name)
        except Exception as error:
            faults[found.name] = type(error).__name__
    return faults


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        forget(asked["absent"])
        finders = list(sys.meta_path)
        sys.meta_path[:] = [Without(finder, asked["absent"]) for finder in finders]
        answers = [carried_out(words) for words in asked["commands"]]
        faults = imported() if asked["imports"] else {}
        sys.meta_path[:] = finders
        print(json.dumps({"answers": answers, "faults": faults}), flush=True)


if __name__ == "__main__":
    main()
