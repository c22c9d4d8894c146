"""The command line, as a user meets it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from denature.cli.commands import COMMANDS
from denature.train import load_run
from tests.lines import fails, run

QUICK = ["--epochs", "1", "--precision", "fp32", "-q"]


def record(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json", *QUICK)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.fixture
def teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    record(capsys, "train", "mlp", "--data", "digits", "--out", tmp_path / "teacher")
    return tmp_path / "teacher"


def test_normal_nasty_distilled_evaluated_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    nasty, student, labels = (tmp_path / name for name in ("nasty", "student", "labels"))
    foul = record(
        capsys, "nasty", "mlp", "--data", "digits", "--adversary", teacher, "--temperature", 20,
        "--omega", 0.04, "--out", nasty,
    )  # fmt: skip
    assert (foul["kind"], foul["config"]["objective"]["omega"]) == ("nasty", 0.04)
    soft = record(
        capsys, "distill", "mlp", "--data", "digits", "--teacher", nasty, "--temperature", 20,
        "--alpha", 0.5, "--answers", "soft", "--out", student,
    )  # fmt: skip
    assert soft["inputs"]["teacher"]["digest"] == foul["net"]["digest"]
    record(
        capsys, "distill", "mlp", "--data", "digits", "--teacher", nasty, "--answers", "labels",
        "--out", labels,
    )  # fmt: skip
    code, out, _ = run(capsys, "eval", student, "--data", "digits", "--json")
    assert code == 0
    measured = json.loads(out.splitlines()[-1])
    assert measured["accuracy"] == soft["accuracy"] == measured["run"]["accuracy"]

    page = tmp_path / "report.html"
    figures = tmp_path / "figures"
    code, out, _ = run(capsys, "report", teacher, nasty, student, labels, "--out", page,
                       "--figures", figures)  # fmt: skip
    assert code == 0
    assert {path.name for path in figures.iterdir()} == {
        f"{stem}.{suffix}" for stem in ("accuracies", "responses", "curves")
        for suffix in ("svg", "png")
    }  # fmt: skip
    assert re.search(r"mlp +nasty teacher, labels only", out)
    assert "<svg" in page.read_text()


def test_hardening_starts_from_an_existing_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    found = record(
        capsys, "nasty", "mlp", "--data", "digits", "--adversary", teacher, "--init", teacher,
        "--out", tmp_path / "hard",
    )  # fmt: skip
    assert found["inputs"]["init"]["digest"] == found["inputs"]["adversary"]["digest"]


def test_predictions_name_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    file = tmp_path / "digit.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file)
    code, out, _ = run(capsys, "predict", teacher, file, file, "--json")
    assert code == 0
    for line in out.splitlines():
        prediction = json.loads(line)
        assert set(prediction["probabilities"]) == set("0123456789")
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    code, out, _ = run(capsys, "predict", teacher, file)
    assert re.fullmatch(r".*digit\.png: (\d [\d.]+%(, )?){3}\n", out)


def test_an_image_of_another_size_is_resized_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    file = tmp_path / "big.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(file)
    assert "30x20, the network takes 8x8. Pass --resize" in fails(capsys, "predict", teacher, file)
    assert run(capsys, "predict", teacher, file, "--resize")[0] == 0
    (tmp_path / "no.png").write_text("no image")
    assert "no.png cannot be read" in fails(capsys, "predict", teacher, tmp_path / "no.png")


def test_a_record_makes_its_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    again = tmp_path / "again"
    code, _, err = run(capsys, "train", "--config", teacher / "record.json", "--out", again, "-q")
    assert code == 0, err
    assert load_run(again).record.net.digest == load_run(teacher).record.net.digest
    other = tmp_path / "other"
    code, _, err = run(capsys, "train", "--config", teacher, "--seed", 9, "--out", other, "-q")
    assert code == 0, err
    assert load_run(other).record.seed == 9
    assert "use it with `denature train`" in fails(
        capsys, "distill", "--config", teacher, "--teacher", teacher
    )


def test_what_depends_on_an_option_follows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    """A record's options are taken as they were given, so a new seed brings new views."""
    base = ("train", "--config", teacher, "--data", "digits")
    found = record(capsys, *base, "--seed", 5, "--optimizer", "sgd", "--out", tmp_path / "run")
    training = found["config"]["training"]
    assert (training["view_seed"], training["lr"], training["weight_decay"]) == (5, 0.1, 5e-4)


def test_an_input_that_was_replaced_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], teacher: Path
) -> None:
    record(capsys, "distill", "mlp", "--data", "digits", "--teacher", teacher,
           "--out", tmp_path / "student")  # fmt: skip
    record(capsys, "train", "mlp", "--data", "digits", "--seed", 8, "--out", teacher, "--overwrite")
    assert "where another run is now" in fails(capsys, "distill", "--config", tmp_path / "student")


@pytest.mark.parametrize("form", [("--milestones", "3,5"), ("--milestones=3,5",)])
def test_milestones_may_be_written_with_commas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: tuple[str, ...]
) -> None:
    code, out, err = run(
        capsys, "train", "mlp", "--data", "digits", "--schedule", "step", *form, "--epochs", 6,
        "--out", tmp_path / "run", "--json", "-q",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["config"]["training"]["milestones"] == [3, 5]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian mlp", "train"),
        ("train mpl --data digits", "Did you mean mlp?"),
        ("train mlp --data digts", "Did you mean digits?"),
        ("train mlp --data ./nowhere", "nowhere"),
        ("train mlp --data digits --epoch 3", "--epochs"),
        ("train mlp --data digits --epochs three", "--epochs"),
        ("train mlp --data digits --optimizer sdg", "sgd"),
        ("train mlp", "--data"),
        ("train mlp --data digits --epochs 0", "epochs is 0"),
        ("train no.such:thing --data digits", "no.such:thing"),
        ("nasty mlp --data digits", "--adversary"),
        ("nasty mlp --data digits --adversary nowhere", "nowhere is missing"),
        ("distill mlp --data digits --teacher nowhere", "nowhere is missing"),
        ("eval nowhere --data digits", "nowhere is missing"),
        ("report nowhere", "nowhere is no run"),
        ("report", "at least one run"),
        ("predict nowhere x.png", "nowhere is missing"),
        ("import mlp --weights no.pt --classes 10", "no.pt"),
        ("data nowhere", "nowhere"),
        ("train mlp --data digits --config none.toml", "none.toml"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, *words.split())
    assert not list(tmp_path.rglob("record.json"))


def test_a_network_of_ones_own_needs_trust_when_a_record_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_net.py").write_text(
        "from torch import nn\n"
        "def build(classes, channels, image_size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))\n"
    )
    record(capsys, "train", "mine_net:build", "--data", "digits", "--out", "own")
    assert "--trust mine_net" in fails(capsys, "eval", "own", "--data", "digits")
    assert run(capsys, "eval", "own", "--data", "digits", "--trust", "mine_net")[0] == 0


def test_a_data_set_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "data", "digits", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["train"], found["test"], found["test_origin"]) == (1438, 359, "holdout")
    assert found["image"] == "1x8x8, uint8"
    assert re.search(r"digest +[0-9a-f]{16}", run(capsys, "data", "digits")[1])


def test_the_catalogue_is_listed_with_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "nets", "--classes", 100, "--json")
    assert code == 0
    assert json.loads(out)["resnet18"] == 11_220_132
    assert "11,173,962" in run(capsys, "nets")[1]


def test_runs_without_a_folder_get_one_by_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [record(capsys, "train", "mlp", "--data", "digits", "--seed", s)["id"] for s in (0, 1, 0)]
    assert ids[0] == ids[2] != ids[1]
    names = sorted(f"normal-mlp-{found[:8]}" for found in set(ids))
    assert sorted(p.name for p in Path("runs").iterdir()) == names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"denature {command}" in out
    assert "--json" in out


def test_progress_in_a_pipe_is_plain_lines_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys, "train", "mlp", "--data", "digits", "--epochs", 1, "--out", tmp_path / "run"
    )
    assert code == 0
    assert re.search(r"normal mlp, seed 0: 1,438 of 1,438 images in [\d.]+ s", err)
    assert "\x1b" not in err + out


def test_an_error_in_options_names_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "audit", "x").endswith("See `denature help audit`.")
    assert fails(capsys, "runs", "--compar").endswith("Did you mean --compare?")
