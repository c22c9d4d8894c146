"""Thefts of served teachers: clones of what a normal and a nasty one answer over the wire."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from denature.core.record import Record, read_record
from denature.data import DataConfig, Dataset
from denature.extract import ExtractionConfig, steal
from denature.extract.victims.base import Victim, VictimInfo
from denature.extract.victims.find import find
from denature.recipes.paper.config import DataName
from denature.recipes.paper.orders import ExperimentContext
from denature.recipes.paper.recalled import NASTY, NORMAL
from denature.recipes.paper.thieves import STUDENTS, TEACHERS
from denature.recipes.serving import serving
from denature.report.cells import PlacedRun
from denature.train import Order, Run
from denature.train.config import Training
from denature.train.session import Session

CLONE = STUDENTS[-1]
"""Network of the clones, by the paper's name."""


def thefts(
    context: ExperimentContext, runs: Mapping[Order, Run], data: Dataset, session: Session
) -> Iterator[PlacedRun]:
    """Clones of both teachers by `denature steal`, for each pool and number of queries.

    A thief owns unlabelled images and learns from the probabilities at temperature 1 that a server
    shows; queries that measure fidelity are part of its budget.
    """
    setting = context.setting
    for seed in range(context.seeds):
        normal, nasty = (
            runs[order] for order in (context.normal(TEACHERS, seed), context.nasty(TEACHERS, seed))
        )
        for pool in setting.pools:
            images = setting.source.get(pool, pool)
            stolen = {
                kind: _stolen(context, teacher, f"{pool}-{kind}-{seed}", pool, seed, data, session)
                for kind, teacher in ((NORMAL, normal), (NASTY, nasty))
            }
            for budget in setting.budgets:
                for kind, clones in stolen.items():
                    yield PlacedRun(
                        row=f"{budget:,} queries with {images} over the wire, of {kind}",
                        column=context.column(CLONE),
                        x=None,
                        seed=seed,
                        record=clones[budget],
                        like=stolen[NORMAL][budget] if kind == NASTY else None,
                        teachers=(nasty.record, normal.record) if kind == NASTY else None,
                    )


def _stolen(
    context: ExperimentContext,
    teacher: Run,
    name: str,
    pool: DataName,
    seed: int,
    data: Dataset,
    session: Session,
) -> dict[int, Record]:
    """The clones of one theft by their budgets."""
    setting, folder = context.setting, context.out / "thefts" / name
    student = setting.student_training
    assert teacher.folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    with serving(teacher.folder, "teacher", folder / "access.jsonl", device=setting.device) as url:
        theft = steal(
            ServedTeacher(find(url), f"served {teacher.record.kind} {teacher.digest}"),
            net=setting.net(CLONE),
            pool=DataConfig(source=setting.data(pool)),
            test=data,
            budgets=setting.budgets,
            out=folder,
            stealing=ExtractionConfig(pool_seed=seed),
            training=Training(seed=seed, device=student.device, precision=student.precision),
            price=0.0,
            session=session,
        )
    return {clone.budget: read_record(Path(clone.folder)) for clone in theft.clones}


@final
@dataclass(frozen=True)
class ServedTeacher:
    """A served run whose answers stay in the ledger under its weights, whatever the port."""

    victim: Victim
    name: str

    async def __aenter__(self) -> Self:
        await self.victim.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.victim.__aexit__(*error)

    async def about(self) -> VictimInfo:
        return replace(await self.victim.about(), target=self.name)

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        return await self.victim.ask(images, id=id)
