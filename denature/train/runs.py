"""Making a run: one training, from a config to a record; and three short ways to ask for one."""

import base64
import datetime
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from denature.answers import LabelsOnly, Live, Remembered, Source
from denature.core import record as records
from denature.core.compute import Compute, settle
from denature.core.errors import ConfigError
from denature.core.progress import SILENT, Progress
from denature.core.record import DataRecord, EpochRecord, ExampleRecord, NetRecord, Record
from denature.core.schema import encode
from denature.core.seeds import seeded
from denature.core.stats import Estimate
from denature.core.weights import digest, fit_weights
from denature.data import DataConfig, Dataset, load
from denature.data.dataset import Split
from denature.data.feed import Feed
from denature.data.views import views
from denature.nets import NETS, create, parameter_count
from denature.train.config import Training
from denature.train.loop import answers_to, evaluate, fit
from denature.train.objectives import AnyObjective, Distilled, Nasty, Normal
from denature.train.run import Run, claim, save_run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EXAMPLES = 8
"""Test images whose logits a record keeps, for pictures of answers."""


def normal(net: str | nn.Module, data: str | DataConfig | Dataset, **options: Any) -> Run:
    """Train a network on the true labels; options are those of `train` and `Training`."""
    return _with_options(Normal, net, data, options)


def nasty(
    net: str | nn.Module, data: str | DataConfig | Dataset, *, adversary: Run, **options: Any
) -> Run:
    """Train a nasty teacher; options are those of `train`, `Training` and `Nasty`."""
    return _with_options(Nasty, net, data, {"adversary": adversary, **options})


def distilled(
    net: str | nn.Module, data: str | DataConfig | Dataset, *, teacher: Run, **options: Any
) -> Run:
    """Train a student of `teacher`; options are those of `train`, `Training` and `Distilled`."""
    return _with_options(Distilled, net, data, {"teacher": teacher, **options})


def _with_options(
    objective: type[AnyObjective],
    net: str | nn.Module,
    data: str | DataConfig | Dataset,
    options: dict[str, Any],
) -> Run:
    def take(kind: type[Any]) -> dict[str, Any]:
        return {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}

    made, training = objective(**take(objective)), Training(**take(Training))
    return train(net, data, made, training, **options)


def train(
    net: str | nn.Module,
    data: str | DataConfig | Dataset,
    objective: AnyObjective,
    training: Training | None = None,
    *,
    teacher: Run | None = None,
    adversary: Run | None = None,
    init: Run | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Run:
    """Make one run.

    Args:
        net: a name of the catalogue, `package.module:factory`, or a module, which is trained in
            place and owns its normalisation.
        data: what to train and test on.
        objective: what is learned.
        training: how it is trained.
        teacher: who answers a `Distilled` objective.
        adversary: whom a `Nasty` objective pushes away from.
        init: a run of the same network whose weights are the start.
        out: folder for record, weights and events; None keeps the run in memory.
        overwrite: let `out` hold another run, which is removed.
        progress: told how far it is.

    Raises:
        DenatureError: see `denature.core.errors`; nothing that looks complete is left in `out`.
    """
    as_given = training or Training()
    inputs = {"teacher": teacher, "adversary": adversary, "init": init}
    answering = None if objective.asks is None else inputs[objective.asks]
    if objective.asks is not None and answering is None:
        raise ConfigError(
            f"A {objective.kind} run needs a run as {objective.asks}; none was given."
        )
    dataset = load(data, progress=progress)
    network, name = _network(net, dataset, as_given.seed)
    for role, run in inputs.items():
        if run is not None:
            _check_shape(role, run, dataset)
    if init is not None:
        fit_weights(network, init.network.state_dict(), where=f"of {init.folder or 'the init run'}")
    compute = settle(network, device=as_given.device, precision=as_given.precision)
    _check_answers(network, name, dataset, compute)
    settled = as_given.settled(
        optimizer=NETS[name].optimizer if name in NETS else "adam",
        device=compute.device.type,
        precision=compute.precision,
    )
    settled_objective = objective.settled() if isinstance(objective, Distilled) else objective

    split, validation = _samples(dataset, settled)
    family = views(settled.augment, channels=dataset.channels, image_size=dataset.image_size)
    feed = Feed(split, compute=compute, views=family)
    folder = None if out is None else claim(Path(out), overwrite=overwrite)

    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    title, total = f"{objective.kind} {name}, seed {settled.seed}", len(split) * settled.epochs
    with _events(folder) as on_epoch, progress.task(title, total, "images") as task:
        fitted = fit(
            network,
            settled_objective,
            feed,
            settled,
            compute,
            source=None if answering is None else _source(objective, answering, feed, settled),
            test=dataset.test,
            validation=validation,
            task=task,
            on_epoch=on_epoch,
        )
    accuracy = evaluate(network, dataset.test, compute)
    record = Record(
        kind=objective.kind,
        net=NetRecord(
            name=name,
            classes=len(dataset.classes),
            channels=dataset.channels,
            image_size=dataset.image_size,
            parameters=parameter_count(network),
            digest=digest(network),
        ),
        data=_data_record(dataset, split, validation),
        given={
            "net": name,
            "data": _changed(dataset.config),
            "objective": {"kind": objective.kind, **_changed(objective)},
            "training": _changed(as_given),
        },
        config={
            "net": name,
            "data": encode(dataset.config),
            "objective": {"kind": objective.kind, **encode(settled_objective)},
            "training": encode(settled),
        },
        inputs={role: run.as_input() for role, run in inputs.items() if run is not None},
        accuracy=accuracy,
        chosen_on=settled.checkpoint.removeprefix("best-").replace("last", "none"),
        chosen_epoch=fitted.chosen_epoch,
        history=fitted.history,
        examples=_examples(network, dataset, compute),
        seconds=time.perf_counter() - clock,
        images_per_second=fitted.images_per_second,
        started=started.isoformat(timespec="seconds"),
        environment={**records.environment(), "device": compute.describe()},
    )
    run = Run(record, network, folder)
    save_run(run)
    return run


def evaluate_run(
    run: Run,
    data: str | DataConfig | Dataset,
    *,
    device: str = "auto",
    precision: str = "fp32",
    progress: Progress = SILENT,
) -> Estimate:
    """Accuracy of a run on the test split of any data of its shape."""
    dataset = load(data, progress=progress)
    _check_shape("run", run, dataset)
    compute = settle(run.network, device=device, precision=precision)
    return evaluate(compute.place(run.network), dataset.test, compute)


def _samples(dataset: Dataset, training: Training) -> tuple[Split, Split | None]:
    """What is trained on, and what may choose the checkpoint."""
    split, validation = dataset.train, dataset.validation
    if training.checkpoint == "best-validation" and validation is None:
        split, validation = split.divide(training.validation, "validation")
    split = split.fraction(training.fraction)
    if len(split) < 2:
        raise ConfigError(f"{len(split)} training sample is left; take a larger --fraction.")
    return split, validation


def _network(net: str | nn.Module, dataset: Dataset, seed: int) -> tuple[nn.Module, str]:
    if isinstance(net, nn.Module):
        return net, f"{type(net).__module__}:{type(net).__qualname__}"
    mean, std = dataset.statistics()
    with seeded(seed, "weights"):
        network = create(
            net,
            classes=len(dataset.classes),
            channels=dataset.channels,
            image_size=dataset.image_size,
            mean=mean,
            std=std,
        )
    return network, net


def _check_shape(role: str, run: Run, dataset: Dataset) -> None:
    net = run.record.net
    theirs = (net.classes, net.channels, net.image_size)
    ours = (len(dataset.classes), dataset.channels, dataset.image_size)
    if theirs != ours:
        text = "{} classes of {}-channel images of {} pixels a side"
        raise ConfigError(
            f"The {role} {run.folder or net.name} answers {text.format(*theirs)}, but the data "
            f"{dataset.config.source} has {text.format(*ours)}. Take a run on such data."
        )


def _check_answers(network: nn.Module, name: str, dataset: Dataset, compute: Compute) -> None:
    """Ask about two images, so that a network that does not fit fails here and not in a loss."""
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


def _source(objective: AnyObjective, asked: Run, feed: Feed, training: Training) -> Source:
    """Ask the run live, or once per sample where each sample has one view."""
    compute = settle(asked.network, device=training.device, precision=training.precision)
    source: Source = Live(asked.network, compute)
    if feed.views.count == 1:
        source = Remembered(source, feed)
    if isinstance(objective, Distilled) and objective.answers == "labels":
        source = LabelsOnly(source)
    return source


def _changed(config: "DataclassInstance") -> dict[str, Any]:
    """The fields of a config that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(config)}
    changed = {name for name, default in defaults.items() if getattr(config, name) != default}
    return {name: value for name, value in encode(config).items() if name in changed}


def _data_record(dataset: Dataset, split: Split, validation: Split | None) -> DataRecord:
    return DataRecord(
        source=dataset.config.source,
        digest=dataset.digest,
        classes=dataset.classes,
        train=len(split),
        validation=len(validation) if validation else 0,
        test=len(dataset.test),
        test_origin=dataset.test_origin,
        skipped=dataset.skipped,
    )


def _examples(network: nn.Module, dataset: Dataset, compute: Compute) -> tuple[ExampleRecord, ...]:
    """Logits for the first test image of each class, up to `EXAMPLES` of them."""
    labels = dataset.test.labels[dataset.test.rows].numpy()
    firsts = np.sort(np.unique(labels, return_index=True)[1])[:EXAMPLES]
    examples = []
    for batch, logits in answers_to(network, dataset.test.take(firsts), compute):
        for sample, label, row in zip(batch.samples, batch.labels, logits, strict=True):
            png = _png(dataset.test.images[int(sample)].numpy())
            answer = tuple(round(value, 4) for value in row.tolist())
            examples.append(
                ExampleRecord(sample=int(sample), label=int(label), logits=answer, png=png)
            )
    return tuple(examples)


def _png(image: np.ndarray) -> str | None:
    try:
        from PIL import Image
    except ImportError:
        return None
    buffer = io.BytesIO()
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def _events(folder: Path | None) -> Iterator[Callable[[EpochRecord], None]]:
    """Write each epoch as TensorBoard events into `folder`/events."""
    if folder is None:
        yield lambda epoch: None
        return
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder / "events")) as writer:

        def write(epoch: EpochRecord) -> None:
            scalars = {
                "loss/train": epoch.loss,
                "accuracy/train": epoch.train_accuracy,
                "accuracy/test": epoch.test_accuracy,
                "accuracy/validation": epoch.validation_accuracy,
                "learning_rate": epoch.lr,
            }
            for name, value in scalars.items():
                if value is not None:
                    writer.add_scalar(name, value, epoch.epoch)

        yield write
