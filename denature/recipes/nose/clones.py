"""The clones of a face service: from scratch, from backbones, and of rounded answers."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from denature.answers.transfer import Transfer
from denature.core.compute import resolve
from denature.core.files import write_text
from denature.core.stats import Estimate
from denature.data.dataset import Dataset
from denature.defenses.rounding import Rounding
from denature.recipes.nose.service_answers import ServiceAnswers
from denature.recipes.nose.settings import TARGETS, NoseSetting
from denature.report.nose import PrecisionPoint
from denature.train import Cloned, Order, Run
from denature.train.identity import plan_id
from denature.train.loop import evaluate

SCRATCH = "from scratch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Network and initial weights of a clone."""

    name: str
    net: str
    backbone: Run | str | None = None
    frozen: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CloneKind:
    """Clones that differ only in their seeds: one row of the table."""

    start: Start
    target: str
    """The values that the clone predicts: a key of `TARGETS`."""
    decimals: int | None = None
    """Decimals of the answers in training; None for unrounded answers."""
    rate: float = 1.0
    """Share of the setting's learning rate."""


def starts(setting: NoseSetting, backbones: Mapping[str, Run | str]) -> list[Start]:
    """A start from scratch, and for each backbone two, frozen and fine-tuned.

    A backbone's network starts from scratch too where it is not the student, or what a backbone
    brings could not be told from what its architecture does.
    """
    nets = {
        name: backbone if isinstance(backbone, str) else backbone.record.net.name
        for name, backbone in backbones.items()
    }
    controls = dict.fromkeys(net for net in nets.values() if net != setting.student)
    return [
        Start(name=SCRATCH, net=setting.student),
        *(Start(name=f"{SCRATCH}, {net}", net=net) for net in controls),
        *(
            Start(name=f"from {name}, {mode}", net=nets[name], backbone=backbone, frozen=frozen)
            for name, backbone in backbones.items()
            for frozen, mode in ((True, "frozen"), (False, "fine-tuned"))
        ),
    ]


class CloneFactory:
    """Builds the orders of clones and their training data.

    Args:
        service_answers: pictures with the answers of the service.
        setting: training of the clones.
        out: folder for the runs.
    """

    def __init__(self, service_answers: ServiceAnswers, setting: NoseSetting, out: Path) -> None:
        self.service_answers = service_answers
        self.setting = setting
        self._out = out
        self.data: dict[str, Dataset] = {
            name: service_answers.dataset(values) for name, values in TARGETS.items()
        }
        # Orders of one transfer set share a pass over the pictures.
        self._answers = {
            (name, decimals): self._transfer(name, decimals)
            for name in TARGETS
            for decimals in (None, *setting.precisions)
        }

    def _transfer(self, target: str, decimals: int | None) -> Transfer:
        data = self.data[target]
        answers = Transfer(
            "landmarks",
            data.train.labels,
            victim=self.service_answers.victim,
            recipe=plan_id(
                {"target": self.service_answers.victim, "values": target, "data": data.digest}
            ),
            folder=self._out,
        )
        return answers if decimals is None else answers.defended(Rounding(decimals=decimals))

    def order(self, kind: CloneKind, trial: int) -> Order:
        """Order of one clone; clones of one trial and target can share a pass over the pictures."""
        training = self.setting.student_training
        assert training.lr is not None
        training = replace(
            training, seed=trial, frozen=kind.start.frozen, lr=training.lr * kind.rate
        )
        return Order(
            net=kind.start.net,
            objective=Cloned(),
            training=training,
            source=self._answers[kind.target, kind.decimals],
            backbone=kind.start.backbone,
            under=self._out,
        )

    def candidate(self, kind: CloneKind) -> Order:
        """Order of a clone that is measured on a part of its pictures, which it does not learn."""
        order = self.order(kind, 0)
        return replace(order, training=replace(order.training, checkpoint="best-validation"))

    def people(self, run: Run, target: str) -> Estimate | None:
        """Error of a clone from the landmarks that people placed; None without such landmarks."""
        split = self.service_answers.seen_by_people(TARGETS[target])
        if split is None:
            return None
        compute = resolve(
            run.network, device=self.setting.student_training.device, precision="fp32"
        )
        return evaluate(compute.place(run.network), split, compute)


def validated(run: Run) -> float:
    """The smallest validation error after any epoch."""
    errors = [entry.validation_error for entry in run.record.history]
    return min(error for error in errors if error is not None)


def trial_of(decimals: int, trial: int, run: Run, people: Estimate | None) -> PrecisionPoint:
    """Errors of one clone of rounded answers."""
    errors = [entry.test_error for entry in run.record.history if entry.test_error is not None]
    assert run.record.error is not None
    last = run.record.error.value
    return PrecisionPoint(
        decimals=decimals,
        trial=trial,
        last=last,
        best=min([last, *errors]),
        people=None if people is None else people.value,
    )


def write_trials(path: Path, trials: Sequence[PrecisionPoint]) -> None:
    """Write all trials so far as CSV, atomically, so that a reader never sees a partial file."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", "precision", "trial", "mae_last", "mae_best", "mae_last_people"])
    for index, trial in enumerate(trials):
        people = "" if trial.people is None else f"{trial.people:.6f}"
        errors = [f"{trial.last:.6f}", f"{trial.best:.6f}", people]
        writer.writerow([index, trial.decimals, trial.trial, *errors])
    write_text(path, buffer.getvalue())
