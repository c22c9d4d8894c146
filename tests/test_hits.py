"""Which test images a run answers rightly: what its record says, and what becomes of old ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from denature.core.errors import RunError
from denature.core.hits import Hits
from denature.core.record import read_record, write_record
from denature.core.stats import proportion
from denature.data import load
from denature.train import Normal, Training, load_run, train

QUICK = Training(epochs=1, precision="fp32", device="cpu")


def test_a_record_says_which_test_images_are_answered_rightly(tmp_path: Path) -> None:
    data = load("digits")
    run = train("mlp", data, Normal(), QUICK, out=tmp_path / "run")
    score = load_run(tmp_path / "run").record.score
    assert score is not None
    assert score.hits is not None
    pixels = data.test.images[data.test.rows].float() / 255
    with torch.no_grad():
        right = run.network(pixels).argmax(1) == data.test.labels[data.test.rows]
    assert score.hits.tolist() == right.tolist()
    assert score.hits.mean() == pytest.approx(run.accuracy.value)


def test_a_finished_run_of_before_gets_its_hits_and_nothing_else(tmp_path: Path) -> None:
    run = train("mlp", "digits", Normal(), QUICK, out=tmp_path / "run")
    write_record(tmp_path / "run", replace(run.record, hits=None))
    again = train("mlp", "digits", Normal(), QUICK, out=tmp_path / "run")
    assert again.record == run.record
    assert read_record(tmp_path / "run") == run.record
    # Where another number of images is right, as on another processor, none are made up.
    assert run.record.accuracy is not None
    other = proportion(round(run.accuracy.value * run.accuracy.n) - 1, run.accuracy.n)
    write_record(tmp_path / "run", replace(run.record, hits=None, accuracy=other))
    assert train("mlp", "digits", Normal(), QUICK, out=tmp_path / "run").record.hits is None


@pytest.mark.parametrize("packed", ["!", "AAAA", Hits.pack(np.ones(90, bool), test="t").packed])
def test_hits_that_are_damaged_or_of_other_images_are_told(packed: str) -> None:
    with pytest.raises(RunError, match="hits of a record are"):
        Hits(test="t", packed=packed).unpack(40)


def test_hits_of_any_number_of_images_come_back() -> None:
    random = np.random.default_rng(0)
    for n in (1, 7, 8, 9, 360, 10_000):
        right = random.random(n) < 0.8
        found = Hits.pack(right, test="t")
        assert found.unpack(n).tolist() == right.tolist()
        assert len(found.packed) < n / 5 + 60
