"""What the tutorial claims that its commands find, found by them again."""

from pathlib import Path

import pytest

from denature.core.record import read_record
from denature.recipes.demo import Demo
from denature.recipes.runner import run
from denature.report import summarise
from denature.report.divergence import warning
from tests.test_docs import TUTORIAL, follow


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_tutorial_find_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one test, since the claims are about the runs that the commands leave."""
    monkeypatch.chdir(tmp_path)
    follow(TUTORIAL)
    the_nasty_teacher_spoils_a_student_and_no_skeptical_one()
    the_effect_on_the_digits_is_real()


def the_nasty_teacher_spoils_a_student_and_no_skeptical_one() -> None:
    """Measured: 95.0 % for the teacher; 48.2, 97.2 and 96.7 % for its students."""
    nasty, student, label_student, skeptic = (
        read_record(Path("runs") / name)
        for name in ("nasty", "student", "label-student", "skeptic")
    )
    assert nasty.accuracy is not None
    assert student.accuracy is not None
    assert label_student.accuracy is not None
    assert skeptic.accuracy is not None
    assert warning(nasty) is None
    assert student.accuracy.value < nasty.accuracy.value - 0.1
    assert label_student.accuracy.value > student.accuracy.value + 0.1
    assert skeptic.accuracy.value > student.accuracy.value + 0.1


def the_effect_on_the_digits_is_real() -> None:
    """On the first seed; verdicts over several are tested with words, and those of docs/demo.md.

    Measured: alone 98.9 and 97.8 %, of the nasty teacher 39.3 and 82.7 %.
    """
    summary = summarise(run(Demo(folder=Path("runs/small-demo"), seeds=1)).records)
    nasty, normal = (summary.teacher(kind) for kind in ("nasty", "normal"))
    assert nasty is not None
    assert normal is not None
    assert normal.accuracy.value - nasty.accuracy.value <= 0.03
    falls = []
    for net in ("cnn", "mlp"):
        students = [
            summary.student(net, *how)
            for how in (
                ("none", "none"),
                ("normal", "soft"),
                ("nasty", "soft"),
                ("nasty", "labels"),
            )
        ]
        alone, taught, spoiled, labelled = (row.accuracy.value for row in students if row)
        assert alone >= 0.97
        assert min(taught, labelled) >= alone - 0.01
        falls.append(alone - spoiled)
    assert max(falls) >= 0.05
