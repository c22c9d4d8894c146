"""The nose detector end to end: a service, its thief, clones of rounded or of older answers."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from denature.cli.app import main
from denature.cli.show import Display
from denature.core.errors import ConfigError, DataError
from denature.core.progress import SILENT
from denature.core.record import find_records
from denature.core.stats import Estimate, mean_over_images
from denature.data import load
from denature.data.landmarks import PLACES
from denature.extract.asking.ledger import read_tallies
from denature.recipes.experiment import Request
from denature.recipes.nose.config import NoseOptions
from denature.recipes.nose.experiment import Nose
from denature.recipes.nose.service_answers import load_recorded
from denature.recipes.nose.settings import SETTINGS, TARGETS, VALUES
from denature.recipes.runner import run
from denature.report.nose import (
    NoseRow,
    NoseTheft,
    NoseTransfer,
    PrecisionPoint,
    by_decimals,
    verdict_on_clones,
    verdict_on_transfer,
)
from denature.report.results import Outcome
from denature.serve.faces import details, shrunk
from denature.train import Normal, Training, train
from tests.evaluations import is_drawn_again

TINY = replace(
    Request(name="nose", scale="smoke", device="cpu", precision="fp32").setting(SETTINGS),
    image_size=16,
    student="mlp",
    student_training=Training(epochs=6, batch_size=16, lr=2e-3, optimizer="adam", evaluate_every=1,
                      device="cpu", precision="fp32"),
    precisions=(-1, 1, 8),
    seeds=2,
)  # fmt: skip


PICTURES = 720
"""As many as a clone needs to be clearly better than the mean place after a few epochs."""


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and what Rekognition would have said, as a script wrote it down."""
    folder = tmp_path_factory.mktemp("harvested")
    data = load("drawn-faces")
    (folder / "faces").mkdir()
    responses: dict[str, Any] = {}
    for row in range(PICTURES):
        picture = data.train.images[row].numpy().transpose(1, 2, 0)
        name = f"person-{row // 16}_{row % 16}.png"
        drawn = Image.fromarray(picture)
        drawn.save(folder / "faces" / name)
        places = dict(zip(PLACES, data.train.labels[row].reshape(-1, 2).tolist(), strict=True))
        key = f"bucket/of/mine/{name}" if row % 2 else name
        responses[key] = {
            "FaceDetails": [details(places, shrunk(drawn, 3, 32), None)],
            "ResponseMetadata": {},
        }
    responses["person-0_0.png"] = {"FaceDetails": []}  # it saw no face there
    (folder / "labels.json").write_text(json.dumps(responses))
    return folder


def test_answers_of_before_are_read_with_their_pictures(harvested: Path) -> None:
    told = load_recorded(harvested / "faces", harvested / "labels.json", size=32, group="(.*)_",
                        progress=SILENT)  # fmt: skip
    assert (told.queries, told.unseen, told.truth) == (PICTURES, 1, None)
    assert len(told.train) + len(told.test) == PICTURES - 1
    assert told.train.labels.shape == (PICTURES - 1, 12)
    assert set(told.train.groups[told.train.rows].tolist()).isdisjoint(  # type: ignore[index]
        told.test.groups[told.test.rows].tolist()  # type: ignore[index]
    )
    nose = told.dataset(TARGETS["nose"])
    assert nose.classes == ("nose.x", "nose.y")
    wanted = load("drawn-faces").train.labels[1:PICTURES, -2:]
    assert torch.allclose(nose.train.labels, wanted, atol=1e-6)
    six = told.dataset(TARGETS["six values"])
    assert six.classes == (
        "brightness",
        "sharpness",
        *(f"{e}.{a}" for e in PLACES[:2] for a in "xy"),
    )
    assert 0 < six.train.labels[:, 0].min() < six.train.labels[:, 0].max() < 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "cannot be read"),
        ("[]", 'no JSON of the form {"path or key"'),
        ('{"a.png": {"Faces": []}}', 'no JSON of the form {"path or key"'),
        ("3", "it is 3"),
        ('{"a.png": {"Faces": []}}', "the entry 'a.png' is {"),
        ('{"a.png": {"FaceDetails": []}, "b.png": "x"}', "the entry 'b.png' is \"x\""),
        ('{"a.png": {"FaceDetails": 3, "Error": "x"}}', "the entry 'a.png'"),
        ('{"person-0_1.png": {"FaceDetails": []}}', "places and quality of 0 faces"),
    ],
)
def test_what_is_no_harvest_is_told(harvested: Path, tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "labels.json"
    file.write_text(text)
    with pytest.raises(DataError, match=why):
        load_recorded(harvested / "faces", file, size=32, group=None, progress=SILENT)


@pytest.mark.parametrize(
    "failure",
    [
        {"Error": {"Code": "InvalidImageFormatException"}},
        {"error": "timed out"},
        {"__type": "ThrottlingException", "message": ""},
        {"FaceDetails": None, "errorMessage": "x"},
        None,
    ],
)
def test_saved_errors_are_left_out_counted_and_told(
    harvested: Path, tmp_path: Path, failure: object, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = json.loads((harvested / "labels.json").read_text())
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"bad.png": failure, **responses}))
    told = load_recorded(harvested / "faces", file, size=32, group=None, progress=Display())
    assert told.queries == len(responses) + 1
    assert len(told.train) + len(told.test) == len(responses) - told.unseen
    assert f"1 of {len(responses) + 1} entries hold an error" in capsys.readouterr().err
    file.write_text(json.dumps({f"{number}.png": failure for number in range(20)}))
    with pytest.raises(DataError, match="of 0 faces"):
        load_recorded(harvested / "faces", file, size=32, group=None, progress=SILENT)


def test_a_saved_answer_in_pixels_is_named(harvested: Path, tmp_path: Path) -> None:
    responses = json.loads((harvested / "labels.json").read_text())
    for mark in responses["person-0_2.png"]["FaceDetails"][0]["Landmarks"]:
        mark["X"] *= 640
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(responses))
    with pytest.raises(DataError, match=r"the entry 'person-0_2\.png' holds .*fractions"):
        load_recorded(harvested / "faces", file, size=32, group=None, progress=SILENT)


@pytest.mark.parametrize("key", ["nobody.png", "../labels.json", "/etc/passwd"])
def test_keys_lead_to_pictures_of_the_folder_only(
    harvested: Path, tmp_path: Path, key: str
) -> None:
    responses = json.loads((harvested / "labels.json").read_text())
    responses[key] = responses["person-0_2.png"]
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(responses))
    with pytest.raises(DataError, match=f"There is no picture {key} in"):
        load_recorded(harvested / "faces", file, size=32, group=None, progress=SILENT)


def recorded(harvested: Path, out: Path, **options: Any) -> Nose:
    """The experiment on recorded answers."""
    given = NoseOptions(
        pictures=harvested / "faces", labels=harvested / "labels.json", group="(.*)_", **options
    )
    return Nose(setting=TINY, options=given, out=out)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone that takes pictures in colour."""
    out = tmp_path_factory.mktemp("backbone") / "colours"
    drawn = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    brief = Training(epochs=1, device="cpu")
    train("sepcnn@width=8", (drawn, np.arange(64) % 2), Normal(), brief, out=out)
    return out


@pytest.fixture(scope="module")
def copied(harvested: Path, colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    out = tmp_path_factory.mktemp("nose")
    digits = tmp_path_factory.mktemp("backbone") / "digits"
    brief = Training(epochs=1, device="cpu")
    train("sepcnn@width=8", "digits", Normal(), brief, out=digits)
    with pytest.raises(ConfigError, match="takes images of 1 channels"):
        run(recorded(harvested, out, backbone=(str(digits),)))
    return run(recorded(harvested, out, backbone=(str(colours),)))


@pytest.mark.slow
def test_clones_learn_from_answers_of_before(copied: Outcome) -> None:
    lines = {(line[0], line[1]): line for line in copied.lines}
    assert not any(who == "the service itself" for _, who in lines)
    for target in TARGETS:
        assert lines[target, "clone from scratch"][-1] == "2"
        # Measured: 0.55 to 0.66 of it.
        clone, mean = (error_of(copied, target, who) for who in ("clone from scratch", MEAN))
        assert clone < 0.85 * mean
    assert copied.result.theft.queries == PICTURES
    assert copied.result.theft.money == pytest.approx(PICTURES / 1000)


@pytest.mark.slow
def test_a_backbone_is_held_against_its_own_network_from_scratch(copied: Outcome) -> None:
    clones = [(line[1], line[2]) for line in copied.lines if line[0] == "nose"][1:]
    names = [name.partition("colours")[2] or name for name, _ in clones]
    assert names == ["clone from scratch", "clone from scratch, sepcnn@width=8", ", frozen",
                     ", fine-tuned"]  # fmt: skip
    assert [net for _, net in clones] == ["mlp", *["sepcnn@width=8"] * 3]
    frozen, tuned = copied.result.transfers
    assert error_of(copied, "nose", clones[2][0]) - error_of(copied, "nose", clones[1][0]) == (
        pytest.approx(frozen.difference.value, abs=1e-4)
    )
    assert tuned.name.endswith("colours, fine-tuned")
    assert sum("than the same network from scratch: " in line for line in copied.verdict) == 2


@pytest.mark.slow
def test_each_start_has_the_rate_that_validates_best(copied: Outcome) -> None:
    """Of first clones that hold pictures out; what the others learn is never held out."""
    records = find_records([copied.folder / "clones"])
    tried = [record for record in records if record.chosen_on == "validation"]
    assert {record.seed for record in tried} == {0}
    rates = {0.002, 0.0006}
    assert {round(record.config["training"]["lr"], 9) for record in tried} == rates
    assert len(tried) == 4 * len(rates)
    best: dict[tuple[str, str, bool], tuple[float, float]] = {}
    for record in tried:
        training = record.config["training"]
        backbone = record.inputs["backbone"].digest if "backbone" in record.inputs else ""
        start = (record.net.name, backbone, training["frozen"])
        errors = [e.validation_error for e in record.history if e.validation_error is not None]
        best[start] = min(best.get(start, (1.0, 0.0)), (min(errors), training["lr"]))
    rows = [row for row in copied.result.rows if row.target == "nose" and row.lr is not None]
    chosen = sorted(lr for _, lr in best.values())
    assert sorted(row.lr for row in rows) == pytest.approx(chosen)
    assert all(line[-2] for line in copied.lines[1:] if line[1].startswith("clone"))


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-0.03, -0.01, " better"), (0.01, 0.02, " worse"), (-0.01, 0.02, " no better and no worse")],
)
def test_a_backbone_helps_where_the_interval_says_so(low: float, high: float, word: str) -> None:
    difference = Estimate((low + high) / 2, low, high, 3, "seeds")
    said = verdict_on_transfer(NoseTransfer(name="from a, frozen", difference=difference))
    assert f"Clones from a, frozen, are{word}" in said


MEAN = "always the mean place"


def error_of(outcome: Outcome, target: str, who: str) -> float:
    """Error from the service in a line of the table, as a share of the picture's side."""
    [line] = [line for line in outcome.lines if (line[0], line[1]) == (target, who)]
    return float(line[3].split()[0]) / 100


@pytest.mark.slow
def test_each_trial_has_a_row_and_what_it_could_know(copied: Outcome) -> None:
    rows = list(csv.DictReader((copied.folder / "precision.csv").read_text().splitlines()))
    assert [(row["index"], row["precision"], row["trial"]) for row in rows] == [
        (str(number), precision, trial)
        for number, (trial, precision) in enumerate(
            (trial, precision) for trial in "01" for precision in ("-1", "1", "8")
        )
    ]
    for row in rows:
        assert float(row["mae_best"]) <= float(row["mae_last"])
        assert row["mae_last_people"] == ""
        if row["precision"] == "-1":
            # Every target was 0, and it answers 0: it knew of no mean either.
            assert float(row["mae_last"]) == pytest.approx(0.5, abs=0.05)
    fine = [float(row["mae_last"]) for row in rows if row["precision"] == "8"]
    assert max(fine) < 0.85 * error_of(copied, "nose", MEAN)
    assert np.mean(fine) == pytest.approx(error_of(copied, "nose", "clone from scratch"), rel=0.1)


@pytest.mark.slow
def test_the_page_shows_table_curve_pictures_and_epochs(copied: Outcome) -> None:
    page = (copied.folder / "report.html").read_text()
    assert page.count("data:image/png;base64") == 1
    assert page.count("data:image/gif;base64") == 1
    assert "decimals of the answers that it learned from" in page
    assert "at 0 it is 0 or 1" in page
    with Image.open(copied.folder / "epochs.gif") as gif:
        assert gif.n_frames == TINY.student_training.epochs  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_is_finished_is_not_made_again(
    copied: Outcome, harvested: Path, colours: Path
) -> None:
    runs = {it: it.stat().st_mtime_ns for it in copied.folder.glob("clones/*/record.json")}
    speed = (copied.folder / "speed.json").read_text()
    assert is_drawn_again(copied)
    again = run(recorded(harvested, copied.folder.parent, backbone=(str(colours),)))
    assert again.result == copied.result
    assert {it: it.stat().st_mtime_ns for it in copied.folder.glob("clones/*/record.json")} == runs
    assert (copied.folder / "speed.json").read_text() == speed


def test_the_verdict_says_from_which_decimal_on_rounding_matters() -> None:
    def estimate(value: float) -> Any:
        return mean_over_images([value, value])

    errors = {-1: 0.5, 0: 0.25, 1: 0.03, 2: 0.021, 3: 0.02, 8: 0.02}
    points = [
        PrecisionPoint(decimals=d, trial=0, last=e + s, best=e, people=None)
        for d, e in errors.items()
        for s in (0, 1e-4)
    ]
    line = NoseRow(name="clone from scratch", target="nose", service=estimate(0.02), parameters=9)
    theft = NoseTheft(
        victim="service", queries=10, answers=8, tests=2, unseen=0, money=None, dated="", clone=(),
        service=(),
    )  # fmt: skip
    said = " ".join(verdict_on_clones([line], points, estimate(0.05), theft))
    assert "with 2 decimals or more, its error, " in said
    assert "is within a tenth of the 2.00 % at 8" in said
    assert "at 1 it is 3.00 %" in said
    assert by_decimals(points, estimate(0.05)) is not None


def test_what_is_missing_or_too_much_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "nose", "--out", str(tmp_path), "-q"]
    for more, why in (
        (["--scale", "cpu"], "Scale cpu needs pictures of faces"),
        (["--scale", "huge"], "There is no scale 'huge'"),
        (["--pictures", str(tmp_path)], "are --pictures and --labels; name both"),
        (["--pictures", "a", "--labels", "b", "--data", "c"], "leave one of them out"),
        (["--scale", "smoke", "--seeds", "0"], "seeds is 0"),
        (["--data", "digits"], "points are of landmarks only"),
    ):
        assert main([*words, *more]) == 1
        assert why in capsys.readouterr().err
    assert set(VALUES) >= {value for values in TARGETS.values() for value in values}
    assert {"smoke", "cpu", "paper"} == set(SETTINGS)


@pytest.mark.slow
def test_a_nose_detector_is_served_asked_and_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it over a real wire; the second time nothing is asked, trained or timed."""
    words = ["reproduce", "nose", "--scale", "smoke", "--out", str(tmp_path), "--device", "cpu"]
    assert main([*words, "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = {(line[0], line[1]): line for line in told["lines"]}

    def error(target: str, who: str, column: int) -> float:
        return float(lines[target, who][column].split()[0])

    for target in ("nose", "eyes and nose"):
        assert error(target, "clone from scratch", 3) < 0.75 * error(
            target, "always the mean place", 3
        )
        assert error(target, "the service itself", 4) < error(target, "clone from scratch", 4)
    folder = tmp_path / "smoke"
    logged = [json.loads(line) for line in (folder / "service.jsonl").read_text().splitlines()]
    asked = {it.purpose: it.queries for it in read_tallies(folder / "ledger.sqlite")}
    assert asked == {"train": 576, "measure": 150}
    by_precision = {it["decimals"]: it["last"] for it in told["trials"]}
    assert by_precision[-1] > by_precision[0] > by_precision[8]
    assert abs(by_precision[2] - by_precision[8]) < 0.01
    assert main([*words, "--json", "-q"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again | {"seconds": 0} == told | {"seconds": 0}
    after = [json.loads(line) for line in (folder / "service.jsonl").read_text().splitlines()]
    assert after == logged
    assert np.isclose(told["theft"]["money"], 0.726)
