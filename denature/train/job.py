"""Orders and jobs: an order names a run, a job resolves, restores, concludes and records it."""

import datetime
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor, nn

from denature.answers.answerer import AnswerChange, Answers
from denature.answers.config import InferenceConfig
from denature.answers.transfer import Transfer
from denature.core import record as records
from denature.core.compute import Compute, resolve
from denature.core.errors import ConfigError, RunError
from denature.core.hits import Hits, digest_of_test
from denature.core.record import DataRecord, NetRecord, Record, format_shape
from denature.core.revisions import REVISIONS
from denature.core.schema import encode
from denature.core.seeds import seeded
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.core.weights import digest, fit_weights
from denature.data.dataset import Dataset, Split
from denature.data.feed import steps_per_epoch
from denature.data.views import auto_views
from denature.nets import create, optimizer_for, parameter_count
from denature.nets.heads import begin_at, freeze, graft
from denature.nets.published import PublishedWeights
from denature.train.config import Training
from denature.train.examples import examples_of
from denature.train.identity import Plan, make_plan, plan_id, plan_of, recipe_id
from denature.train.learner import Learner
from denature.train.loop import answers_to, evaluate, hits_of
from denature.train.objectives.base import (
    BringsData,
    Diverging,
    Objective,
    Resolvable,
    SyntheticData,
)
from denature.train.run import STATE_FOLDER, Run, save_run
from denature.train.state import STATE, write_state
from denature.train.team import SINGLE_PROCESS, ProcessGroup

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Request for one run: network, objective, training, inputs and folder."""

    net: str | nn.Module
    """A name of the catalogue, `package.module:factory`, or a module, which is trained in place and
    does its own normalisation."""
    objective: Objective
    """Loss of the training."""
    training: Training = field(default_factory=Training)
    """Settings of the training."""
    source: "Run | Order | Transfer | None" = None
    """Source of answers: a student's teacher or a nasty teacher's adversary, as a run or the order
    of one; for a clone, the transfer set of its victim."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """Inference settings of that source."""
    init: "Run | Order | None" = None
    """A run of the same network, or the order of one; its weights are the initial weights."""
    backbone: "Run | Order | str | None" = None
    """A run of the same network, or the order of one, whose layers except the last are the initial
    weights: classes and image size may differ. Or the network's own name, `timm:NAME` or
    `torchvision:NAME`, for the weights that the library's authors publish."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation per channel for the network's normalisation; by default those of
    the training samples."""
    out: str | Path | None = None
    """Folder for record, weights and events; None keeps the run in memory."""
    under: str | Path | None = None
    """Instead of `out`: parent of the run's folder, which is named by kind, network and id."""


SYNTHETIC = "dreamt/"
"""Prefix of a generator's tensors in a saved state."""


Input: TypeAlias = Run | Transfer | PublishedWeights
"""Inputs of a run besides data."""


class TestedSplit(NamedTuple):
    """Training samples, and the validation samples that may choose the checkpoint."""

    split: Split
    validation: Split | None
    digest: str
    """Digest of the pixels and of the rows of all splits."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(kw_only=True, eq=False)
class Job:
    """An order with all settings resolved, its inputs loaded and its network created."""

    order: Order
    name: str
    objective: Objective
    training: Training
    compute: Compute
    samples: TestedSplit
    inputs: dict[str, Input]
    plan: Plan
    folder: Path | None
    network: nn.Module
    team: ProcessGroup
    initial: str
    started: str
    form: dict[str, Any] = field(default_factory=dict)
    """Form of the source's answers, see `Inference.form`; set when the source is opened."""

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
            raise ConfigError(f"A {objective.kind} run needs a run as {asks}; none was given.")
        answerer = inputs.get(asks) if asks else None
        if dataset.landmarks:
            _check_landmarks(order)
        choosing = order.training.checkpoint == "best-validation"
        held_out = order.training.validation if choosing else None
        samples = _samples(dataset, order.training.fraction, held_out)
        network, name = _network(order, dataset, samples, answerer)
        defense = answerer.defense if isinstance(answerer, Transfer) else None
        if isinstance(answerer, Transfer):
            answerer.check(dataset)
        for role, run in inputs.items():
            if not isinstance(run, Run):
                continue
            if role != "backbone":
                check_shape(role, run, dataset)
            if run.network is network:
                raise ConfigError(
                    f"The {role} and the network to train are one module; train a copy of it "
                    "(copy.deepcopy), or a network by name."
                )
        if isinstance(init := inputs.get("init"), Run):
            where = f"of {init.folder or 'the init run'}"
            fit_weights(network, init.network.state_dict(), where=where)
        _take_over(network, name, inputs.get("backbone"), order, dataset)
        compute = resolve(network, device=order.training.device, precision=order.training.precision)
        if order.training.batch_size < 2 * team.size:
            raise ConfigError(
                f"batch_size is {order.training.batch_size} for {team.size} processes; each needs "
                f"two samples, so it must be at least {2 * team.size}."
            )
        training = order.training.resolved(
            optimizer=optimizer_for(name),
            augment=auto_views(
                channels=dataset.channels,
                image_size=dataset.image_size,
                landmarks=dataset.landmarks,
            ),
            schedule=getattr(objective, "schedule", "one-cycle"),
            device=compute.device.type,
            precision=compute.precision,
        )
        if isinstance(objective, Resolvable):
            objective = objective.resolved()
        initial = digest(network)
        plan = make_plan(
            net={"name": name, "shape": list(_shape(dataset)), "initial": initial},
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
            _check_answers(network, name, dataset, compute)
        return job

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
        if self.folder is None or not (self.folder / records.RECORD).exists():
            return False
        return plan_of(records.read_record(self.folder)) == self.plan

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
        return f"{self.objective.kind} {self.name}, seed {self.training.seed}"

    def save(self) -> None:
        """Write the learner's state to disk, if the run has a folder."""
        if self.folder is None:
            return
        path, (tensors, plain) = self.folder / STATE_FOLDER / STATE, self.learner.state()
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

    def conclude(self, dataset: Dataset) -> Run:
        """Measure the finished network, and write the run."""
        clock = time.perf_counter()
        learner, training, order = self.learner, self.training, self.order
        network = learner.finish()
        located, test = dataset.landmarks, dataset.test
        if located:
            hits, score = None, evaluate(network, test, self.compute, self.team)
        else:
            right = hits_of(network, test, self.compute, self.team)
            hits = packed_hits(right, dataset)
            score = proportion(int(right.sum()), len(right))
        divergence = self._divergence(network, dataset)
        examples = () if located else examples_of(network, dataset, self.compute)
        seen = len(self.samples.split) * len(learner.history)
        classes, channels, image_size = _shape(dataset)
        record = Record(
            kind=self.objective.kind,
            id=plan_id(self.plan),
            recipe=recipe_id(
                self.plan, {role: given.recipe for role, given in self.inputs.items()}
            ),
            net=NetRecord(
                name=self.name,
                classes=classes,
                channels=channels,
                image_size=image_size,
                parameters=parameter_count(network),
                initial=self.initial,
                digest=digest(network),
            ),
            data=_data_record(dataset, self.samples),
            given={**given_by(order), "net": self.name, "data": _changed(dataset.config)},
            config={
                "net": self.name,
                "data": {**encode(dataset.config), "holdout": dataset.holdout},
                "objective": self.plan["objective"],
                "training": self.plan["training"],
                "asking": {**self.plan["asking"], **({"form": self.form} if self.form else {})},
                "processes": self.team.size,
            },
            inputs={role: run.as_input() for role, run in self.inputs.items()},
            revisions=self.plan["revisions"],
            accuracy=None if located else score,
            hits=hits,
            error=score if located else None,
            divergence=divergence,
            chosen_on=training.checkpoint.removeprefix("best-").replace("last", "none"),
            chosen_epoch=learner.chosen_epoch,
            history=tuple(learner.history),
            examples=examples,
            seconds=learner.seconds + time.perf_counter() - clock,
            images_per_second=seen / learner.seconds,
            started=self.started,
            environment={**records.environment(), "device": self.compute.describe()},
        )
        run = Run(self.team.broadcast(record), network, self.folder)
        self.team.on_rank0(lambda: save_run(run))
        return run

    def _divergence(self, network: nn.Module, dataset: Dataset) -> Estimate | None:
        """Divergence of the finished network from its adversary; None without an adversary."""
        if not isinstance(self.objective, Diverging) or not isinstance(self.source, Run):
            return None
        other = self.compute.place(self.source.network).eval()
        divergences: list[float] = []
        for batch, logits in answers_to(network, dataset.test, self.compute):
            answers = Answers("logits", self.compute.answer(other, batch.pixels))
            divergences += self.objective.divergence(logits, answers).tolist()
        return mean_over_images(divergences) if len(divergences) > 1 else None


def packed_hits(right: np.ndarray, dataset: Dataset) -> Hits:
    """Correctness of each test image's answer, packed for a record."""
    return Hits.pack(right, test=digest_of_test(dataset.digest, dataset.test.rows.numpy()))


def _shape(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.classes), dataset.channels, dataset.image_size


@lru_cache(maxsize=4)  # the orders of a sweep use the same samples
def _samples(dataset: Dataset, fraction: float, held_out: float | None) -> TestedSplit:
    """A fraction of the training samples, after a share is held out for validation."""
    split, validation = dataset.train, dataset.validation
    if held_out is not None and validation is None:
        split, validation = split.divide(held_out, "validation")
    split = split.fraction(fraction)
    if len(split) < 2:
        raise ConfigError(f"{len(split)} training sample is left; take a larger --fraction.")
    content = hashlib.sha256(dataset.digest.encode())
    for part in (split, validation, dataset.test):
        content.update(b"none" if part is None else part.rows.numpy().data)
    return TestedSplit(split, validation, content.hexdigest()[:16], *split.statistics())


def _network(
    order: Order, dataset: Dataset, samples: TestedSplit, answerer: Input | None
) -> tuple[nn.Module, str]:
    net = order.net
    if isinstance(net, nn.Module):
        return net, f"{type(net).__module__}:{type(net).__qualname__}"
    mean, std = order.statistics or (samples.mean, samples.std)
    with seeded(order.training.seed, "weights"):
        network = create(
            net,
            classes=len(dataset.classes),
            channels=dataset.channels,
            image_size=dataset.image_size,
            mean=mean,
            std=std,
        )
    if dataset.landmarks:
        labels = samples.split.labels[samples.split.rows]
        if isinstance(answerer, Transfer):
            # The initial bias must not carry more than the defended answers show.
            labels = answerer.shown(Answers("landmarks", labels)).values
        begin_at(network, labels.mean(dim=0))
    return network, net


def _take_over(
    network: nn.Module, name: str, backbone: Input | None, order: Order, dataset: Dataset
) -> None:
    """Initialise the network from a backbone, if there is one.

    Raises:
        ConfigError: the backbone does not fit, `frozen` has no backbone, or `init` is given too.
    """
    if backbone is None:
        if order.training.frozen:
            raise ConfigError("frozen is set, and there is no backbone to freeze; name one.")
        return
    if order.init is not None:
        raise ConfigError("A run starts from init or from a backbone; leave one of them out.")
    assert not isinstance(backbone, Transfer)
    if isinstance(backbone, Run):
        kind, channels = backbone.record.net.name, backbone.record.net.channels
        where, tensors = f"The backbone {backbone.folder or kind}", backbone.network.state_dict()
        if channels != dataset.channels:
            raise ConfigError(
                f"{where} takes images of {channels} channels, and {dataset.config.source} has "
                f"{dataset.channels}."
            )
    else:
        kind, tensors = backbone.name, backbone.tensors
        where = f"The backbone {kind}"
    if kind != name:
        raise ConfigError(f"{where} is a {kind}, and {name} is to be trained; take the same.")
    taken = graft(network, tensors, outputs=len(dataset.classes), where=where)
    if order.training.frozen:
        freeze(network, taken)


def _check_landmarks(order: Order) -> None:
    """Check that an order can be run on data whose labels are coordinates."""
    objective, training = order.objective, order.training
    if not getattr(objective, "landmarks", False):
        raise ConfigError(
            f"{objective.kind} training compares classes, and the labels are landmarks. Train on "
            "them, or clone a victim that answers with them."
        )
    if training.augment not in ("auto", "none", "crop"):
        raise ConfigError(
            f"augment is {training.augment}; landmarks can follow a crop only. Leave it out."
        )


def check_shape(role: str, run: Run, dataset: Dataset) -> None:
    net = run.record.net
    if run.record.landmarks != dataset.landmarks:
        kinds = {True: "landmarks", False: "classes"}
        raise ConfigError(
            f"The {role} {run.folder or net.name} predicts {kinds[run.record.landmarks]}, and the "
            f"labels of {dataset.config.source} are {kinds[dataset.landmarks]}. Take a run on such "
            "data."
        )
    if net.shape != (wanted := _shape(dataset)):
        raise ConfigError(
            f"The {role} {run.folder or net.name} answers {format_shape(net.shape)}, but the data "
            f"{dataset.config.source} has {format_shape(wanted)}. Take a run on such data."
        )


def _check_answers(network: nn.Module, name: str, dataset: Dataset, compute: Compute) -> None:
    """Pass two images through a network, so that a misfit fails here and not in the loss."""
    compute.place(network)
    was_training = network.training
    pixels = compute.pixels(dataset.train.images[dataset.train.rows[:2]].to(compute.device))
    try:
        shape = tuple(compute.answer(network.eval(), pixels).shape)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(
            f"The network {name} cannot take images of {tuple(pixels.shape[1:])}: {error}"
        ) from None
    finally:
        network.train(was_training)
    if shape != (len(pixels), len(dataset.classes)):
        raise ConfigError(
            f"The network {name} answered {len(pixels)} images with the shape {shape}; wanted is "
            f"{(len(pixels), len(dataset.classes))}, logits for each class."
        )


def objective_settings(objective: Objective, defense: AnswerChange | None) -> dict[str, Any]:
    """Fields of an objective as plans state them, and the defense of its answers."""
    # The loss of a clone once rounded the answers, so all plans of clones state its decimals.
    unrounded = {"decimals": None} if objective.kind == "cloned" else {}
    return {**encode(objective), **unrounded, **({} if defense is None else defense.settings)}


def given_by(order: Order) -> dict[str, Any]:
    """Settings of an order that differ from their defaults."""
    defense = order.source.defense if isinstance(order.source, Transfer) else None
    changed = {**_changed(order.objective), **({} if defense is None else defense.settings)}
    return {
        "net": order.net,
        "objective": {"kind": order.objective.kind, **changed},
        "training": _changed(order.training),
        "asking": _changed(order.inference),
    }


def _changed(config: "DataclassInstance") -> dict[str, Any]:
    """The fields of a config that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(config)}
    changed = {name for name, default in defaults.items() if getattr(config, name) != default}
    return {name: value for name, value in encode(config).items() if name in changed}


def _data_record(dataset: Dataset, samples: TestedSplit) -> DataRecord:
    validation = samples.validation
    return DataRecord(
        source=dataset.config.source,
        digest=dataset.digest,
        split_digest=samples.digest,
        classes=dataset.classes,
        train=len(samples.split),
        validation=len(validation) if validation else 0,
        test=len(dataset.test),
        test_origin=dataset.test_origin,
        skipped=dataset.skipped,
        landmarks=dataset.landmarks,
    )
