"""Thieves that try: which settings they have, and how validation chooses among them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from denature.data import Dataset
from denature.recipes.catalogue import experiment
from denature.recipes.experiment import Request
from denature.recipes.paper.experiment import PaperExperiment, _measured
from denature.recipes.paper.orders import PlacedOrder
from denature.recipes.paper.thefts import thefts
from denature.recipes.paper.thieves import ALPHAS, BEST, TEACHERS, TEMPERATURES, UNLABELLED
from denature.report.cells import TEACHER
from denature.train import Distilled, Order, Run, Skeptical, make
from denature.train.session import Session


@pytest.fixture(scope="module")
def placed() -> list[PlacedOrder]:
    made = experiment(Request(name="nasty-thieves", scale="smoke"), Path("runs"))
    assert isinstance(made, PaperExperiment)
    return made.placed_orders()


def settings_of(placed: PlacedOrder) -> set[Any]:
    return {order.objective for order in (placed.order, *placed.others)}


def test_the_best_thief_is_one_of_all_thieves(placed: list[PlacedOrder]) -> None:
    of_nasty = [each for each in placed if each.row.endswith("of nasty")]
    for column in {each.column for each in of_nasty} - {TEACHER}:
        rows = {each.row.partition(",")[0]: each for each in of_nasty if each.column == column}
        best = settings_of(rows.pop(BEST))
        rows.pop("of nasty", None)
        assert best == set().union(*map(settings_of, rows.values()))
        assert settings_of(rows["tuned"]) == {
            Distilled(temperature=tau, alpha=alpha) for tau in TEMPERATURES for alpha in ALPHAS
        }
        assert Distilled(answers="labels") in best
        assert any(isinstance(objective, Skeptical) for objective in best)
        # A thief without true labels learns from nothing but the teacher's answers.
        assert {each.resolved().alpha for each in settings_of(rows[UNLABELLED])} == {1}


def test_every_student_holds_images_out_and_no_teacher_does(placed: list[PlacedOrder]) -> None:
    for each in placed:
        for order in (each.order, *each.others, *each.like_others):
            chosen = "last" if each.column == TEACHER else "best-validation"
            assert order.training.checkpoint == chosen


def test_validation_chooses_the_run_that_counts(placed: list[PlacedOrder]) -> None:
    """Whatever the test accuracy of the others is; for the normal teacher's student alike."""
    tuned = next(each for each in placed if each.row == "tuned, of nasty")

    def run(validation: float, name: str) -> Run:
        epochs = [SimpleNamespace(validation_accuracy=share) for share in (0.2, validation, 0.1)]
        return cast(Run, SimpleNamespace(record=SimpleNamespace(history=epochs, name=name)))

    def runs_of(first: Order, others: tuple[Order, ...], at: int, name: str) -> dict[Order, Run]:
        return {
            order: run(0.9 if place == at else 0.5, f"{name} {place}")
            for place, order in enumerate((first, *others))
        }

    assert tuned.like is not None
    runs = runs_of(tuned.order, tuned.others, 4, "nasty")
    runs |= runs_of(tuned.like, tuned.like_others, 7, "normal")
    for order in tuned.orders:
        runs.setdefault(order, run(0.5, "another"))
    found = cast(Any, _measured(tuned, runs))
    assert (found.record.name, found.like.name) == ("nasty 4", "normal 7")


@pytest.mark.slow
def test_served_teachers_are_cloned_within_their_budgets(digits: Dataset, tmp_path: Path) -> None:
    """By real servers; a second call reads what the first one made, whatever the port."""
    made = experiment(Request(name="nasty-thieves", scale="smoke"), tmp_path)
    assert isinstance(made, PaperExperiment)
    context = replace(made.context, setting=replace(made.setting, budgets=(60, 120)))
    orders = [context.normal(TEACHERS, 0), context.nasty(TEACHERS, 0)]
    runs = dict(zip(orders, make(orders, digits), strict=True))

    def asked() -> int:
        logs = sorted((context.out / "thefts").glob("*/access.jsonl"))
        lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        assert len(logs) == 2
        return sum(line["images"] for line in lines)

    first = list(thefts(context, runs, digits, Session()))
    assert asked() == 2 * 120
    assert [run.row for run in first] == [
        f"{budget} queries with digits over the wire, of {kind}"
        for budget in (60, 120)
        for kind in ("normal", "nasty")
    ]
    normal, nasty, *_ = first
    assert nasty.like is normal.record
    assert nasty.teachers == (runs[orders[1]].record, runs[orders[0]].record)
    assert {run.record.kind for run in first} == {"cloned"}
    assert len({run.record.id for run in first}) == 4
    assert list(thefts(context, runs, digits, Session())) == first
    assert asked() == 2 * 120
