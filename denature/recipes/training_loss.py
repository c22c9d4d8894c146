"""The loss that a run was trained with, on images that it was trained on, as far as it is left."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from denature.answers.coding import coding
from denature.answers.sources import Answers
from denature.core.compute import resolve
from denature.core.errors import DenatureError
from denature.core.record import Record
from denature.core.schema import decode
from denature.core.types import Labels, Logits, PerExample, Pixels
from denature.data import Dataset
from denature.data.dataset import Split
from denature.datafree.config import Dafl
from denature.train import Adversarial, Distilled, Hardened, Nasty, Normal, Run, load_run
from denature.train.classes import ClassMatcher
from denature.train.objectives import Objective

OBJECTIVES: Mapping[str, type[Any]] = {
    kind.kind: kind for kind in (Normal, Nasty, Distilled, Hardened, Adversarial, Dafl)
}

REMARKS = {
    "adversarial": "on images that are not attacked",
    "dafl": "on real images, not on those that its generator made",
    "cloned": "against the labels, since its victim's answers do not lie in the run",
    "imported": "against the labels at temperature 1, since its training is not known",
}


@final
@dataclass(frozen=True, slots=True)
class TrainingLoss:
    """An objective with what it compares the logits of some fixed images with."""

    objective: Objective
    labels: Labels
    answers: Answers | None
    name: str
    """What it is, for people and records."""

    def __call__(self, logits: Logits) -> PerExample:
        return self.objective(logits, self.labels, self.answers, done=1.0)

    def first(self, count: int) -> "TrainingLoss":
        """The loss of the first of the images."""
        answers = self.answers and self.answers._replace(values=self.answers.values[:count])
        return replace(self, labels=self.labels[:count], answers=answers)


def trained_on(record: Record, data: Dataset) -> Split:
    """The training images of a run: the share that it took, without what chose its checkpoint."""
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
    """What the run made small, at its temperature, with its smoothed labels or its soft targets.

    A teacher or an adversary is read from its folder and asked again; where it is gone, the labels
    stand in its place, at the run's temperature, and the name says so.

    Args:
        run: whose loss.
        images: of its training, batch x channels x height x width, in [0, 1].
        labels: theirs.
        fitted: puts a teacher's answers into the order of the data's classes.
        trust: modules that the teacher's record may import.
        device: where its teacher computes.
    """
    record = run.record
    given = record.config.get("objective", {})
    objective: Objective = Normal()
    if record.kind in OBJECTIVES:
        objective = decode(OBJECTIVES[record.kind], given, where="the objective")
    remark = REMARKS.get(record.kind, "")
    answers: Tensor | None = None
    if objective.asks is not None:
        answers = _asked_again(record, objective.asks, images, fitted, trust, device)
        if answers is None:
            temperature = given.get("temperature", 1.0)
            remark = f"against the labels at temperature {temperature:g}: its {objective.asks} is "
            remark += "not in its folder any more"
            objective = Normal(temperature=temperature)
    said = ", ".join(
        f"{name} {given[name]:g}"
        for name in ("temperature", "smoothing", "alpha", "omega", "beta")
        if isinstance(given.get(name), int | float)
    )
    name = f"{record.kind}{f' ({said})' if said else ''}{f', {remark}' if remark else ''}"
    return TrainingLoss(
        objective, labels, None if answers is None else Answers("logits", answers), name
    )


def _asked_again(
    record: Record,
    role: str,
    images: Pixels,
    fitted: ClassMatcher,
    trust: Collection[str],
    device: str,
) -> Tensor | None:
    """The logits of a run's teacher or adversary, as the run learned from them.

    None where that network cannot be had.
    """
    made = record.inputs[role]
    if made.folder is None or not Path(made.folder).is_dir():
        return None
    try:
        other = fitted(role, load_run(made.folder, trust=trust))
    except DenatureError:
        return None
    if other.digest != made.answered_by:
        return None
    compute = resolve(other.network, device=device, precision="fp32")
    network = compute.place(other.network).eval()
    storage = record.config.get("asking", {}).get("storage", "exact")
    kept = coding(storage, classes=record.net.classes, dtype=torch.float32)
    parts = [compute.answer(network, some.to(compute.device)) for some in images.split(256)]
    return kept.round(torch.cat(parts))
