"""The clones of a face service: from scratch, from backbones, and of rounded answers."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from denature.answers.transfer import Transfer
from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.stats import Estimate
from denature.data.dataset import Dataset
from denature.recipes.nose.service_answers import ServiceAnswers
from denature.recipes.nose.settings import TARGETS, Setting
from denature.train import Cloned, Order, Run
from denature.train.identity import plan_id
from denature.train.loop import evaluate


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """How a clone begins."""

    name: str
    net: str
    backbone: Run | str | None = None
    frozen: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Clones that differ by their seeds only: a line of the table."""

    start: Start
    target: str
    """What it learns, of `TARGETS`."""
    decimals: int | None = None
    """Of the answers that it learns from; None where they are as they came."""


def starts(setting: Setting, backbones: Mapping[str, Run | str]) -> list[Start]:
    """From scratch, and from each backbone frozen and fine-tuned."""
    found = [Start(name="from scratch", net=setting.student)]
    for name, backbone in backbones.items():
        net = backbone if isinstance(backbone, str) else backbone.record.net.name
        for frozen, how in ((True, "frozen"), (False, "fine-tuned")):
            found.append(
                Start(name=f"from {name}, {how}", net=net, backbone=backbone, frozen=frozen)
            )
    return found


class CloneFactory:
    """Orders of clones, and the data that they learn from.

    Args:
        told: what the service said.
        setting: how clones are trained.
        out: folder for the runs.
    """

    def __init__(self, told: ServiceAnswers, setting: Setting, out: Path) -> None:
        self.told = told
        self.setting = setting
        self._out = out
        self.data: dict[str, Dataset] = {n: told.dataset(values) for n, values in TARGETS.items()}
        self._answers = {name: self._transfer(name) for name in TARGETS}

    def _transfer(self, target: str) -> Transfer:
        data = self.data[target]
        return Transfer(
            "landmarks",
            data.train.labels,
            victim=self.told.who,
            recipe=plan_id({"target": self.told.who, "values": target, "data": data.digest}),
            folder=self._out,
        )

    def order(self, kind: Kind, trial: int) -> Order:
        """One clone; those of one trial and target can share a pass over the pictures."""
        student_training = replace(
            self.setting.student_training, seed=trial, frozen=kind.start.frozen
        )
        if kind.start.backbone is not None and not kind.start.frozen:
            if student_training.lr is None:
                raise ConfigError("The setting must name the clones' learning rate.")
            student_training = replace(student_training, lr=student_training.lr / 3)
        return Order(
            net=kind.start.net,
            objective=Cloned(decimals=kind.decimals),
            training=student_training,
            asked=self._answers[kind.target],
            backbone=kind.start.backbone,
            under=self._out,
        )

    def people(self, run: Run, target: str) -> Estimate | None:
        """How far a clone is from where people see the places."""
        split = self.told.seen_by_people(TARGETS[target])
        if split is None:
            return None
        compute = resolve(
            run.network, device=self.setting.student_training.device, precision="fp32"
        )
        return evaluate(compute.place(run.network), split, compute)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A clone of rounded answers."""

    index: int
    precision: int
    """Decimals of the answers that it learned from."""
    trial: int
    last: float
    """Its error after the last epoch, from what the service says unrounded of the test pictures."""
    best: float
    """The least of those after any epoch that was measured: chosen on the test pictures."""
    people: float | None
    """Its error from where people see the nose, after the last epoch."""


def trial_of(index: int, precision: int, trial: int, run: Run, people: Estimate | None) -> Trial:
    errors = [it.test_error for it in run.record.history if it.test_error is not None]
    assert run.record.error is not None
    last = run.record.error.value
    return Trial(
        index=index,
        precision=precision,
        trial=trial,
        last=last,
        best=min([last, *errors]),
        people=None if people is None else people.value,
    )


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """All trials so far as CSV, atomically, so that it is whole whenever it is looked at."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", "precision", "trial", "mae_last", "mae_best", "mae_last_people"])
    for it in trials:
        people = "" if it.people is None else f"{it.people:.6f}"
        writer.writerow(
            [it.index, it.precision, it.trial, f"{it.last:.6f}", f"{it.best:.6f}", people]
        )
    write_text(path, buffer.getvalue())
