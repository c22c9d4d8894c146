"""The training loop: one pass over the data for any number of learners."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denature.answers.sources import AnswerSource
from denature.core.compute import Compute
from denature.core.progress import Task
from denature.core.record import EpochRecord
from denature.core.seeds import seeded
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.data.dataset import Split
from denature.data.feed import Batch, Feed
from denature.losses.landmarks import coordinate_error
from denature.train.learner import Learner
from denature.train.objectives.base import BatchSource
from denature.train.team import SINGLE_PROCESS, ProcessGroup


def fit(
    learners: Sequence[Learner],
    train: BatchSource,
    *,
    source: AnswerSource | None,
    test: Split,
    validation: Split | None,
    tasks: Sequence[Task],
    on_epoch: Callable[[Learner, EpochRecord], None],
    between_steps: Callable[[], None],
) -> None:
    """Train all learners in one pass an epoch, from the same views and the same answers.

    Learners may have different networks, objectives, seeds and learning rates; epochs, batch size
    and view seed are shared. A learner that was restored at a later step joins there. The result
    equals that of separate training bit for bit, because learners share no state.

    Args:
        learners: at least one, none of them finished.
        train: the training samples, on the learners' device.
        source: answers each batch once, for all learners.
        test: measured where a learner's config requires it; chooses only under `best-test`.
        validation: chooses under `best-validation`.
        tasks: one for each learner; receives the number of images done.
        on_epoch: is called after each epoch of each learner.
        between_steps: is called when all learners have finished a step, and may raise to stop.

    Raises:
        TrainingError: a loss is not finite; the message names the step and possible remedies.
    """
    shared = learners[0].config
    assert shared.view_seed is not None
    team = learners[0].team
    steps, position = learners[0].steps, min(learner.done for learner in learners)
    pairs = list(zip(learners, tasks, strict=True))
    with seeded(shared.seed, "training"):
        while position < steps * shared.epochs:
            epoch, first = position // steps + 1, position % steps
            for learner in learners:
                learner.train()
            clock = time.perf_counter()
            batches = train.epoch(
                epoch,
                view_seed=shared.view_seed,
                batch_size=shared.batch_size,
                first=first,
                part=(team.rank, team.size),
            )
            for batch, answers in source.answered(batches) if source else _unanswered(batches):
                due = [pair for pair in pairs if pair[0].done == position]
                size = min(shared.batch_size, len(train) - position % steps * shared.batch_size)
                for learner, task in due:
                    learner.step(batch, answers, of=size)
                    task.advance(size)
                position += 1
                now = time.perf_counter()
                for learner, _ in due:
                    learner.seconds += (now - clock) / len(due)
                clock = now
                if position % steps:
                    between_steps()
            for learner, task in pairs:
                if learner.done == position and len(learner.history) < epoch:
                    entry = _end_epoch(learner, epoch, test, validation)
                    on_epoch(learner, entry)
                    task.advance(0, f"epoch {epoch}/{shared.epochs}, loss {entry.loss:.3f}")
            between_steps()


def _unanswered(batches: Iterable[Batch]) -> Iterator[tuple[Batch, None]]:
    for batch in batches:
        yield batch, None


def _end_epoch(learner: Learner, epoch: int, test: Split, validation: Split | None) -> EpochRecord:
    """Evaluate on the splits that the learner's config requires, and close its epoch."""
    config = learner.config
    on_test = on_validation = None
    due = config.evaluate_every and epoch % config.evaluate_every == 0
    if due or config.checkpoint == "best-test":
        on_test = evaluate(learner.collect(), test, learner.compute, learner.team).value
    if config.checkpoint == "best-validation":
        assert validation is not None
        on_validation = evaluate(learner.collect(), validation, learner.compute, learner.team).value
    return learner.end_epoch(test=on_test, validation=on_validation)


def evaluate(
    network: nn.Module, split: Split, compute: Compute, team: ProcessGroup = SINGLE_PROCESS
) -> Estimate:
    """Accuracy on a split with its Wilson interval; the network is in eval mode meanwhile.

    For landmarks the metric is the mean absolute error, where smaller is better. The processes of a
    team have the same network, and each evaluates its part of the split.
    """
    if split.landmarks:
        return mean_over_images(
            [
                error
                for batch, landmarks in answers_to(network, split, compute)
                for error in coordinate_error(landmarks, batch.labels).tolist()
            ]
        )
    hits = hits_of(network, split, compute, team)
    return proportion(int(hits.sum()), len(hits))


def hits_of(
    network: nn.Module, split: Split, compute: Compute, team: ProcessGroup = SINGLE_PROCESS
) -> NDArray[np.bool_]:
    """Correctness of each image's class in a split; each process evaluates its part."""
    part = replace(split, rows=split.rows[team.rank :: team.size])
    correct = [
        logits.argmax(-1) == batch.labels for batch, logits in answers_to(network, part, compute)
    ]
    hits = torch.zeros(len(split), dtype=torch.float64)
    hits[team.rank :: team.size] = torch.cat(correct).cpu().double() if correct else 0.0
    return np.array(team.total(hits.tolist())) > 0.5


def answers_to(
    network: nn.Module, split: Split, compute: Compute
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch of a split, without augmentation, with the network's logits."""
    was_training = network.training
    network.eval()
    try:
        for batch in Feed(split, compute=compute).plain():
            yield batch, compute.answer(network, batch.pixels)
    finally:
        network.train(was_training)
