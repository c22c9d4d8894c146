"""One self-contained HTML file from records: no script, no font, no request."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.record import Record
from denature.report import figures, words
from denature.report.divergence import not_nasty
from denature.report.figures import Draw
from denature.report.kinds import answers_of, objective_of
from denature.report.summary import summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(
    records: Sequence[Record], *, title: str = "What students learned", caveat: str | None = None
) -> str:
    """The report of any runs as HTML text.

    Args:
        records: records of the runs.
        title: heading of the report.
        caveat: a sentence that must stand beside the verdict.

    Raises:
        ConfigError: there are no records.
    """
    if not records:
        raise ConfigError("No run was given for the report; name at least one run's folder.")
    summary = summarise(records)
    nasty = next((r for r in records if r.kind == "nasty"), None)
    drawn = {name: figures.svg(draw) for name, draw in figures_of(records).items()}
    return _page(
        "page",
        title=title,
        lead=_lead(records),
        verdict=[*words.verdict(summary), *not_nasty(records), *([caveat] if caveat else [])],
        students=words.student_table(summary),
        teachers=words.teacher_table(summary),
        figures=drawn,
        temperature=f"{_temperature(nasty):g}",
        intervals=words.INTERVALS,
        curve_note=_curve_note(records),
        runs=_run_table(records),
        provenance=_provenance(records),
        fingerprint=_fingerprint(records, title, caveat),
    )


def figures_of(records: Sequence[Record]) -> dict[str, Draw]:
    """Figures of a report by file name; a figure without data is drawn as None."""
    return {
        "accuracies": partial(figures.accuracies, summarise(records)),
        "responses": partial(_responses, records),
        "curves": partial(figures.training_curves, records),
    }


def _responses(records: Sequence[Record]) -> "Figure | None":
    nasty = next((r for r in records if r.kind == "nasty"), None)
    normal = None if nasty is None else _adversary(nasty, records)
    if nasty is None or normal is None:
        return None
    return figures.logit_responses(normal, nasty, temperature=_temperature(nasty))


def render_experiment(
    records: Sequence[Record],
    *,
    title: str,
    about: str,
    differs: str,
    verdict: Sequence[str],
    lines: Sequence[Sequence[str]],
    note: str,
    drawn: Sequence[str],
) -> str:
    """An experiment of a paper as HTML text: its figures and its table."""
    return _page(
        "experiment",
        title=title,
        lead=_lead(records),
        about=about,
        differs=differs,
        verdict=verdict,
        lines=lines,
        note=note,
        figures=drawn,
        provenance=_provenance(records),
        fingerprint=_fingerprint(records, title),
    )


def render_robustness(
    records: Sequence[Record],
    *,
    title: str,
    about: str,
    verdict: Sequence[str],
    lines: Sequence[Sequence[str]],
    note: str,
    drawn: Sequence[str],
    checks: Sequence[tuple[str, Sequence[object]]],
) -> str:
    """Networks under attack as HTML text; a check holds its name, numbers and sentences."""
    return _page(
        "robustness",
        title=title,
        lead=_lead(records),
        about=about,
        verdict=verdict,
        lines=lines,
        note=note,
        figures=drawn,
        checks=checks,
        provenance=_provenance(records),
        fingerprint=_fingerprint(records, title),
    )


def _page(name: str, **values: object) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("denature.report", "."), autoescape=True, undefined=StrictUndefined
    )
    return pages.get_template(f"{name}.html.jinja").render(**values)


def write_report(
    records: Sequence[Record], path: Path, *, title: str | None = None, caveat: str | None = None
) -> Path:
    """Write the report of `records` to `path`, atomically; an unchanged report stays as is."""
    title = title or "What students learned"
    known = _fingerprint(records, title, caveat).encode()
    if not (path.is_file() and known in path.read_bytes()):
        write_text(path, render(records, title=title, caveat=caveat))
    return path


def _fingerprint(records: Sequence[Record], title: str, caveat: str | None = None) -> str:
    """A digest of all that a report is made of, our code included."""
    digest = hashlib.sha256(f"{title}\n{caveat}".encode())
    for record in records:
        digest.update(repr(record).encode())
    for file in sorted(Path(__file__).parent.glob("*.[pj]*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _adversary(nasty: Record, records: Sequence[Record]) -> Record | None:
    digest = nasty.inputs["adversary"].digest
    return next((r for r in records if r.net.digest == digest), None)


def _temperature(nasty: Record | None) -> float:
    return 1.0 if nasty is None else float(objective_of(nasty).temperature)


def _lead(records: Sequence[Record]) -> str:
    data = {
        f"{r.data.source} ({r.data.train:,} training and {r.data.test:,} test images)"
        for r in records
        if r.data
    }
    seconds = sum(r.seconds for r in records)
    return f"{len(records)} runs on {'; '.join(sorted(data)) or 'no data'}; {seconds:.0f} s in all."


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
        without = {"labels": ", labels only", "dreams": ", without data"}
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


def _provenance(records: Sequence[Record]) -> str:
    first = records[0].environment
    versions = ", ".join(f"{k} {v}" for k, v in sorted(first.get("versions", {}).items()))
    digests = sorted({r.data.digest for r in records if r.data})
    return (
        f"{first.get('device', '')}; {versions}; commit {first.get('commit') or 'of a release'}; "
        f"data {', '.join(digests) or 'none'}; started {records[0].started}."
    )
