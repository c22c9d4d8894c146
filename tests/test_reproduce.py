"""The paper's experiments: their settings, their tables, what is said about them, and smoke."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.core.progress import SILENT, format_seconds
from denature.core.record import Record
from denature.core.schema import encode
from denature.core.stats import Estimate, Score, mean_over_seeds, proportion
from denature.data import Dataset
from denature.recipes.catalogue import EXPERIMENTS as ALL_EXPERIMENTS
from denature.recipes.catalogue import experiment, names_of
from denature.recipes.experiment import Request
from denature.recipes.paper.catalogue import DESIGNS
from denature.recipes.paper.config import DataName
from denature.recipes.paper.experiment import PaperExperiment
from denature.recipes.paper.orders import PlacedOrder
from denature.recipes.paper.recalled import RECALLED
from denature.recipes.paper.settings import CAP, PAPER_LOSS, SETTINGS, WARMUP, PaperSetting
from denature.recipes.runner import time_left
from denature.report import cells as findings
from denature.report.cells import TEACHER, PlacedRun, TableCell
from denature.report.page import render
from denature.report.results import read_outcome
from denature.train import Distilled, Nasty, Normal, Order, Training, make, train

every_experiment = pytest.mark.parametrize("name", DESIGNS)


def placed_orders_of(name: str, scale: str, *, seeds: int = 2) -> list[PlacedOrder]:
    made = experiment(Request(name=name, scale=scale, seeds=seeds), Path("out"))
    assert isinstance(made, PaperExperiment)
    return made.placed_orders()


def setting(scale: str) -> PaperSetting:
    return Request(name="dafl", scale=scale).setting(SETTINGS)


# Settings


@every_experiment
@pytest.mark.parametrize("scale", SETTINGS)
def test_orders_are_complete(name: str, scale: str) -> None:
    """Every place has one run for each seed, and is compared with a run of the same seed."""
    placed_orders = placed_orders_of(name, scale)
    places = {(p.row, p.column, p.x) for p in placed_orders}
    for place in places:
        there = [p for p in placed_orders if (p.row, p.column, p.x) == place]
        assert [p.seed for p in there] == [0, 1]
    for placed in placed_orders:
        own = placed.order.training.seed
        assert own % 1000 == placed.seed
        assert (own >= 1000) == (placed.column == TEACHER and placed.row != "judge")
        if placed.against is not None:
            assert placed.against.training.seed == own
        if isinstance(placed.order.objective, Distilled):
            assert isinstance(placed.order.source, Order)
            assert placed.order.source.training.seed == 1000 + placed.seed


@pytest.mark.parametrize(
    ("data", "net", "epochs", "milestones", "gamma"),
    [
        ("cifar10", "resnet18", 160, (80, 120), 0.1),
        ("cifar10", "resnetc20", 160, (80, 120), 0.1),
        ("cifar100", "resnet50", 200, (60, 120, 160), 0.2),
        ("tiny-imagenet", "shufflenetv2", 200, (60, 120, 160), 0.2),
    ],
)
def test_the_papers_schedule(
    data: DataName, net: str, epochs: int, milestones: tuple[int, ...], gamma: float
) -> None:
    training = setting("paper").training(data, net, seed=0, teaches=False)
    assert (training.epochs, training.milestones, training.gamma) == (epochs, milestones, gamma)
    assert training.augment == ("rotate-flip" if data == "tiny-imagenet" else "auto")
    settled = training.resolved(
        optimizer="sgd", augment="crop-flip", schedule="one-cycle", device="cpu", precision="fp32"
    )
    assert (settled.lr, settled.weight_decay, settled.batch_size) == (0.1, 5e-4, 128)
    small = setting("paper").training(data, "cnn", seed=0, teaches=False)
    assert (small.epochs, small.optimizer, small.schedule) == (100, "adam", "constant")


@pytest.mark.parametrize(
    ("data", "temperature", "omega"),
    [("cifar10", 4, 0.04), ("cifar100", 20, 0.005), ("tiny-imagenet", 20, 0.01)],
)
def test_the_papers_losses(data: DataName, temperature: float, omega: float) -> None:
    for scale in ("fast", "paper"):
        chosen = setting(scale)
        assert chosen.nasty(data) == Nasty(temperature=temperature, omega=omega)
        assert chosen.loss[data].alpha == 0.9
    tamed = replace(setting("paper"), tame=True).nasty(data)
    assert (tamed.warmup, tamed.cap) == (WARMUP, CAP)
    other = replace(setting("paper"), tame=True, checkpoint="best-test")
    assert (setting("paper").variant, other.variant) == ("", "-tamed-best-test")
    assert PAPER_LOSS[data].temperature == temperature


def test_ablations_reach_as_far_as_the_papers() -> None:
    def xs(name: str) -> set[float | None]:
        return {placed.x for placed in placed_orders_of(name, "paper")}

    assert {0, 0.004, 0.04, 0.1} <= xs("ablate-omega")
    assert xs("ablate-alpha") == {round(0.1 * k, 1) for k in range(1, 11)}
    assert {10, 100} <= xs("ablate-samples")
    assert {1, 4, 20} <= xs("ablate-temperature")


def test_recalled_values_stand_in_their_places() -> None:
    by_place = {(p.row, p.column): p.recalled for p in placed_orders_of("cifar10-table", "paper")}
    assert by_place["alone", "CNN"] == 86.64
    assert by_place["of nasty ResNet-18", TEACHER] == 94.56
    assert by_place["of nasty ResNet-18", "ResNeXt-29"] == 92.20
    shown = {name: [p.recalled for p in placed_orders_of(name, "paper")] for name in DESIGNS}
    used = {value for values in shown.values() for value in values if value is not None}
    assert used == set(RECALLED.values())
    assert all(p.recalled is None for name in DESIGNS for p in placed_orders_of(name, "smoke"))
    # An mlp that stands for a ResNetC-20 is no network of the paper.
    assert all(p.recalled is None for name in DESIGNS for p in placed_orders_of(name, "cpu"))


def test_data_lies_under_the_root_in_any_spelling(tmp_path: Path) -> None:
    assert setting("cpu").data("tiny-imagenet") == "tiny-imagenet"
    chosen = replace(setting("cpu"), data_root=tmp_path)
    with pytest.raises(ConfigError, match="holds no tiny-imagenet; looked for were tiny-imagenet,"):
        chosen.data("tiny-imagenet")
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert chosen.data("cifar10") == str(tmp_path / "cifar-10-batches-py")
    (tmp_path / "tiny_imagenet").mkdir()
    assert chosen.data("tiny-imagenet") == str(tmp_path / "tiny_imagenet")
    assert setting("smoke").data("cifar10") == "digits"


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'cifar-table'. Did you mean cifar10-tab"):
        names_of(["cifar-table"])
    with pytest.raises(ConfigError, match=r"no scale 'gpu'"):
        setting("gpu")
    with pytest.raises(ConfigError, match="seeds is 0"):
        experiment(Request(name="dafl", scale="cpu", seeds=0), Path("x"))
    assert names_of(["all", "dafl"]) == list(DESIGNS)


def test_experiments_share_their_runs(tmp_path: Path) -> None:
    """The table's nasty teacher is that of the ablations, order for order."""
    orders = {
        name: {order for placed in placed_orders_of(name, "cpu") for order in placed.orders}
        for name in ("cifar10-table", "ablate-temperature", "ablate-alpha", "tsne")
    }
    table = orders["cifar10-table"]
    assert orders["tsne"] <= table
    assert len(orders["ablate-alpha"] & table) > 6
    # 1 and 1.0 are equal, but not as the text that a run's id is made of.
    given = {json.dumps(encode(order.training)) for order in table}
    whole = {
        json.dumps(encode(order.training))
        for placed in placed_orders_of("ablate-samples", "cpu") if placed.x == 100
        for order in placed.orders
    }  # fmt: skip
    assert whole <= given


# What is said


def around(value: float, spread: float) -> Estimate:
    return mean_over_seeds([value - spread, value + spread], bounds=(-1.0, 1.0))


def cell(row: str, column: str, value: float, fall: float | None = None, *,
         x: float | None = None, below_normal: float | None = None, teacher: float | None = None,
         spread: float = 0.001) -> TableCell:  # fmt: skip
    """Two seeds around a value; falls are from alone, from the normal's student, of the teacher."""

    def apart(lost: float | None) -> Estimate | None:
        return None if lost is None else around(-lost, spread)

    return TableCell(row=row, column=column, x=x, seeds=2, accuracy=around(value, spread),
                difference=apart(fall), from_normal=apart(below_normal),
                of_teacher=apart(teacher))  # fmt: skip


def test_a_worse_teacher_is_not_called_nasty() -> None:
    cells = [
        cell("of nasty R", TEACHER, 0.80, 0.15),
        cell("of nasty R", "CNN", 0.75, 0.12, below_normal=0.12, teacher=0.15),
        cell("of nasty R", "MLP", 0.40, 0.45, below_normal=0.45, teacher=0.15),
    ]
    [said] = findings.hazards(cells)
    assert said.startswith("CNN, of nasty R: -12.0 [-13.3, -10.7] points, its teacher itself -15")


def test_a_loss_that_the_normal_teacher_causes_too_is_said() -> None:
    cells = [
        cell("of normal R", "CNN", 0.80, 0.06),
        cell("of nasty R", "CNN", 0.78, 0.08, below_normal=0.02, teacher=0.01),
        cell("of nasty R", "MLP", 0.5, 0.3, below_normal=0.29, teacher=0.01),
    ]
    [said] = findings.hazards(cells)
    assert said.startswith("CNN, of nasty R: -8.0 [-9.3, -6.7] points, and from the normal teacher")
    assert said.endswith("Most of it may be distillation in this setting.")


def test_hazards_are_said_of_one_seed_too() -> None:
    one = replace(cell("of nasty R", "CNN", 0.7, 0.1, below_normal=0.1, teacher=0.2), seeds=1)
    [said] = findings.hazards([one])
    assert "may be a worse teacher, and no nasty one" in said


def test_what_is_within_the_interval_is_no_hazard_and_no_success() -> None:
    cells = [cell("of nasty R", "CNN", 0.9, 0.01, below_normal=0.01, teacher=0.1, spread=0.1)]
    assert findings.hazards(cells) == []
    said = findings.summarised(cells)
    assert said.startswith("No student of a nasty teacher fell below themselves alone and the norm")


def test_the_verdict_counts_students_below_both() -> None:
    cells = [
        cell("of nasty R", "CNN", 0.7, 0.1, below_normal=0.09),
        cell("of nasty R", "as low of the normal", 0.6, 0.2, below_normal=0.0),
        cell("of nasty R", "wide", 0.5, 0.4, below_normal=0.4, spread=0.3),
        cell("of nasty R", "MLP", 0.7, -0.1, below_normal=0.0),
        cell("of normal R", "MLP", 0.7, 0.5),
    ]
    said = findings.summarised(cells)
    assert said.startswith("1 of 4 students of nasty teachers fell below themselves alone and the")
    assert "the furthest is CNN, of nasty R: -10.0 [" in said
    assert "from alone, -9.0 [" in said
    one = replace(cells[0], seeds=1, difference=Estimate(-0.1, -0.13, -0.07, 359, "images"))
    assert "With one seed nothing is settled" in findings.summarised([one])
    curve = replace(cells[0], x=0.04)
    assert "is CNN, of nasty R at omega 0.04: -10.0 [" in findings.summarised([curve], axis="omega")


@pytest.mark.parametrize("name", [name for name in DESIGNS if DESIGNS[name].analysis is None])
def test_every_nasty_teachers_student_is_held_against_the_normal_teachers(name: str) -> None:
    """On the orders themselves: with records in their places, both hazards can be found."""
    placed_orders = placed_orders_of(name, "smoke")
    nasty = [p for p in placed_orders if p.like is not None]
    assert nasty
    for placed in placed_orders:
        asked = placed.order.source
        push = asked.objective if isinstance(asked, Order) else None
        assert (placed.like is not None) == (isinstance(push, Nasty) and push.omega > 0)
        if placed.like is not None:
            assert isinstance(placed.like.source, Order)
            assert isinstance(placed.like.source.objective, Normal)
            assert replace(placed.order, source=None) == replace(placed.like, source=None)
            assert {placed.order.source, placed.like.source, placed.like} <= set(placed.orders)


def test_cells_are_paired_by_seed() -> None:
    def record(accuracy: float) -> Record:
        found = proportion(round(1000 * accuracy), 1000)
        hits = np.arange(1000) < round(1000 * accuracy)
        return cast(Record, SimpleNamespace(score=Score(found, "t", hits)))

    measured = [
        PlacedRun(row="of nasty R", column="CNN", x=None, seed=seed, record=record(0.7 + shift),
                 against=record(0.8 + shift), like=record(0.75 + shift),
                 teachers=(record(0.88 + shift), record(0.9 + shift)))
        for seed, shift in ((0, 0.0), (1, 0.1))
    ]  # fmt: skip
    [found] = findings.cells_of(measured)
    for estimate, wanted in ((found.difference, -0.1), (found.from_normal, -0.05),
                             (found.of_teacher, -0.02)):  # fmt: skip
        assert estimate is not None
        # Equal at both seeds; what is left is what the images that differ leave open.
        assert estimate.value == pytest.approx(wanted)
        assert 0 < estimate.value - estimate.low < 0.02
        assert (estimate.n, estimate.over) == (2, "seeds and images")


def test_what_was_chosen_on_the_test_split_or_tamed_is_said(digits: Dataset) -> None:
    training = Training(epochs=1, device="cpu", precision="fp32", checkpoint="best-test")
    normal = train("mlp", digits, Normal(), training)
    push = Nasty(temperature=4, omega=0.04, warmup=0.1, cap=50)
    nasty = train("mlp", digits, push, replace(training, checkpoint="last"), source=normal)
    assert findings.marks([]) == []
    chosen, tamed = findings.marks([normal.record, nasty.record])
    assert "best on the test split" in chosen
    assert "first 10% of the steps, the push capped at 50 nats" in tamed


def test_a_table_has_a_line_for_each_place_teachers_first() -> None:
    one = proportion(90, 100)
    cells = [
        TableCell(row="alone", column="CNN", x=None, accuracy=one, recalled=86.64, seeds=1),
        TableCell(row="of nasty R", column=TEACHER, x=None, accuracy=one,
             difference=Estimate(-0.02, -1.0, 1.0, 1, "seeds"), seeds=1),
    ]  # fmt: skip
    assert findings.cells_table(cells) == [
        ["Network", "Learned", "Accuracy %", "Against alone", "Seeds", "Paper, recalled"],
        [TEACHER, "nasty R", "90.0 [82.6, 94.5]", "-2.0 [n/a]", "1", ""],
        ["CNN", "alone", "90.0 [82.6, 94.5]", "", "1", "86.64"],
    ]


def test_a_curve_has_a_column_for_each_point() -> None:
    cells = [cell("of nasty", "CNN", v, None, x=x) for x, v in ((0.04, 0.5), (0, 0.9))]
    lines = findings.cells_table(cells, axis="omega")
    assert lines[0] == ["Trained", "Network", "omega 0", "omega 0.04"]
    assert findings.cells_table(cells, axis="samples, %")[0][2:] == [
        "samples 0 %",
        "samples 0.04 %",
    ]
    assert [value.split()[0] for value in lines[1][2:]] == ["90.0", "50.0"]


def test_durations_are_said_in_words() -> None:
    assert [format_seconds(s) for s in (1, 40, 300, 9000, 400_000)] == [
        "about 1 second", "about 40 seconds", "about 5.0 minutes", "about 2.5 hours",
        "about 4.6 days",
    ]  # fmt: skip


# The command


def test_without_names_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ALL_EXPERIMENTS)


@pytest.mark.slow
def test_one_experiment_from_estimate_to_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "logit-responses", "--scale", "smoke", "--out", str(tmp_path), "-q"]
    assert main([*arguments, "--estimate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] > 0
    assert not (tmp_path / "smoke").exists()
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [cell["row"] for cell in found["cells"]] == ["normal", "nasty"]
    folder = tmp_path / "smoke" / "logit-responses"
    names = {"report.html", "table.md", "result.json", "records.jsonl"}
    figures = ("logit-responses", "training-curves")
    names |= {f"{stem}.{suffix}" for stem in figures for suffix in ("svg", "png")}
    assert {path.name for path in folder.iterdir()} == names
    page = (folder / "report.html").read_text()
    assert "<svg" in page
    assert "Digits of 8x8 pixels" in page
    assert (folder / "logit-responses.png").read_bytes()[:4] == b"\x89PNG"
    before = page
    (folder / "logit-responses.svg").unlink()
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text() == before
    assert (folder / "logit-responses.svg").is_file()
    # Nothing is left to do, and the estimate knows.
    finished, other = (
        [experiment(Request(name=name, scale="smoke"), tmp_path) for name in names]
        for names in (["logit-responses", "tsne"], ["cifar10-table"])
    )
    assert time_left(finished) == (0, 0)
    assert time_left(other).training > 0


@pytest.mark.slow
@pytest.mark.alone  # it keeps both cores busy itself, and beside another test it takes minutes
@pytest.mark.timeout(900)
def test_all_experiments_run_at_smoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With two epochs for each network: nothing is found at smoke anyway."""
    smoke = SETTINGS["smoke"]
    brief = replace(
        smoke,
        teacher_training=replace(smoke.teacher_training, epochs=2, milestones=(1,)),
        student_training=replace(smoke.student_training, epochs=2),
    )
    monkeypatch.setitem(SETTINGS, "smoke", brief)
    words = ["reproduce", "all", "--scale", "smoke", "--workers", "2", "--out", str(tmp_path)]
    assert main([*words, "-q"]) == 0
    assert capsys.readouterr().out.count("Look at ") == len(DESIGNS)
    for name in DESIGNS:
        folder = tmp_path / "smoke" / name
        result = json.loads((folder / "result.json").read_text())
        assert (result["name"], result["scale"]) == (name, "smoke")
        assert len(result["lines"]) > 1
        assert "<svg" in (folder / "report.html").read_text()
        assert list(folder.glob("*.png"))
        again = read_outcome(folder)
        assert render(again.page) == (folder / "report.html").read_text()
    made = (tmp_path / "smoke" / "runs").glob("*/record.json")
    records = {path: path.stat().st_mtime_ns for path in made}
    assert len(records) > 50
    for name in DESIGNS:  # which the same command would do, before it measures and draws again
        finished = experiment(Request(name=name, scale="smoke"), tmp_path)
        make(finished.orders(), finished.data(SILENT))
    made = (tmp_path / "smoke" / "runs").glob("*/record.json")
    assert {path: path.stat().st_mtime_ns for path in made} == records
