"""What an experiment is: runs, what is measured on them, and a result that JSON holds.

An experiment is one file with its settings by scale and a class of this form, and one line in
`denature.recipes.catalogue`. Estimating, making, measuring and writing stand once, in
`denature.recipes.runner`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from denature.core.errors import ConfigError, unknown
from denature.train.config import Device, Precision, Training

if TYPE_CHECKING:
    from denature.core.progress import Progress
    from denature.core.record import Record
    from denature.data import DataConfig, Dataset
    from denature.report.results import Result
    from denature.train import Order, Run
    from denature.train.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What the settings of all experiments have; an experiment adds its own fields."""

    scale: str
    differs: str
    """Difference from the original experiment, in a sentence."""
    seeds: int
    """Number of repetitions."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; it must be at least 1.")

    def on(self, device: Device, precision: Precision) -> Self:
        """Copy of this setting whose trainings compute on another device and in another precision.

        Attacks compute in fp32 on the same device.
        """
        trainings: dict[str, Any] = {
            field.name: replace(value, device=device, precision=precision)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Training)
        }
        return replace(self, **trainings)


S = TypeVar("S", bound=Setting)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """Options that every experiment takes."""

    scale: str = "cpu"
    """smoke, a check that takes seconds to minutes; cpu, for two cores; cpu-resnet and fast, the
    paper's networks for 12 and 30 epochs, where an experiment has them; paper, the whole
    experiment, for a GPU."""
    seeds: int | None = None
    """Number of repetitions with other seeds; set by the scale by default."""
    data_root: Path | None = None
    """The folder that holds cifar10/, cifar100/ and tiny-imagenet/; fetched into the cache by
    default."""
    device: Device = "auto"
    """Device to compute on."""
    precision: Precision = "auto"
    """Precision of training and inference; attacks compute in fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request(Choices):
    """One experiment with its options."""

    name: str
    """A key of `denature.recipes.catalogue.EXPERIMENTS`."""

    def setting(self, settings: Mapping[str, S]) -> S:
        """The setting of the chosen scale, with the chosen seeds, device and precision.

        Raises:
            ConfigError: no setting has this name, or seeds is below 1.
        """
        if self.scale not in settings:
            raise unknown("scale", self.scale, settings)
        setting = settings[self.scale].on(self.device, self.precision)
        return setting if self.seeds is None else replace(setting, seeds=self.seeds)

    def source(self, data: str) -> str:
        """Path of a data set under `data_root`; the name itself for data that need no folder."""
        from denature.recipes.data_root import data_at

        return data_at(self.data_root, data)


class MeasuredResult(NamedTuple):
    """A result, and the records of all runs behind it."""

    result: "Result"
    records: "Sequence[Record]"


class Experiment(Protocol):
    """One experiment at one scale."""

    @property
    def folder(self) -> Path:
        """Folder of the result."""

    @property
    def runs_folder(self) -> Path:
        """Folder below which its runs are made; experiments that share it share runs."""

    def data(self, progress: "Progress") -> "Dataset":
        """Data for training and test."""

    def orders(self) -> "Sequence[Order]":
        """Orders of the runs that can be named before anything is measured."""

    def measure(
        self, runs: "Mapping[Order, Run]", data: "Dataset", session: "Session"
    ) -> MeasuredResult:
        """Measure the runs of these orders; finished measurements are read again."""


@runtime_checkable
class WithAttacks(Protocol):
    """An experiment whose measurement attacks networks, which may take longer than training."""

    def attack_seconds(self, data: "Dataset") -> float:
        """Seconds that the attacks take at most; 0 where all were made."""


class AtScale:
    """Folders of an experiment at one scale, whose runs lie below its result."""

    setting: Setting
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / self.setting.scale

    @property
    def runs_folder(self) -> Path:
        return self.folder


def load_classes(source: "DataConfig", why: str, progress: "Progress") -> "Dataset":
    """Data whose labels are classes.

    Raises:
        ConfigError: the labels are landmarks; `why` says why that does not do.
    """
    from denature.data import load

    data = load(source, progress=progress)
    if data.landmarks:
        raise ConfigError(f"{source.source} has landmarks; {why}. Take data with classes.")
    return data
