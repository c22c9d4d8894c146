"""Experiments on networks that have a seed and a name each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeAlias, TypeVar

from denature.core.progress import Progress
from denature.data import Dataset, load
from denature.recipes.experiment import AtScale, Request, Setting
from denature.train import Order
from denature.train.config import Device

NetworkOrders: TypeAlias = Mapping[tuple[int, str], Order]
"""Orders of an experiment by seed and name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSetting(Setting):
    """Setting of an experiment on one data set."""

    source: str
    """The data set: its name, or a folder under the root of data."""


S = TypeVar("S", bound=NetworkSetting)


@dataclass(frozen=True, kw_only=True)
class NetworkExperiment(AtScale, ABC, Generic[S]):
    """Networks on one data set; what is measured on them is the subclass's."""

    setting: S
    source: str
    """The data set: a name or a folder."""
    out: Path
    device: Device = "auto"
    """Device for measurements; that of the trainings stands in the setting."""

    @classmethod
    @abstractmethod
    def settings(cls) -> Mapping[str, S]:
        """Settings by scale."""

    @classmethod
    def of(cls, request: Request, out: Path) -> Self:
        setting = request.setting(cls.settings())
        source = request.source(setting.source)
        return cls(setting=setting, source=source, out=out, device=request.device)

    def data(self, progress: Progress) -> Dataset:
        return load(self.source, progress=progress)

    def orders(self) -> Sequence[Order]:
        return list(self.networks().values())

    def networks(self) -> NetworkOrders:
        """Orders of all networks, by seed and name."""
        return {
            (seed, name): order
            for seed in range(self.setting.seeds)
            for name, order in self.of_seed(seed, self.folder / f"seed-{seed}").items()
        }

    @abstractmethod
    def of_seed(self, seed: int, out: Path) -> Mapping[str, Order]:
        """Orders of one seed by name, with folders below `out`."""
