"""A transfer set: queries with their answers, whatever the source of the answers."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from denature.answers.answerer import AnswerChange, Answers
from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.record import InputRecord
from denature.data.dataset import Dataset
from denature.data.feed import Batch


@final
class Transfer:
    """Answers to the training images of a data set, as a source of answers.

    An answer belongs to its image in every view: over a wire each image is paid for once.
    Landmarks follow their image in each view, and a defense changes them after that.

    Args:
        kind: of all answers.
        values: float32, samples x classes, or int64, samples, for labels; in the order of the
            data set's training images.
        victim: name of the victim, for messages and records.
        recipe: identity of how the images were chosen and queried, without seeds: clones of one
            recipe are repeats of one experiment.
        folder: of the stored answers.
        defense: changes the answers before a clone learns from them; see `defended`.

    Raises:
        ConfigError: the values do not match their kind, or the defense does not take it.
    """

    def __init__(
        self,
        kind: AnswerKind,
        values: Tensor,
        *,
        victim: str,
        recipe: str = "",
        folder: Path | None = None,
        defense: AnswerChange | None = None,
    ) -> None:
        labels = kind == "label"
        wanted = (1, torch.int64) if labels else (2, torch.float32)
        if (values.ndim, values.dtype) != wanted or not len(values):
            raise ConfigError(
                f"Answers of the kind {kind} are {values.dtype} of the shape "
                f"{tuple(values.shape)}; wanted are "
                + ("int64, one for each sample." if labels else "float32, samples x classes.")
            )
        if not labels and not bool(values.isfinite().all()):
            raise ConfigError(f"Some answers of {victim} are not finite numbers.")
        self.kind: AnswerKind = kind
        self.values = values
        self.victim = victim
        self.recipe = recipe
        self.folder = folder
        self.defense = defense
        self.shown_kind: AnswerKind = kind if defense is None else defense.kind(kind)
        """Kind of the answers that a clone learns from."""

    def defended(self, defense: AnswerChange) -> "Transfer":
        """The same answers, as a victim with this defense would have given them.

        `digest`, `values` and `labels` stay those of the undefended answers.

        Raises:
            ConfigError: the answers are defended already, or the defense does not take their kind.
        """
        if self.defense is not None:
            raise ConfigError(f"The answers of {self.victim} are defended already; take one.")
        return Transfer(
            self.kind,
            self.values,
            victim=self.victim,
            recipe=self.recipe,
            folder=self.folder,
            defense=defense,
        )

    def shown(self, answers: Answers) -> Answers:
        """Answers as a clone sees them."""
        return answers if self.defense is None else self.defense(answers)

    @cached_property
    def digest(self) -> str:
        """sha256 of the undefended answers, first 16 hex digits."""
        content = hashlib.sha256(f"{self.kind}:{tuple(self.values.shape)}:".encode())
        content.update(self.values.contiguous().numpy().data)
        return content.hexdigest()[:16]

    @property
    def labels(self) -> Tensor:
        """The victim's label of each image, the only one that its thief knows."""
        return self.values if self.kind in ("label", "landmarks") else self.values.argmax(-1)

    def check(self, dataset: Dataset) -> None:
        """Check that these are answers to the training images of a data set.

        Raises:
            ConfigError: the answers are to other images.
        """
        if self.kind == "landmarks" and not torch.equal(self.values, dataset.train.labels):
            raise ConfigError(f"The training labels must be the landmarks that {self.victim} gave.")
        count, classes = len(dataset.train.labels), len(dataset.classes)
        most = int(self.values.max()) + 1 if self.kind == "label" else self.values.shape[1]
        fits = most <= classes if self.kind == "label" else most == classes
        if len(self.values) != count or not fits:
            raise ConfigError(
                f"{self.victim} answered {len(self.values)} images with {most} classes; the data "
                f"has {count} training images of {classes} classes."
            )

    def answered(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answers]]:
        for batch in batches:
            if self.kind == "landmarks":  # the labels are the answers, and follow each view
                yield batch, self.shown(Answers(self.kind, batch.labels))
                continue
            values = self.values[batch.samples].to(batch.pixels.device, non_blocking=True)
            yield batch, self.shown(Answers(self.kind, values))

    def as_input(self) -> InputRecord:
        """The entry for this transfer set in the record of a clone."""
        return InputRecord(
            folder=None if self.folder is None else str(self.folder),
            kind=self.shown_kind,
            net=self.victim,
            digest=self.digest,
            recipe=self.recipe,
            accuracy=None,
            seed=None,
        )
