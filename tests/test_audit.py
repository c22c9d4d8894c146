"""The audit end to end: what it measures of models whose score is known, and what it prints."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from denature.audit import clone_training
from denature.audit.config import EFFORTS, AuditConfig
from denature.audit.gate import best_defense, junit
from denature.audit.race import Screened, fewest, screen
from denature.cli.app import main
from denature.core.stats import Estimate
from denature.data import load
from denature.data.config import DataConfig
from denature.defenses.catalogue import chain_of
from denature.extract import config
from denature.extract.victims.called import FunctionVictim
from denature.recipes.audit import Audit
from denature.recipes.runner import run
from denature.report.results import read_outcome
from denature.train import Normal, Run, Training, train
from denature.train.runs import make_all
from tests.audits import audit as made

BRIEF = Training(epochs=4, batch_size=64, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("victim") / "mlp"
    return train("mlp", "digits", Normal(), Training(epochs=8, device="cpu"), out=out)


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    """Clones that are made in a moment, and worse for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "LEAST_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def printed(
    victim: Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], Path, list[str]]:
    """A small audit from the command line: its line of JSON, its folder, its words."""
    out = tmp_path_factory.mktemp("audit")
    words = [
        *("audit", str(victim.folder), "--data", "digits", "--defense", "label-only,nasty"),
        *("--thief", "naive,labels", "--budget", "20,80", "--seeds", "2", "--labelled", "20"),
        *("--epochs", "3", "--out", str(out), "--workers", "1", "--device", "cpu", "-q"),
    ]
    from contextlib import redirect_stdout
    from io import StringIO

    text = StringIO()
    with redirect_stdout(text):
        assert main([*words, "--json"]) == 0
    return json.loads(text.getvalue().splitlines()[-1]), out, words


# What the command prints and leaves


def test_the_line_of_json_is_as_promised(
    printed: tuple[dict[str, object], Path, list[str]],
) -> None:
    told, out, _ = printed
    accuracy = {"value", "low", "high", "n", "over"}
    assert accuracy <= set(told["victim"]["accuracy"])  # type: ignore[index]
    assert [row["defense"] for row in told["defenses"]] == ["none", "label-only", "nasty"]  # type: ignore[attr-defined]
    for row in told["defenses"]:  # type: ignore[attr-defined]
        assert {"top1_kept", "accuracy", "l1", "ece", "latency_ms"} <= set(row)
    assert told["defenses"][1]["l1"] is None  # type: ignore[index]
    cells = told["cells"]
    assert len(cells) == 3 * 2 * 2 * 2  # type: ignore[arg-type]
    for cell in cells:  # type: ignore[attr-defined]
        assert set(cell["accuracy"]) == set(cell["fidelity"]) == accuracy
        assert set(cell["recovered"]) == {"value", "low", "high"}
        assert cell["queries"] == cell["budget"]
        assert cell["threat"] in "AB"
    assert {(w["defense"], w["threat"], w["budget"]) for w in told["worst"]} == {  # type: ignore[attr-defined]
        (cell["defense"], cell["threat"], cell["budget"])
        for cell in cells  # type: ignore[attr-defined]
    }
    half = told["queries_to_half"]
    assert {(row["defense"], row["threat"]) for row in half} == {  # type: ignore[attr-defined]
        (d, t) for d in ("none", "label-only", "nasty") for t in "AB"
    }
    assert Path(str(told["report"])) == out / "report.html"
    assert (out / "report.html").is_file()


def test_a_finished_audit_is_read_and_drawn_again(
    printed: tuple[dict[str, object], Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    told, out, words = printed
    cells = sorted(path.stat().st_mtime_ns for path in (out / "cells").iterdir())
    assert main([*words, "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("victim", "cells", "worst", "queries_to_half", "plan", "baselines"):
        assert again[name] == told[name]
    assert sorted(path.stat().st_mtime_ns for path in (out / "cells").iterdir()) == cells
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_text() == page


@pytest.mark.usefixtures("without_figures")
def test_one_more_defense_trains_its_own_cells_only(
    printed: tuple[dict[str, object], Path, list[str]],
) -> None:
    _, out, words = printed
    before = {path.name for path in (out / "cells").iterdir()}
    more = list(words)
    more[more.index("label-only,nasty")] = "label-only,nasty,rounding@decimals=1"
    assert main(more) == 0
    added = {path.name for path in (out / "cells").iterdir()} - before
    assert len(added) == 2 * 2 * 2 * 2  # thieves, threats, budgets, seeds


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(("defenses", "thief", "lessons"),
                         [(("rounding", "label-only"), "labels", 1), (("top-k@k=3",), "naive", 2),
                          (("label-only",), "semi-supervised", 1)])  # fmt: skip
def test_equal_lessons_behind_several_defenses_are_learned_once(
    defenses: tuple[str, ...],
    thief: str,
    lessons: int,
    victim: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def counted(groups: Sequence[Any], **options: Any) -> list[list[Run]]:
        made.append(sum(len(orders) for orders, _ in groups))
        return make_all(groups, **options)

    monkeypatch.setattr(clone_training, "make_all", counted)

    def measured(*names: str) -> dict[str, float]:
        audit = Audit(
            model=victim,
            name="mlp",
            config=AuditConfig(
                defense=names, thief=(thief,), budget=(20,), seeds=1, labelled=0, grid=True
            ),
            source=DataConfig(source="digits"),
            folder=tmp_path / "-".join(names),
            training=BRIEF,
            device="cpu",
        )
        return {cell.defense: cell.accuracy.value for cell in run(audit).result.cells}

    together = measured(*defenses)
    assert sum(made) == lessons
    alone = [measured(name)[name] for name in defenses]
    assert [together[name] for name in defenses] == alone


@pytest.mark.usefixtures("without_figures")
def test_a_gate_fails_the_command_and_says_so_in_junit(
    printed: tuple[dict[str, object], Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, words = printed
    assert main([*words, "--fail-above", "0.01"]) == 3
    assert "behind the best defense" in capsys.readouterr().err
    suite = ElementTree.parse(out / "junit.xml").getroot()
    assert int(suite.get("failures") or 0) > 0
    best = best_defense(read_outcome(out).result)
    assert best is not None
    assert main([*words, "--fail-above", "1"]) == (3 if best[1] > 1 else 0)
    assert main([*words, "--fail-above", "2"]) == 1
    assert "share in [0, 1]" in capsys.readouterr().err


def test_an_estimate_trains_no_clone(
    victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", str(victim.folder), "--data", "digits", "--defense", "none", "--out"]
    words += [str(tmp_path), "--device", "cpu", "--workers", "1", "-q", "--estimate", "--thief"]
    bounds = r"Training: about .* at most, about .* if screening leaves out all thieves that it can"
    for thieves, more, said in (
        ("naive", [], r"1 defense, 1 thief, budgets of(.|\n)*Training: about [^,]* at most\."),
        ("naive,labels,tuned", [], bounds),
        ("naive,labels,tuned", ["--grid"], r"Training: about [^,]* at most\."),
    ):
        assert main([*words, thieves, *more]) == 0
        assert re.search(said, capsys.readouterr().out)
    assert not (tmp_path / "cells").exists()


# Models whose score is known


class Answering:
    """A model that knows the test images, and notes how often it is asked."""

    def __init__(self, how: str) -> None:
        data = load("digits")
        pixels = torch.cat([data.train.images[data.train.rows], data.test.images[data.test.rows]])
        labels = torch.cat([data.train.labels[data.train.rows], data.test.labels[data.test.rows]])
        self.known = {p.numpy().tobytes(): int(y) for p, y in zip(pixels, labels, strict=True)}
        self.how, self.asked = how, 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.asked += len(images)
        answers = np.full((len(images), 10), 0.01, np.float32)
        for row, image in zip(answers, np.rint(images * 255).astype(np.uint8), strict=True):
            truth = self.known[image.tobytes()]
            noise = int(np.random.default_rng(list(image.tobytes())).integers(10))
            row[{"truth": truth, "constant": 3, "noise": noise}[self.how]] = 0.91
        return answers


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(("how", "measurable"), [("truth", True), ("constant", False),
                                                 ("noise", False)])  # fmt: skip
def test_models_of_known_worth(how: str, measurable: bool, tmp_path: Path) -> None:
    model = Answering(how)
    audit = Audit(
        model=FunctionVictim(model, name=how, kind="probabilities"),
        name=how,
        config=AuditConfig(
            defense=("none",), thief=("naive",), budget=(400,), seeds=2, student="mlp"
        ),
        source=DataConfig(source="digits"),
        folder=tmp_path,
        training=Training(epochs=10, device="cpu", precision="fp32"),
        device="cpu",
    )
    result = run(audit).result
    [cell] = result.cells
    assert (cell.recovered is not None) == measurable
    accuracy = result.model.accuracy.value
    if how == "truth":
        assert accuracy == 1
        assert cell.recovered.value > 0.5
        assert cell.recovered_fidelity.value == cell.recovered.value  # the model is the truth
    else:
        assert accuracy < 0.25
        assert result.curves[0].to_half.value is None
    # Each image is asked once, whatever the number of seeds.
    assert model.asked == result.queries
    assert result.queries <= 359 + 2 * 400


# Parts


def test_screening_keeps_the_best_and_those_that_may_be_as_good() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(400)
    hits = {
        "naive": easy < 0.5,
        "labels": easy < 0.55,
        "tuned": easy < 0.9,
        "skeptical": easy < 0.88,
        "augmented": easy < 0.875,
        "repeated": easy < 0.3,
    }
    found = screen({name: hit[None] for name, hit in hits.items()}, 100)
    assert {name for name, screened in found.items() if screened.raced} == {
        *("tuned", "skeptical", "augmented", "naive", "labels"),
    }
    assert found["repeated"].behind == pytest.approx(
        float(hits["skeptical"].mean() - hits["repeated"].mean())
    )
    assert "With 100 queries and one seed" in found["repeated"].note
    # Where two seeds are far apart nothing is sure.
    apart = {name: np.stack([hit, hit]) for name, hit in hits.items()}
    apart["repeated"] = np.stack([easy < 0.3, easy < 0.99])
    assert screen(apart, 100)["repeated"].raced
    apart["repeated"] = np.stack([easy < 0.3, easy < 0.32])
    assert not screen(apart, 100)["repeated"].raced


def test_what_goes_on_at_least_is_cheap() -> None:
    assert fewest({"tuned": 4, "naive": 1, "labels": 1}) == ["naive", "labels"]
    assert fewest({"tuned": 4, "skeptical": 2, "augmented": 1}) == ["augmented", "skeptical"]
    assert fewest({"tuned": 4, "naive": 1, "skeptical": 2}) == ["naive", "skeptical"]
    assert fewest({"tuned": 4}) == ["tuned"]


def test_default_budgets_lie_on_the_ladder() -> None:
    assert AuditConfig(effort="standard").budgets(1437) == (100, 200, 500)
    assert AuditConfig(effort="standard").budgets(100_000) == (1000, 2000, 5000)
    assert AuditConfig(effort="standard").budgets(100_000, channels=3) == (1000, 5000)
    assert AuditConfig(budget=(7, 3, 7)).budgets(10, channels=3) == (3, 7)
    assert AuditConfig(budget=(7, 3, 7)).budgets(10) == (3, 7)
    assert AuditConfig().budgets(9) == (4,)


@pytest.mark.parametrize("effort", EFFORTS)
def test_efforts_name_what_there_is(effort: str) -> None:
    from denature.audit.config import IN_TRAINING
    from denature.extract.strategies.catalogue import STRATEGIES

    preset = EFFORTS[effort]  # type: ignore[index]
    for name in preset.defenses:
        if name != IN_TRAINING:
            chain_of(name)
    assert set(preset.thieves) <= set(STRATEGIES)
    assert len(set(preset.defenses)) == len(preset.defenses)


def test_the_gate_takes_the_defense_that_leaves_least() -> None:
    result = made()
    best = best_defense(result)
    assert best is not None
    values: dict[str, float] = {}
    for worst in result.worst:
        if worst.recovered is not None:
            before = values.get(worst.defense, -1.0)
            values[worst.defense] = max(before, worst.recovered.value)
    assert best == min(values.items(), key=lambda entry: (entry[1], entry[0]))
    ruin = Estimate(0.1, 0.05, 0.2, 100, "images")
    ruined = [
        replace(p, top1_kept=ruin, accuracy=ruin) if p.defense == best[0] else p
        for p in result.defenses
    ]
    second = best_defense(replace(result, defenses=tuple(ruined)))
    assert second is not None
    assert second[0] != best[0]
    suite = ElementTree.fromstring(junit(result, best[1]))
    assert int(suite.get("tests") or 0) == len({(w.defense, w.threat) for w in result.worst})
    assert int(suite.get("failures") or 0) < int(suite.get("tests") or 0)


def test_a_thief_that_is_screened_out_has_a_cell_at_each_budget(
    victim: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drops(hits: Mapping[str, np.ndarray], budget: int) -> dict[str, Screened]:
        return {name: Screened(raced=name != "tuned", behind=0.1) for name in hits}

    monkeypatch.setattr("denature.audit.auditor.screen", drops)
    words = [
        *("audit", str(victim.folder), "--data", "digits", "--defense", "none", "--epochs", "1"),
        *("--thief", "naive,labels,tuned", "--budget", "20,40", "--seeds", "1"),
        *("--labelled", "0", "--out", str(tmp_path), "--workers", "1", "-q", "--json"),
    ]
    assert main(words) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    [note] = [cell["note"] for cell in line["cells"] if cell["thief"] == "tuned"]
    assert re.fullmatch(
        r".* 10.0 points behind .*\. .* of 4 held-out answers", note
    )  # what it chose
    found = [
        (kind, cell["budget"], cell["outcome"])
        for kind in ("cells", "not_measured")
        for cell in line[kind]
        if cell["thief"] == "tuned"
    ]
    assert found == [("cells", 20, "screened out"), ("not_measured", 40, "screened out")]


def test_an_audit_is_read_back_from_its_folder(
    printed: tuple[dict[str, object], Path, list[str]],
) -> None:
    _, out, _ = printed
    outcome = read_outcome(out)
    assert outcome.result.plan.defenses[0] == "none"
    places = [(c.defense, c.thief, c.threat, c.budget) for c in outcome.result.cells]
    assert len(set(places)) == len(places)
    assert {place[:3] for place in places} == {
        (defense, thief, threat)
        for defense in outcome.result.plan.defenses
        for thief in outcome.result.plan.thieves
        for threat in "AB"
    }
    assert len(outcome.verdict) >= 2
