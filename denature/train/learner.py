"""A network that learns, a step at a time, and can be put aside between two steps."""

import math
from dataclasses import asdict
from typing import Any, final

import torch
from torch import Tensor, nn

from denature.answers import Answers
from denature.core.compute import Compute
from denature.core.errors import TrainingError
from denature.core.record import EpochRecord
from denature.core.seeds import derive
from denature.data.feed import Batch
from denature.train.config import Training
from denature.train.objectives import Objective
from denature.train.state import optimizer_tensors, restore_optimizer

CHECK_EVERY = 64
"""Steps between looks at the losses; each look waits for the device."""


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
    """A network with its objective, its optimizer and how far it is.

    Nothing is copied to the host per step: losses and hits stay on the device and are looked at
    every `CHECK_EVERY` steps, which is also how a loss that is no longer finite is caught with its
    step.

    Args:
        network: anything from pixels to logits; trained in place.
        objective: the loss.
        config: settled, see `Training.settled`.
        compute: where and how.
        steps: batches of an epoch.
    """

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
        self.steps = steps
        self.total = steps * config.epochs
        self.optimizer = make_optimizer(self.network, config)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.done = 0
        self.lr = 0.0
        self.history: list[EpochRecord] = []
        self.best = -1.0
        self.chosen_epoch = config.epochs
        self.kept: dict[str, Tensor] | None = None
        self.seconds = 0.0
        """Time in training, evaluation not counted; of a shared pass the share of this learner."""
        self._losses = torch.zeros(CHECK_EVERY, device=compute.device)
        self._hits = torch.zeros((), dtype=torch.int64, device=compute.device)
        self._sum, self._seen, self._epoch_started = 0.0, 0, 0.0

    @property
    def finished(self) -> bool:
        return len(self.history) == self.config.epochs

    def step(self, batch: Batch, answers: Answers | None) -> None:
        """One forward, backward and optimizer step.

        Randomness inside the network, such as dropout, is a function of seed and step, so neither a
        pause nor another learner in the same pass changes it. The caller protects torch's own
        generators.
        """
        # Not torch.manual_seed: without CUDA that queues a stack trace at every call, for ever.
        seed = derive(self.config.seed, "step", self.done)
        torch.default_generator.manual_seed(seed)
        if self.compute.device.type == "cuda":
            torch.cuda.manual_seed(seed)
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

    def end_epoch(self, *, test: float | None, validation: float | None) -> EpochRecord:
        """Close an epoch with what was measured after it, and keep its weights if they are best."""
        self._look(self.done % CHECK_EVERY)
        entry = EpochRecord(
            epoch=len(self.history) + 1,
            loss=self._sum / self._seen,
            train_accuracy=int(self._hits) / self._seen,
            test_accuracy=test,
            validation_accuracy=validation,
            lr=self.lr,
            seconds=self.seconds - self._epoch_started,
        )
        self.history.append(entry)
        self._sum, self._seen, self._epoch_started = 0.0, 0, self.seconds
        self._hits.zero_()
        score = {"last": None, "best-test": test, "best-validation": validation}[
            self.config.checkpoint
        ]
        if score is not None and score > self.best:
            self.best, self.chosen_epoch = score, entry.epoch
            self.kept = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        return entry

    @property
    def _advice(self) -> str:
        more = ", --warmup 0.1 or --cap." if self.objective.kind == "nasty" else "."
        return "Try a lower --lr, --clip-norm 1" + more

    def finish(self) -> nn.Module:
        """The network with the weights that were chosen, in eval mode.

        Raises:
            TrainingError: they are not finite, which no loss would show after the last step.
        """
        if self.kept is not None:
            self.network.load_state_dict(self.kept)
        wild = [k for k, v in self.network.state_dict().items() if not bool(v.isfinite().all())]
        if wild:
            raise TrainingError(
                f"The last step left weights that are not finite, such as {wild[0]}. {self._advice}"
            )
        return self.network.eval()

    def _look(self, count: int) -> None:
        """Bring the last `count` losses to the host; those of an earlier look are zero by now.

        Raises:
            TrainingError: one of them is not finite; says at which step, and what to try.
        """
        losses = self._losses[:count].double()
        if not bool(losses.isfinite().all()):
            offset = int((~losses.isfinite()).nonzero()[0])
            first = self.done - count + offset + 1
            raise TrainingError(
                f"The loss is not finite at step {first} of {self.total} "
                f"(learning rate {self.lr:.3g}). {self._advice}"
            )
        for loss in losses.tolist():  # one by one, so that a look more or less changes no sum
            self._sum += loss
        self._losses[:count] = 0

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to go on, as tensors and plain values."""
        self._look(self.done % CHECK_EVERY)  # a state is never saved with a loss that is not finite
        kept = self.kept or {}
        optimizer = optimizer_tensors(self.optimizer)
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"optimizer/{k}": v for k, v in optimizer.items()}
        tensors |= {f"kept/{k}": v for k, v in kept.items()}
        plain = {
            "done": self.done,
            "lr": self.lr,
            "best": self.best,
            "chosen_epoch": self.chosen_epoch,
            "seconds": self.seconds,
            "sum": self._sum,
            "seen": self._seen,
            "hits": int(self._hits),
            "epoch_started": self._epoch_started,
            "history": [asdict(entry) for entry in self.history],
        }
        return tensors, plain

    def restore(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Go back to a state that `state` gave."""

        def of(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.network.load_state_dict(of("network/"))
        restore_optimizer(self.optimizer, of("optimizer/"))
        self.kept = of("kept/") or None
        self.done, self.lr, self.best = plain["done"], plain["lr"], plain["best"]
        self.chosen_epoch, self.seconds = plain["chosen_epoch"], plain["seconds"]
        self._sum, self._seen = plain["sum"], plain["seen"]
        self._hits.fill_(plain["hits"])
        self._epoch_started = plain["epoch_started"]
        self.history = [EpochRecord(**entry) for entry in plain["history"]]
