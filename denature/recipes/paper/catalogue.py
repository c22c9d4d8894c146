"""The experiments of "Undistillable: Making A Nasty Teacher That CANNOT teach students" by name.

Ma et al., ICLR 2021, arXiv:2105.07381. Each is a function from a `Lab` to points: which runs there
are, and where they stand in a table or on a curve.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from denature.core.progress import Progress
from denature.data import Dataset
from denature.recipes.paper import ablations, looks, tables
from denature.recipes.paper.orders import ExperimentContext, Point
from denature.recipes.paper.settings import DataName
from denature.train import Order, Run

Points: TypeAlias = Callable[[ExperimentContext], Iterable[Point]]
Analysis: TypeAlias = Callable[
    [ExperimentContext, Mapping[Order, Run], Dataset, Progress], looks.AnalysisResult
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One table or figure of the paper."""

    about: str
    data: DataName
    points: Points
    axis: str | None = None
    """What the knob of an ablation is, with its unit; None for a table."""
    against: str = "alone"
    """What students' differences are taken from."""
    look: Analysis | None = None
    """Looks into the networks that were made; its figures and table are what is shown."""


EXPERIMENTS: Mapping[str, Experiment] = {
    "cifar10-table": Experiment(
        about="CIFAR-10: what students learn from a normal and from a nasty ResNet-18.",
        data="cifar10",
        points=tables.cifar10,
    ),
    "cifar100-table": Experiment(
        about="CIFAR-100: the same for three teachers.",
        data="cifar100",
        points=tables.large,
    ),
    "tiny-imagenet-table": Experiment(
        about="Tiny-ImageNet: the same for three teachers.",
        data="tiny-imagenet",
        points=tables.large,
    ),
    "ablate-adversary": Experiment(
        about="A nasty ResNet-18 that is pushed away from a ResNet-18, a CNN or a ResNeXt-29.",
        data="cifar10",
        points=tables.adversary,
    ),
    "ablate-omega": Experiment(
        about="The weight of the push in training the teacher, from 0.",
        data="cifar10",
        points=ablations.omega,
        axis="omega",
    ),
    "ablate-temperature": Experiment(
        about="The temperature at which students are distilled.",
        data="cifar10",
        points=ablations.temperature,
        axis="temperature tau_S",
    ),
    "ablate-alpha": Experiment(
        about="The share of the teacher's term in what students learn.",
        data="cifar10",
        points=ablations.alpha,
        axis="alpha",
    ),
    "ablate-samples": Experiment(
        about="The share of the training samples that students have.",
        data="cifar10",
        points=ablations.samples,
        axis="training samples, %",
    ),
    "dafl": Experiment(
        about="DAFL: a student from the weights of a normal or nasty ResNet-34, without data.",
        data="cifar10",
        points=looks.dafl,
        against="the normal teacher's student",
    ),
    "dafl-cifar100": Experiment(
        about="DAFL: the same on CIFAR-100.",
        data="cifar100",
        points=looks.dafl,
        against="the normal teacher's student",
    ),
    "deepinversion": Experiment(
        about="DeepInversion: images out of a normal and a nasty ResNet-34, judged by another net.",
        data="cifar10",
        points=looks.inverted,
        look=looks.inversion,
    ),
    "logit-responses": Experiment(
        about="What a normal and a nasty ResNet-18 answer to the same test images.",
        data="cifar10",
        points=looks.two_teachers,
        look=looks.responses,
    ),
    "tsne": Experiment(
        about="Features and logits of a normal and a nasty ResNet-18 in two dimensions.",
        data="cifar10",
        points=looks.two_teachers,
        look=looks.tsne,
    ),
}
