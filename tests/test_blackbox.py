"""Attacks on a service that only answers: over a wire, within a budget, and never asked twice."""

import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denature.answers.kinds import AnswerKind
from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.data import load
from denature.extract import FunctionVictim
from denature.extract.asking.limits import in_dollars
from denature.extract.asking.reading import combined
from denature.report.robustness import RobustnessResult
from denature.robust.blackbox import BlackBox, Reply, whole_steps
from denature.robust.catalogue import ATTACKS, BLACK_BOX_ATTACKS, chosen
from denature.robust.config import EFFORTS, AttackConfig
from denature.robust.estimate import cost
from denature.robust.evaluation import evaluate
from denature.robust.target import Target, allows
from denature.train import Normal, Run, Training, train
from tests.evaluations import page_is_drawn_again, robustness
from tests.processes import Command
from tests.served import Served, serve, stop

TINY = AttackConfig(effort="quick", samples=12, linf=(0.1, 0.3), batch_size=12)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer random squares: each is a request of its own."""
    monkeypatch.setitem(EFFORTS, "quick", replace(EFFORTS["quick"], queries=40))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = Training(epochs=6, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), training, out=tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="module")
def served(plain: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = serve(tmp_path_factory.mktemp("served"), f"plain={plain.folder}")
    yield server
    stop(server)


def answering(run: Run, shown: str, counts: list[int]) -> FunctionVictim:
    """A run as a function; `counts` gets the images of each call."""

    def answer(pixels: np.ndarray) -> np.ndarray:
        counts.append(len(pixels))
        with torch.no_grad():
            logits = run.network(torch.from_numpy(pixels))
        if shown == "label":
            return np.asarray(logits.argmax(1))
        if shown.startswith("top-"):
            all_ = logits if "logits" in shown else logits.softmax(1)
            values, places = all_.topk(int(shown[4]), dim=1)
            hidden = torch.full_like(logits, torch.nan)
            return np.asarray(hidden.scatter(1, places, values))
        return np.asarray({"logits": logits, "probabilities": logits.softmax(1)}[shown])

    return FunctionVictim(answer, name=f"run that shows {shown}", kind=None)


def boxed(run: Run, shown: str, images: torch.Tensor) -> BlackBox:
    """The same without an oracle."""
    victim = answering(run, shown, [])

    def ask(images: np.ndarray, before: int) -> Reply:
        values = victim._call(images)
        given: AnswerKind = "logits" if "logits" in shown else "probabilities"
        kind, known, says = combined(given, [[row] for row in values], classes=10)
        return Reply(says, None if kind == "label" else known, kind == "probabilities")

    return BlackBox(ask, shown, shown, images, classes=10)


def attack(victim: FunctionVictim, plain: Run, out: Path, **options: Any) -> RobustnessResult:
    attack_config = options.pop("attack_config", TINY)
    return robustness(
        [victim],
        "digits",
        attack_config,
        out,
        undefended=[plain],
        controls=1,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize(
    ("shown", "attacks"),
    [
        ("logits", ("transfer", "square")),
        ("probabilities", ("transfer", "square")),
        pytest.param("label", (), marks=pytest.mark.slow),
    ],
)
def test_a_service_is_attacked_by_attacks_that_need_answers_alone(
    shown: str, attacks: tuple[str, ...], plain: Run, tmp_path: Path
) -> None:
    counts: list[int] = []
    attack_config = replace(TINY, attacks=attacks)
    found = attack(
        answering(plain, shown, counts),
        plain,
        tmp_path,
        max_queries=100_000,
        attack_config=attack_config,
    )
    box, undefended = found.judged
    names = [it.name for it in box.robustness.attacks]
    assert names == list(attacks or ("transfer", "decision"))
    assert all(it.error == "" and it.not_run == 0 for it in box.robustness.attacks)
    # The same network: what fools it with its gradients fools it without seeing them.
    by_name = {it.name: it for it in box.robustness.attacks}
    assert by_name["transfer"].robust["0.298039"].value < 0.5
    if shown == "label":
        assert by_name["decision"].fooled == round(box.robustness.clean.value * 12)
        assert "decision" in {it.name for it in undefended.robustness.attacks}
    assert box.robustness.clean == undefended.robustness.clean
    assert box.robustness.shows == ("labels" if shown == "label" else "scores")
    assert box.verdict is not None
    assert box.verdict.word == "no evidence"
    assert "no attack on them can prove it robust" in box.verdict.said
    flat = next(it for it in box.checks if it.name == "flat gradients")
    assert flat.found.startswith("Not checked")
    assert found.queries == {f"run that shows {shown}": sum(counts)}
    # What was said to be the most was the most.
    most = cost(names, TINY, channels=1).answers * 12 + 12 + 16
    assert sum(counts) <= most


@pytest.mark.parametrize("shown", ["logits", "probabilities", "top-2", "top-1", "top-1 logits"])
def test_the_class_that_is_named_is_the_largest(shown: str, plain: Run) -> None:
    pixels = torch.rand(50, 1, 8, 8)
    box = boxed(plain, shown, pixels)
    with torch.no_grad():
        truth = plain.network((pixels * 255).round() / 255)
    assert torch.equal(box.says(pixels), truth.argmax(1))
    assert torch.equal(box(pixels).argmax(1), truth.argmax(1))
    assert box.shows == ("labels" if shown == "top-1 logits" else "scores")
    assert box(pixels[:0]).shape == (0, 10)
    if shown == "probabilities":
        assert torch.allclose(box(pixels).softmax(1), truth.softmax(1), atol=1e-4)
        assert box.shows_probabilities


def test_images_arrive_as_bytes_and_within_the_budget(plain: Run, tmp_path: Path) -> None:
    """0.05 is 12.75 steps of 1/255: an image may move by 12 of them."""
    data = load("digits")
    images = data.test.images[data.test.rows].float() / 255
    box = boxed(plain, "logits", images)
    white = Target(plain, images, device="cpu")
    attack_config = replace(TINY, linf=(whole_steps(0.05), whole_steps(0.3)), attacks=("transfer",))
    found = evaluate(box, white, data, attack_config, tmp_path)
    steps = found.tried["transfer"].found * 255
    assert np.abs(steps - steps.round()).max() < 1e-3
    distances = found.tried["transfer"].distances["linf"] * 255
    assert set(distances[distances < 30].round(3)) == {12.0}
    assert set(distances[np.isfinite(distances) & (distances > 30)].round(3)) <= {76.0}


def test_a_budget_holds_and_images_without_answers_count_for_nothing(
    plain: Run, tmp_path: Path
) -> None:
    counts: list[int] = []
    attack_config = replace(TINY, attacks=("transfer", "square"))
    found = attack(
        answering(plain, "logits", counts),
        plain,
        tmp_path,
        max_queries=300,
        attack_config=attack_config,
    )
    assert sum(counts) == 300
    robust = found.judged[0].robustness
    square = next(it for it in robust.attacks if it.name == "square")
    assert "budget of 300 queries is spent" in square.error
    assert square.not_run > 0
    # A larger budget asks the difference only.
    more = attack(
        answering(plain, "logits", counts),
        plain,
        tmp_path,
        max_queries=9000,
        attack_config=attack_config,
    )
    assert next(iter(more.queries.values())) == sum(counts)
    assert all(it.not_run == 0 for it in more.judged[0].robustness.attacks)


def test_dollars_end_the_queries_to_all_black_boxes_together(plain: Run, tmp_path: Path) -> None:
    counts: list[int] = []
    found = robustness(
        [answering(plain, shown, counts) for shown in ("logits", "probabilities")],
        "digits", replace(TINY, attacks=("square",)), tmp_path, undefended=[plain], controls=1,
        device="cpu", prices=[0.001, 0.002], max_cost=0.3,
    )  # fmt: skip
    first, other = found.queries.values()
    assert sum(counts) == first + other
    assert 0.298 < sum(found.dollars.values()) <= 0.3
    assert list(found.dollars.values()) == pytest.approx([0.001 * first, 0.002 * other])
    for judged in found.judged[:2]:
        [square] = judged.robustness.attacks
        assert "The limit of US $ 0.30 (--max-cost) is reached" in square.error


def test_an_attack_that_finds_a_lucky_draw_is_not_believed(plain: Run, tmp_path: Path) -> None:
    """One answer in ten is random: squares of one step find such, and fool no network."""
    drawn = np.random.default_rng(0)

    def answer(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = plain.network(torch.from_numpy(pixels)).numpy()
        lucky = drawn.random(len(logits)) < 0.1
        return np.asarray(np.where(lucky[:, None], np.roll(logits, 1, axis=1), logits))

    attack_config = AttackConfig(
        effort="quick", samples=40, linf=(1 / 255,), attacks=("square",), batch_size=40
    )
    found = attack(
        FunctionVictim(answer, name="lucky", kind="logits"),
        plain,
        tmp_path,
        max_queries=9000,
        attack_config=attack_config,
    )
    robust = found.judged[0].robustness
    [told] = [it for it in robust.attacks if it.name == "square"]
    # About all are lucky once in forty questions; a tenth are again when it is looked at.
    assert told.robust["0.00392157"].value > robust.clean.value - 0.3


def test_a_budget_below_one_step_of_a_byte_is_told(plain: Run, tmp_path: Path) -> None:
    attack_config = replace(TINY, linf=(0.003,))
    with pytest.raises(ConfigError, match="the least change is 1/255"):
        attack(
            answering(plain, "logits", []),
            plain,
            tmp_path,
            max_queries=100,
            attack_config=attack_config,
        )


def test_other_options_are_another_model(plain: Run, tmp_path: Path) -> None:
    """Two outputs of one server in one folder: neither has the other's results."""
    attack_config = replace(TINY, attacks=("transfer",))
    shares = []
    for flipped in (False, True):

        def answer(pixels: np.ndarray, flipped: bool = flipped) -> np.ndarray:
            with torch.no_grad():
                logits = plain.network(torch.from_numpy(pixels))
            return np.asarray(logits * 3 if flipped else logits * (torch.arange(10) != 0))

        victim = FunctionVictim(answer, name="two outputs", kind="logits")
        victim._about = replace(victim._about, options={"output": str(flipped)})
        found = attack(victim, plain, tmp_path, max_queries=500, attack_config=attack_config)
        shares.append(found.judged[0].robustness)
    assert shares[0].digest != shares[1].digest


def test_random_answers_are_told_of_a_black_box_too(plain: Run, tmp_path: Path) -> None:
    def answer(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = plain.network(torch.from_numpy(pixels))
        return np.asarray(logits + torch.randn_like(logits))

    attack_config = replace(TINY, attacks=("transfer",))
    found = attack(FunctionVictim(answer, name="noise", kind="logits"), plain, tmp_path,
                   max_queries=999, attack_config=attack_config)  # fmt: skip
    raised = {check.name for check in found.judged[0].checks if check.raised}
    assert "answers are random" in raised


@pytest.mark.parametrize("attacks", [("pgd", "square"), ("carlini-wagner",)])
def test_gradients_are_not_to_be_had_and_what_works_is_offered(
    attacks: tuple[str, ...], plain: Run, tmp_path: Path
) -> None:
    attack_config = replace(TINY, attacks=attacks)
    with pytest.raises(ConfigError, match=r"shows scores only.*--attacks transfer,square,decision"):
        attack(
            answering(plain, "logits", []),
            plain,
            tmp_path,
            max_queries=1000,
            attack_config=attack_config,
        )


def test_each_attack_says_what_it_needs_and_costs(plain: Run, tmp_path: Path) -> None:
    for name, it in ATTACKS.items():
        for trouble in EFFORTS.values():
            assert sum(it.cost(trouble)) >= 1, name
    white = Target(plain, torch.rand(8, 1, 8, 8), device="cpu")
    assert all(allows(white, it.needs) for it in ATTACKS.values())
    assert chosen(TINY, white) == EFFORTS["quick"].attacks
    assert chosen(TINY, boxed(plain, "logits", torch.rand(8, 1, 8, 8))) == BLACK_BOX_ATTACKS
    with pytest.raises(ConfigError, match=r"There is no attack 'pdg'\. Did you mean pgd"):
        chosen(replace(TINY, attacks=("pdg",)), white)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "--max-queries is not set; a black box needs 20 queries.*at most [0-9,]+"),
        ({"max_queries": 19}, "--max-queries is 19"),
        ({"max_queries": 19, "controls": 3}, "--max-queries is 19"),
        (
            {"max_cost": 0.01, "prices": [0.001]},
            "--max-cost is 0.01; .*least costs US . 0.02",
        ),
        ({"max_cost": 1}, "the price of a query is not known"),
        ({"max_queries": 1000, "undefended": []}, "No undefended network to compare with"),
    ],
)
def test_what_a_black_box_needs_is_told(
    options: dict[str, Any], why: str, plain: Run, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"undefended": [plain], "controls": 1, **options}
    counts: list[int] = []
    with pytest.raises(ConfigError, match=why):
        robustness([answering(plain, "logits", counts)], "digits", TINY, tmp_path, **given)
    assert not counts
    assert not (tmp_path / "undefended").exists()  # refused before a control is trained


def words(served: Served, plain: Run, out: Path, *more: str) -> list[str]:
    return [
        "robustness", f"http://{served.address}", "--data", "digits", "--undefended",
        str(plain.folder), "--effort", "quick", "--samples", "10", "--linf", "0.1,0.2",
        "--device", "cpu", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_server_is_attacked_from_the_command_line(
    served: Served, plain: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(served, plain, tmp_path, "--attacks", "pgd", "--max-queries", "100")) == 1
    assert "Attacks that work: --attacks transfer,square,decision" in capsys.readouterr().err
    before = sum(entry.get("images", 0) for entry in served.entries())
    line = words(served, plain, tmp_path, "--max-cost", "30", "--price-per-1000", "1",
                 "--attacks", "transfer,square")  # fmt: skip
    assert main([*line, "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    [spent] = told["queries"].values()
    seen = sum(entry.get("images", 0) for entry in served.entries()) - before
    assert spent >= seen > 100
    assert told["judged"][0]["verdict"]["word"] == "no evidence"
    assert page_is_drawn_again(tmp_path)
    # A second evaluation sends no query.
    assert main([*line, "-q"]) == 0
    assert sum(entry.get("images", 0) for entry in served.entries()) - before == seen
    assert f"{spent:,} queries for {in_dollars(spent / 1000)}." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_a_killed_attack_goes_on_and_asks_nothing_twice(
    served: Served, plain: Run, tmp_path: Path
) -> None:
    """Killed three times while it asks, it ends with what an undisturbed one finds."""
    options = ["--max-queries", "30000", "--attacks", "transfer,square", "-q"]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert main(words(served, plain, whole, *options)) == 0
    killed, seen = 0, served.log.read_text().count("\n")
    for _ in range(3):
        process = Command(*words(served, plain, torn, *options))
        # After a few more of its requests.
        while process.poll() is None and served.log.read_text().count("\n") < seen + 5:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        seen = served.log.read_text().count("\n")
    assert killed == 3
    assert main(words(served, plain, torn, *options)) == 0
    a, b = (json.loads((it / "result.json").read_text()) for it in (whole, torn))
    for one, other in zip(a["judged"], b["judged"], strict=True):
        for x, y in zip(one["robustness"]["attacks"], other["robustness"]["attacks"], strict=True):
            assert x["robust"] == y["robust"]
    with closing(sqlite3.connect(torn / "ledger.sqlite")) as db:
        [[twice]] = db.execute("SELECT sum(billed - 1) FROM queries")
    # Only what was in flight when it was killed was asked again.
    assert twice <= 3 * 8 * 64
