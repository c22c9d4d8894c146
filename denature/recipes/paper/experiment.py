"""An experiment of the paper: its runs as entries of a table or curve, or an analysis of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from denature.core.progress import Progress
from denature.core.record import Record
from denature.data import DataConfig, Dataset, load
from denature.recipes.experiment import MeasuredResult, Request
from denature.recipes.paper.catalogue import DESIGNS, Design
from denature.recipes.paper.config import PaperOptions
from denature.recipes.paper.orders import ExperimentContext, PlacedOrder
from denature.recipes.paper.settings import PaperSetting, setting_of
from denature.recipes.serving import check_packages
from denature.report import cells
from denature.report.paper import PaperResult
from denature.train import Order, Run
from denature.train.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperExperiment:
    """One table or figure; experiments of one folder and scale share their runs."""

    name: str
    """A key of `DESIGNS`."""
    setting: PaperSetting
    out: Path

    @staticmethod
    def of(request: Request, out: Path, options: PaperOptions) -> "PaperExperiment":
        return PaperExperiment(name=request.name, setting=setting_of(request, options), out=out)

    @property
    def design(self) -> Design:
        return DESIGNS[self.name]

    @property
    def context(self) -> ExperimentContext:
        return ExperimentContext(
            data=self.design.data, setting=self.setting, out=self.out / self.setting.scale
        )

    @property
    def folder(self) -> Path:
        return self.context.out / (self.name + self.setting.variant)

    @property
    def runs_folder(self) -> Path:
        return self.context.out / "runs"

    def data(self, progress: Progress) -> Dataset:
        if self.design.measured is not None:
            check_packages("A served teacher")
        return load(DataConfig(source=self.setting.data(self.design.data)), progress=progress)

    def placed_orders(self) -> list[PlacedOrder]:
        return list(_function(self.design.placed_orders)(self.context))

    def orders(self) -> Sequence[Order]:
        return [order for placed in self.placed_orders() for order in placed.orders]

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        """Group the runs by their places; an analysis computes more from the networks."""
        design, placed_orders = self.design, self.placed_orders()
        placed = [_measured(each, runs) for each in placed_orders]
        records = _records(placed_orders, runs)
        if design.measured is not None:
            further = list(_function(design.measured)(self.context, runs, data, session))
            placed += further
            records += [run.record for run in further]
        analysis = None
        if design.analysis is not None:
            analyse = _function(design.analysis)
            analysis = analyse(self.context, runs, data, session)
        result = PaperResult(
            name=self.name,
            scale=self.setting.scale,
            about=design.about,
            differs=self.setting.differs,
            cells=tuple(cells.cells_of(placed)),
            axis=design.axis,
            against=design.against,
            decides=design.decides,
            analysis=analysis,
        )
        return MeasuredResult(result, records)


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(f"denature.recipes.paper.{module}"), function)


def _measured(placed: PlacedOrder, runs: Mapping[Order, Run]) -> cells.PlacedRun:
    def record(order: object, others: Sequence[Order] = ()) -> Record | None:
        if not isinstance(order, Order):
            return None
        records = [runs[each].record for each in (order, *others)]
        return max(records, key=_validated) if others else records[0]

    nasty = normal = None
    if placed.like is not None:
        nasty, normal = record(placed.order.source), record(placed.like.source)
    own = record(placed.order, placed.others)
    assert own is not None
    return cells.PlacedRun(
        row=placed.row,
        column=placed.column,
        x=placed.x,
        seed=placed.seed,
        record=own,
        against=record(placed.against),
        like=record(placed.like, placed.like_others),
        teachers=None if nasty is None or normal is None else (nasty, normal),
        recalled=placed.recalled,
    )


def _validated(record: Record) -> float:
    """The validation accuracy of the kept epoch."""
    found = [epoch.validation_accuracy for epoch in record.history]
    return max(share for share in found if share is not None)


def _records(placed_orders: Iterable[PlacedOrder], runs: Mapping[Order, Run]) -> list[Record]:
    """Records of all runs, each once, teachers and adversaries included."""
    records = (runs[order].record for placed in placed_orders for order in placed.orders)
    return list({record.id: record for record in records}.values())
