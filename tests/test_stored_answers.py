"""Students learn from kept answers what they learn from a live network, bit for bit."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from denature.answers import InferenceConfig
from denature.answers import opening as opening_module
from denature.answers.opening import answers_root
from denature.answers.store import ANSWERS, HEADER
from denature.core.errors import RunError
from denature.data import Dataset, load
from denature.train import (
    CheckpointConfig,
    Distilled,
    Nasty,
    Normal,
    Order,
    Run,
    Training,
    make,
    train,
)
from denature.train.objectives import Objective
from denature.train.session import Session
from tests.heard import Heard
from tests.networks import Mixing


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load("digits")
    return replace(whole, train=whole.train.fraction(0.25))


BRIEF = Training(epochs=2, batch_size=96, precision="fp32", device="cpu", augment="crop")


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> Run:
    return train("cnn", data, Normal(), replace(BRIEF, seed=9))


OBJECTIVES: dict[str, Objective] = {
    "soft": Distilled(temperature=20),
    "labels": Distilled(answers="labels"),
    "nasty": Nasty(temperature=20),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("storage", ["exact", "fp16", "top-3"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_store_teaches_bit_for_bit_what_the_live_network_teaches(
    objective: str, storage: str, precision: str, data: Dataset, teacher: Run, tmp_path: Path,
    asked: list[int],
) -> None:  # fmt: skip
    def learn(store: str) -> Run:
        training = replace(BRIEF, precision=precision)  # type: ignore[arg-type]
        return train(
            "mlp", data, OBJECTIVES[objective], training, source=teacher,
            inference=InferenceConfig(storage=storage),
            session=Session(checkpointing=CheckpointConfig(store=store)),
        )  # fmt: skip

    fresh = learn("off")
    every = 2 * len(data.train)
    assert sum(asked) == every
    asked.clear()
    first = learn(str(tmp_path))
    # Digits have 9 views of each sample: some are met twice, and asked once.
    assert every * 0.8 < sum(asked) < every
    asked.clear()
    second = learn(str(tmp_path))
    assert sum(asked) == 16  # the spot check
    digests = {run.record.net.digest for run in (fresh, first, second)}
    assert len(digests) == 1
    assert len({run.record.id for run in (fresh, first, second)}) == 1
    form = second.record.config["asking"]["form"]
    assert form["precision"] == precision
    assert form["folded"]
    assert second.record.config["asking"]["storage"] == storage


def test_half_a_store_of_damaged_records_teaches_the_same(
    data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    def learn() -> str:
        run = train(
            "mlp",
            data,
            Distilled(),
            BRIEF,
            source=teacher,
            session=Session(checkpointing=CheckpointConfig(store=str(tmp_path))),
        )
        return run.record.net.digest

    first = learn()
    [folder] = tmp_path.iterdir()
    raw = np.fromfile(folder / ANSWERS, np.uint32)
    raw[:: 2 * 7] ^= 0x40
    raw.tofile(folder / ANSWERS)
    assert learn() == first


def test_a_network_that_was_edited_is_asked_again(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same name, same weights, another forward: only asking again can tell."""

    class Mine(nn.Module):
        scale = 1.0

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.body(x) * self.scale
            return found

    heard = Heard()

    teacher = train(Mine(), data, Normal(), BRIEF)
    results = []
    for scale in (1.0, 3.0):
        monkeypatch.setattr(Mine, "scale", scale)
        for store in (str(tmp_path), "off"):
            run = train(
                "mlp",
                data,
                Distilled(),
                BRIEF,
                source=teacher,
                session=Session(progress=heard, checkpointing=CheckpointConfig(store=store)),
            )
            results.append(run.record.net.digest)
    assert results[0] == results[1] != results[2] == results[3]
    assert len(heard.lines) == 1
    assert "differ from what the network answers now" in heard.lines[0]


def test_where_a_store_finds_no_room_auto_asks_live(
    data: Dataset, teacher: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENATURE_CACHE", str(small_disk))
    run = train("mlp", data, Distilled(), BRIEF, source=teacher)
    monkeypatch.delenv("DENATURE_CACHE")
    off = train(
        "mlp",
        data,
        Distilled(),
        BRIEF,
        source=teacher,
        session=Session(checkpointing=CheckpointConfig(store="off")),
    )
    assert run.record.net.digest == off.record.net.digest
    with pytest.raises(RunError, match="No space"):
        train("mlp", data, Distilled(), BRIEF, source=teacher,
              session=Session(checkpointing=CheckpointConfig(store=str(small_disk))))  # fmt: skip


def test_auto_stores_in_the_cache_up_to_its_limit(
    data: Dataset, teacher: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(**options: Any) -> None:
        train("mlp", data, Distilled(), replace(BRIEF, epochs=1), source=teacher, **options)

    monkeypatch.setenv("DENATURE_CACHE", os.environ["DENATURE_CACHE"] + "/auto")
    monkeypatch.setattr(opening_module, "STORE_LIMIT", 1797 * 9 * 44 - 1)
    learn()
    assert not answers_root().exists()
    monkeypatch.setattr(opening_module, "STORE_LIMIT", 1797 * 9 * 44)
    learn()
    [folder] = answers_root().iterdir()
    assert json.loads((folder / HEADER).read_text())["key"]["storage"] == "exact"
    learn(inference=InferenceConfig(storage="fp16"))
    assert len(list(answers_root().iterdir())) == 2


def test_students_in_one_pass_ask_once(data: Dataset, teacher: Run, asked: list[int]) -> None:
    orders = [
        Order(net="mlp", objective=Distilled(alpha=alpha), training=BRIEF, source=teacher)
        for alpha in (0.1, 0.5, 0.9)
    ]
    make(orders, data, session=Session(checkpointing=CheckpointConfig(store="off")))
    assert sum(asked) == 2 * len(data.train)


def test_a_network_whose_answers_depend_on_their_neighbours_is_not_stored(
    data: Dataset, tmp_path: Path
) -> None:
    teacher = train(Mixing(), data, Normal(), BRIEF)
    train(
        "mlp",
        data,
        Distilled(),
        BRIEF,
        source=teacher,
        session=Session(checkpointing=CheckpointConfig(store=str(tmp_path))),
    )
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_was_trained_further_does_not_answer_for_its_run(
    data: Dataset, tmp_path: Path
) -> None:
    mine = Mixing()
    first = train(mine, data, Normal(), BRIEF)
    train(mine, data, Normal(), BRIEF)
    with pytest.raises(RunError, match="weights were changed after it was made"):
        train("mlp", data, Distilled(), BRIEF, source=first)
