"""A thief's attempt on a victim in memory, and the training of its lessons."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.answers.transfer import Transfer
from denature.core.seeds import generator
from denature.core.types import Pixels
from denature.data import load
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.defenses.base import Chain, Networks
from denature.extract.asking.ledger import BudgetSpent
from denature.extract.strategies.base import (
    LabelledImages,
    Lesson,
    Situation,
    Strategy,
    TrainedClone,
)
from denature.extract.strategies.common import as_labels
from denature.train import Order, Run, Training, make

QUICK = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")


@dataclass(kw_only=True, eq=False)
class Bench:
    """An `Attempt` on a function from pixels to answers, which notes queries and lessons."""

    victim: Callable[[Pixels], Answers]
    images: np.ndarray
    """The pool: uint8, n x channels x height x width, all different."""
    budget: int
    defense: Chain = field(default_factory=Chain)
    networks: Networks = field(default_factory=dict)
    """Those of the defense's roles."""
    seed: int = 0
    device: str = "cpu"
    owned: LabelledImages | None = None
    encoder: nn.Module | None = None
    backbone: Run | str | None = None
    other: np.ndarray | None = None
    """The pool of another domain."""
    net: str = "mlp"
    classes: int = 10
    training: Training = QUICK
    tests: np.ndarray | None = None
    """Images that no strategy may use; they score the records of runs."""
    asked: list[np.ndarray] = field(default_factory=list)
    """The images of each call of `ask`."""
    lessons: list[Lesson] = field(default_factory=list)

    situation: Situation = field(init=False)
    image_shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        channels, height, width = self.images.shape[1:]
        self.image_shape = channels, height, width
        self._stream = self.defense.start(self.networks, seed=self.seed)
        self.situation = Situation(
            threat="B" if self.owned is None else "A",
            kind=self.defense.kind(self.true_kind),
            random=self.defense.random,
            perturbs=self.defense.perturbs,
            classes=self.classes,
            net=self.net,
            budget=self.budget,
            labelled=0 if self.owned is None else len(self.owned.images),
            backbone=None if self.backbone is None else "a public network",
            encoder=self.encoder is not None,
            other_pool=None if self.other is None else "another domain",
        )

    @cached_property
    def true_kind(self) -> AnswerKind:
        return self.victim(_pixels(self.images[:2])).kind

    def _ordered(self, other: bool) -> np.ndarray:
        images = self.other if other else self.images
        assert images is not None
        shuffled = images[generator(self.seed, "pool").permutation(len(images))]
        if other or self.owned is None:
            return shuffled
        owned = {image.tobytes() for image in self.owned.images}
        rest = [image for image in shuffled if image.tobytes() not in owned]
        return np.stack([*self.owned.images, *rest])

    def pool(self, first: int, count: int, *, other: bool = False) -> np.ndarray:
        return self._ordered(other)[first : first + count]

    def pool_size(self, *, other: bool = False) -> int:
        return len(self._ordered(other))

    def left(self) -> int:
        return self.budget - sum(map(len, self.asked))

    def ask(self, images: np.ndarray) -> Answers:
        if len(images) > self.left():
            raise BudgetSpent(f"{len(images)} images, and {self.left()} queries are left.")
        self.asked.append(images.copy())
        pixels = _pixels(images)
        return self._stream(self.victim(pixels), pixels)

    def simulate(self, answers: Answers, images: np.ndarray) -> Answers:
        stream = self.defense.start(self.networks, seed=self.seed + 1)
        return stream(answers, _pixels(images))


def clone_of(strategy: Strategy, attempt: Bench) -> TrainedClone:
    """The clone of a strategy, whose lessons are trained in this process."""
    steps = strategy.steps(attempt)
    try:
        lessons = next(steps)
        while True:
            attempt.lessons += lessons
            lessons = steps.send([train_lesson(lesson, attempt) for lesson in lessons])
    except StopIteration as finished:
        clone = finished.value
        assert isinstance(clone, TrainedClone)
        return clone


def train_lesson(lesson: Lesson, attempt: Bench) -> Run:
    """The run of a lesson, in memory."""
    transfer = Transfer(lesson.answers.kind, lesson.answers.values, victim="bench")
    [run] = make([_order(lesson, transfer, attempt)], _dataset(lesson, attempt))
    return run


def _order(lesson: Lesson, transfer: Transfer, attempt: Bench) -> Order:
    training = replace(attempt.training, seed=attempt.training.seed + attempt.seed + lesson.seed)
    epochs = max(1, round(lesson.length * training.epochs))  # without a least number of steps
    return Order(
        net=lesson.net or attempt.net,
        objective=lesson.objective,
        training=replace(training, epochs=epochs, **lesson.training),
        source=None if lesson.objective.asks is None else transfer,
        backbone=lesson.backbone,
    )


def _dataset(lesson: Lesson, attempt: Bench) -> Dataset:
    labels = lesson.labels
    if labels is None:
        labels = as_labels(lesson.answers).values.numpy()
    tests = attempt.images[:2] if attempt.tests is None else attempt.tests
    content = hashlib.sha256(lesson.images.tobytes() + labels.tobytes())
    return Dataset(
        config=DataConfig(source="bench"),
        train=_split(lesson.images, labels),
        test=_split(tests, np.zeros(len(tests), np.int64)),
        validation=None,
        classes=tuple(map(str, range(attempt.classes))),
        digest=content.hexdigest()[:16],
        test_origin="bench",
    )


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.from_numpy(images), torch.from_numpy(labels), torch.arange(len(images)))


def _pixels(images: np.ndarray) -> Pixels:
    return torch.from_numpy(images).float() / 255


class Encoder(nn.Module):
    """A frozen encoder with random weights, 16 features of digits."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh()).to(dtype)
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.body(pixels.to(self.dtype))
        return features


def bench_on_digits(network: nn.Module) -> Bench:
    """Against a network on digits without a defense, to be changed by `against`."""
    split = load("digits").train
    images: np.ndarray = split.images[split.rows].numpy()

    def victim(pixels: Pixels) -> Answers:
        with torch.no_grad():
            return Answers("probabilities", network(pixels).softmax(-1))

    return Bench(victim=victim, images=np.unique(images, axis=0), budget=120)


def against(bench: Bench, **changes: Any) -> Bench:
    return replace(bench, asked=[], lessons=[], **changes)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().sum(-1).mean())
