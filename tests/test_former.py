"""Folders that a former version made stay finished: nothing is trained, queried or attacked again.

`former.tar.gz` was made at 5f78b36, before names of classes, fields and attacks changed: a teacher,
a nasty one and a student of `cnn@width=2` on digits, a theft of 40 labels, and two networks under
two attacks.
"""

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from denature.cli.app import main
from denature.extract import ExtractionConfig, steal
from denature.extract.victims.local import local
from denature.robust.catalogue import ATTACKS
from denature.robust.config import AttackConfig
from denature.train import Training, load_run
from tests.evaluations import robustness

BRIEF = Training(epochs=4, lr=0.02, batch_size=32, device="cpu", precision="fp32")


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(Path(__file__).with_name("former.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Weights, records and attacked batches, with the time at which each was written."""
    files = [*folder.rglob("weights.safetensors"), *folder.rglob("*.npz")]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.mark.parametrize(
    "words",
    [
        ["train", "cnn@width=2", "--out", "runs/teacher"],
        ["nasty", "cnn@width=2", "--adversary", "runs/teacher", "--out", "runs/nasty"],
        ["distill", "cnn@width=2", "--teacher", "runs/teacher", "--out", "runs/student"],
    ],
    ids=lambda words: words[0],
)
def test_a_run_stays_finished(former: Path, words: list[str]) -> None:
    before = made(former)
    settings = ["--epochs", "4", "--lr", "0.02", "--batch-size", "32", "--precision", "fp32"]
    assert main([*words, "--data", "digits", *settings, "--device", "cpu", "-q"]) == 0
    assert made(former) == before


def test_a_theft_stays_finished(former: Path) -> None:
    before = made(former)
    victim = local(load_run("runs/teacher"), kind="label")
    theft = steal(
        victim, net="cnn@width=2", pool="digits", budgets=[40], out="theft",
        stealing=ExtractionConfig(fidelity=10), training=BRIEF,
    )  # fmt: skip
    assert (theft.spent, theft.lost) == (40, 0)
    assert made(former) == before


def test_attacked_networks_are_not_attacked_again(
    former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Tensor:
        raise AssertionError("attacked again")

    for name in ("fgsm", "pgd-rescaled"):
        monkeypatch.setitem(ATTACKS, name, replace(ATTACKS[name], propose=fail))
    before = made(former)
    config = AttackConfig(effort="quick", samples=10, linf=(0.1,), attacks=("fgsm", "pgd-rescaled"))
    found = robustness(
        [load_run("runs/student")], "digits", config, Path("attacked"),
        undefended=[load_run("runs/teacher")], controls=1, device="cpu",
    )  # fmt: skip
    for one in found.judged:
        assert [attack.error for attack in one.robustness.attacks] == ["", ""]
        assert all(attack.robust for attack in one.robustness.attacks)
    assert made(former) == before
