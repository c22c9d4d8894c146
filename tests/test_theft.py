"""Thefts: clones of answers, budgets that grow, rounds, lost queries and refusals."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denature.answers.transfer import Transfer
from denature.cli.app import main
from denature.core.errors import ConfigError, RunError
from denature.core.stats import Estimate
from denature.core.stopping import Stopper
from denature.data import Dataset
from denature.data.config import DataConfig
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import NoisePool, open_pool, pool_of_tests
from denature.extract.compatibility import about_of, fitted
from denature.extract.config import ExtractionConfig
from denature.extract.measure import agreement, ask_reference, predictions_of
from denature.extract.planning import PLAN
from denature.extract.selection.base import Selection
from denature.extract.selection.catalogue import SELECTIONS, find_selection
from denature.extract.stealing import steal
from denature.extract.theft import LEDGER, read_theft
from denature.extract.thief import Thief
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.local import local
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from denature.report.kinds import answers_of
from denature.train import Cloned, Normal, Run, Training, load_run, train
from tests.oracles import Counted, oracle_of

IN_ROUNDS = {name: s.select for name, s in SELECTIONS.items() if s.select is not None}
pytestmark = pytest.mark.usefixtures("without_figures")

QUICK = Training(epochs=2, batch_size=32, device="cpu", precision="fp32")


def transfer_of(dataset: Dataset, kind: Any) -> Transfer:
    truth = torch.nn.functional.one_hot(dataset.train.labels, 10).float()
    values = {"label": dataset.train.labels, "logits": 9 * truth, "probabilities": truth}[kind]
    return Transfer(kind, values, victim="oracle")


@pytest.mark.parametrize("kind", ["label", "probabilities", "logits"])
def test_a_clone_learns_from_answers_of_every_kind(digits: Dataset, kind: Any) -> None:
    training = replace(QUICK, epochs=8)
    clone = train("mlp", digits, Cloned(), training, source=transfer_of(digits, kind))
    assert clone.accuracy.value > 0.85
    assert (clone.record.kind, answers_of(clone.record)) == ("cloned", kind)
    assert clone.record.inputs["victim"].net == "oracle"


def test_a_clone_of_right_labels_is_what_training_makes(digits: Dataset) -> None:
    clone = train("mlp", digits, Cloned(), QUICK, source=transfer_of(digits, "label"))
    normal = train("mlp", digits, Normal(), QUICK)
    assert clone.record.net.digest == normal.record.net.digest


def test_answers_to_other_images_are_refused(digits: Dataset) -> None:
    values = torch.zeros(7, dtype=torch.int64)
    with pytest.raises(ConfigError, match="answered 7 images"):
        train("mlp", digits, Cloned(), QUICK, source=Transfer("label", values, victim="x"))
    with pytest.raises(ConfigError, match="needs a run as victim"):
        train("mlp", digits, Cloned(), QUICK)
    with pytest.raises(ConfigError, match="not finite"):
        Transfer("logits", torch.full((2, 3), float("nan")), victim="x")
    with pytest.raises(ConfigError, match="wanted are int64"):
        Transfer("label", torch.zeros(2, 3), victim="x")


def test_a_theft_grows_and_asks_the_difference(victim: Run, tmp_path: Path) -> None:
    counted = Counted()
    inside = local(victim)
    counted.answer = inside._function

    def go(*budgets: int, **more: Any) -> Any:
        called = FunctionVictim(counted, name="v", kind="probabilities")
        return steal(called, net="mlp", pool="digits", budgets=budgets, out=tmp_path / "out",
                     stealing=ExtractionConfig(test_images=50, seeds=2, **more), training=QUICK,
                     price=0.001)  # fmt: skip

    first = go(100, 300)
    assert sum(counted.calls) == 300
    assert [clone.budget for clone in first.clones] == [100, 100, 300, 300]
    assert [clone.answers for clone in first.clones] == [50, 50, 250, 250]
    assert [clone.seed for clone in first.clones] == [0, 1, 0, 1]
    assert (first.spent, first.lost, first.measuring, first.kind) == (250, 0, 50, "probabilities")
    assert first.clones[0].money == pytest.approx(0.05)
    records = {clone.folder: (Path(clone.folder) / "record.json").stat().st_mtime_ns
               for clone in first.clones}  # fmt: skip
    second = go(100, 300, 600)
    assert sum(counted.calls) == 600
    assert second.clones[:4] == first.clones
    for folder, written in records.items():  # read, not made again
        assert (Path(folder) / "record.json").stat().st_mtime_ns == written
    with pytest.raises(RunError, match="holds another theft: pool_seed was 0, is 1"):
        go(100, pool_seed=1)
    # Fresh clones: that of 100 queries is what a theft of 100 queries alone makes.
    alone = steal(FunctionVictim(counted, name="v", kind="probabilities"), net="mlp", pool="digits",
                  budgets=[100], out=tmp_path / "alone", stealing=ExtractionConfig(test_images=50),
                  training=QUICK)  # fmt: skip
    assert alone.clones[0].id == first.clones[0].id
    ours, theirs = (load_run(clone.folder) for clone in (alone.clones[0], first.clones[0]))
    assert ours.record.net.digest == theirs.record.net.digest


@pytest.mark.parametrize("choose", IN_ROUNDS)
def test_rounds_choose_with_the_clone_of_the_round_before(
    victim: Run, tmp_path: Path, choose: Any
) -> None:
    theft = steal(local(victim, kind="label"), net="mlp", pool="digits", budgets=[110],
                  out=tmp_path, training=QUICK,
                  stealing=ExtractionConfig(choose=choose, round_size=40, test_images=20)
                  )  # fmt: skip
    assert (theft.spent, theft.measuring, theft.clones[0].answers) == (90, 20, 90)
    assert theft.kind == "label"
    assert len(list((tmp_path / "rounds").iterdir())) == 2


def test_a_thief_needs_no_folder_claim_and_takes_any_strategy(
    victim: Run, digits: Dataset, tmp_path: Path
) -> None:
    """A caller brings its own oracle and selection; here the last candidates of each round."""

    def last(candidates: torch.Tensor, queried: torch.Tensor, count: int) -> torch.Tensor:
        rounds.append((len(candidates), len(queried)))
        return torch.arange(len(candidates) - count, len(candidates))

    rounds: list[tuple[int, int]] = []
    source, tests = local(victim), pool_of_tests(digits)
    images = open_pool(DataConfig(source="digits"), channels=1, image_size=8)
    with Ledger(tmp_path / LEDGER) as ledger:
        oracle = Oracle(
            victim=source, ledger=ledger, about=fitted(about_of(source), digits), budget=90,
            pace=RequestConfig(), stopper=Stopper(),
        )  # fmt: skip
        reference = ask_reference(
            replace(oracle, budget=100, purpose="measure"), digits, tests, images=100, seed=3
        )
        thief = Thief(
            oracle=oracle, images=images, held_out=tests, dataset=digits, net="mlp",
            selection=Selection(name="last", select=last), out=tmp_path, training=QUICK,
            stealing=ExtractionConfig(round_size=40, seeds=2),
        )  # fmt: skip
        stolen = thief.steal([50, 90])
        assert ledger.spent(oracle.target, "train") == 90
    assert [(clone.budget, clone.spent) for clone in stolen] == [(50, 50)] * 2 + [(90, 90)] * 2
    pool = images.size or 0
    assert rounds == [(pool - 40, 40), (pool - 80, 80)]
    assert not (tmp_path / PLAN).exists()
    # The reference holds what the victim's network predicts, and counts what clones share with it.
    assert reference.rows == sorted(set(reference.rows))
    assert len(reference.rows) == 100
    sample = digits.test.take(np.array(reference.rows))
    assert (predictions_of(victim, sample, device="cpu") == reference.predictions).all()
    assert reference.fidelity(victim, device="cpu").value == 1
    right = reference.predictions == sample.labels[sample.rows].numpy()
    assert reference.accuracy.value == pytest.approx(right.mean())
    clone = stolen[-1].run
    shared = predictions_of(clone, sample, device="cpu") == reference.predictions
    fidelity = reference.fidelity(clone, device="cpu")
    assert fidelity.value == pytest.approx(shared.mean())
    assert fidelity.n == 100
    assert 0.2 < fidelity.value < 1


def test_agreement_is_a_share_of_classes_and_a_distance_of_landmarks() -> None:
    shares = agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4]))
    assert (shares.value, shares.n) == (0.75, 4)
    places = np.array([[0.1, 0.2], [0.5, 0.5]], np.float32)
    others = np.array([[0.2, 0.4], [0.5, 0.6]], np.float32)
    assert agreement(places, others).value == pytest.approx((0.15 + 0.05) / 2)


def test_clones_far_from_the_landmarks_are_pooled() -> None:
    """Distances, unlike shares, may be above 1."""
    found = read_theft(Path(__file__).parents[1] / "results" / "stealing" / "cifar10")
    assert found is not None
    near, far = (
        Estimate(value=value, low=value - 0.1, high=value + 0.1, n=9, over="images")
        for value in (0.95, 1.35)
    )
    clones = [
        replace(found.clones[0], seed=seed, accuracy=one, fidelity=one)
        for seed, one in enumerate((near, far))
    ]
    [level] = replace(found, kind="landmarks", clones=tuple(clones)).levels
    assert level.accuracy.value == pytest.approx(1.15)
    assert level.accuracy.high > 1.15


def test_a_thief_with_rounds_needs_a_limited_pool(digits: Dataset, tmp_path: Path) -> None:
    """An unlimited pool has no set of candidates; without the check a round would never end."""
    noise = NoisePool(channels=1, image_size=8, seed=0)
    with Ledger(tmp_path / LEDGER) as ledger:
        oracle = oracle_of(ledger, Counted())
        with pytest.raises(ConfigError, match="is unlimited"):
            Thief(
                oracle=oracle, images=noise, held_out=pool_of_tests(digits), dataset=digits,
                selection=find_selection("k-center"), stealing=ExtractionConfig(), net="mlp",
                out=tmp_path,
            )  # fmt: skip


def test_randomised_answers_are_averaged(victim: Run, tmp_path: Path) -> None:
    inside, chance = local(victim, kind="label")._function, np.random.default_rng(0)

    def wavering(pixels: np.ndarray) -> np.ndarray:
        labels = inside(pixels)
        return np.where(chance.random(len(labels)) < 0.3, (labels + 1) % 10, labels)

    training = replace(QUICK, epochs=6)
    theft = steal(FunctionVictim(wavering, name="w"), net="mlp", pool="digits", budgets=[950],
                  out=tmp_path, stealing=ExtractionConfig(repeats=3, test_images=50),
                  training=training)  # fmt: skip
    [clone] = theft.clones
    assert (theft.spent, clone.answers, theft.kind) == (900, 300, "label")
    assert answers_of(load_run(clone.folder).record) == "probabilities"  # shares of votes


def test_no_test_image_is_asked_to_learn_from_and_none_twice(
    victim: Run, digits: Dataset, tmp_path: Path
) -> None:
    """A pool of all test images, some others, and each of those again."""
    tests, others = digits.test, digits.train.take(np.arange(100))
    images = [tests.images[tests.rows], others.images[others.rows], others.images[others.rows]]
    pixels = torch.cat(images).numpy()
    path = tmp_path / "pool.npz"
    np.savez(path, x_train=pixels, y_train=np.zeros(len(pixels), np.int64))
    usual: dict[str, Any] = {"net": "mlp", "pool": str(path), "test": "digits", "training": QUICK}
    with pytest.raises(ConfigError, match="has 100 images that differ"):
        steal(local(victim), budgets=[126], out=tmp_path / "a", **usual)
    theft = steal(local(victim), budgets=[459], out=tmp_path / "b",
                  stealing=ExtractionConfig(test_images=359), **usual)  # fmt: skip
    assert (theft.spent, theft.measuring, theft.clones[0].answers) == (100, 359, 100)


def test_a_clone_costs_what_its_images_cost(victim: Run, tmp_path: Path) -> None:
    inside, lost = local(victim)._function, [2]

    def losing(pixels: np.ndarray) -> np.ndarray:
        if lost[0] and len(pixels) == 20:
            lost[0] -= 1
            raise AskFailed("lost", again=True, billed=True, wait_s=0.0)
        return inside(pixels)

    theft = steal(
        FunctionVictim(losing, name="l", kind="probabilities"),
        net="mlp",
        pool="digits",
        budgets=[30, 110],
        out=tmp_path,
        stealing=ExtractionConfig(test_images=10),
        price=1.0,
        training=QUICK,
        pace=RequestConfig(per_request=20, concurrency=1),
    )
    spent = [(clone.budget, clone.spent, clone.money, clone.answers) for clone in theft.clones]
    # Both losses hit the first request, and the budget of 110 leaves 60 images to learn from.
    assert spent == [(30, 60, 60, 20), (110, 100, 100, 60)]
    whole = steal(FunctionVictim(inside, name="w", kind="probabilities"), net="mlp", pool="digits",
                  budgets=[130], out=tmp_path / "w", price=1.0, training=QUICK,
                  stealing=ExtractionConfig(test_images=30, repeats=30))  # fmt: skip
    assert (whole.clones[0].spent, whole.clones[0].answers) == (90, 3)


def test_lost_test_images_are_asked_once_more(victim: Run, tmp_path: Path) -> None:
    inside, alive = local(victim)._function, [False]

    def dying(pixels: np.ndarray) -> np.ndarray:
        if not alive[0]:
            raise AskFailed("lost", again=False, billed=True)
        return inside(pixels)

    def go() -> Any:
        return steal(
            FunctionVictim(dying, name="d", kind="probabilities"),
            net="mlp",
            pool="digits",
            budgets=[20],
            out=tmp_path,
            stealing=ExtractionConfig(test_images=30, fidelity_extra=True),
            training=QUICK,
        )

    with pytest.raises(AskFailed, match="lost"):
        go()
    alive[0] = True
    theft = go()
    assert (theft.measuring, theft.victim_accuracy.n) == (60, 30)


@pytest.mark.parametrize("changes", [{"training": replace(QUICK, epochs=3)}, {"net": "cnn"}])
def test_what_chose_the_images_cannot_be_changed_later(
    victim: Run, tmp_path: Path, changes: dict[str, Any]
) -> None:
    usual: dict[str, Any] = {
        "net": "mlp", "pool": "digits", "budgets": [60], "out": tmp_path, "training": QUICK,
        "stealing": ExtractionConfig(choose="uncertainty", round_size=30, test_images=10),
    }  # fmt: skip
    steal(local(victim), **usual)
    with pytest.raises(RunError, match=r"holds another theft: (net|training) was"):
        steal(local(victim), **{**usual, **changes})


def test_the_decimals_of_answers_are_part_of_a_thefts_plan_and_of_its_clones(
    victim: Run, tmp_path: Path
) -> None:
    """Spelled as by thefts of before, whose clones' loss rounded."""
    words = ["steal", str(victim.folder), "--pool", "digits", "--budget", "60", "--student", "mlp",
             "--choose", "uncertainty", "--round-size", "30", "--test-images", "10", "--epochs",
             "1", "--device", "cpu", "--precision", "fp32", "-q"]  # fmt: skip
    for name, more, decimals in (("exact", [], None), ("rounded", ["--decimals", "1"], 1)):
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
        plan = json.loads((tmp_path / name / "plan.json").read_text())
        assert plan["objective"] == {"temperature": 1.0, "decimals": decimals}
        theft = read_theft(tmp_path / name)
        assert theft is not None
        [clone] = theft.clones
        objective = load_run(clone.folder).record.config["objective"]
        assert objective == {"kind": "cloned", **plan["objective"]}
    assert main([*words, "--out", str(tmp_path / "rounded")]) == 1  # it holds another theft


def test_a_theft_can_be_carried_out_inside_of_a_loop(victim: Run, tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> Any:
        return steal(local(victim), net="mlp", pool="digits", budgets=[20], out=tmp_path,
                     stealing=ExtractionConfig(test_images=10), training=QUICK)  # fmt: skip

    assert asyncio.run(cell()).spent == 10


def test_lost_queries_leave_fewer_answers_and_are_told(victim: Run, tmp_path: Path) -> None:
    inside, failures = local(victim)._function, [3]

    def losing(pixels: np.ndarray) -> np.ndarray:
        if failures[0] and len(pixels) == 16:
            failures[0] -= 1
            raise AskFailed("lost", again=True, billed=True, wait_s=0.0)
        return inside(pixels)

    theft = steal(FunctionVictim(losing, name="l"), net="mlp", pool="digits", budgets=[170],
                  out=tmp_path, stealing=ExtractionConfig(test_images=10), training=QUICK,
                  pace=RequestConfig(per_request=16))  # fmt: skip
    assert (theft.spent, theft.lost, theft.clones[0].answers) == (160, 48, 112)


WRONG_THEFTS: list[tuple[dict[str, Any], str]] = [
    ({"budgets": []}, "wanted is at least one"),
    ({"budgets": [1]}, "at least two images"),
    ({"budgets": [9], "stealing": ExtractionConfig(repeats=5)}, "at least two images"),
    ({"budgets": [5000]}, "has 1,438 images that differ from each other and from the test images"),
    ({"price": float("nan")}, "price is nan"),
    ({"pool": "noise"}, "Noise has no labels"),
    (
        {"pool": "noise", "test": "digits", "stealing": ExtractionConfig(choose="both")},
        "is unlimited, so no round can choose",
    ),
    ({"net": "no-such"}, "There is no network .* of your own is named package.module:name"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG_THEFTS)
def test_thefts_that_cannot_be_are_refused(
    victim: Run, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    usual: dict[str, Any] = {"net": "mlp", "pool": "digits", "budgets": [20], "training": QUICK}
    with pytest.raises(ConfigError, match=said):
        steal(local(victim), out=tmp_path, **{**usual, **changes})
