"""Nasty teachers by default: their schedule, how far they are from their adversary, warnings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from denature.cli.app import main
from denature.core.stats import Estimate
from denature.data import Dataset, load
from denature.losses.soft import softened_divergence
from denature.recipes.paper.settings import SETTINGS
from denature.recipes.robustness_and_extraction import SETTINGS as EXTRACTION_SETTINGS
from denature.report.divergence import SPOILS_FROM, not_nasty, warning
from denature.report.paper import Analysis, PaperResult
from denature.report.results import page_of
from denature.train import Distilled, Nasty, Normal, Run, Training, load_run, train
from denature.train.config import late_step

BRIEF = Training(epochs=3, batch_size=64, fraction=0.3, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def adversary() -> Run:
    return train("mlp", "digits", Normal(), BRIEF)


@pytest.fixture(scope="module")
def harmless(adversary: Run) -> Run:
    return train("mlp", "digits", Nasty(temperature=20), BRIEF, source=adversary)


def schedule_of(run: Run) -> tuple[str, list[int]]:
    training = run.record.config["training"]
    return training["schedule"], list(training["milestones"])


def test_nasty_teachers_get_a_late_step_and_others_one_cycle(
    adversary: Run, harmless: Run, digits: Dataset
) -> None:
    assert schedule_of(harmless) == ("step", [2])
    assert schedule_of(adversary) == ("one-cycle", [])
    student = train("mlp", digits, Distilled(), BRIEF, source=adversary)
    assert schedule_of(student) == ("one-cycle", [])
    chosen = replace(BRIEF, epochs=1, schedule="constant")
    assert schedule_of(train("mlp", digits, Nasty(), chosen, source=adversary)) == ("constant", [])
    one = train("mlp", digits, Nasty(), replace(BRIEF, epochs=1), source=adversary)
    assert schedule_of(one) == ("one-cycle", [])  # there is no room for a step


def test_a_normal_run_by_default_is_the_run_that_names_one_cycle(
    adversary: Run, digits: Dataset
) -> None:
    named = train("mlp", digits, Normal(), replace(BRIEF, schedule="one-cycle"))
    assert named.record.id == adversary.record.id


@pytest.mark.parametrize(("epochs", "milestone"), [(2, 1), (3, 2), (9, 6), (12, 8), (30, 19)])
def test_the_step_is_where_the_demo_has_it(epochs: int, milestone: int) -> None:
    assert late_step(epochs) == milestone


def test_teachers_have_a_step_at_every_scale() -> None:
    short = [setting.teacher_training for scale, setting in SETTINGS.items() if scale != "paper"]
    for teacher_training in (
        *short,
        *(setting.teacher_training for setting in EXTRACTION_SETTINGS.values()),
    ):
        assert teacher_training.schedule == "step"


def test_the_record_holds_how_far_a_nasty_teacher_is_from_its_adversary(
    adversary: Run, harmless: Run, digits: Dataset
) -> None:
    assert adversary.record.divergence is None
    found = harmless.record.divergence
    assert found is not None
    images = digits.test.images[digits.test.rows].float() / 255
    with torch.no_grad():
        nasty, normal = harmless.network(images), adversary.network(images)
    wanted = softened_divergence(nasty, normal, temperature=20).mean()
    assert found.value == pytest.approx(float(wanted), rel=1e-3)
    assert (found.n, found.over) == (len(digits.test), "images")


def test_a_teacher_that_is_not_nasty_is_told_and_one_that_is_not(
    adversary: Run, harmless: Run
) -> None:
    said = warning(harmless.record)
    assert said is not None
    assert said.startswith("not nasty: tau^2 KL from its adversary is only 0.")
    just = replace(harmless.record, divergence=Estimate(4.97, 4.9, 5.1, 360, "images"))
    assert "is only 4.97 nats" in (warning(just) or "")  # and not 5, from which it would be nasty
    assert "is at most 4.97 nats" in not_nasty([just])[0]
    far = Estimate(2 * SPOILS_FROM, SPOILS_FROM, 3 * SPOILS_FROM, 360, "images")
    nasty = replace(harmless.record, divergence=far)
    assert warning(nasty) is None
    assert warning(adversary.record) is None
    assert not_nasty([adversary.record, nasty]) == []
    [sentence] = not_nasty([adversary.record, nasty, harmless.record])
    assert sentence.startswith("1 of 2 nasty teachers with an omega above 0 is not nasty")
    pictures = PaperResult(
        name="tsne", scale="smoke", about="Maps.", differs="Digits.", cells=(),
        analysis=Analysis(lines=(("Teacher",), ("nasty",)), note=""),
    )  # fmt: skip
    [caveat] = page_of(pictures, [adversary.record, harmless.record]).verdict
    assert caveat.startswith("The nasty teacher with an omega above 0 is not nasty")


def test_the_command_says_that_a_teacher_is_not_nasty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "digits", "--epochs", "2", "--fraction", "0.3", "--device", "cpu", "-q"]
    assert main(["train", "mlp", *words, "--out", str(tmp_path / "adversary")]) == 0
    assert "not nasty" not in capsys.readouterr().err
    pushed = ["nasty", "mlp", *words, "--adversary", str(tmp_path / "adversary")]
    assert main([*pushed, "--out", str(tmp_path / "nasty")]) == 0
    out, err = capsys.readouterr()
    assert "tau^2 KL from its adversary" in out
    assert f"{tmp_path / 'nasty'} is not nasty: tau^2 KL from its adversary is only" in err


def test_of_one_test_image_nothing_is_said_of_the_divergence(tmp_path: Path) -> None:
    """An interval over one image has no end, which JSON cannot hold."""
    digits = load("digits")
    one = replace(digits, test=digits.test.take(np.array([0])), digest="one")
    brief = Training(epochs=1, device="cpu", precision="fp32")
    normal = train("mlp", one, Normal(), brief, out=tmp_path / "normal")
    run = train("mlp", one, Nasty(), brief, source=normal, out=tmp_path / "nasty")
    assert run.record.divergence is None
    assert (run.accuracy.n, load_run(tmp_path / "nasty").record.divergence) == (1, None)
