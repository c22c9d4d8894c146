"""Experiments whose networks are attacked on the same samples."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from denature.core.compute import resolve
from denature.core.threads import computing
from denature.core.untrusted import read_json
from denature.data import Dataset
from denature.nets import create
from denature.recipes.networks import NetworkExperiment, NetworkSetting
from denature.recipes.robustness import RobustnessEvaluation
from denature.recipes.runner import run as run_experiment
from denature.report.links import RESULT
from denature.robust.config import AttackConfig
from denature.robust.estimate import attack_seconds
from denature.robust.evaluation import choose
from denature.robust.target import PROBE
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

    @property
    @abstractmethod
    def attacked(self) -> Sequence[str]:
        """Names of the attacked networks, that of the undefended ones first; others only teach."""

    def attack_seconds(self, data: Dataset) -> float:
        """Seconds of all attacks at most, by passes of untrained networks; 0 once they are made."""
        networks = {key: o for key, o in self.networks().items() if key[1] in self.attacked}
        if self._evaluated() >= len(networks):
            return 0.0
        config = self.setting.attack_config
        split = choose(data.test, config.samples or config.preset.samples, config.seed)
        images = split.images[split.rows[:PROBE]].float().div(255)
        nets = Counter(order.net for order in networks.values())
        seconds = 0.0
        with computing():
            for net, count in nets.items():
                assert isinstance(net, str)
                network = create(
                    net,
                    classes=len(data.classes),
                    channels=data.channels,
                    image_size=data.image_size,
                )
                compute = resolve(network, device=self.device, precision="fp32")
                compute.place(network).eval().requires_grad_(False)
                names = config.attacks or config.preset.attacks
                few = images.to(compute.device)
                seconds += count * attack_seconds(network, names, config, few, len(split))
        return seconds

    def _evaluated(self) -> int:
        """Number of networks that the stored result of the attacks holds."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return len(read_json(self._attacks / RESULT)["judged"])
        return 0

    @property
    def _attacks(self) -> Path:
        return self.folder / "robustness"

    def evaluations(
        self, runs: Mapping[tuple[int, str], Run], data: Dataset, session: Session
    ) -> dict[str, tuple[Evaluation, ...]]:
        """Attack the networks on the same samples of `data`: evaluations of all seeds, by name.

        Args:
            runs: the runs by seed and name.
            data: the data set of the test samples.
            session: saved states, stops, workers and progress.
        """
        seeds = range(self.setting.seeds)
        evaluation = RobustnessEvaluation(
            targets=[runs[seed, name] for name in self.attacked for seed in seeds],
            source=data.config,
            attack_config=self.setting.attack_config,
            folder=self._attacks,
            undefended=[runs[seed, self.attacked[0]] for seed in seeds],
            device=self.device,
        )
        remaining = iter(run_experiment(evaluation, session).result.judged)
        return {name: tuple(next(remaining) for _ in seeds) for name in self.attacked}

    def linf_budget(self, data: Dataset) -> float:
        """The Linf radius that tables of this experiment show."""
        return self.setting.attack_config.middle("linf", channels=data.channels)
