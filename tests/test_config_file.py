"""Options of a command from a file: what it may set, and what it may not."""

import json
import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from denature.answers.config import InferenceConfig
from denature.audit.config import AuditConfig
from denature.cli.app import app
from denature.cli.commands import COMMANDS
from denature.cli.options import TRAINERS, from_file
from denature.cli.tree import arguments_of, paths_below
from denature.data.config import ReaderConfig
from denature.datafree.config import Inversion
from denature.extract.config import ExtractionConfig
from denature.recipes.experiment import Choices
from denature.recipes.hardening.config import Hardening
from denature.recipes.nose.config import NoseOptions
from denature.recipes.paper.config import PaperOptions
from denature.remote.config import RequestConfig
from denature.robust.config import AttackConfig
from denature.serve.config import Exposure, ServerLimits
from denature.train import Training
from denature.train.objectives.cloned import Cloned
from tests.lines import fails, run


@pytest.fixture
def teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    code, _, err = run(
        capsys, "train", "mlp", "--data", "digits", "--out", tmp_path / "teacher",
        "--epochs", "1", "--precision", "fp32", "-q",
    )  # fmt: skip
    assert code == 0, err
    return tmp_path / "teacher"


def test_a_toml_file_stands_for_options_and_the_command_line_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('data = "digits"\nepochs = 1\nbatch_size = 64\nprecision = "fp32"\n')
    code, out, err = run(
        capsys, "train", "mlp", "--config", file, "--batch-size", 32, "--out", tmp_path / "run",
        "--json", "-q",
    )  # fmt: skip
    assert code == 0, err
    training = json.loads(out)["config"]["training"]
    assert (training["epochs"], training["batch_size"]) == (1, 32)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 1", "epoch"),
        ("epochs = 'many'", "epochs"),
        ("epochs = ", "cannot be read"),
        ("epochs = 0", "epochs is 0"),
    ],
)
def test_a_config_file_with_a_fault_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    assert said in fails(capsys, "train", "mlp", "--data", "digits", "--config", file)


def test_a_config_file_cannot_make_us_import_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trap_net.py").write_text("import pathlib; pathlib.Path('executed').touch()\n")
    Path("run.toml").write_text('net = "trap_net:build"\ndata = "digits"\n')
    assert "--trust trap_net" in fails(capsys, "train", "--config", "run.toml")
    Path("run.toml").write_text('net = "trap_net:build"\ndata = "digits"\ntrust = "trap_net"\n')
    assert "sets trust" in fails(capsys, "train", "--config", "run.toml")
    assert not Path("executed").exists()
    fails(capsys, "train", "--config", "run.toml", "--trust", "trap_net")


CLOSED = {
    "trust": '"trap_net"', "config": '"other.toml"', "out": '"elsewhere"', "overwrite": "true",
    "ray": '"ray://127.0.0.1:9"', "workers": "900", "store": '"/"', "track": '["wandb"]',
    "save_every": '"1s"', "keep_every": "1", "time_limit": '"1s"',
    "json": "true", "verbose": "true", "quiet": "true", "threads": "2",
}  # fmt: skip
"""Options that only the command line sets, and a value of each."""


@pytest.mark.parametrize("option", CLOSED)
@pytest.mark.parametrize("form", ["{}", "{dashed}", "--{dashed}"])
def test_a_config_file_sets_nothing_that_writes_or_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    option: str, form: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    key = form.format(option, dashed=option.replace("_", "-"))
    Path("run.toml").write_text(f'data = "digits"\n{key} = {CLOSED[option]}\n')
    said = fails(capsys, "train", "mlp", "--config", "run.toml")
    if not form.startswith("--"):
        assert f"run.toml sets {option.replace('_', '-')}; only the command line can" in said
        given = [f"--{option.replace('_', '-')}", *([] if CLOSED[option] == "true" else ["x"])]
        if option != "config":
            assert "only the command" in fails(
                capsys, "train", "mlp", "--config", "run.toml", *given
            )
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.toml"]


def test_a_config_file_does_not_start_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A socket stands for the cluster: nothing connects to it, as it does for --ray."""
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        cluster.settimeout(0.2)
        address = f"ray://127.0.0.1:{cluster.getsockname()[1]}"
        Path("run.toml").write_text(f'data = "digits"\nray = "{address}"\n')
        assert "sets ray" in fails(capsys, "train", "mlp", "--config", "run.toml")
        with pytest.raises(TimeoutError):
            cluster.accept()


def test_a_record_sets_nothing_that_writes_or_connects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    edited = tmp_path / "record.json"
    raw = json.loads((teacher / "record.json").read_text())
    for part in ("training", "objective", "data"):
        given = {**raw["given"], part: {**raw["given"][part], "ray": "ray://127.0.0.1:9"}}
        edited.write_text(json.dumps({**raw, "given": given}))
        assert "sets ray; only the command line can" in fails(capsys, "train", "--config", tmp_path)


SETTINGS = {
    *("--net", "--data", "--init", "--backbone", "--teacher", "--adversary", "--scope"),
    *("--pool", "--other-pool", "--encoder", "--epochs", "--seed", "--fail-above", "--test-images"),
    *("--budget", "--student", "--top", "--test", "--decimals", "--undefended", "--controls"),
    *("--price-per-1000", "--max-queries", "--max-cost", "--samples", "--directions", "--images"),
}
"""Options of their own that decide what is made or measured."""


def names_of(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind)]


def test_a_file_sets_only_what_decides_the_run() -> None:
    """Each option that a file sets is a setting; of a run, all are that are not closed."""
    of_runs = [Training, ReaderConfig, InferenceConfig, *TRAINERS.values()]
    of_others = [AuditConfig, ExtractionConfig, Cloned, AttackConfig, RequestConfig, Hardening,
                 Inversion, Exposure, ServerLimits, Choices, PaperOptions, NoseOptions]  # fmt: skip
    settings = SETTINGS | {
        f"--{name.replace('_', '-')}" for kind in (*of_runs, *of_others) for name in names_of(kind)
    }
    closed = {f"--{name.replace('_', '-')}" for name in CLOSED}
    paths = [path for name in COMMANDS for path in paths_below(app, (name,))]
    for path in paths:
        if not (arguments := arguments_of(app, path)):
            assert [*paths_below(app, path)] != [path]
            continue
        command = " ".join(path)
        names = {argument.name for argument in arguments}
        assert "--config" in names
        found = {argument.name for argument in from_file(arguments)} - {"*"}
        assert found <= settings - closed, command
        if command in TRAINERS:
            assert names - found - {"*"} == closed


@pytest.mark.parametrize(
    ("command", "key", "value"),
    [
        ("audit runs/a", "key_file", "key"),
        ("audit runs/a", "out", "elsewhere"),
        ("audit runs/a", "net", "trap_net:build"),
        ("steal http://127.0.0.1:9", "endpoint_url", "http://127.0.0.1:9"),
        ("serve runs/a", "host", "0.0.0.0"),
        ("serve runs/a", "upstream", "http://127.0.0.1:9"),
        ("serve runs/a", "defense_state", "elsewhere"),
        ("keys keys", "add", "me"),
        ("push runs/a hf:a/b", "public", "true"),
        ("audit --data digits", "model", "runs/a"),
        ("reproduce nose", "trust", "trap_net"),
    ],
)
def test_a_config_file_of_a_command_sets_no_model_no_key_and_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, key: str, value: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(f"{key} = {value if value == 'true' else json.dumps(value)}\n")
    said = fails(capsys, *command.split(), "--config", "own.toml")
    assert f"own.toml sets {key.replace('_', '-')}; only the command line can" in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["own.toml"]


def test_a_config_file_sets_options_of_a_subcommand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    file.write_text('scale = "huge"\n')
    assert "no scale 'huge'" in fails(capsys, "reproduce", "nose", "--config", file)
    file.write_text('scael = "smoke"\n')
    assert "option of reproduce nose 'scael'" in fails(
        capsys, "reproduce", "nose", "--config", file
    )


def test_a_config_file_cannot_make_an_audit_import_a_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trap_net.py").write_text("import pathlib; pathlib.Path('executed').touch()\n")
    Path("own.toml").write_text('data = "digits"\nstudent = "trap_net:build"\n')
    said = fails(capsys, "audit", "runs/none", "--config", "own.toml")
    assert "name it by --student on the command line, or pass --trust trap_net" in said
    assert not Path("executed").exists()


def test_an_audit_takes_its_plan_from_a_file(
    tmp_path: Path, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.toml"
    file.write_text('data = "digits"\nthief = ["naive"]\nbudget = [40, 80]\nseeds = 1\n')
    words = ("audit", teacher, "--config", file, "--budget", "50", "--estimate")
    code, out, err = run(capsys, *words, "--out", tmp_path / "audit", "-q")
    assert code == 0, err
    assert "1 thief, a budget of 50 queries, 1 seed" in out
