"""A job: an order with its settings resolved, whose state can be saved and restored."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from denature.answers.transfer import Transfer
from denature.core.compute import Compute, resolve
from denature.core.errors import ConfigError, RunError
from denature.core.revisions import REVISIONS
from denature.core.schema import encode
from denature.core.weights import digest
from denature.data.dataset import Dataset
from denature.data.feed import steps_per_epoch
from denature.nets.published import PublishedWeights
from denature.train.checks import (
    check_answers,
    check_batch_size,
    check_inputs,
    check_kind,
    check_landmarks,
    shape_of,
)
from denature.train.config import Training
from denature.train.identity import Plan, make_plan, plan_id
from denature.train.learner import Learner
from denature.train.objectives.base import BringsData, Objective, Resolvable, SyntheticData
from denature.train.order import Input, Order, objective_settings
from denature.train.resolving import (
    TrainingSamples,
    initialise,
    network_of,
    samples_of,
    training_of,
)
from denature.train.run import STATE_FOLDER, Run, is_finished
from denature.train.state import STATE, write_state
from denature.train.team import SINGLE_PROCESS, ProcessGroup

SYNTHETIC = "dreamt/"
"""Prefix of a generator's tensors in a saved state."""

THREADS, FORM = "threads", "form"
"""Key of the number of threads in a saved state."""


@dataclass(kw_only=True, eq=False)
class Job:
    """An order with all settings resolved, its inputs loaded and its network created."""

    order: Order
    name: str
    objective: Objective
    training: Training
    compute: Compute
    samples: TrainingSamples
    inputs: dict[str, Input]
    plan: Plan
    folder: Path | None
    network: nn.Module
    team: ProcessGroup
    initial: str
    started: str
    form: dict[str, Any] = field(default_factory=dict)
    """Form of the source's answers, see `Inference.form`; set when the source is opened."""
    threads: int | None = None
    """Number of threads that the run began with; None before it begins."""

    @staticmethod
    def of(
        order: Order,
        inputs: Mapping[str, Input],
        dataset: Dataset,
        team: ProcessGroup = SINGLE_PROCESS,
    ) -> "Job":
        """Resolve an order; reject an order that cannot be run.

        Args:
            order: the run to make.
            inputs: runs by role: `source` under the role that the objective names, `init`,
                `backbone`.
            dataset: data for training and test.
            team: the processes that train together.

        Raises:
            ConfigError: unknown network, a run that does not fit the data, a missing teacher.
        """
        asks, objective = order.objective.asks, order.objective
        if asks is not None and asks not in inputs:
            raise ConfigError(
                f"A {objective.kind} run needs a run as {asks}; none was given. Pass --{asks} RUN, "
                "or source= from Python."
            )
        answerer = inputs.get(asks) if asks else None
        if dataset.landmarks:
            check_landmarks(order)
        samples = samples_of(order, dataset)
        network, name = network_of(order, dataset, samples, answerer)
        defense = answerer.defense if isinstance(answerer, Transfer) else None
        check_inputs(inputs, network, dataset)
        check_kind(objective, answerer)
        initialise(network, name, inputs, order, dataset)
        compute = resolve(network, device=order.training.device, precision=order.training.precision)
        check_batch_size(order.training, team.size)
        training = training_of(order, name, dataset, compute)
        if isinstance(objective, Resolvable):
            objective = objective.resolved()
        initial = digest(network)
        plan = make_plan(
            net={"name": name, "shape": list(shape_of(dataset)), "initial": initial},
            data=samples.digest,
            config={
                "objective": {"kind": objective.kind, **objective_settings(objective, defense)},
                "training": encode(training),
                "asking": encode(order.inference) if isinstance(answerer, Run) else {},
            },
            inputs={role: given.digest for role, given in inputs.items()},
            revisions=dict(REVISIONS),
            processes=team.size,
        )
        folder = None if order.out is None else Path(order.out)
        if order.under is not None:
            folder = Path(order.under) / f"{objective.kind}-{name}-{plan_id(plan)[:8]}"
        job = Job(
            order=order,
            name=name,
            objective=objective,
            training=training,
            compute=compute,
            samples=samples,
            inputs=dict(inputs),
            plan=plan,
            folder=folder,
            network=network,
            team=team,
            initial=initial,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        if not job.is_finished:
            check_answers(network, name, dataset, compute)
        return job

    @property
    def images(self) -> int:
        """Images that the whole run is trained on, each counted once an epoch."""
        size, batch = len(self.samples.split), self.training.batch_size
        # A last batch of one sample is skipped.
        steps = steps_per_epoch(size, batch, parts=self.team.size)
        return self.training.epochs * min(size, steps * batch)

    @property
    def images_left(self) -> float:
        """The images that are left after those of a restored state."""
        return self.images * (1 - self.learner.done / self.learner.total)

    @cached_property
    def learner(self) -> Learner:
        """The learner, created on first use: a finished run needs none."""
        batch, team = self.training.batch_size, self.team
        return Learner(
            self.network,
            self.objective,
            self.training,
            self.compute,
            steps=steps_per_epoch(len(self.samples.split), batch, parts=team.size),
            team=team,
            landmarks=self.samples.split.landmarks,
            image=tuple(self.samples.split.images.shape[1:]),
        )

    @cached_property
    def synthetic(self) -> SyntheticData | None:
        """Generator of the run's images, if its objective brings synthetic data."""
        if not isinstance(self.objective, BringsData):
            return None
        assert isinstance(self.source, Run)
        assert self.training.view_seed is not None
        if self.team.size > 1:
            raise ConfigError(
                f"{self.objective.kind} makes its images in one process; leave out the launcher."
            )
        shape = self.source.record.net
        return self.objective.synthetic_data(
            self.source.network,
            images=len(self.samples.split),
            channels=shape.channels,
            image_size=shape.image_size,
            seed=self.training.view_seed,
            compute=self.compute,
        )

    def restore(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Resume from a state that `save` wrote."""
        self.threads, self.form = plain.get(THREADS), plain.get(FORM) or {}
        if self.synthetic is not None:
            names = {k for k in tensors if k.startswith(SYNTHETIC)}
            self.synthetic.restore({k.removeprefix(SYNTHETIC): tensors.pop(k) for k in names})
        self.learner.restore(tensors, plain)

    def forget(self) -> None:
        """Free gradients and moments: the jobs of a long list live until its end."""
        self.__dict__.pop("learner", None)
        self.__dict__.pop("synthetic", None)

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a finished run of this plan."""
        return self.folder is not None and is_finished(self.folder, self.plan)

    @property
    def source(self) -> Run | Transfer | None:
        """Source of the answers to this run's batches."""
        source = None if self.objective.asks is None else self.inputs[self.objective.asks]
        assert not isinstance(source, PublishedWeights)
        return source

    @property
    def settings(self) -> dict[str, Any]:
        """The run's settings as one flat dictionary, for display."""
        return {"net": self.name, **self.plan["objective"], **self.plan["training"]}

    @property
    def title(self) -> str:
        return self.order.title

    def save(self) -> None:
        """Write the learner's state to disk, if the run has a folder."""
        if self.folder is None:
            return
        path, (tensors, plain) = self.folder / STATE_FOLDER / STATE, self.learner.state()
        plain |= {THREADS: self.threads, FORM: self.form}
        if self.synthetic is not None:
            tensors |= {SYNTHETIC + k: v for k, v in self.synthetic.state().items()}

        def write() -> None:
            try:
                write_state(path, tensors, plain)
            except OSError as error:
                raise RunError(
                    f"The state of {self.folder} could not be written: {error.strerror or error}. "
                    "The one before is kept; make room and run the same command again."
                ) from None

        self.team.on_rank0(write)
