"""The bill of a theft and of an audit: hard limits, estimates, and refusals before any query."""

import asyncio
import json
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.cli.app import main
from denature.core.errors import ConfigError, MissingExtra, RunError
from denature.core.stopping import Stopper
from denature.data import Dataset
from denature.data.config import DataConfig
from denature.extract import config
from denature.extract.asking.bill import Part
from denature.extract.asking.ledger import BudgetSpent, Ledger, Query
from denature.extract.asking.limits import QueryLimits, Spending, affordable, in_dollars
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import NoisePool, pool_of_tests
from denature.extract.config import ExtractionConfig
from denature.extract.levels import CostBudget, divided
from denature.extract.planning import PLAN, PlannedTheft, plan_theft
from denature.extract.selection.catalogue import find_selection
from denature.extract.stealing import carry_out, steal
from denature.extract.theft import LEDGER, read_theft
from denature.extract.thief import check_selection
from denature.extract.victims.base import VictimInfo
from denature.extract.victims.called import FunctionVictim
from denature.recipes.theft import estimate_theft
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.train import Normal, Training, train
from denature.train.config import CheckpointConfig
from denature.train.session import Session
from tests.test_classes import Heard

pytestmark = pytest.mark.usefixtures("without_figures")

HERE = __name__
QUICK = Training(epochs=1, batch_size=32, device="cpu", precision="fp32")
NO_WAIT = RequestConfig(per_request=3, concurrency=4, attempts=3, longest_wait_s=0.0)

ASKED: list[int] = []
"""Images of each call of a victim of this module."""


def answers(pixels: np.ndarray) -> np.ndarray:
    ASKED.append(len(pixels))
    scores = pixels.reshape(len(pixels), -1)[:, 10:20] + 0.01
    found: np.ndarray = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    return found


def labels(pixels: np.ndarray) -> np.ndarray:
    found: np.ndarray = answers(pixels).argmax(1)
    return found


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    ASKED.clear()


def victim(function: Callable[[np.ndarray], np.ndarray] = answers, **more: Any) -> FunctionVictim:
    return FunctionVictim(function, name="v", **{"kind": "probabilities", **more})


def terms(out: Path, *budgets: int, **more: Any) -> dict[str, Any]:
    usual = {"net": "mlp", "pool": "digits", "budgets": budgets, "out": out, "training": QUICK}
    return {**usual, **more}


# Limits


def test_the_first_limit_that_is_reached_ends_the_queries() -> None:
    spending = Spending([(1, "train", 0.01, 30), (1, "measure", None, 10), (2, "train", 5.0, 9)])
    assert (spending.queries(1, "train"), spending.queries(1)) == (30, 40)
    assert spending.dollars(1, 0.02) == pytest.approx(0.5)
    assert spending.dollars(1, None) == pytest.approx(0.3)

    def left(price: float | None = 0.02, **limits: Any) -> tuple[int, str]:
        return spending.left(1, "train", QueryLimits(**{"queries": 100, **limits}), price)

    assert left() == (70, "The budget of 100 queries is spent")
    assert left(total=50)[0] == 10
    assert "50 queries, those for fidelity included" in left(total=50)[1]
    assert left(total=50, max_cost=0.6)[0] == 5
    assert "The limit of US $ 0.60 (--max-cost) is reached" in left(total=50, max_cost=0.6)[1]
    assert left(total=50, max_cost=0.1)[0] == 0
    assert left(price=0.0, max_cost=0.1)[0] == left(price=None, max_cost=0.1)[0] == 70
    spending.book(1, "train", 0.01, -30)
    assert left(total=50, max_cost=0.6)[0] == 20


@given(st.integers(1, 10**6), st.integers(1, 10**7))
def test_a_sum_that_pays_for_queries_pays_for_all_of_them(queries: int, price: int) -> None:
    per_query = price / 10**7
    assert affordable(queries * per_query, per_query) == queries


@pytest.mark.parametrize(
    ("money", "text"),
    [(0, "0.00"), (0.002, "0.002"), (0.8, "0.80"), (1.5, "1.50"), (1234.567, "1,234.57")],
)
def test_dollars_have_cents_or_what_is_below(money: float, text: str) -> None:
    assert in_dollars(money) == f"US $ {text}"


OUTCOMES = st.lists(st.sampled_from(["answer", "charge", "free"]), max_size=12)


@given(
    outcomes=OUTCOMES,
    train=st.integers(0, 40),
    total=st.none() | st.integers(1, 60),
    cents=st.none() | st.integers(1, 60),
)
@settings(max_examples=15, deadline=None)
def test_no_limit_is_exceeded_under_concurrency_and_with_retries(
    outcomes: list[str], train: int, total: int | None, cents: int | None
) -> None:
    """Queries for two purposes, of which some attempts fail, charged or free."""
    charged, lock, waiting = [0], threading.Lock(), list(outcomes)

    def answer(pixels: np.ndarray) -> np.ndarray:
        with lock:
            outcome = waiting.pop() if waiting else "answer"
            charged[0] += len(pixels) * (outcome != "free")
        if outcome != "answer":
            raise AskFailed("busy", again=True, billed=outcome == "charge", wait_s=0.0)
        return answers(pixels)

    max_cost = None if cents is None else cents / 100
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / LEDGER) as ledger:
        usual: dict[str, Any] = {
            "victim": victim(answer), "ledger": ledger, "total": total, "max_cost": max_cost,
            "about": VictimInfo(target="v", kind="probabilities"), "price": 0.01,
            "stopper": Stopper(), "pace": NO_WAIT,
        }  # fmt: skip
        messages = []
        for purpose, budget, seed in (("measure", 12, 1), ("train", train, 2)):
            oracle = Oracle(budget=budget, purpose=purpose, **usual)
            pool = NoisePool(channels=1, image_size=8, seed=seed)
            try:
                oracle.ask(pool, range(20))
            except (BudgetSpent, AskFailed) as error:
                messages.append(str(error))
            assert ledger.spent(oracle.target, purpose) <= budget
        spent, paid = ledger.spending.queries(oracle.target), ledger.spending.dollars(1, 0.01)
    assert charged[0] == spent  # nothing is in flight any more
    assert total is None or spent <= total
    assert max_cost is None or paid <= max_cost + 1e-9
    assert all("busy" in it or "is spent" in it or "is reached" in it for it in messages)


def test_dollars_hold_among_requests_that_leave_together(tmp_path: Path) -> None:
    async def all_at_once(ledger: Ledger, target: int) -> list[object]:
        limits = QueryLimits(queries=10**6, max_cost=0.3)
        sends = [
            ledger.send(
                target, [Query(content=bytes([n, k]), repeat=0, reference="r") for k in range(3)],
                purpose=f"purpose {n % 3}", limits=limits, attempt=1, price=0.001,
            )
            for n in range(200)
        ]  # fmt: skip
        return await asyncio.gather(*sends, return_exceptions=True)

    for _ in range(2):  # the second time in a ledger of before
        with Ledger(tmp_path / LEDGER) as ledger:
            target = ledger.target(VictimInfo(target="v"))
            found = asyncio.run(all_at_once(ledger, target))
            assert ledger.spending.queries(target) == 300
            assert ledger.spending.dollars(target, 0.001) == pytest.approx(0.3)
    refused = [it for it in found if isinstance(it, BudgetSpent)]
    assert len(refused) == 200
    assert "The limit of US $ 0.30 (--max-cost) is reached; 3 more were not sent." in str(
        refused[0]
    )


# Budgets and their parts


BUDGETS = st.lists(st.integers(1, 3000), min_size=1, max_size=4, unique=True).map(sorted)
CONFIGS = st.builds(
    ExtractionConfig,
    fidelity=st.none() | st.integers(2, 500),
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
        assert [level.budget for level in division.levels] == budgets
        # Budgets that are added change nothing of the clones of the others.
        for level in division.levels:
            assert divided([level.budget], stealing, tests=tests).levels == (level,)


def test_a_fifth_of_a_budget_measures_fidelity_and_1000_at_most() -> None:
    plain = ExtractionConfig()
    assert [plain.test_images(b) for b in (5, 100, 4999, 5000, 10**6)] == [2, 20, 999, 1000, 1000]
    assert replace(plain, fidelity_extra=True).test_images(100) == 1000


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
    # A smaller --fidelity later does not let a theft ask more in all.
    steal(victim(), **terms(tmp_path, 200, stealing=ExtractionConfig(fidelity=2)))
    assert sum(ASKED) <= 200


def test_dollars_end_a_theft_before_its_budget_and_fidelity_is_measured(tmp_path: Path) -> None:
    heard = Heard()
    usual: dict[str, Any] = {"price": 0.001, "session": Session(progress=heard)}
    theft = steal(victim(), **terms(tmp_path, 50, 400, 900, max_cost=0.2, **usual))
    assert (sum(ASKED), theft.spent, theft.measuring) == (200, 160, 40)
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
    heard, stealing = Heard(), ExtractionConfig(fidelity=10)
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
    ({"stealing": ExtractionConfig(fidelity=30, repeats=3)}, 198),
    ({"stealing": ExtractionConfig(fidelity=30, fidelity_extra=True)}, 230),
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
    ({}, {"budgets": [100], "stealing": ExtractionConfig(fidelity=99)},
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
    ({}, {"session": Session(checkpointing=CheckpointConfig(track=("no-such",)))},
     "There is no tracker 'no-such'"),
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


# Audits and evaluations


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LEAST_STEPS", 5)


AUDIT = ("--data", "digits", "--student", "mlp", "--defense", "label-only", "--thief", "naive",
         "--budget", "20,40", "--seeds", "1", "--epochs", "1", "--test-images", "40",
         "--device", "cpu", "--workers", "1", "-q")  # fmt: skip


@pytest.mark.usefixtures("few_steps")
def test_the_plan_of_an_audit_has_the_same_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", f"{HERE}:labels", *AUDIT, "--price-per-1000", "10", "--kind", "label",
             "--out", str(tmp_path)]  # fmt: skip
    assert main([*words, "--estimate", "--max-cost", "2"]) == 0
    said = capsys.readouterr().out
    stated = int(said.splitlines()[2].split(" queries; at most 200 if attempts are lost")[0])
    assert "At most US $ 2.00, at US $ 0.01 a query, within --max-cost 2." in said
    assert ASKED == []  # it states that it answers with labels
    assert main([*words, "--max-cost", "2"]) == 0
    assert sum(ASKED) == stated
    assert main([*words, "--estimate"]) == 0
    assert f"No query is left to send; {stated} were spent before." in capsys.readouterr().out


@pytest.mark.usefixtures("few_steps")
def test_an_estimate_of_an_audit_says_what_it_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in AUDIT if word != "-q"]
    out = ("--out", str(tmp_path))
    assert main(["audit", f"{HERE}:answers", *words, *out, "--estimate"]) == 0
    heard = capsys.readouterr()
    assert "is asked 4 test images" in heard.err
    assert "4 were spent before" in heard.out
    assert ASKED == [4]


@pytest.mark.usefixtures("few_steps")
def test_dollars_end_an_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", f"{HERE}:labels", *AUDIT, "--price-per-1000", "10", "--kind", "label",
             "--out", str(tmp_path)]  # fmt: skip
    assert main([*words, "--max-cost", "0.7"]) == 1
    error = capsys.readouterr().err
    assert "The limit of US $ 0.70 (--max-cost) is reached" in error
    assert "larger --max-queries or --max-cost" in error
    assert sum(ASKED) == 70
    assert main([*words, "--max-cost", "0.9"]) == 0
    assert sum(ASKED) <= 90


IMPOSSIBLE_AUDITS: list[tuple[list[str], str]] = [
    (["--budget", "1439"], "digits has 1,438 images"),
    (["--student", "no-such"], "There is no network 'no-such'"),
    (["--student", "timm:resnet18"], "needs the package 'timm'"),
    (["--thief", "small-alpha,skeptical"], "No thief applies. small-alpha: "),
    (["--labelled", "1439"], "owns 1,439 labelled images"),
    (["--max-queries", "59"], "59 queries are allowed, and an audit needs 60 at least"),
    (["--max-cost", "1"], "the price of a query is not known"),
    (["--max-cost", "0.5", "--price-per-1000", "10"], "50 queries are allowed"),
]


@pytest.mark.parametrize(("words", "said"), IMPOSSIBLE_AUDITS)
def test_an_audit_that_is_impossible_asks_nothing(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    given = list(AUDIT)
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name in given:
            given[given.index(name) + 1] = value
        else:
            given += [name, value]
    assert main(["audit", f"{HERE}:labels", *given, "--kind", "label", "--out", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert ASKED == []


def test_dollars_limit_an_evaluation_and_need_a_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", f"{HERE}:answers", "--data", "digits", "--kind", "probabilities",
             "--max-cost", "0.5", "--out", str(tmp_path), "-q"]  # fmt: skip
    assert main(words) == 1
    assert "State it with --price-per-1000" in capsys.readouterr().err
    assert ASKED == []
    assert main([*words, "--price-per-1000", "10"]) == 0
    assert "on 50 images" in capsys.readouterr().out
    assert sum(ASKED) == 50


def test_a_run_of_ones_own_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("mlp", "digits", Normal(), QUICK, out=tmp_path / "run")
    for words in (["audit", *AUDIT, "--price-per-1000", "1"], ["eval", "--data", "digits"]):
        assert main([words[0], str(run.folder), *words[1:], "--max-cost", "1"]) == 1
        assert "a network in this process" in capsys.readouterr().err
