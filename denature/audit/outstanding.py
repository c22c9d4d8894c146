"""What an audit may still have to train, as the size of its one task."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

from denature.audit.clone_training import CloneTrainer
from denature.audit.measurements import Trial
from denature.core.progress import AT_MOST, Task


@final
class Outstanding:
    """Trials that are not measured yet, with the images that their clones are trained on.

    Args:
        task: has all these images in it.
        images: by trial, as planned.
    """

    def __init__(self, task: Task, images: Mapping[Trial, float]) -> None:
        self.task, self._images = task, dict(images)

    @staticmethod
    @contextmanager
    def shown(trials: Sequence[Trial], trainer: CloneTrainer) -> "Iterator[Outstanding]":
        """Trials with the task of their audit, which is open meanwhile."""
        images = {trial: trial.images(trainer.training) for trial in trials}
        total = sum(images.values())
        with trainer.session.progress.task("audit", total, f"images{AT_MOST}") as task:
            yield Outstanding(task, images)

    def take(self, trial: Trial) -> float:
        """The planned images of a trial that is measured now."""
        return self._images.pop(trial, 0.0)

    def drop(self, trials: Iterable[Trial]) -> None:
        """Leave out trials that need not be measured any more."""
        self.task.grow(-sum(self.take(trial) for trial in trials))

    def drop_thieves(self, gone: Iterable[tuple[str, ...]]) -> None:
        """Leave out all trials of thieves behind defenses, by the beginning of their cells."""
        left_out = set(gone)
        self.drop([trial for trial in self._images if trial.cell[:3] in left_out])
