"""Reproduce an experiment of the paper: its runs, table, figures and page."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from denature.core.errors import ConfigError, unknown
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.record import Record, write_records
from denature.data import DataConfig, Dataset, load
from denature.recipes.paper.catalogue import EXPERIMENTS, Experiment
from denature.recipes.paper.looks import AnalysisResult
from denature.recipes.paper.orders import ExperimentContext, Point
from denature.recipes.paper.settings import Setting
from denature.report import experiment as findings
from denature.report import experiment_figures, words
from denature.report.divergence import not_nasty
from denature.report.figures import Draw, training_curves, write_figure
from denature.report.html import render_experiment
from denature.train import Order, Run, make
from denature.train.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperResult:
    """Verdict, table and cells of an experiment, and the folder that holds them."""

    name: str
    scale: str
    about: str
    differs: str
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The printed table: header and rows."""
    cells: tuple[findings.Cell, ...]
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)})


def names_of(selected: Iterable[str]) -> list[str]:
    """Names of experiments without repeats; `all` stands for all of them.

    Raises:
        ConfigError: no experiment has this name.
    """
    names: list[str] = []
    for name in selected:
        if name != "all" and name not in EXPERIMENTS:
            raise unknown("experiment", name, {*EXPERIMENTS, "all"})
        names += EXPERIMENTS if name == "all" else [name]
    return list(dict.fromkeys(names))


def context_of(
    experiment: Experiment, setting: Setting, out: Path, seeds: int | None
) -> ExperimentContext:
    """Context that builds the orders of an experiment; `seeds` replaces the setting's number."""
    seeds = setting.seeds if seeds is None else seeds
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be at least 1.")
    return ExperimentContext(
        data=experiment.data, setting=setting, out=out / setting.scale, seeds=seeds
    )


def orders_of(
    names: Iterable[str],
    setting: Setting,
    out: Path,
    *,
    seeds: int | None = None,
    progress: Progress = SILENT,
) -> Iterator[tuple[Order, Dataset]]:
    """Orders of all runs of some experiments, each with its data set."""
    for name in names:
        experiment = EXPERIMENTS[name]
        data = load(DataConfig(source=setting.data(experiment.data)), progress=progress)
        for point in experiment.points(context_of(experiment, setting, out, seeds)):
            yield from ((order, data) for order in point.orders)


def reproduce(
    name: str,
    setting: Setting,
    out: Path,
    *,
    seeds: int | None = None,
    session: Session | None = None,
) -> PaperResult:
    """Reproduce one experiment; finished runs are reused.

    Args:
        name: a key of `EXPERIMENTS`.
        setting: the experiment at one scale.
        out: folder of all experiments, which share their runs.
        seeds: number of repetitions; the setting's number by default.
        session: saved states, stops, workers and progress.

    Raises:
        DenatureError: see `denature.core.errors`.
        Stopped: a stop was requested; the same call resumes the work.
    """
    session = session or Session()
    experiment = EXPERIMENTS[name]
    context = context_of(experiment, setting, out, seeds)
    data = load(DataConfig(source=setting.data(experiment.data)), progress=session.progress)
    points = list(experiment.points(context))
    made = _made(points, data, session)
    analysis = None
    if experiment.look is not None:
        analysis = experiment.look(context, made, data, session.progress)
    return _written(name, experiment, context, points, made, analysis)


def _made(
    points: Sequence[Point],
    data: Dataset,
    session: Session,
) -> dict[Order, Run]:
    orders = dict.fromkeys(order for point in points for order in point.orders)
    runs = make(list(orders), data, session=session)
    return dict(zip(orders, runs, strict=True))


def _written(
    name: str,
    experiment: Experiment,
    context: ExperimentContext,
    points: Sequence[Point],
    made: Mapping[Order, Run],
    analysis: AnalysisResult | None,
) -> PaperResult:
    measured = [_measured(point, made) for point in points]
    records = _records(points, made)
    cells = findings.cells_of(measured)
    verdict = findings.marks(records)
    if analysis is None:
        sentence = findings.verdict(cells, against=experiment.against)
        verdict += [sentence] * bool(sentence) + findings.hazards(cells) + not_nasty(records)
        lines, note = findings.table(cells, against=experiment.against), findings.NOTE
        draw: Draw = partial(experiment_figures.bars, cells)
        if experiment.axis is not None:
            draw = partial(experiment_figures.curves, cells, axis=experiment.axis)
        figures = {name: draw}
    else:
        lines, note = [list(line) for line in analysis.lines], analysis.note
        figures = dict(analysis.drawn)
    figures["training-curves"] = partial(training_curves, records)
    folder = context.out / (name + context.setting.variant)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [write_figure(folder / stem, draw) for stem, draw in figures.items()]
    result = PaperResult(
        name=name,
        scale=context.setting.scale,
        about=experiment.about,
        differs=context.setting.differs,
        verdict=tuple(verdict),
        lines=lines,
        cells=tuple(cells),
        folder=folder,
    )
    write_records(folder / "records.jsonl", records)
    write_text(folder / "result.json", result.to_json() + "\n")
    write_text(folder / "table.md", words.markdown(result.lines) + "\n")
    page = render_experiment(
        records,
        title=name,
        about=experiment.about,
        differs=context.setting.differs,
        verdict=verdict,
        lines=lines,
        note=note,
        drawn=drawn,
    )
    write_text(folder / "report.html", page)
    return result


def _measured(point: Point, made: Mapping[Order, Run]) -> findings.Measured:
    def record(order: object) -> Record | None:
        return made[order].record if isinstance(order, Order) else None

    nasty = normal = None
    if point.like is not None:
        nasty, normal = record(point.order.source), record(point.like.source)
    return findings.Measured(
        row=point.row,
        column=point.column,
        x=point.x,
        seed=point.seed,
        record=made[point.order].record,
        against=record(point.against),
        like=record(point.like),
        teachers=None if nasty is None or normal is None else (nasty, normal),
        recalled=point.recalled,
    )


def _records(points: Iterable[Point], made: Mapping[Order, Run]) -> list[Record]:
    """Records of all runs, each once, teachers and adversaries included."""
    records = (made[order].record for point in points for order in point.orders)
    return list({record.id: record for record in records}.values())
