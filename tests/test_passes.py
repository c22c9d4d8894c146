"""Runs that share a pass over the data, and graphs of runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.core.errors import ConfigError, Stopped
from denature.core.weights import digest
from denature.data import Dataset, load
from denature.train import (
    Distilled,
    Nasty,
    Normal,
    Order,
    Run,
    Training,
    make,
    train,
)
from denature.train import passes as passes_module
from denature.train.session import Session
from tests.interrupted import Noisy, StopsAt

QUICK = Training(epochs=2, batch_size=96, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> Run:
    return train("mlp", data, Normal(), QUICK)


def test_students_in_one_pass_are_those_trained_alone(data: Dataset, teacher: Run) -> None:
    """Other networks, alphas, temperatures, seeds and answers, from one pass over the data."""
    base = replace(QUICK, view_seed=7, augment="crop")

    def order(net: str, objective: Distilled, **changes: Any) -> Order:
        return Order(
            net=net, objective=objective, training=replace(base, **changes), source=teacher
        )

    orders = [
        order("mlp", Distilled(alpha=0.1)),
        order("cnn", Distilled(alpha=0.9, temperature=20)),
        order("mlp", Distilled(answers="labels"), seed=3),
        order("mlp", Distilled(), optimizer="sgd", lr=0.01),
    ]
    together = make(orders, data)
    for order_, run in zip(orders, together, strict=True):
        [alone] = make([order_], data)
        assert digest(alone.network) == run.record.net.digest
        assert alone.record.id == run.record.id


def test_a_pass_that_was_stopped_goes_on_with_all_its_students(
    data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    """Also where a kill left their states at different steps, and where one is finished."""

    def orders(folder: str) -> list[Order]:
        return [
            Order(net="mlp", objective=Distilled(alpha=alpha), training=QUICK, source=teacher,
                  out=tmp_path / folder / str(alpha))
            for alpha in (0.1, 0.5, 0.9)
        ]  # fmt: skip

    whole = make(orders("whole"), data)
    with pytest.raises(Stopped):
        make(orders("cut")[:2], data, session=Session(stopper=StopsAt(9)))
    with pytest.raises(Stopped):
        make(orders("cut")[1:2], data, session=Session(stopper=StopsAt(4)))
    make(orders("cut")[2:], data)
    cut = make(orders("cut"), data)
    assert [r.record.net.digest for r in cut] == [r.record.net.digest for r in whole]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many learners each pass had."""
    counts: list[int] = []
    from denature.train.loop import fit

    def counted(learners: Any, *args: Any, **kwargs: Any) -> None:
        counts.append(len(learners))
        fit(learners, *args, **kwargs)

    monkeypatch.setattr(passes_module, "fit", counted)
    return counts


@pytest.mark.parametrize("change", [{"epochs": 3}, {"batch_size": 32}, {"view_seed": 4}])
def test_runs_that_cannot_share_a_pass_get_passes_of_their_own(
    data: Dataset, change: dict[str, Any], passes: list[int]
) -> None:
    base = replace(QUICK, view_seed=0)
    trainings = (base, replace(base, **change), replace(base, seed=5))
    orders = [Order(net="mlp", objective=Normal(), training=it) for it in trainings]
    assert len(make(orders, data)) == 3
    assert passes == [2, 1]


def test_a_graph_of_runs_makes_each_once_and_again_only_what_changed(
    data: Dataset, tmp_path: Path, passes: list[int]
) -> None:
    """Teacher, nasty teacher, students: one knob re-trains what depends on it, nothing else."""

    def orders(omega: float) -> list[Order]:
        def under(net: str, objective: Any, asked: Order | None = None) -> Order:
            return Order(net=net, objective=objective, training=QUICK, source=asked, under=tmp_path)

        normal = under("cnn", Normal())
        nasty = under("cnn", Nasty(temperature=20, omega=omega), normal)
        return [under("mlp", Distilled(alpha=alpha), teacher)
                for teacher in (normal, nasty) for alpha in (0.5, 0.9)]  # fmt: skip

    first = make(orders(0.04), data)
    assert passes == [1, 3, 2]  # the nasty teacher and the students of the normal one ask the same
    assert len(list(tmp_path.iterdir())) == 6
    passes.clear()
    again = make(orders(0.04), data)
    assert passes == []
    assert [run.record for run in again] == [run.record for run in first]
    other = make(orders(0.01), data)
    assert sorted(passes) == [1, 2]
    assert [run.record.id for run in other[:2]] == [run.record.id for run in first[:2]]
    assert len({run.record.id for run in (*first, *other)}) == 6


def test_orders_of_one_run_in_one_folder_make_it_once(
    data: Dataset, teacher: Run, tmp_path: Path, passes: list[int]
) -> None:
    """Alpha 0.9 is what a soft student has where none is given."""

    def order(**fields: Any) -> Order:
        return Order(
            net="mlp", objective=Distilled(**fields), training=QUICK, source=teacher, under=tmp_path
        )

    first, second = make([order(), order(alpha=0.9)], data)
    assert passes == [1]
    assert first.record == second.record
    clash = [replace(order(alpha=alpha), under=None, out=tmp_path / "x") for alpha in (0.1, 0.2)]
    with pytest.raises(ConfigError, match=r"Two runs want the folder .*alpha was 0\.1, is 0\.2"):
        make(clash, data)


def test_one_module_is_not_trained_by_two_orders(data: Dataset) -> None:
    mine = Noisy()
    orders = [Order(net=mine, objective=Normal(), training=replace(QUICK, lr=lr)) for lr in (1, 2)]
    with pytest.raises(ConfigError, match="train one module"):
        make(orders, data)
