"""The training loss of a run on its training images, as far as its inputs still exist."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from denature.answers.answerer import Answers
from denature.answers.coding import coding
from denature.core.compute import resolve
from denature.core.errors import DenatureError
from denature.core.record import Record
from denature.core.types import Labels, Logits, PerExample, Pixels
from denature.data import Dataset
from denature.data.dataset import Split
from denature.report.kinds import KINDS, objective_of
from denature.train import Normal, Run, load_run
from denature.train.classes import ClassMatcher
from denature.train.objectives import Objective

IMPORTED = "against the labels at temperature 1, since its training is not known"
"""What the loss lacks of an imported run's own."""


@final
@dataclass(frozen=True, slots=True)
class TrainingLoss:
    """An objective with the labels and answers of some fixed images."""

    objective: Objective
    labels: Labels
    answers: Answers | None
    name: str
    """Description of the loss, for reports and records."""

    def __call__(self, logits: Logits) -> PerExample:
        return self.objective(logits, self.labels, self.answers, done=1.0)

    @property
    def least(self) -> float:
        """The least value that the loss can take."""
        return self.objective.least

    def part(self, rows: slice) -> "TrainingLoss":
        """The loss on some of the images."""
        answers = self.answers and self.answers._replace(values=self.answers.values[rows])
        return replace(self, labels=self.labels[rows], answers=answers)


def trained_on(record: Record, data: Dataset) -> Split:
    """Training images of a run: its share of the split, without those that chose its checkpoint."""
    training = record.config.get("training", {})
    split = data.train
    if training.get("checkpoint") == "best-validation" and data.validation is None:
        split, _ = split.divide(training["validation"], "validation")
    return split.fraction(training.get("fraction", 1.0))


def training_loss(
    run: Run,
    images: Pixels,
    labels: Labels,
    fitted: ClassMatcher,
    *,
    trust: Collection[str] = (),
    device: str = "auto",
) -> TrainingLoss:
    """Rebuild the training loss of a run, with its temperature, smoothed labels or soft targets.

    A teacher or an adversary is loaded from its folder and evaluated again. If it is gone, labels
    at the run's temperature replace its answers, and the name of the loss records that.

    Args:
        run: the run whose loss is rebuilt.
        images: training images of the run, batch x channels x height x width, in [0, 1].
        labels: labels of the images.
        fitted: reorders a teacher's answers to the classes of the data.
        trust: modules that the teacher's record may import.
        device: where the teacher computes.
    """
    record = run.record
    settings = record.config.get("objective", {})
    kind = KINDS.get(record.kind)
    remark = IMPORTED if kind is None else kind.remark
    objective: Objective = Normal()
    if kind is not None and kind.rebuilt:
        objective = objective_of(record)
    answers: Tensor | None = None
    if objective.asks is not None:
        answers = _source_logits(run, objective.asks, images, fitted, trust, device)
        if answers is None:
            # The labels of a nasty teacher's loss have no temperature.
            temperature = 1.0 if record.kind == "nasty" else settings.get("temperature", 1.0)
            folder = record.inputs[objective.asks].folder
            where = "kept in no folder" if folder is None else f"not found at {folder}"
            remark = f"against the labels at temperature {temperature:g}: its {objective.asks} was "
            remark += where
            objective = Normal(temperature=temperature)
    values = ", ".join(
        f"{name} {settings[name]:g}"
        for name in ("temperature", "smoothing", "alpha", "omega")
        if isinstance(settings.get(name), int | float)
    )
    name = f"{record.kind}{f' ({values})' if values else ''}{f', {remark}' if remark else ''}"
    return TrainingLoss(
        objective, labels, None if answers is None else Answers("logits", answers), name
    )


def _source_logits(
    run: Run,
    role: str,
    images: Pixels,
    fitted: ClassMatcher,
    trust: Collection[str],
    device: str,
) -> Tensor | None:
    """Logits of a run's teacher or adversary, coded as in the run's training.

    None where that network cannot be loaded or has other weights.
    """
    record = run.record
    source = _source(run, role, fitted, trust)
    if source is None:
        return None
    compute = resolve(source.network, device=device, precision="fp32")
    network = compute.place(source.network).eval()
    storage = record.config.get("asking", {}).get("storage", "exact")
    code = coding(storage, classes=record.net.classes, dtype=torch.float32)
    parts = [compute.answer(network, batch.to(compute.device)) for batch in images.split(256)]
    return code.round(torch.cat(parts))


def _source(run: Run, role: str, fitted: ClassMatcher, trust: Collection[str]) -> Run | None:
    """A run's input in the folder that the record states, from any folder above the run's own on.

    None where it is not found, or has other weights.
    """
    made = run.record.inputs[role]
    if made.folder is None:
        return None
    above = [] if run.folder is None else run.folder.resolve().parents
    for place in dict.fromkeys([Path(made.folder), *(folder / made.folder for folder in above)]):
        with suppress(DenatureError):
            found = fitted(role, load_run(place, trust=trust))
            if found.digest == made.answered_by:
                return found
    return None
