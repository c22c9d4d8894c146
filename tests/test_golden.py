"""Numbers of short runs, recorded: a change that moves them must raise a revision.

    python tests/test_golden.py     # records them anew, under the revisions of now

The numbers are losses to four digits, because the order of sums differs between machines.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from denature.core.revisions import REVISIONS
from denature.data import load
from denature.data.views import Views, order
from denature.train import Distilled, Nasty, Normal, Training, train
from denature.train.objectives import Objective

GOLDEN = Path(__file__).with_name("golden.json")

BRIEF = Training(
    epochs=2, fraction=0.3, augment="crop-flip", precision="fp32", device="cpu",
    optimizer="adam", lr=3e-4,
)  # fmt: skip
"""A gentle optimizer: at the usual rates rounding grows into other losses within a few steps."""


def losses(net: str, objective: str) -> list[float]:
    """Training losses of two epochs on digits with views, against a teacher of the same kind."""
    data = load("digits")
    objectives: dict[str, Objective] = {
        "normal": Normal(),
        "nasty": Nasty(temperature=20),
        "distilled": Distilled(),
    }
    made = objectives[objective]
    teacher = None if objective == "normal" else train("mlp", data, Normal(), BRIEF)
    run = train(net, data, made, BRIEF, asked=teacher)
    return [float(f"{epoch.loss:.6g}") for epoch in run.record.history]


CASES = [(net, "normal") for net in ("mlp", "cnn", "resnetc20", "resnetc32", "resnet18")]
CASES += [("mlp", "nasty"), ("mlp", "distilled")]
"""Deeper networks magnify the last bits of another processor beyond any tolerance."""


def positions() -> dict[str, Any]:
    """What must be the same to the last bit everywhere: order, views, splits."""
    data = load("digits")
    return {
        "digest": data.digest,
        "order": order(data.train.rows, view_seed=3, epoch=2)[:12].tolist(),
        "views": Views(4, True).numbers(view_seed=3, epoch=2, samples=12).tolist(),
        "test rows": data.test.rows[:12].tolist(),
        "fraction": data.train.fraction(0.1).rows[:12].tolist(),
    }


def recorded() -> Any:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


ADVICE = (
    "The numbers of runs moved. If that was meant, raise the part's number in "
    "denature/core/revisions.py and record anew: python tests/test_golden.py"
)


def test_the_recorded_numbers_belong_to_the_revisions_of_now() -> None:
    assert recorded()["revisions"] == REVISIONS, ADVICE


def test_order_views_and_splits_are_those_recorded() -> None:
    assert positions() == recorded()["positions"], ADVICE


@pytest.mark.parametrize(("net", "objective"), CASES)
def test_a_short_run_has_its_recorded_losses(net: str, objective: str) -> None:
    expected = recorded()["losses"][f"{objective} {net}"]
    assert losses(net, objective) == pytest.approx(expected, rel=2e-3), ADVICE


if __name__ == "__main__":
    found = {f"{objective} {net}": losses(net, objective) for net, objective in CASES}
    record = {"revisions": REVISIONS, "positions": positions(), "losses": found}
    GOLDEN.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
