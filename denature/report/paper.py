"""An experiment of the paper as a page: a table or curves of its runs, or an analysis of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from denature.core.record import Record
from denature.report import analysis_figures, figures, paper_figures
from denature.report.cells import ALONE, NOTE, TableCell, cells_table, hazards, marks, summarised
from denature.report.divergence import not_nasty
from denature.report.figures import Draw
from denature.report.page import Page, Plot, Table
from denature.report.words import headline


@dataclass(frozen=True, kw_only=True, slots=True)
class Map:
    """Test images in two dimensions, as one layer of one teacher sees them."""

    title: str
    points: tuple[tuple[float, float], ...]
    """A point for each image, without unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGrid:
    """Images from the weights of one teacher, a column for each class."""

    name: str
    """File name of the figure, without suffix."""
    title: str
    pngs: tuple[str, ...]
    """PNG files in base64; image i is of class i modulo the number of classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """Table and contents of the figures of an analysis."""

    lines: tuple[tuple[str, ...], ...]
    """A table: header and rows."""
    note: str
    """Explanation of the table."""
    temperature: float | None = None
    """Of the logit responses of the two teachers, which their records hold; None without them."""
    maps: tuple[Map, ...] = ()
    labels: tuple[int, ...] = ()
    """Class of each image in the maps."""
    grids: tuple[ImageGrid, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperResult:
    """One experiment of the paper: its cells, or the analysis of its networks."""

    result_type: ClassVar[str] = "paper"
    name: str
    scale: str
    about: str
    differs: str
    cells: tuple[TableCell, ...]
    axis: str | None = None
    """Axis label of an ablation, with its unit; None for a table."""
    against: str = ALONE
    """Name of the baseline of students' differences."""
    decides: str = ""
    """Beginning of the rows that the verdict is about; all by default."""
    analysis: Analysis | None = None


def page(result: PaperResult, records: Sequence[Record]) -> Page:
    """Figure and table of the experiment, its verdict with caveats, and the training curves."""
    cells, analysis, axis = result.cells, result.analysis, result.axis
    decisive = [cell for cell in cells if cell.row.startswith(result.decides)]
    sentence = "" if analysis else summarised(decisive, against=result.against, axis=axis)
    found = [sentence] * bool(sentence) + hazards(cells, axis=axis) + not_nasty(records)
    if analysis is None:
        by = "" if axis is None else f" by {axis}"
        lines = cells_table(cells, against=result.against, axis=axis)
        main = Table(heading=f"Accuracies{by}", lines=lines, note=NOTE)
        draw: Draw = partial(paper_figures.bars, cells)
        if axis is not None:
            draw = partial(paper_figures.curves, cells, axis=axis)
        drawn = [Plot(name=result.name, draw=draw, caption=_caption(result))]
    else:
        main = Table(heading="Measurements", lines=analysis.lines, note=analysis.note)
        drawn = _drawn(result.name, analysis, records)
    drawn.append(
        Plot(
            name="training-curves",
            draw=partial(figures.training_curves, records),
            caption="Accuracy by epoch, one line per run.",
        )
    )
    return Page(
        title=result.about.rstrip("."),
        summary=headline(found) if analysis is None else "",  # its pictures claim nothing
        about=f"Experiment {result.name} at scale {result.scale}.",
        differs=result.differs,
        verdict=[*marks(records), *found],
        blocks=[*drawn, main],
    )


def _caption(result: PaperResult) -> str:
    against = "source of the training" if result.axis is None else result.axis
    return f"Accuracy on the test split by {against}, with 95 % intervals."


def _drawn(name: str, analysis: Analysis, records: Sequence[Record]) -> list[Plot]:
    """The figures of an analysis."""
    drawn = [
        Plot(
            name=grid.name,
            draw=partial(analysis_figures.images, grid.pngs, analysis.classes),
            caption=f"{grid.title[:1].upper()}{grid.title[1:]}, a column for each class.",
        )
        for grid in analysis.grids
    ]  # fmt: skip
    if analysis.maps:
        panels = {mapped.title: mapped.points for mapped in analysis.maps}
        draw = partial(analysis_figures.scatter, panels, analysis.labels, analysis.classes)
        caption = "Test images as one layer of each teacher sees them, in two dimensions by t-SNE."
        drawn.append(Plot(name=name, draw=draw, caption=caption))
    if analysis.temperature is not None:
        normal, nasty = (next(r for r in records if r.kind == kind) for kind in ("normal", "nasty"))
        responses = partial(
            figures.logit_responses, normal, nasty, temperature=analysis.temperature
        )
        caption = (
            "Probabilities of both teachers for the first test images of their classes, at "
            f"temperature {analysis.temperature:g}."
        )
        drawn.append(Plot(name=name, draw=responses, caption=caption))
    return drawn
