"""The one training loop.

Nothing is copied to the host per step: losses and hits stay on the device and are looked at every
`CHECK_EVERY` steps, which is also how a loss that is no longer finite is caught with its step.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from denature.answers import Answers, Source
from denature.core.compute import Compute
from denature.core.errors import TrainingError
from denature.core.progress import Task
from denature.core.record import EpochRecord
from denature.core.seeds import seeded
from denature.core.stats import Estimate, proportion
from denature.data.dataset import Split
from denature.data.feed import Batch, Feed, steps_per_epoch
from denature.train.config import Training
from denature.train.objectives import Objective

CHECK_EVERY = 64
"""Steps between looks at the losses; each look waits for the device."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came out of `fit`, besides the weights that the network now has."""

    history: tuple[EpochRecord, ...]
    chosen_epoch: int
    images_per_second: float


def learning_rate(config: Training, *, step: int, total: int) -> float:
    """The learning rate of a step, a pure function of it.

    one-cycle rises linearly over the first quarter and falls linearly to 0 (after Smith 2018,
    arXiv:1803.09820); cosine falls from the start; step and constant are what they say.
    """
    assert config.lr is not None
    peak = config.lr
    done = step / total
    if config.schedule == "one-cycle":
        # The first step must move and the last one too, hence the halves.
        at = (step + 0.5) / total
        return peak * min(at / 0.25, (1 - at) / 0.75)
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "step":
        epoch = int(done * config.epochs + 1e-9)
        return peak * config.gamma ** sum(milestone <= epoch for milestone in config.milestones)
    return peak


def make_optimizer(network: nn.Module, config: Training) -> torch.optim.Optimizer:
    """The optimizer of a settled training; its learning rate is set anew at every step."""
    assert config.weight_decay is not None
    parameters = [p for p in network.parameters() if p.requires_grad]
    decay, fused = config.weight_decay, config.device != "mps"
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=0.0, momentum=0.9, weight_decay=decay, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=0.0, weight_decay=decay, fused=fused)


@final
class Learner:
    """A network with its objective and optimizer, a step at a time."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        config: Training,
        compute: Compute,
        *,
        steps: int,
    ) -> None:
        self.network = compute.place(network)
        self.objective = objective
        self.config = config
        self.compute = compute
        self.total = steps * config.epochs
        self.optimizer = make_optimizer(self.network, config)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.done = 0
        self.lr = 0.0
        self._losses = torch.zeros(CHECK_EVERY, device=compute.device)
        self._hits = torch.zeros((), dtype=torch.int64, device=compute.device)
        self._sum, self._seen = 0.0, 0

    def step(self, batch: Batch, answers: Answers | None) -> None:
        """One forward, backward and optimizer step."""
        self.lr = learning_rate(self.config, step=self.done, total=self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        with self.compute.autocast():
            logits = self.network(batch.pixels)
        logits = logits.float()
        losses = self.objective(logits, batch.labels, answers, done=self.done / self.total)
        self.optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self._losses[self.done % CHECK_EVERY] = losses.sum()
            self._hits += (logits.argmax(-1) == batch.labels).sum()
        self._seen += len(batch.labels)
        self.done += 1
        if self.done % CHECK_EVERY == 0:
            self._look(CHECK_EVERY)

    def end_epoch(self) -> tuple[float, float]:
        """Mean loss and training accuracy of the epoch that ends here."""
        self._look(self.done % CHECK_EVERY)
        loss, accuracy = self._sum / self._seen, int(self._hits) / self._seen
        self._sum, self._seen = 0.0, 0
        self._hits.zero_()
        self._losses.zero_()
        return loss, accuracy

    def _look(self, count: int) -> None:
        """Bring the last `count` losses to the host; those of an earlier look are zero by now."""
        losses = self._losses[:count].double()
        if not bool(losses.isfinite().all()):
            offset = int((~losses.isfinite()).nonzero()[0])
            first = self.done - count + offset + 1
            raise TrainingError(
                f"The loss is not finite at step {first} of {self.total} "
                f"(learning rate {self.lr:.3g}). Try a lower --lr, --clip-norm 1"
                + (", --warmup 0.1 or --cap." if self.objective.kind == "nasty" else ".")
            )
        self._sum += float(losses.sum())
        self._losses[:count] = 0


def fit(
    network: nn.Module,
    objective: Objective,
    train: Feed,
    config: Training,
    compute: Compute,
    *,
    source: Source | None,
    test: Split,
    validation: Split | None,
    task: Task,
    on_epoch: Callable[[EpochRecord], None],
) -> Fitted:
    """Train `network` in place and leave it in eval mode with the weights that were chosen.

    Args:
        network: anything from pixels to logits.
        objective: the loss; `source` answers its batches if it asks for answers.
        train: the training samples.
        config: settled, see `Training.settled`.
        compute: where and how; the feed must be on the same device.
        source: whom to ask about each batch.
        test: measured where `config` asks for it; chooses only under `best-test`.
        validation: chooses under `best-validation`.
        task: told about each batch, in images.
        on_epoch: told about each epoch.

    Raises:
        TrainingError: the loss is not finite; says at which step and what to try.
    """
    assert config.view_seed is not None
    steps = steps_per_epoch(len(train.split), config.batch_size)
    learner = Learner(network, objective, config, compute, steps=steps)
    history: list[EpochRecord] = []
    best, chosen, kept = -1.0, config.epochs, None
    trained_s = 0.0
    with seeded(config.seed, "training"):
        for epoch in range(1, config.epochs + 1):
            started = time.perf_counter()
            learner.network.train()
            for batch in train.epoch(
                epoch, view_seed=config.view_seed, batch_size=config.batch_size
            ):
                learner.step(batch, source(batch) if source else None)
                task.advance(len(batch.labels))
            loss, accuracy = learner.end_epoch()
            seconds = time.perf_counter() - started
            trained_s += seconds
            on_test = on_validation = None
            due = config.evaluate_every and epoch % config.evaluate_every == 0
            if due or config.checkpoint == "best-test":
                on_test = evaluate(learner.network, test, compute).value
            if config.checkpoint == "best-validation":
                assert validation is not None
                on_validation = evaluate(learner.network, validation, compute).value
            score = on_test if config.checkpoint == "best-test" else on_validation
            if config.checkpoint != "last" and score is not None and score > best:
                best, chosen = score, epoch
                kept = {k: v.detach().clone() for k, v in learner.network.state_dict().items()}
            history.append(
                EpochRecord(
                    epoch=epoch,
                    loss=loss,
                    train_accuracy=accuracy,
                    test_accuracy=on_test,
                    validation_accuracy=on_validation,
                    lr=learner.lr,
                    seconds=seconds,
                )
            )
            on_epoch(history[-1])
            task.advance(0, f"epoch {epoch}/{config.epochs}, loss {loss:.3f}")
    if kept is not None:
        learner.network.load_state_dict(kept)
    learner.network.eval()
    seen = sum(min(len(train.split), steps * config.batch_size) for _ in history)
    return Fitted(tuple(history), chosen, seen / trained_s)


def evaluate(network: nn.Module, split: Split, compute: Compute) -> Estimate:
    """Accuracy on a split with its Wilson interval; the network is in eval mode meanwhile."""
    hits = torch.zeros((), dtype=torch.int64, device=compute.device)
    for batch, logits in answers_to(network, split, compute):
        hits += (logits.argmax(-1) == batch.labels).sum()
    return proportion(int(hits), len(split))


def answers_to(
    network: nn.Module, split: Split, compute: Compute
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch of a split, as it is, with the network's logits."""
    was_training = network.training
    network.eval()
    try:
        for batch in Feed(split, compute=compute).plain():
            yield batch, compute.answer(network, batch.pixels)
    finally:
        network.train(was_training)
