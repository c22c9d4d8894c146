"""The report of any runs: what students learned, their teachers, and the runs themselves."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from denature.core.errors import ConfigError
from denature.core.record import Record
from denature.core.redact import record_without_paths
from denature.core.text import counted
from denature.report import figures, words
from denature.report.divergence import not_nasty
from denature.report.kinds import answers_of, objective_of
from denature.report.page import Page, Plot, Table
from denature.report.summary import summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAUGHT, ALONE = "What students learned", "Trained networks"
"""Titles of runs of which one learned from a teacher, and of others."""


def page(records: Sequence[Record], *, title: str | None = None, caveat: str | None = None) -> Page:
    """The page of any runs.

    Args:
        records: records of the runs.
        title: heading of the report; by default by what the runs learned from.
        caveat: a sentence that must stand beside the verdict.

    Raises:
        ConfigError: there are no records.
    """
    if not records:
        raise ConfigError("No run was given for the report; name at least one run's folder.")
    records = [record_without_paths(record) for record in records]
    summary = summarise(records)
    nasty = next((r for r in records if r.kind == "nasty"), None)
    students = words.student_table(summary)
    has_students = len(students) > 1
    taught = any(row.teacher != "none" for row in summary.students)
    blocks = (
        Table(
            heading="The students" if taught else "The networks",
            lines=students,
            note=f"Accuracies in percent, differences in points. {words.INTERVALS}",
        ),
        Plot(
            name="accuracies",
            draw=partial(figures.accuracies, summary),
            caption="Accuracy of each student on the test split, with its 95 % interval.",
        ),
        Table(heading="The teachers", lines=words.teacher_table(summary)),
        Plot(
            heading="Answers of the teachers",
            name="responses",
            draw=partial(_responses, records),
            caption=f"Probabilities at temperature {_temperature(nasty):g} for the first test "
            "images of their classes. If the nasty teacher has peaks besides the right class, a "
            "student that imitates the whole answer learns those too.",
        ),
        Plot(
            heading="Training",
            name="curves",
            draw=partial(figures.training_curves, records),
            caption=f"One line per run. {_curve_note(records)}",
        ),
        Table(
            heading="The runs",
            lines=_run_table(records),
            folded=f"{counted(len(records), 'run')}: seeds, settings, digests",
        ),
    )
    verdict = words.verdict_on_students(summary)
    return Page(
        title=title or (TAUGHT if taught else ALONE),
        summary=words.headline(verdict) or words.measured(summary),
        verdict=[*verdict, *not_nasty(records), *([caveat] if caveat else [])],
        blocks=blocks if has_students else blocks[2:],
        records=records,
    )


def _responses(records: Sequence[Record]) -> "Figure | None":
    nasty = next((r for r in records if r.kind == "nasty"), None)
    normal = None if nasty is None else _adversary(nasty, records)
    if nasty is None or normal is None:
        return None
    return figures.logit_responses(normal, nasty, temperature=_temperature(nasty))


def _adversary(nasty: Record, records: Sequence[Record]) -> Record | None:
    digest = nasty.inputs["adversary"].digest
    return next((r for r in records if r.net.digest == digest), None)


def _temperature(nasty: Record | None) -> float:
    return 1.0 if nasty is None else float(objective_of(nasty).temperature)


def _curve_note(records: Sequence[Record]) -> str:
    chosen = {record.chosen_on for record in records}
    if "test" in chosen:
        return "Some runs kept the epoch that was best on the test split; their accuracy is biased."
    if "validation" in chosen:
        return "Where a checkpoint was chosen, a validation split chose it, never the test split."
    return "The last epoch counts; the test split chose no epoch."


def _run_table(records: Sequence[Record]) -> list[list[str]]:
    lines = [["Run", "Seed", "Accuracy %", "Epoch", "Seconds", "Images/s", "Weights"]]
    for record in records:
        teacher = record.inputs.get("teacher")
        source = f" from {teacher.kind} {teacher.net}" if teacher else ""
        if record.victim is not None:
            source = f" from {answers_of(record)} of {record.victim.net}"
        without = {"labels": ", labels only", "synthetic": ", without data"}
        source += without.get(answers_of(record), "")
        lines.append(
            [
                f"{record.kind} {record.net.name}{source}",
                str(record.seed if record.seed is not None else ""),
                words.marked(words.percent(record.accuracy), record.chosen_on == "test")
                if record.accuracy
                else words.score(record),
                str(record.chosen_epoch or ""),
                f"{record.seconds:.1f}",
                f"{record.images_per_second:,.0f}" if record.images_per_second else "",
                record.net.digest,
            ]
        )
    return lines
