"""Compare networks by the flatness of their minima and by their sensitivity to the image."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from denature.core.errors import ConfigError
from denature.core.progress import Progress
from denature.core.types import Labels, Pixels
from denature.data import DataConfig, Dataset
from denature.data.dataset import Split
from denature.recipes.experiment import MeasuredResult, load_classes
from denature.recipes.training_loss import trained_on, training_loss
from denature.report.flatness import FlatnessResult, LossSurface
from denature.robust.evaluation import choose
from denature.robust.flatness import Flatness, flatness, surface
from denature.robust.target import Target
from denature.train import Order, Run
from denature.train.classes import ClassMatcher
from denature.train.config import Device
from denature.train.session import Session

FEWER = 200
"""Training samples for the loss surface, which takes hundreds of evaluations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatnessComparison:
    """Flatness around the weights of runs, and sensitivity around the same test images.

    All runs share the random directions. The loss under changed weights is each run's own training
    loss, on images of its training set.

    Raises:
        ConfigError: no runs, or too few samples or directions.
    """

    runs: Sequence[Run]
    """The runs under comparison."""
    source: DataConfig
    """The data set of their training."""
    folder: Path
    """Folder for table, figures and page."""
    samples: int = 500
    """Training samples for the weights, and as many test samples for the images, of each class its
    share."""
    directions: int = 10
    """Number of random directions."""
    seed: int = 0
    """Seed of samples and directions."""
    trust: Collection[str] = ()
    """Modules that the record of a run's teacher may import."""
    device: Device = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("No run was named; give at least one.")
        if self.samples < 10 or self.directions < 2:
            raise ConfigError(
                f"{self.samples} samples and {self.directions} directions; at least 10 and 2 are "
                "needed."
            )

    @property
    def runs_folder(self) -> Path:
        return self.folder

    def data(self, progress: Progress) -> Dataset:
        return load_classes(self.source, "flatness is measured for classes", progress)

    def orders(self) -> Sequence[Order]:
        return ()

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        """Measure each network.

        Raises:
            ConfigError: a run of another data set.
        """
        matcher = ClassMatcher(data, session.progress)
        tested, _ = _pixels(choose(data.test, self.samples, self.seed))
        measured = [self._measured(run, data, tested, matcher, session) for run in self.runs]
        networks, surfaces = zip(*measured, strict=True)
        result = FlatnessResult(networks=networks, surfaces=surfaces)
        return MeasuredResult(result, [run.record for run in self.runs])

    def _measured(
        self, original: Run, data: Dataset, tested: Pixels, matcher: ClassMatcher, session: Session
    ) -> tuple[Flatness, LossSurface]:
        run = matcher("run", original)
        images, labels = _pixels(choose(trained_on(run.record, data), self.samples, self.seed))
        target = Target(run, images, device=self.device)
        images, labels = images.to(target.device), labels.to(target.device)
        loss = training_loss(run, images, labels, matcher, trust=self.trust, device=self.device)
        measured = flatness(
            target, images, labels, loss, loss_is=loss.name, tested=tested, least=loss.least,
            directions=self.directions, seed=self.seed, progress=session.progress,
        )  # fmt: skip
        coordinates, losses = surface(target, images[:FEWER], loss.first(FEWER), seed=self.seed)
        places, rows = tuple(coordinates.tolist()), tuple(map(tuple, losses.tolist()))
        return measured, LossSurface(places=places, losses=rows)


def _pixels(split: Split) -> tuple[Pixels, Labels]:
    return split.images[split.rows].float().div(255), split.labels[split.rows]
