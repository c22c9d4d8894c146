"""A transfer set: queries and what was answered to them, wherever the answers came from."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from denature.answers.sources import Answers, Kind
from denature.core.errors import ConfigError
from denature.core.record import InputRecord
from denature.data.dataset import Dataset
from denature.data.feed import Batch


@final
class Transfer:
    """Answers to the training images of a data set, as a source of answers.

    An answer belongs to its image in every view: who asks across a wire pays for each image once.

    Args:
        kind: of all answers.
        values: float32, samples x classes, or int64, samples, for labels; in the order of the
            data set's training images.
        victim: who answered, for people and records.
        recipe: identity of how the images were chosen and asked, without seeds: clones of one
            recipe are repeats of one experiment.
        folder: where the answers are kept.

    Raises:
        ConfigError: values that are not of their kind.
    """

    def __init__(
        self,
        kind: Kind,
        values: Tensor,
        *,
        victim: str,
        recipe: str = "",
        folder: Path | None = None,
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
        self.kind = kind
        self.values = values
        self.victim = victim
        self.recipe = recipe
        self.folder = folder

    @cached_property
    def digest(self) -> str:
        """sha256 of the answers, first 16 hex digits."""
        found = hashlib.sha256(f"{self.kind}:{tuple(self.values.shape)}:".encode())
        found.update(self.values.contiguous().numpy().data)
        return found.hexdigest()[:16]

    @property
    def labels(self) -> Tensor:
        """What the victim takes each image for: the most that its thief knows of it."""
        return self.values if self.kind in ("label", "landmarks") else self.values.argmax(-1)

    def check(self, dataset: Dataset) -> None:
        """Whether these are answers to the training images of a data set.

        Raises:
            ConfigError: they are of others.
        """
        if self.kind == "landmarks" and not torch.equal(self.values, dataset.train.labels):
            raise ConfigError(f"The training labels must be the places that {self.victim} says.")
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
            if self.kind == "landmarks":  # these are its labels, and move with what is seen
                yield batch, Answers(self.kind, batch.labels)
                continue
            values = self.values[batch.samples].to(batch.pixels.device, non_blocking=True)
            yield batch, Answers(self.kind, values)

    def as_input(self) -> InputRecord:
        """How a clone's record refers to it."""
        return InputRecord(
            folder=None if self.folder is None else str(self.folder),
            kind=self.kind,
            net=self.victim,
            digest=self.digest,
            recipe=self.recipe,
            accuracy=None,
            seed=None,
        )
