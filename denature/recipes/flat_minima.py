"""Flat minima and robustness: whether networks in flatter minima withstand attacks better.

Flat minima are the usual reason given for why distillation should protect (Papernot et al. 2016
speak of smaller gradients, later work of smoother losses). Networks of one architecture are trained
in the ways that are said to flatten, and by adversarial training; flatness and robustness of each
are measured on the same images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from denature.core.types import Pixels
from denature.data import Dataset
from denature.recipes.attacked import AttackedExperiment, AttackedSetting
from denature.recipes.experiment import MeasuredResult
from denature.recipes.flatness import FlatnessConfig, around, flatness_of, identity_of, pixels
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place
from denature.recipes.hardening.orders import orders as hardening_orders
from denature.recipes.stored import stored
from denature.report.flat_minima import FlatMinimaResult, MeasuredMinima
from denature.robust.config import GRADIENT, AttackConfig
from denature.robust.evaluation import choose
from denature.robust.flatness import Flatness
from denature.train import Normal, Order, Run
from denature.train.classes import ClassMatcher
from denature.train.config import Training
from denature.train.session import Session

PLAIN = "plain"

WAYS: Mapping[str, Hardening] = {
    "T-5": Hardening(temperature=5),
    "T-20": Hardening(temperature=20),
    "T-100": Hardening(temperature=100),
    "smoothed": Hardening(method="label-smoothing"),
    "self-distilled": Hardening(method="self-distillation"),
    "adversarial": Hardening(method="adversarial", steps=5),
}
"""Ways of training besides the plain one; T: defensive distillation at this temperature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatMinimaSetting(AttackedSetting):
    """Data, network, training, attacks and measurement of flatness at one scale."""

    net: str
    training: Training
    flatness: FlatnessConfig = field(default_factory=FlatnessConfig)
    epsilon: float = 8 / 255
    """Linf radius in adversarial training."""


SETTINGS: Mapping[str, FlatMinimaSetting] = {
    "smoke": FlatMinimaSetting(
        scale="smoke",
        differs="Digits of 8x8 pixels and a small network with batch norm.",
        source="digits",
        net="cnn",
        training=Training(epochs=15, batch_size=64),
        epsilon=0.1,
        attack_config=AttackConfig(
            effort="quick",
            samples=100,
            linf=(0.06, 0.1, 0.15),
            attacks=(*GRADIENT, "pgd-margin-restarts", "square"),
        ),
        flatness=FlatnessConfig(samples=200, directions=5),
        seeds=3,
    ),
    "cpu": FlatMinimaSetting(
        scale="cpu",
        differs="A fifth of CIFAR-10's training images and 12 epochs, by Adam on one cycle.",
        source="cifar10",
        net="papernot@padding=0",
        training=Training(epochs=12, fraction=0.2, augment="none"),
        attack_config=AttackConfig(
            effort="quick",
            samples=200,
            linf=(2 / 255, 4 / 255, 8 / 255),
            attacks=(*GRADIENT, "pgd-margin-restarts", "square"),
        ),
        seeds=3,
    ),
    "paper": FlatMinimaSetting(
        scale="paper",
        differs="The network of defensive distillation, 50 epochs, attacked at full effort.",
        source="cifar10",
        net="papernot@padding=0",
        training=Training(epochs=50, augment="none", schedule="constant"),
        attack_config=AttackConfig(effort="full"),
        seeds=5,
    ),
}


class FlatMinima(AttackedExperiment[FlatMinimaSetting]):
    """A plain network and one of each way of training, for each seed."""

    @classmethod
    def settings(cls) -> Mapping[str, FlatMinimaSetting]:
        return SETTINGS

    @property
    def attacked(self) -> Sequence[str]:
        return (PLAIN, *WAYS)

    def of_seed(self, seed: int, out: Path) -> dict[str, Order]:
        """Orders by name; those that only teach are named after the network and their part."""
        setting = self.setting
        training = replace(setting.training, seed=setting.training.seed + seed)
        orders = {
            PLAIN: Order(net=setting.net, objective=Normal(), training=training, out=out / PLAIN)
        }
        for name, way in WAYS.items():
            hardening = replace(way, epsilon=setting.epsilon)
            place = Place(net=setting.net, training=training, out=out / name)
            graph = hardening_orders(hardening, place)
            *before, last = graph
            orders |= {f"{name}-{part}": graph[part] for part in before} | {name: graph[last]}
        return orders

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        """Attack all networks on the same samples, and move the weights of each."""
        setting = self.setting
        found = {key: runs[order] for key, order in self.networks().items()}
        judged = self.evaluations(found, data, session)
        config = setting.flatness
        matcher = ClassMatcher(data, session.progress)
        tested, _ = pixels(choose(data.test, config.samples, config.seed))
        flat = {
            key: self._flatness(run, data, tested, matcher, session)
            for key, run in found.items()
            if key[1] in self.attacked
        }
        result = FlatMinimaResult(
            scale=setting.scale,
            differs=setting.differs,
            seeds=setting.seeds,
            budget=self.linf_budget(data),
            networks=tuple(
                MeasuredMinima(
                    name=name,
                    judged=judged[name],
                    flatness=tuple(flat[seed, name] for seed in range(setting.seeds)),
                )
                for name in self.attacked
            ),
        )
        return MeasuredResult(result, [run.record for run in found.values()])

    def _flatness(
        self, run: Run, data: Dataset, tested: Pixels, matcher: ClassMatcher, session: Session
    ) -> Flatness:
        """Flatness of one network, which takes minutes and is stored for the next call.

        Raises:
            Stopped: the time limit or a signal came before it.
        """
        config = self.setting.flatness

        at = around(run, data, config, matcher, device=self.device)
        return stored(
            self.folder / "flatness" / f"{run.digest}.json",
            identity_of(at, data, config),
            Flatness,
            lambda: flatness_of(at, tested, config, session.progress),
            what=f"the flatness of {run.record.id}",
            stopper=session.stopper,
        )
