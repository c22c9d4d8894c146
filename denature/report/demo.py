"""The demo as a page: the report of its runs, with the caveat that its verdict needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from denature.core.record import Record
from denature.core.stats import Estimate
from denature.report import runs
from denature.report.page import Page
from denature.report.summary import summarise


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentScore:
    """All seeds of one student."""

    student: str
    teacher: str
    answers: str
    accuracy: Estimate
    seeds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherScore:
    """All seeds of one teacher."""

    accuracy: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """Accuracies of the demo's teachers and students."""

    result_type: ClassVar[str] = "demo"
    caveat: str
    """A sentence that must stand beside the verdict."""
    teachers: Mapping[str, TeacherScore]
    students: tuple[StudentScore, ...]

    @staticmethod
    def of(records: Sequence[Record], *, caveat: str) -> "DemoResult":
        summary = summarise(records)
        return DemoResult(
            caveat=caveat,
            teachers={row.kind: TeacherScore(accuracy=row.accuracy) for row in summary.teachers},
            students=tuple(
                StudentScore(
                    student=row.net, teacher=row.teacher, answers=row.answers,
                    accuracy=row.accuracy, seeds=row.seeds,
                )
                for row in summary.students
            ),
        )  # fmt: skip


def page(result: DemoResult, records: Sequence[Record]) -> Page:
    return runs.page(records, title="A nasty teacher and its students", caveat=result.caveat)
