"""What the tutorial claims that its commands find, found by them again."""

from pathlib import Path

import pytest

from denature.core.record import read_record
from denature.recipes.demo import Demo
from denature.recipes.runner import run
from denature.report import summarise
from denature.report.divergence import warning
from denature.report.words import verdict_on_students
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
    """The demo's default of three seeds, the first of which was made by the command."""
    first = Path("runs/small-demo/seed-0/teacher-nasty/record.json")
    made = first.stat().st_mtime_ns
    found = run(Demo(folder=Path("runs/small-demo")))
    assert first.stat().st_mtime_ns == made
    summary = summarise(found.records)
    nasty, normal = (summary.teacher(kind) for kind in ("nasty", "normal"))
    assert nasty is not None
    assert normal is not None
    assert normal.accuracy.value - nasty.accuracy.value <= 0.03
    falls = []
    for net in ("cnn", "mlp"):
        alone, taught, spoiled = (
            summary.student(net, *how)
            for how in (("none", "none"), ("normal", "soft"), ("nasty", "soft"))
        )
        assert alone is not None
        assert taught is not None
        assert taught.difference is not None
        assert spoiled is not None
        assert spoiled.difference is not None
        assert alone.accuracy.value >= 0.97
        assert taught.difference.high >= 0
        falls.append(-spoiled.difference.value)
    assert max(falls) >= 0.05
    students, labels = verdict_on_students(summary)
    assert "spoils" in students
    assert "does not protect its labels" in labels
