"""The end of a run: its network is measured, and its record written."""

import hashlib
import time
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from denature.answers.answerer import Answers
from denature.core import record as records
from denature.core.hits import Hits, digest_of_test
from denature.core.names import own_module
from denature.core.record import DataRecord, ExampleRecord, NetRecord, Record
from denature.core.schema import encode
from denature.core.stats import Estimate, mean_over_images, proportion
from denature.core.weights import digest
from denature.data.dataset import Dataset
from denature.nets import parameter_count
from denature.train.checks import shape_of
from denature.train.examples import examples_of
from denature.train.identity import plan_id, recipe_id
from denature.train.job import Job
from denature.train.loop import answers_to, evaluate, hits_of
from denature.train.objectives.base import Diverging
from denature.train.order import changed, given_by
from denature.train.resolving import TrainingSamples
from denature.train.run import Run, save_run


def conclude(job: Job, dataset: Dataset) -> Run:
    """Measure the finished network of a job, and write the run."""
    clock = time.perf_counter()
    network = job.learner.finish()
    measured = _measure(job, network, dataset)
    seconds = job.learner.seconds + time.perf_counter() - clock
    record = _record_of(job, network, dataset, measured, seconds=seconds)
    run = Run(job.team.broadcast(record), network, job.folder)
    job.team.on_rank0(lambda: save_run(run))
    return run


class Scores(NamedTuple):
    """What was measured of a finished network."""

    score: Estimate
    """Accuracy on the test split; the error for landmarks."""
    hits: Hits | None
    divergence: Estimate | None
    examples: tuple[ExampleRecord, ...]


def _measure(job: Job, network: nn.Module, dataset: Dataset) -> Scores:
    divergence = _divergence(job, network, dataset)
    if dataset.landmarks:
        error = evaluate(network, dataset.test, job.compute, job.team)
        return Scores(error, None, divergence, ())
    right = hits_of(network, dataset.test, job.compute, job.team)
    return Scores(
        proportion(int(right.sum()), len(right)),
        packed_hits(right, dataset),
        divergence,
        examples_of(network, dataset, job.compute),
    )


def _divergence(job: Job, network: nn.Module, dataset: Dataset) -> Estimate | None:
    """Divergence of the finished network from its adversary; None without an adversary."""
    if not isinstance(job.objective, Diverging) or not isinstance(job.source, Run):
        return None
    other = job.compute.place(job.source.network).eval()
    divergences: list[float] = []
    for batch, logits in answers_to(network, dataset.test, job.compute):
        answers = Answers("logits", job.compute.answer(other, batch.pixels))
        divergences += job.objective.divergence(logits, answers).tolist()
    return mean_over_images(divergences) if len(divergences) > 1 else None


def _record_of(
    job: Job, network: nn.Module, dataset: Dataset, measured: Scores, *, seconds: float
) -> Record:
    learner, located = job.learner, dataset.landmarks
    seen = len(job.samples.split) * len(learner.history)
    return Record(
        kind=job.objective.kind,
        id=plan_id(job.plan),
        recipe=recipe_id(
            job.plan,
            {role: given.recipe for role, given in job.inputs.items()},
            outline=_outline(job),
        ),
        net=_net_record(job, network, dataset),
        data=_data_record(dataset, job.samples),
        given={**given_by(job.order), "net": job.name, "data": changed(dataset.config)},
        config=_config(job, dataset),
        inputs={role: run.as_input() for role, run in job.inputs.items()},
        revisions=job.plan["revisions"],
        accuracy=None if located else measured.score,
        hits=measured.hits,
        error=measured.score if located else None,
        divergence=measured.divergence,
        chosen_on=job.training.checkpoint.removeprefix("best-").replace("last", "none"),
        chosen_epoch=learner.chosen_epoch,
        history=tuple(learner.history),
        examples=measured.examples,
        seconds=seconds,
        images_per_second=seen / learner.seconds,
        started=job.started,
        environment={**records.environment(), "device": job.compute.describe()},
    )


def _outline(job: Job) -> str | None:
    """Identity of the shapes of a network of the user's own; None for others."""
    net = job.order.net
    if not isinstance(net, nn.Module) and own_module(net) is None:
        return None
    shapes = {name: tuple(value.shape) for name, value in job.network.state_dict().items()}
    return hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()[:16]


def _config(job: Job, dataset: Dataset) -> dict[str, Any]:
    return {
        "net": job.name,
        "data": {**encode(dataset.config), "holdout": dataset.holdout},
        "objective": job.plan["objective"],
        "training": job.plan["training"],
        "asking": {**job.plan["asking"], **({"form": job.form} if job.form else {})},
        "processes": job.team.size,
    }


def _net_record(job: Job, network: nn.Module, dataset: Dataset) -> NetRecord:
    classes, channels, image_size = shape_of(dataset)
    return NetRecord(
        name=job.name,
        classes=classes,
        channels=channels,
        image_size=image_size,
        parameters=parameter_count(network),
        initial=job.initial,
        digest=digest(network),
    )


def packed_hits(right: np.ndarray, dataset: Dataset) -> Hits:
    """Correctness of each test image's answer, packed for a record."""
    return Hits.pack(right, test=digest_of_test(dataset.digest, dataset.test.rows.numpy()))


def _data_record(dataset: Dataset, samples: TrainingSamples) -> DataRecord:
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
