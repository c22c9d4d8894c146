"""The bill of a theft: parts of a budget, limits, estimates, and refusals before any query."""

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.cli.app import main
from denature.core.errors import ConfigError, MissingExtra, RunError
from denature.data import Dataset
from denature.data.config import DataConfig
from denature.extract.asking.bill import Part
from denature.extract.asking.pool import pool_of_tests
from denature.extract.config import ExtractionConfig
from denature.extract.levels import CostBudget, divided
from denature.extract.planning import PLAN, PlannedTheft, plan_theft
from denature.extract.selection.catalogue import find_selection
from denature.extract.stealing import carry_out, steal
from denature.extract.theft import LEDGER, read_theft
from denature.extract.thief import check_selection
from denature.recipes.theft import estimate_theft
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.report.theft import verdict_on_theft
from denature.train import Normal, train
from denature.train.session import Session
from tests.billed import ASKED, HERE, QUICK, answers, labels, terms, victim
from tests.heard import Heard

pytestmark = pytest.mark.usefixtures("without_figures")
NO_WAIT = RequestConfig(per_request=3, concurrency=4, attempts=3, longest_wait_s=0.0)


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    ASKED.clear()


# Budgets and their parts


BUDGETS = st.lists(st.integers(1, 3000), min_size=1, max_size=4, unique=True).map(sorted)
CONFIGS = st.builds(
    ExtractionConfig,
    test_images=st.none() | st.integers(2, 500),
    repeats=st.integers(1, 4),
    fidelity_extra=st.booleans(),
)


@given(BUDGETS, CONFIGS, st.integers(2, 800), st.none() | st.integers(0, 3000))
@settings(max_examples=300)
def test_the_parts_of_a_budget_never_exceed_it(
    budgets: list[int], stealing: ExtractionConfig, tests: int, paid_for: int | None
) -> None:
    cost_budget = None if paid_for is None else CostBudget(max_cost=1, price=0.1, queries=paid_for)
    try:
        division = divided(budgets, stealing, tests=tests, cost_budget=cost_budget)
    except ConfigError:
        return
    extra = division.fidelity if stealing.fidelity_extra else 0
    last = division.levels[-1]
    assert division.fidelity <= tests
    assert all(level.queries >= 2 * stealing.repeats for level in division.levels)
    assert division.queries <= last.budget + extra
    assert last.queries + division.fidelity <= last.budget + extra
    if cost_budget is not None:
        assert division.queries <= cost_budget.queries
    if cost_budget is None:
        made = [level.budget for level in division.levels]
        assert set(made) <= set(budgets)
        assert made == budgets or "teaches as many queries as" in division.note
        # Budgets that are added change nothing of the clones of the others.
        for level in division.levels:
            assert divided([level.budget], stealing, tests=tests).levels == (level,)


def test_a_budget_that_teaches_as_much_as_another_is_made_once_and_that_is_said() -> None:
    division = divided([14, 15], ExtractionConfig(), tests=500)
    assert [level.budget for level in division.levels] == [14]
    assert "15 teaches as many queries as one of 14" in division.note


def test_a_fifth_of_a_budget_measures_fidelity_and_1000_at_most() -> None:
    plain = ExtractionConfig()
    assert [plain.tested(b) for b in (5, 100, 4999, 5000, 10**6)] == [2, 20, 999, 1000, 1000]
    assert replace(plain, fidelity_extra=True).tested(100) == 1000


# Thefts


def test_all_queries_of_a_theft_are_within_its_largest_budget(tmp_path: Path) -> None:
    """With attempts that are lost, for test images and for others, and a budget that grows."""
    for budgets, wanted in (((100,), 100), ((100, 200), 200), ((100,), 200)):
        losses = [AskFailed("lost", again=True, billed=True, wait_s=0.0)] * 2

        def losing(pixels: np.ndarray, losses: list[AskFailed] = losses) -> np.ndarray:
            found = answers(pixels)
            if losses:
                raise losses.pop()
            return found

        pace = replace(NO_WAIT, per_request=10)
        theft = steal(victim(losing), **terms(tmp_path, *budgets, price=0.5, pace=pace))
        assert theft.spent + theft.measuring == sum(ASKED) <= wanted
        assert not theft.fidelity_extra
    # A smaller --test-images later does not let a theft ask more in all.
    steal(victim(), **terms(tmp_path, 200, stealing=ExtractionConfig(test_images=2)))
    assert sum(ASKED) <= 200


def test_dollars_end_a_theft_before_its_budget_and_fidelity_is_measured(tmp_path: Path) -> None:
    heard = Heard()
    usual: dict[str, Any] = {"price": 0.001, "session": Session(progress=heard)}
    theft = steal(victim(), **terms(tmp_path, 50, 400, 900, max_cost=0.2, **usual))
    assert (sum(ASKED), theft.spent, theft.measuring) == (200, 160, 40)
    in_all = verdict_on_theft(theft)[1]
    assert in_all.startswith("In all 200 queries were spent (US $ 0.20): 160 to learn from")
    assert [(clone.budget, clone.answers) for clone in theft.clones] == [(50, 40), (400, 160)]
    assert any("--max-cost 0.2 pays for 200 queries" in line for line in heard.lines)
    assert steal(victim(), **terms(tmp_path, 50, 400, 900, max_cost=0.2, **usual)).clones == (
        theft.clones
    )
    assert sum(ASKED) == 200
    steal(victim(), **terms(tmp_path, 50, 400, max_cost=0.4, **usual))
    assert sum(ASKED) == 400
    with closing(sqlite3.connect(tmp_path / LEDGER)) as database:
        [[paid]] = database.execute("SELECT sum(price * images) FROM requests WHERE billed")
    assert paid == pytest.approx(0.4)


def test_a_theft_that_counted_fidelity_on_top_goes_on_so(tmp_path: Path) -> None:
    """As all thefts of earlier versions, whose plans do not say it."""
    heard, stealing = Heard(), ExtractionConfig(test_images=10)
    first = steal(victim(), **terms(tmp_path, 30, stealing=replace(stealing, fidelity_extra=True)))
    assert (first.spent, first.measuring, first.clones[0].answers) == (30, 10, 30)
    assert "fidelity" not in json.loads((tmp_path / PLAN).read_text())
    usual = {"stealing": stealing, "session": Session(progress=heard)}
    again = steal(victim(), **terms(tmp_path, 30, **usual))
    assert (again.clones, sum(ASKED), again.fidelity_extra) == (first.clones, 40, True)
    assert sum("on top of its budgets, as before" in line for line in heard.lines) == 1
    assert steal(victim(), **terms(tmp_path, 30, 60, **usual)).spent == 60
    within = tmp_path / "within"
    steal(victim(), **terms(within, 30, stealing=stealing))
    with pytest.raises(RunError, match="fidelity was within the budget, is on top of the budget"):
        steal(victim(), **terms(within, 30, stealing=replace(stealing, fidelity_extra=True)))


def test_results_of_before_counted_fidelity_on_top(tmp_path: Path) -> None:
    theft = steal(victim(), **terms(tmp_path, 30))
    result = json.loads(theft.to_json())
    del result["fidelity_extra"]
    (tmp_path / "result.json").write_text(json.dumps(result))
    before = read_theft(tmp_path)
    assert before is not None
    assert before == replace(theft, fidelity_extra=True)


# Estimates


ESTIMATED: list[tuple[dict[str, Any], int]] = [
    ({}, 200),
    ({"price": 0.01, "max_cost": 1.0}, 100),
    ({"stealing": ExtractionConfig(test_images=30, repeats=3)}, 198),
    ({"stealing": ExtractionConfig(test_images=30, fidelity_extra=True)}, 230),
    ({"stealing": ExtractionConfig(choose="uncertainty", round_size=40), "price": 0.01}, 200),
]


@pytest.mark.parametrize(("changes", "wanted"), ESTIMATED)
def test_an_estimate_is_what_is_spent_then(
    changes: dict[str, Any], wanted: int, tmp_path: Path
) -> None:
    out = tmp_path / "theft"

    def planned(*budgets: int) -> PlannedTheft:
        return plan_theft(victim(), **terms(out, *budgets, **changes))

    found = estimate_theft(planned(60, 200))
    assert (ASKED, out.exists()) == ([], False)
    assert found.bill.queries == wanted
    extra = 30 if "fidelity_extra=True" in repr(changes) else 0  # where test images are lost
    assert found.bill.most == wanted + extra
    price = changes.get("price")
    assert found.bill.dollars == (None if price is None else pytest.approx(price * wanted))
    assert found.training_s > 0
    theft = carry_out(planned(60, 200))
    assert theft.spent + theft.measuring == sum(ASKED) == wanted
    rest = estimate_theft(planned(60, 200))
    assert (rest.bill.queries, rest.clones, rest.training_s) == (0, 0, 0)
    assert f"No query is left to send; {wanted} were spent before." in rest.lines()
    if "max_cost" in changes:
        return
    more = estimate_theft(planned(60, 200, 300)).bill
    theft = carry_out(planned(60, 200, 300))
    assert theft.spent + theft.measuring == sum(ASKED) == wanted + more.queries


def test_workers_share_clones_and_not_the_rounds_that_choose_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round waits for the one before."""
    stealing = ExtractionConfig(choose="uncertainty", round_size=40, test_images=20, seeds=3)
    monkeypatch.setattr("denature.recipes.theft.training_seconds", lambda *_, **__: 1000.0)

    def seconds(workers: int) -> float:
        planned = plan_theft(victim(), **terms(tmp_path, 200, stealing=stealing))
        size = SimpleNamespace(size=workers)
        session = replace(planned.session, workers=size)
        return estimate_theft(replace(planned, session=session)).training_s

    rounds, clones = 40 + 80 + 120 + 160, 3 * 180
    assert seconds(3) / seconds(1) == pytest.approx((clones / 3 + rounds) / (clones + rounds))


def test_a_theft_that_stopped_in_a_training_is_estimated(tmp_path: Path) -> None:
    """The folder of a clone without a record, as a kill leaves it."""
    out = tmp_path / "theft"
    carry_out(plan_theft(victim(), **terms(out, 60)))
    [record] = out.glob("clones/*/*/record.json")
    record.unlink()
    left = estimate_theft(plan_theft(victim(), **terms(out, 60)))
    assert (left.bill.queries, left.clones) == (0, 1)


def test_an_estimate_names_queries_attempts_dollars_and_time(tmp_path: Path) -> None:
    pace = RequestConfig(per_request=16, rate=20, attempts=3)
    planned = plan_theft(victim(), **terms(tmp_path, 100, price=0.002, pace=pace))
    said = " ".join(estimate_theft(planned).lines())
    for part in (
        "100 queries, including lost attempts that may have been charged: 80 of the pool, to learn "
        "from, 20 test images, for fidelity.",
        "They take at most 7 requests of up to 16 images, and 21 attempts.",
        "At most US $ 0.20, at US $ 0.002 a query.",
        "Time of the answers: about 5 seconds (at --rate 20).",
        "for 1 network, by a few steps timed on this machine",
    ):
        assert part in said


def test_refused_answers_count_as_spent_and_are_still_wanted(tmp_path: Path) -> None:
    """Labels where probabilities were stated: the queries are paid, the images have no answer."""
    with pytest.raises(ConfigError, match="stated to be probabilities but look like label"):
        steal(victim(labels), **terms(tmp_path, 100))
    [refused] = ASKED
    planned = plan_theft(victim(labels, kind="label"), **terms(tmp_path, 100))
    said = " ".join(estimate_theft(planned).lines())
    assert f"{100 - refused} queries of 100, then a limit ends them" in said
    assert "80 of the pool, to learn from, 20 test images, for fidelity." in said
    assert f"{refused} were spent before, {refused} of them without an answer." in said
    theft = carry_out(planned)
    assert (theft.lost, theft.measuring_lost, theft.measuring) == (0, refused, 20 + refused)
    assert theft.spent + theft.measuring == sum(ASKED) == 100
    assert f"{refused} of these queries were spent without an answer." in verdict_on_theft(theft)


def test_a_model_of_this_process_has_no_bill_of_requests(tmp_path: Path) -> None:
    planned = plan_theft(victim(), **terms(tmp_path, 100))
    [said, *_] = estimate_theft(planned).bill.lines()
    assert said == "100 queries: 80 of the pool, to learn from, 20 test images, for fidelity."
    assert len(estimate_theft(planned).bill.lines()) == 1


def test_requests_are_counted_round_by_round() -> None:
    part = Part(name="x", queries=210, spent=10, together=40)
    assert (part.requests(64), part.requests(16), replace(part, together=None).requests(64)) == (
        *(5, 15), 4,
    )  # fmt: skip
    assert (replace(part, spent=5).requests(64), replace(part, spent=210).requests(64)) == (6, 0)


def test_a_probe_is_said_kept_and_a_part_of_the_theft(tmp_path: Path) -> None:
    planned = plan_theft(victim(), **terms(tmp_path, 100, pace=RequestConfig(per_request=16)))
    without = estimate_theft(planned)
    assert without.bill.seconds() is None
    assert any("--probe times one request" in line for line in without.lines())
    found = estimate_theft(planned, probe=True)
    assert (ASKED, found.probed, found.bill.queries) == ([16], 16, 84)
    assert "16 queries were sent to time one request; they are kept." in found.lines()
    timed = found.bill.seconds()
    assert timed is not None
    assert "1 timed so far" in timed[1]
    assert estimate_theft(planned, probe=True).probed == 0
    theft = carry_out(planned)
    assert theft.spent + theft.measuring == sum(ASKED) == 100


def test_the_command_prints_its_estimate_and_sends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["steal", f"{HERE}:answers", "--pool", "digits", "--budget", "50,200", "--student",
             "mlp", "--price-per-1000", "10", "--out", str(tmp_path / "t"), "-q"]  # fmt: skip
    assert main([*words, "--estimate"]) == 0
    assert "At most US $ 2.00, at US $ 0.01 a query." in capsys.readouterr().out
    assert main([*words, "--estimate", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["queries"], told["queries_at_most"], told["fidelity"]) == (200, 200, 40)
    assert told["dollars_at_most"] == pytest.approx(2.0)
    assert (ASKED, list(tmp_path.iterdir())) == ([], [])
    assert main([*words, "--probe"]) == 1
    assert "--probe times a victim for --estimate" in capsys.readouterr().err
    assert main([*words, "--max-cost", "0.5", "--epochs", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["spent"] + told["measuring"] == sum(ASKED) == 50


# Refusals


IMPOSSIBLE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"budgets": [2000]}, "1,641 images are wanted, and digits has 1,438"),
    ({}, {"net": "no-such"}, "There is no network 'no-such'"),
    ({}, {"net": "timm:resnet18"}, "needs the package 'timm'"),
    ({}, {"budgets": [100], "stealing": ExtractionConfig(test_images=99)},
     "A budget is 100 queries; wanted are at least 101: 99 test images for fidelity and 2 to"),
    ({}, {"max_cost": 5.0}, "max_cost is 5 US dollars, and the price of a query is not known"),
    ({}, {"max_cost": 0.0, "price": 0.1}, "max_cost is 0.0; it must be above 0"),
    ({}, {"max_cost": 0.3, "price": 0.1}, "--max-cost 0.3 pays for 3 queries at US $ 0.10 each; "),
    ({"image_size": 16}, {"test": DataConfig(source="digits", image_size=8)},
     "takes images of 16 pixels a side, and those of digits have 8. Pass --image-size 16"),
    ({"channels": 3}, {}, "digits has images of 1 channels, v takes 3"),
    ({"names": ("a", "b", "c")}, {}, "digits has 10 classes, v knows 3"),
    ({"kind": "landmarks"}, {}, "answers with landmarks, and the labels of digits are classes"),
    ({}, {"training": replace(QUICK, frozen=True)}, "there is no backbone to freeze"),
]  # fmt: skip


@pytest.mark.parametrize(("about", "changes", "said"), IMPOSSIBLE)
def test_a_theft_that_is_impossible_asks_nothing(
    about: dict[str, Any],
    changes: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    out = tmp_path / "theft"
    with pytest.raises((ConfigError, MissingExtra)) as error:
        steal(victim(**about), **{**terms(out, 100), **changes})
    assert said in str(error.value)
    assert ASKED == []
    assert not (out / "clones").exists()


def test_clones_of_landmarks_cannot_choose_by_classes(digits: Dataset) -> None:
    located = replace(digits.test, labels=torch.zeros(len(digits.test.labels), 2))
    placed = replace(digits, test=located, train=located)
    check_selection(pool_of_tests(placed), find_selection("random"), placed)
    with pytest.raises(ConfigError, match="both compares probabilities of classes, and digits has"):
        check_selection(pool_of_tests(placed), find_selection("both"), placed)


def test_a_backbone_of_another_network_is_refused_before_a_query(tmp_path: Path) -> None:
    other = train("cnn@width=2", "digits", Normal(), replace(QUICK, fraction=0.1))
    with pytest.raises(ConfigError, match="backbone"):
        steal(victim(), **terms(tmp_path, 100, backbone=other))
    assert ASKED == []
