"""Experiments whose networks are attacked on the same samples."""

from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from denature.data import Dataset
from denature.recipes.networks import NetworkExperiment, NetworkSetting
from denature.recipes.robustness import RobustnessEvaluation
from denature.recipes.runner import run as run_experiment
from denature.robust.config import AttackConfig
from denature.robust.verdict import Evaluation
from denature.train import Run
from denature.train.session import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackedSetting(NetworkSetting):
    """Setting of an experiment that attacks its networks."""

    attack_config: AttackConfig


S = TypeVar("S", bound=AttackedSetting)


@dataclass(frozen=True, kw_only=True)
class AttackedExperiment(NetworkExperiment[S], ABC):
    """Networks of which some are attacked, compared with undefended ones of the same seeds."""

    def evaluations(
        self,
        runs: Mapping[tuple[int, str], Run],
        names: Collection[str],
        undefended: str,
        data: Dataset,
        session: Session,
    ) -> dict[str, tuple[Evaluation, ...]]:
        """Attack networks on the same samples of `data`: evaluations of all seeds, by name.

        Args:
            runs: the runs by seed and name.
            names: names of the attacked networks, `undefended` among them; other runs only teach.
            undefended: name of the undefended networks, the baseline of all others.
            data: the data set of the test samples.
            session: saved states, stops, workers and progress.
        """
        seeds = range(self.setting.seeds)
        evaluation = RobustnessEvaluation(
            targets=[runs[seed, name] for name in names for seed in seeds],
            source=data.config,
            attack_config=self.setting.attack_config,
            folder=self.folder / "robustness",
            undefended=[runs[seed, undefended] for seed in seeds],
            device=self.device,
        )
        remaining = iter(run_experiment(evaluation, session).result.judged)
        return {name: tuple(next(remaining) for _ in seeds) for name in names}

    def linf_budget(self, data: Dataset) -> float:
        """The Linf radius that tables of this experiment show."""
        return self.setting.attack_config.middle("linf", channels=data.channels)
