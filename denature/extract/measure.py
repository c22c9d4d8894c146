"""Accuracy of a victim, and fidelity of its clones, on the same test images.

Fidelity is the share of images on which clone and victim predict the same class, right or wrong
(Jagielski et al. 2020, arXiv:1909.01838); for landmarks it is the mean distance between the two.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from denature.core.compute import resolve
from denature.core.errors import RunError
from denature.core.record import Record
from denature.core.seeds import generator
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.core.text import counted
from denature.data.dataset import Dataset, Split
from denature.extract.asking.answered import answered, ask_within_budget
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import StoredPool
from denature.train.loop import answers_to
from denature.train.run import Run


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reference:
    """A victim's predictions for a sample of test images."""

    dataset: Dataset
    rows: list[int]
    """Positions of the images in the test split, ascending."""
    predictions: np.ndarray
    """int64, images, for classes; float32, images x numbers, for landmarks."""

    @property
    def accuracy(self) -> Estimate:
        """The victim's accuracy on these images; for landmarks its error."""
        test = self.dataset.test
        truth: np.ndarray = test.labels[test.rows[torch.as_tensor(self.rows)]].numpy()
        return agreement(self.predictions, truth)

    def fidelity(self, clone: Run, *, device: str = "auto") -> Estimate:
        """Agreement of a clone with the victim on these images, in fp32."""
        images = self.dataset.test.take(np.array(self.rows))
        own = predictions_of(clone, images, device=device)
        return agreement(own, self.predictions)


def reference_rows(tests: StoredPool, *, images: int, seed: int = 0) -> list[int]:
    """Positions of a random sample of test images, in random order.

    Each beginning of it is a random sample too, where a limit ends the queries: images often lie
    class by class.
    """
    order: list[int] = generator(seed, "fidelity").permutation(tests.size)[:images].tolist()
    return order


def ask_reference(
    oracle: Oracle, dataset: Dataset, tests: StoredPool, *, images: int, seed: int = 0
) -> Reference:
    """Query a victim with a random sample of test images, once each.

    Args:
        oracle: the victim; its budget covers lost queries too.
        dataset: the labelled images.
        tests: the pool of its test images.
        images: size of the sample.
        seed: determines the sample.

    Raises:
        RunError: no image was answered, or one of landmarks alone, which has no interval.
        AskFailed, ConfigError, Stopped: see `Oracle.ask`.
    """
    rows = reference_rows(tests, images=images, seed=seed)
    ask_within_budget(oracle, tests, rows)
    known = answered(oracle, tests, sorted(rows), classes=len(dataset.classes))
    least = 2 if dataset.landmarks else 1
    if len(known.rows) < least:
        raise RunError(
            f"{len(known.rows)} of {counted(len(rows), 'test image')} "
            f"{'was' if len(known.rows) == 1 else 'were'} answered; wanted are {least} at least. "
            "Allow more queries for them, or bring other test images."
        )
    if (lost := len(rows) - len(known.rows)) > 0:
        oracle.progress.say(f"{lost:,} test images were not answered.")
    return Reference(dataset=dataset, rows=known.rows, predictions=known.predictions)


def predictions_of(run: Run, split: Split, *, device: str = "auto") -> np.ndarray:
    """A run's predictions for a split in fp32: classes, int64, or landmarks, float32."""
    compute = resolve(run.network, device=device, precision="fp32")
    batches = answers_to(compute.place(run.network), split, compute)
    answers = torch.cat([logits.cpu() for _, logits in batches])
    predictions: np.ndarray = (answers if run.record.landmarks else answers.argmax(-1)).numpy()
    return predictions


def agreement(predictions: np.ndarray, references: np.ndarray) -> Estimate:
    """The share of equal classes; for landmarks the mean distance, axis by axis."""
    if predictions.ndim == 2:
        return mean_over_images(np.abs(predictions - references).mean(axis=1).tolist())
    return proportion(int((predictions == references).sum()), len(predictions))


def accuracy_of(record: Record) -> Estimate:
    """The accuracy of a run on its whole test split; for landmarks the error."""
    measured = record.error if record.landmarks else record.accuracy
    assert measured is not None
    return measured
