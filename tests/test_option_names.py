"""One name of an option for one kind of value, and former names."""

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from cyclopts import Argument

import denature
from denature.cli.app import app
from denature.cli.commands import COMMANDS
from denature.cli.environment import with_environment
from denature.cli.former import NAMES, OPTIONS, translated
from denature.cli.tree import options_of, paths_below
from tests.lines import run

PATHS = [path for name in COMMANDS for path in paths_below(app, (name,))]

DIFFERENT = {
    "--backbone": "`reproduce nose` compares several starts, a training has one",
    "--budget": "thefts and audits train clones at several budgets, elsewhere it is a limit alone",
    "--defense": "an audit compares several chains, a server has one",
    "--prune": "kinds of folders for `runs`; for `answers` one choice, or an age",
    "--scale": "size of an experiment, by name; elsewhere the white of images, a number",
}
"""Options with values of two kinds, and why each keeps its name."""


def kind_of(argument: Argument) -> tuple[Any, bool]:
    """The type of an option's values, without a default that is none, and whether it takes many."""
    hint = argument.hint
    [*kinds] = [each for each in get_args(hint) if each is not type(None)]
    if type(None) in get_args(hint):
        [hint] = kinds
    many = get_origin(hint) is tuple
    return (get_args(hint)[0] if many else hint), many


def test_an_option_has_one_kind_of_value_in_all_commands() -> None:
    kinds: dict[str, dict[Any, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in PATHS:
        for option in options_of(app, path):
            for name in option.names:
                kinds[name][kind_of(option)].append(" ".join(path))
    found = {name: dict(of) for name, of in kinds.items() if len(of) > 1}
    assert found.keys() == DIFFERENT.keys(), found


FORMER = [(path, *names) for path, of in OPTIONS.items() for names in of.items()]


@pytest.mark.parametrize(("path", "former", "present"), FORMER)
def test_a_former_option_works_with_a_note(
    path: tuple[str, ...], former: str, present: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {name for option in options_of(app, path) for name in option.names}
    assert f"--{present}" in known
    assert f"--{former}" not in known
    note = "the old spelling works in this version.\n"
    for words, wanted in (
        ([f"--{former}", f"--{former}"], [f"--{present}", f"--{former}"]),  # a value stays
        ([f"--{former}=--json"], [f"--{present}=--json"]),
    ):
        assert translated(app, [*path, "-q", *words, "x"]) == [*path, "-q", *wanted, "x"]
        assert capsys.readouterr().err == f"--{former} is now --{present}; {note}"
    assert translated(app, [*path, f"--{present}", "1"]) == [*path, f"--{present}", "1"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("path", "former", "present"), FORMER)
def test_a_former_option_works_in_the_environment(
    path: tuple[str, ...],
    former: str,
    present: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = (
        "_".join(("DENATURE", *path, name)).replace("-", "_").upper() for name in (former, present)
    )
    monkeypatch.setenv(old, "3")
    assert with_environment(app, path) == [*path, f"--{present}=3"]
    assert capsys.readouterr().err.startswith(f"{old} is now {new}; ")
    monkeypatch.setenv(new, "4")
    assert with_environment(app, path) == [*path, f"--{present}=4"]


def test_a_former_argument_works_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    for path, names in NAMES.items():
        for former, present in names.items():
            words = ["--estimate", former, "--out", former, f"--device={former}"]
            wanted = ["--estimate", present, "--out", former, f"--device={former}"]
            assert translated(app, [*path, *words]) == [*path, *wanted]
            assert capsys.readouterr().err.startswith(f"{former} is now {present}; ")
    code, out, err = run(capsys, "reproduce", "both-worlds", "--scale", "huge")
    assert (code, out) == (1, "")
    assert "There is no scale 'huge'" in err


def test_a_former_key_of_a_file_works_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    file.write_text("batch = 0\n")
    _, _, err = run(capsys, "robustness", "r", "--data", "digits", "--config", file)
    assert f"batch in {file} is now batch-size; " in err
    assert "batch_size is 0" in err


OTHERS = {
    "--untracked-files": "git",
    "--porcelain": "git",
    "--nproc-per-node": "torchrun",
    "--head": "ray",
    "--save_path": "mlserver",
    "--help": "every command",
}
"""Options of other programs in texts, and of each command."""


def test_options_in_messages_and_helps_exist() -> None:
    """An error that names an option which is none sends its reader nowhere."""
    known = {name for path in PATHS for option in options_of(app, path) for name in option.names}
    for file in sorted(Path(denature.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = set(re.findall(r"(?<![-\w])--[a-z][-\w]*\w", node.value))
                assert named <= known | OTHERS.keys(), (file, node.lineno)
