"""The paper's analyses of teachers: outputs, features, and images from their weights."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from denature.core.compute import Compute, resolve
from denature.core.errors import RunError
from denature.core.schema import encode
from denature.core.sealed import write_tensors
from denature.core.stats import mean_over_seeds, pooled
from denature.data import Dataset
from denature.data.feed import Feed
from denature.data.png import to_png
from denature.datafree.config import Dafl
from denature.datafree.deepinversion import agreement, invert
from denature.nets.activations import ActivationRecorder
from denature.recipes.paper.orders import ExperimentContext, PlacedOrder
from denature.recipes.paper.recalled import NASTY, NORMAL
from denature.report import words
from denature.report.cells import TEACHER
from denature.report.paper import Analysis, ImageGrid, Map
from denature.train import Order, Run
from denature.train.session import Session
from denature.train.state import read_state

PAIR = "resnet18"
"""Network of the teachers in the analyses of outputs and features."""

INVERTED = "resnet34"
"""Network of the teachers under data-free attack."""


def two_teachers(context: ExperimentContext, net: str = PAIR) -> Iterator[PlacedOrder]:
    """A normal and a nasty teacher at each seed."""
    for seed in range(context.seeds):
        for kind, teacher in _pair(context, seed, net):
            yield PlacedOrder(
                row=kind,
                column=TEACHER,
                seed=seed,
                order=teacher,
                against=None if kind == NORMAL else context.normal(net, seed),
            )


def responses(
    context: ExperimentContext, made: Mapping[Order, Run], data: Dataset, session: Session
) -> Analysis:
    """Outputs of both teachers on the same test images; the paper: nasty ones have many peaks."""
    lines = [["Teacher", "Accuracy %", "Largest %", "Second %", "Entropy, nats", "Seeds"]]
    temperature = context.setting.loss[context.data].temperature
    for kind, runs in _by_kind(context, made):
        statistics = []
        for run in runs:
            logits, _ = _answers(context, run, data)
            soft = (logits / temperature).softmax(1)
            largest, second = (100 * soft.topk(2, 1).values.mean(0)).tolist()
            entropy = -(soft * soft.clamp_min(1e-12).log()).sum(1).mean()
            statistics.append((largest, second, float(entropy)))
        accuracy = words.percent(pooled([run.accuracy for run in runs]))
        lines.append([kind, accuracy, *_over_seeds(statistics, "{:.1f}", "{:.1f}", "{:.3f}")])
    note = (
        f"Largest and second probability and entropy are means over the test images of the answers "
        f"at temperature {temperature:g}, that of the nasty training. {OVER_SEEDS} Accuracies have "
        "intervals over seeds and test images."
    )
    return Analysis(lines=_frozen(lines), note=note, temperature=temperature)


def tsne(
    context: ExperimentContext, made: Mapping[Order, Run], data: Dataset, session: Session
) -> Analysis:
    """Features and logits of both teachers in two dimensions, and the separation of classes."""
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    lines = [["Teacher", "Silhouette of logits", "Silhouette of features", "Images", "Seeds"]]
    maps: list[Map] = []
    subset = _few(data)
    labels = data.test.labels[subset.test.rows].numpy()
    with session.progress.task("t-SNE", 4, "maps") as task:
        for kind, runs in _by_kind(context, made):
            scores = []
            for seed, run in enumerate(runs):
                outputs = [values.numpy() for values in _answers(context, run, subset)]
                scores.append([float(silhouette_score(values, labels)) for values in outputs])
                if seed:
                    continue  # the map of one seed is enough
                for layer, values in zip(("logits", "features"), outputs, strict=True):
                    mapped = TSNE(random_state=0, perplexity=min(30, len(labels) / 4))
                    places = mapped.fit_transform(values).round(3).tolist()
                    title = f"{layer} of the {kind} teacher"
                    maps.append(Map(title=title, points=tuple(map(tuple, places))))
                    task.advance(1, f"{kind} {layer}")
            *silhouettes, seeds = _over_seeds(scores, "{:.3f}", "{:.3f}")
            lines.append([kind, *silhouettes, str(len(labels)), seeds])
    note = (
        "Silhouette: 1 where classes lie apart, 0 where they touch; on the values, not the map. "
        f"The maps are of the first seed. {OVER_SEEDS}"
    )
    return Analysis(
        lines=_frozen(lines), note=note, maps=tuple(maps), labels=tuple(labels.tolist()),
        classes=data.classes,
    )  # fmt: skip


def dafl(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """A student from the weights of a normal and of a nasty teacher, without any data.

    The control is a student of the normal teacher whose generator is left untrained.
    """
    for seed in range(context.seeds):
        normal = context.normal(INVERTED, seed)
        for kind, teacher in _pair(context, seed, INVERTED):
            row = f"of {kind} {context.column(INVERTED)}"
            like = None if kind == NORMAL else _dafl(context, normal, seed)
            yield PlacedOrder(
                row=row,
                column=TEACHER,
                seed=seed,
                order=teacher,
                against=None if kind == NORMAL else normal,
                recalled=context.recalled(kind, "resnet34 by dafl", TEACHER),
            )
            yield PlacedOrder(
                row=row,
                column=f"{context.column(PAIR)} by DAFL",
                seed=seed,
                order=_dafl(context, teacher, seed),
                against=like,
                like=like,
                recalled=context.recalled(kind, "resnet34 by dafl", PAIR),
            )
        trained = _dafl(context, normal, seed)
        assert isinstance(trained.objective, Dafl)
        # What the student learns from images of noise is no merit of the generator's losses.
        yield PlacedOrder(
            row=f"untrained generator, of {NORMAL} {context.column(INVERTED)}",
            column=f"{context.column(PAIR)} by DAFL",
            seed=seed,
            order=replace(trained, objective=replace(trained.objective, generator_lr=0.0)),
            against=trained,
        )


def _dafl(context: ExperimentContext, teacher: Order, seed: int) -> Order:
    student = context.alone(PAIR, seed)
    by_data, training = context.setting.dafl
    training = replace(training, seed=seed, checkpoint=student.training.checkpoint,
                       device=student.training.device,
                       precision=student.training.precision)  # fmt: skip
    return replace(
        student, objective=by_data.get(context.data, Dafl()), training=training, source=teacher
    )


def inverted(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """Both teachers, and an independent network that classifies their images."""
    yield from two_teachers(context, INVERTED)
    for seed in range(context.seeds):
        judge = context.alone(context.setting.judge, seed)
        yield PlacedOrder(row="judge", column=TEACHER, seed=seed, order=judge)


def inversion(
    context: ExperimentContext, made: Mapping[Order, Run], data: Dataset, session: Session
) -> Analysis:
    """Images of both teachers by DeepInversion, and the judge's agreement with the target class."""
    lines = [["Teacher", "Seed", "Judge agrees %", "Teacher agrees %", "Images"]]
    _, count = context.setting.inversion
    classes = len(data.classes)
    targets = torch.arange(count) % classes
    grids: list[ImageGrid] = []
    for seed in range(context.seeds):
        judge = made[context.alone(context.setting.judge, seed)]
        for kind, order in _pair(context, seed, INVERTED):
            run = made[order]
            compute = _fp32(context, run)
            images = _inverted(context, run, targets, data, compute, seed, session)
            agreed = [agreement(network, images, targets, compute)
                      for network in (judge.network, run.network)]  # fmt: skip
            lines.append([kind, str(seed), *map(words.percent, agreed), str(count)])
            if seed == 0:
                shown = images[: 2 * min(classes, 10)].numpy()
                grids.append(
                    ImageGrid(
                        name=f"inverted-{kind}",
                        title=f"images from the {kind} teacher",
                        pngs=tuple(map(to_png, shown)),
                    )
                )
    note = "The judge is an independent network of the same data; the classes alternate."
    return Analysis(lines=_frozen(lines), note=note, grids=tuple(grids), classes=data.classes)


def _inverted(
    context: ExperimentContext,
    run: Run,
    targets: Tensor,
    data: Dataset,
    compute: Compute,
    seed: int,
    session: Session,
) -> Tensor:
    """Images of one teacher, which take minutes and are stored for the next call.

    Raises:
        Stopped: the time limit or a signal came before they were finished.
    """
    config, _ = context.setting.inversion
    path = context.out / "inversions" / f"{run.record.id}-{seed}.safetensors"
    of = {"of": run.digest, "count": len(targets), **encode(config)}
    with suppress(OSError, RunError):  # a missing, damaged or older file is made again
        tensors, about = read_state(path)
        if about == of and "images" in tensors:
            return tensors["images"]
    images = invert(
        run.network,
        targets,
        config,
        channels=data.channels,
        image_size=data.image_size,
        compute=compute,
        seed=seed,
        stopper=session.stopper,
        progress=session.progress,
    )
    write_tensors(path, {"images": images}, {"plain": json.dumps(of)})
    return images


def _pair(context: ExperimentContext, seed: int, net: str = PAIR) -> Iterable[tuple[str, Order]]:
    return ((NORMAL, context.normal(net, seed)), (NASTY, context.nasty(net, seed)))


def _by_kind(
    context: ExperimentContext, made: Mapping[Order, Run]
) -> Iterator[tuple[str, list[Run]]]:
    """The runs of all seeds of each of the two teachers."""
    for index, kind in enumerate((NORMAL, NASTY)):
        yield kind, [made[list(_pair(context, seed))[index][1]] for seed in range(context.seeds)]


def _frozen(lines: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, lines))


OVER_SEEDS = (
    "Means over seeds with their 95 % interval (Student's t) for other seeds and the same test "
    "images; of one seed the value."
)


def _over_seeds(rows: Sequence[Sequence[float]], *formats: str) -> list[str]:
    """Means of each column with intervals, and the number of seeds; one row is one seed."""
    cells = []
    for values, form in zip(zip(*rows, strict=True), formats, strict=True):
        mean = mean_over_seeds(values, bounds=(-math.inf, math.inf))
        text = form.format(mean.value)
        if len(values) > 1:
            text += f" [{form.format(mean.low)}, {form.format(mean.high)}]"
        cells.append(text)
    return [*cells, str(len(rows))]


def _fp32(context: ExperimentContext, run: Run) -> Compute:
    return resolve(run.network, device=context.setting.device, precision="fp32")


def _few(data: Dataset, count: int = 1000) -> Dataset:
    """The first test images, up to `count`."""
    return replace(data, test=data.test.take(np.arange(min(count, len(data.test)))))


@torch.no_grad()
def _answers(context: ExperimentContext, run: Run, data: Dataset) -> tuple[Tensor, Tensor]:
    """Logits and last features of a run on the test images, on the CPU."""
    compute = _fp32(context, run)
    network = compute.place(run.network).eval()
    logits, features = [], []
    with ActivationRecorder(network) as recorder:
        for batch in Feed(data.test, compute=compute).plain():
            logits.append(recorder.ask(batch.pixels).cpu())
            features.append(recorder.features.float().cpu())
    return torch.cat(logits), torch.cat(features)
