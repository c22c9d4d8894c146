"""Folders that a former version made stay finished: nothing is trained, queried or attacked again.

`former.tar.gz` was made at 5f78b36, before names of classes, fields and attacks changed: a teacher,
a nasty one and a student of `cnn@width=2` on digits, a theft of 40 labels, and two networks under
two attacks.
"""

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from denature.answers.transfer import Transfer
from denature.cli.app import main
from denature.data import Dataset
from denature.defenses.rounding import Rounding
from denature.extract import ExtractionConfig, steal
from denature.extract.victims.local import local
from denature.robust.catalogue import ATTACKS
from denature.robust.config import AttackConfig
from denature.train import Cloned, Training, load_run, make
from denature.train.order import Order
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
        stealing=ExtractionConfig(test_images=10), training=BRIEF,
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


@pytest.mark.parametrize(
    ("kind", "decimals", "wanted"),
    [
        ("probabilities", 1, ("421d5b4d4c1edb16", "cf006bf71e01b397")),
        ("logits", 3, ("bf6cbe8f86243724", "620caeeec3ce25ca")),
        ("landmarks", -1, ("b7da92890c5839c6", "8df23934efe158b2")),
    ],
)
def test_clones_of_rounded_answers_keep_their_ids(
    digits: Dataset, kind: Any, decimals: int, wanted: tuple[str, str]
) -> None:
    """Ids and recipes that b047b1f gave to clones whose loss rounded: `Cloned(decimals=...)`."""
    values = 0.75 * torch.nn.functional.one_hot(digits.train.labels, 10) + 0.025
    if kind == "landmarks":
        values = (torch.arange(2 * len(values)) % 11).reshape(-1, 2) / 11
        parts = {name: replace(getattr(digits, name), labels=values) for name in ("train", "test")}
        digits = replace(digits, classes=("x", "y"), digest="located", **parts)
    brief = Training(epochs=1, batch_size=32, lr=0.01, fraction=0.1, device="cpu", precision="fp32")
    answers = Transfer(kind, values, victim="service", recipe="asked")
    order = Order(
        net="cnn@width=2" if kind == "landmarks" else "mlp",
        objective=Cloned(),
        training=brief,
        source=answers.defended(Rounding(decimals=decimals)),
        statistics=((0.5,), (0.25,)),
    )
    [run] = make([order], digits)
    assert (run.record.id, run.record.recipe) == wanted
    objective = {"kind": "cloned", "temperature": 1.0, "decimals": decimals}
    assert run.record.config["objective"] == objective
    assert run.record.given["objective"] == {"kind": "cloned", "decimals": decimals}
    assert run.record.inputs["victim"].digest == answers.digest
