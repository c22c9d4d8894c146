"""Compare networks by the flatness of their minima and by their sensitivity to the image."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from denature.core.errors import ConfigError
from denature.core.progress import Progress
from denature.core.record import today
from denature.core.types import Labels, Pixels
from denature.data import DataConfig, Dataset
from denature.data.dataset import Split
from denature.recipes.experiment import MeasuredResult, load_classes
from denature.recipes.stored import stored
from denature.recipes.training_loss import TrainingLoss, trained_on, training_loss
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
class FlatnessConfig:
    """Samples and random directions of a measurement.

    Raises:
        ConfigError: too few samples or directions.
    """

    samples: int = 500
    """Training samples for the weights, and as many test samples for the images, of each class its
    share."""
    directions: int = 10
    """Number of random directions."""
    seed: int = 0
    """Seed of samples and directions."""

    def __post_init__(self) -> None:
        if self.samples < 10 or self.directions < 2:
            raise ConfigError(
                f"{self.samples} samples and {self.directions} directions; at least 10 and 2 are "
                "needed."
            )


class Around(NamedTuple):
    """A network with the training images and the loss under which its weights are moved."""

    target: Target
    images: Pixels
    labels: Labels
    loss: TrainingLoss


def around(
    run: Run,
    data: Dataset,
    config: FlatnessConfig,
    matcher: ClassMatcher,
    *,
    trust: Collection[str] = (),
    device: Device = "auto",
) -> Around:
    """A run with its own training loss, on images of its training set.

    Args:
        run: of this data set.
        data: of its training.
        config: number of images, and their seed.
        matcher: for the run's classes and those of its teacher.
        trust: modules that the record of its teacher may import.
        device: where to compute.

    Raises:
        ConfigError: a run of another data set.
    """
    run = matcher("run", run)
    images, labels = pixels(choose(trained_on(run.record, data), config.samples, config.seed))
    target = Target(run, images, device=device)
    images, labels = images.to(target.device), labels.to(target.device)
    loss = training_loss(run, images, labels, matcher, trust=trust, device=device)
    return Around(target, images, labels, loss)


def flatness_of(at: Around, tested: Pixels, config: FlatnessConfig, progress: Progress) -> Flatness:
    """Flatness around the weights, and sensitivity to these test images."""
    return flatness(
        at.target, at.images, at.labels, at.loss, loss_is=at.loss.name, tested=tested,
        least=at.loss.least, directions=config.directions, seed=config.seed, progress=progress,
    )  # fmt: skip


REVISION = 1
"""Is raised after a change that moves measured numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Landscape:
    """What is measured of one run."""

    flatness: Flatness
    surface: LossSurface


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatnessComparison:
    """Flatness around the weights of runs, and sensitivity around the same test images.

    All runs share the random directions. The loss under changed weights is each run's own training
    loss, on images of its training set.

    Raises:
        ConfigError: no runs.
    """

    runs: Sequence[Run]
    """The runs under comparison."""
    source: DataConfig
    """The data set of their training."""
    folder: Path
    """Folder for table, figures and page."""
    config: FlatnessConfig = FlatnessConfig()
    trust: Collection[str] = ()
    """Modules that the record of a run's teacher may import."""
    device: Device = "auto"
    """Where to compute."""
    scope: str = ""
    """Scope and permission of the test, for result and page."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("No run was named; give at least one.")

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
        tested, _ = pixels(choose(data.test, self.config.samples, self.config.seed))
        measured = [self._measured(run, data, tested, matcher, session) for run in self.runs]
        result = FlatnessResult(
            networks=tuple(landscape.flatness for landscape in measured),
            surfaces=tuple(landscape.surface for landscape in measured),
            scope=self.scope,
            date=today(),
        )
        return MeasuredResult(result, [run.record for run in self.runs])

    def _measured(
        self, run: Run, data: Dataset, tested: Pixels, matcher: ClassMatcher, session: Session
    ) -> Landscape:
        """The measurements of one run, which take minutes and are stored for the next call.

        Raises:
            Stopped: the time limit or a signal came before them.
        """
        at = around(run, data, self.config, matcher, trust=self.trust, device=self.device)

        def measure() -> Landscape:
            found = flatness_of(at, tested, self.config, session.progress)
            coordinates, losses = surface(
                at.target, at.images[:FEWER], at.loss.part(slice(FEWER)), seed=self.config.seed
            )
            places, rows = tuple(coordinates.tolist()), tuple(map(tuple, losses.tolist()))
            return Landscape(flatness=found, surface=LossSurface(places=places, losses=rows))

        return stored(
            self.folder / "measured" / f"{run.digest}.json",
            identity_of(at, data, self.config),
            Landscape,
            measure,
            what=f"the flatness of {at.target.name}",
            stopper=session.stopper,
        )


def identity_of(at: Around, data: Dataset, config: FlatnessConfig) -> dict[str, Any]:
    """All that the flatness of a run depends on, as plain values."""
    return {
        "of": at.target.digest,
        "name": at.target.name,
        "loss": at.loss.name,
        "data": data.digest,
        "revision": REVISION,
        **asdict(config),
    }


def pixels(split: Split) -> tuple[Pixels, Labels]:
    """Images in [0, 1] and labels of a split."""
    return split.images[split.rows].float().div(255), split.labels[split.rows]
