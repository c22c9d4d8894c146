"""The experiments of "Undistillable: Making A Nasty Teacher That CANNOT teach students" by name.

Ma et al., ICLR 2021, arXiv:2105.07381. Each is a function from an `ExperimentContext` to points:
its runs, and their positions in a table or on a curve.
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
    """Axis label of an ablation, with its unit; None for a table."""
    against: str = "alone"
    """Name of the baseline of students' differences."""
    look: Analysis | None = None
    """Analysis of the trained networks; if set, its figures and table are the result."""


EXPERIMENTS: Mapping[str, Experiment] = {
    "cifar10-table": Experiment(
        about="CIFAR-10: students of a normal and of a nasty ResNet-18.",
        data="cifar10",
        points=tables.cifar10,
    ),
    "cifar100-table": Experiment(
        about="CIFAR-100: students of three networks, each a normal and a nasty teacher.",
        data="cifar100",
        points=tables.large,
    ),
    "tiny-imagenet-table": Experiment(
        about="Tiny-ImageNet: students of three networks, each a normal and a nasty teacher.",
        data="tiny-imagenet",
        points=tables.large,
    ),
    "ablate-adversary": Experiment(
        about="A nasty ResNet-18 with a ResNet-18, a CNN or a ResNeXt-29 as adversary.",
        data="cifar10",
        points=tables.adversary,
    ),
    "ablate-omega": Experiment(
        about="The weight of the adversarial term in training the teacher, from 0.",
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
        about="The weight of the teacher's term in the loss of students.",
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
        about="DAFL on CIFAR-100: a student from the weights of a normal or nasty ResNet-34.",
        data="cifar100",
        points=looks.dafl,
        against="the normal teacher's student",
    ),
    "deepinversion": Experiment(
        about="DeepInversion: images from a normal and a nasty ResNet-34, judged by another net.",
        data="cifar10",
        points=looks.inverted,
        look=looks.inversion,
    ),
    "logit-responses": Experiment(
        about="Outputs of a normal and a nasty ResNet-18 on the same test images.",
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
