"""Learner: a network in training, one step at a time, whose state can be saved between steps."""

import math
from dataclasses import asdict
from typing import Any, final

import torch
from torch import Tensor, nn

from denature.answers import Answers
from denature.core.compute import Compute
from denature.core.errors import ConfigError, TrainingError
from denature.core.record import EpochRecord
from denature.core.seeds import derive
from denature.core.types import Logits, PerExample, Pixels
from denature.data.feed import Batch
from denature.nets.heads import train_mode
from denature.train.config import Training
from denature.train.features import FeatureLoss
from denature.train.objectives.base import Objective, Probing, UsesFeatures
from denature.train.state import optimizer_tensors, restore_optimizer
from denature.train.team import SINGLE_PROCESS, ProcessGroup, gathered, sharded_like

CHECK_EVERY = 64
"""Steps between checks of the losses; each check waits for the device."""


def learning_rate(config: Training, *, step: int, total: int) -> float:
    """The learning rate of a step, as a pure function of the step.

    one-cycle rises linearly over the first quarter and falls linearly to 0 (after Smith 2018,
    arXiv:1803.09820); cosine falls from the first step; step is multiplied by gamma at milestones;
    constant stays.
    """
    assert config.lr is not None
    peak = config.lr
    done = step / total
    if config.schedule == "one-cycle":
        # The first and the last step need a rate above 0, hence the offset of 0.5.
        at = (step + 0.5) / total
        return peak * min(at / 0.25, (1 - at) / 0.75)
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "step":
        epoch = int(done * config.epochs + 1e-9)
        return peak * config.gamma ** sum(milestone <= epoch for milestone in config.milestones)
    return peak


def make_optimizer(*modules: nn.Module, config: Training) -> torch.optim.Optimizer:
    """The optimizer of a resolved training; every step sets its learning rate.

    Modules are groups of their own: torch's fused SGD fails where some parameters of a group had a
    gradient before and others have their first one.
    """
    assert config.weight_decay is not None
    parameters = [
        {"params": [p for p in module.parameters() if p.requires_grad]} for module in modules
    ]
    decay, fused = config.weight_decay, config.device != "mps"
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=0.0, momentum=0.9, weight_decay=decay, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=0.0, weight_decay=decay, fused=fused)


@final
class Learner:
    """A network with its objective, its optimizer and its position in the training.

    No step copies to the host: losses and hits stay on the device and are checked every
    `CHECK_EVERY` steps. The check also finds the step of a loss that is not finite.

    Args:
        network: maps pixels to logits; is trained in place.
        objective: the loss.
        config: resolved, see `Training.resolved`.
        compute: device, precision and memory layout.
        steps: number of batches in an epoch.
        team: the processes that train together.
        landmarks: whether labels are coordinates; the metric is then an error instead of accuracy.
        image: channels x height x width of an image, for an objective that uses features.

    Raises:
        ConfigError: synchronised batch norm on a device other than CUDA; an objective with heads of
            its own in several processes.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        config: Training,
        compute: Compute,
        *,
        steps: int,
        team: ProcessGroup = SINGLE_PROCESS,
        landmarks: bool = False,
        image: tuple[int, ...] = (),
    ) -> None:
        self._counts_hits = not landmarks
        if config.sync_norm and team.size > 1:
            if compute.device.type != "cuda":
                raise ConfigError(
                    f"--sync-norm is set on {compute.device.type}; torch synchronises batch norm "
                    "on CUDA only. Leave it out."
                )
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = compute.place(network)
        self.team = team
        self._trained = team.spread(self.network, engine=config.parallel)
        self._in_parts = team.size > 1 and config.parallel == "fsdp"
        self.objective = objective
        self.config = config
        self.compute = compute
        self.steps = steps
        self.total = steps * config.epochs
        self._feature_loss = self._with_features(image)
        heads = [] if self._feature_loss is None else [self._feature_loss.heads]
        self.optimizer = make_optimizer(self._trained, *heads, config=config)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.done = 0
        self.lr = 0.0
        self.history: list[EpochRecord] = []
        self.best = -1e9
        self.chosen_epoch = config.epochs
        self.kept: dict[str, Tensor] | None = None
        self.seconds = 0.0
        """Seconds of training without evaluation; in a shared pass, the share of this learner."""
        self._losses = torch.zeros(CHECK_EVERY, device=compute.device)
        self._hits = torch.zeros((), dtype=torch.int64, device=compute.device)
        self._sum, self._seen, self._epoch_started = 0.0, 0, 0.0

    def _with_features(self, image: tuple[int, ...]) -> FeatureLoss | None:
        """The objective with its heads, where it uses features."""
        if not isinstance(self.objective, UsesFeatures):
            return None
        if self.team.size > 1:
            raise ConfigError(
                f"{self.objective.kind} training adds heads to the network, which train in one "
                "process; leave out the launcher."
            )
        return FeatureLoss(
            self.objective, self.network, self.compute, image=image, seed=self.config.seed
        )

    @property
    def finished(self) -> bool:
        return len(self.history) == self.config.epochs

    def train(self) -> None:
        """Put the network in training mode."""
        train_mode(self._trained)

    def step(self, batch: Batch, answers: Answers | None, *, of: int | None = None) -> None:
        """One forward, backward and optimizer step on this process's part of a batch of `of`.

        Randomness inside the network, such as dropout, is a function of seed and step, so neither a
        pause nor another learner in the same pass changes it. The caller saves and restores torch's
        own generators.
        """
        # Not torch.manual_seed: without CUDA each call queues a stack trace that is never freed.
        others = (self.team.rank,) if self.team.rank else ()
        seed = derive(self.config.seed, "step", self.done, *others)
        torch.default_generator.manual_seed(seed)
        if self.compute.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.compute.device.type == "mps":
            torch.mps.manual_seed(seed)
        self.lr = learning_rate(self.config, step=self.done, total=self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        logits, losses = self._losses_of(batch, answers)
        self.optimizer.zero_grad(set_to_none=True)
        if self.team.size == 1:
            losses.mean().backward()
        else:  # gradients are averaged over processes, whose parts may differ by one sample
            (losses.sum() * (self.team.size / (of or len(losses)))).backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self._losses[self.done % CHECK_EVERY] = losses.sum()
            if self._counts_hits:
                self._hits += (logits.argmax(-1) == batch.labels).sum()
        self._seen += len(batch.labels)
        self.done += 1
        if self.done % CHECK_EVERY == 0:
            self._look(CHECK_EVERY)

    def _losses_of(self, batch: Batch, answers: Answers | None) -> tuple[Logits, PerExample]:
        def ask(pixels: Pixels) -> Logits:
            with self.compute.autocast():
                logits: Logits = self._trained(pixels)
            return logits.float()

        if isinstance(self.objective, Probing):
            # A distributed wrapper would count these probing calls as training steps.
            inner = self._trained
            if isinstance(inner, nn.parallel.DistributedDataParallel):
                inner = inner.module
            with self.compute.autocast():
                return self.objective.probed(inner, ask, batch.pixels, batch.labels)
        done = self.done / self.total
        if self._feature_loss is not None:
            return self._feature_loss(batch, answers, done=done)
        logits = ask(batch.pixels)
        return logits, self.objective(logits, batch.labels, answers, done=done)

    def end_epoch(self, *, test: float | None, validation: float | None) -> EpochRecord:
        """Close an epoch with its measurements, and keep its weights if they are the best."""
        self._look(self.done % CHECK_EVERY)
        loss, seen, hits = self.team.total([self._sum, self._seen, int(self._hits)])
        entry = EpochRecord(
            epoch=len(self.history) + 1,
            loss=loss / seen,
            train_accuracy=hits / seen if self._counts_hits else None,
            test_accuracy=test if self._counts_hits else None,
            validation_accuracy=validation if self._counts_hits else None,
            lr=self.lr,
            seconds=self.seconds - self._epoch_started,
            test_error=None if self._counts_hits else test,
            validation_error=None if self._counts_hits else validation,
        )
        self.history.append(entry)
        self._sum, self._seen, self._epoch_started = 0.0, 0, self.seconds
        self._hits.zero_()
        score = {"last": None, "best-test": test, "best-validation": validation}[
            self.config.checkpoint
        ]
        if score is not None and not self._counts_hits:
            score = -score  # a smaller error is better
        if score is not None and score > self.best:
            self.best, self.chosen_epoch = score, entry.epoch
            self.kept = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        return entry

    @property
    def _advice(self) -> str:
        return f"Try a lower --lr, --clip-norm 1{self.objective.remedies}."

    def collect(self) -> nn.Module:
        """The network with its current weights, gathered where processes hold them in parts."""
        if self._in_parts:
            full = {name: gathered(value) for name, value in self._trained.state_dict().items()}
            self.network.load_state_dict(full)
        # Running statistics differ among processes; all take those of rank 0.
        self.team.share_buffers(self.network)
        return self.network

    def finish(self) -> nn.Module:
        """The network with the chosen weights, in eval mode.

        Raises:
            TrainingError: weights are not finite; after the last step no loss would show it.
        """
        self.collect()
        if self.kept is not None:
            self.network.load_state_dict(self.kept)
        wild = [k for k, v in self.network.state_dict().items() if not bool(v.isfinite().all())]
        if wild:
            raise TrainingError(
                f"The last step left weights that are not finite, such as {wild[0]}. {self._advice}"
            )
        return self.network.eval()

    def _look(self, count: int) -> None:
        """Copy the last `count` losses to the host; losses of earlier checks are zero by now.

        Raises:
            TrainingError: a loss is not finite; the message names the step and possible remedies.
        """
        losses = self._losses[:count].double()
        if not bool(losses.isfinite().all()):
            offset = int((~losses.isfinite()).nonzero()[0])
            first = self.done - count + offset + 1
            raise TrainingError(
                f"The loss is not finite at step {first} of {self.total} "
                f"(learning rate {self.lr:.3g}). {self._advice}"
            )
        for loss in losses.tolist():  # one by one: the number of checks must not change the sum
            self._sum += loss
        self._losses[:count] = 0

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The complete state, as tensors and plain values; all processes must call this."""
        self._look(self.done % CHECK_EVERY)  # raises where a loss is not finite
        loss, seen, hits = self.team.total([self._sum, self._seen, int(self._hits)])
        kept = self.kept or {}
        optimizer = optimizer_tensors(self.optimizer)
        tensors = {f"network/{k}": v for k, v in self.collect().state_dict().items()}
        tensors |= {f"optimizer/{k}": v for k, v in optimizer.items()}
        tensors |= {f"kept/{k}": v for k, v in kept.items()}
        if self._feature_loss is not None:
            tensors |= {f"heads/{k}": v for k, v in self._feature_loss.state().items()}
        plain = {
            "done": self.done,
            "lr": self.lr,
            "best": self.best,
            "chosen_epoch": self.chosen_epoch,
            "seconds": self.seconds,
            "sum": loss,
            "seen": int(seen),
            "hits": int(hits),
            "epoch_started": self._epoch_started,
            "history": [asdict(entry) for entry in self.history],
        }
        return tensors, plain

    def restore(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Restore a state that `state` returned."""

        def of(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        weights = of("network/")
        self.network.load_state_dict(weights)
        if self._in_parts:
            own = self._trained.state_dict()
            self._trained.load_state_dict({k: sharded_like(v, own[k]) for k, v in weights.items()})
        if self._feature_loss is not None:
            self._feature_loss.restore(of("heads/"))
        restore_optimizer(self.optimizer, of("optimizer/"))
        self.kept = of("kept/") or None
        self.done, self.lr, self.best = plain["done"], plain["lr"], plain["best"]
        self.chosen_epoch, self.seconds = plain["chosen_epoch"], plain["seconds"]
        if self.team.is_rank0:  # sums over processes are counted once
            self._sum, self._seen = plain["sum"], plain["seen"]
            self._hits.fill_(plain["hits"])
        self._epoch_started = plain["epoch_started"]
        self.history = [EpochRecord(**entry) for entry in plain["history"]]
