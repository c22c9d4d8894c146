"""Defensive distillation at many temperatures, attacked with plain and with rescaled logits.

Papernot et al. 2016, arXiv:1511.04508, and the evaluation by Carlini and Wagner (2017). The same
attacks on the same samples also run against an undefended and an adversarially trained network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.data import Dataset
from denature.recipes.attacked import AttackedExperiment, AttackedSetting
from denature.recipes.experiment import MeasuredResult
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place
from denature.recipes.hardening.orders import orders as hardening_orders
from denature.report.defensive import DefensiveDistillationResult, EvaluatedNetwork
from denature.robust.config import GRADIENT, AttackConfig
from denature.train import Adversarial, Normal, Order, Run
from denature.train.config import Training
from denature.train.session import Session

UNDEFENDED, REFERENCE = "undefended", "adversarial"

TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DefensiveSetting(AttackedSetting):
    """Data, network, training and attacks at one scale."""

    net: str
    training: Training
    epsilon: float
    """Linf radius in adversarial training of the reference network."""
    steps: int
    """PGD steps of that adversarial training."""
    same_start: bool = True
    """Teacher and student start from the weights after one epoch at temperature 1, as in the
    original."""
    temperatures: tuple[float, ...] = TEMPERATURES


SETTINGS: Mapping[str, DefensiveSetting] = {
    "smoke": DefensiveSetting(
        scale="smoke",
        differs="Digits of 8x8 pixels and a small network with batch norm.",
        source="digits",
        net="cnn",
        training=Training(epochs=15, batch_size=64),
        epsilon=0.1,
        steps=7,
        attack_config=AttackConfig(samples=100, linf=(0.03, 0.06, 0.1, 0.15, 0.2)),
        seeds=3,
    ),
    "cpu": DefensiveSetting(
        scale="cpu",
        differs="A fifth of CIFAR-10's training images and 12 epochs, by Adam on one cycle.",
        source="cifar10",
        net="papernot@padding=0",
        training=Training(epochs=12, fraction=0.2, augment="none"),
        epsilon=8 / 255,
        steps=5,
        # Each network takes some twenty minutes of two cores, most of them AutoAttack's.
        attack_config=AttackConfig(
            effort="quick",
            samples=500,
            linf=(2 / 255, 4 / 255, 8 / 255),
            # AutoAttack takes the middle budget alone.
            attacks=(*GRADIENT, "pgd-margin-restarts", "square", "carlini-wagner", "autoattack"),
        ),
        temperatures=(1, 5, 20, 100),
        seeds=3,
    ),
    "paper": DefensiveSetting(
        scale="paper",
        differs="As Carlini and Wagner's code has it, 50 epochs without augmentation, but Adam at "
        "0.001 for their SGD at 0.01.",
        source="cifar10",
        net="papernot@padding=0",
        training=Training(epochs=50, augment="none", schedule="constant"),
        epsilon=8 / 255,
        steps=10,
        attack_config=AttackConfig(effort="full"),
        seeds=3,
    ),
}


class DefensiveDistillation(AttackedExperiment[DefensiveSetting]):
    """A distilled student of each temperature, an undefended and an adversarial network."""

    @classmethod
    def settings(cls) -> Mapping[str, DefensiveSetting]:
        return SETTINGS

    @property
    def _temperatures(self) -> Mapping[str, float | None]:
        """Temperature of each attacked network by its name."""
        temperatures = self.setting.temperatures
        distilled = {f"T-{temperature:g}": temperature for temperature in temperatures}
        return {UNDEFENDED: None, **distilled, REFERENCE: None}

    @property
    def attacked(self) -> Sequence[str]:
        return list(self._temperatures)

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        """Attack all networks on the same samples."""
        setting = self.setting
        by_name = {key: runs[order] for key, order in self.networks().items()}
        judged = self.evaluations(by_name, data, session)
        result = DefensiveDistillationResult(
            scale=setting.scale,
            differs=setting.differs,
            seeds=setting.seeds,
            budget=self.linf_budget(data),
            findings=tuple(
                EvaluatedNetwork(name=name, temperature=temperature, judged=judged[name])
                for name, temperature in self._temperatures.items()
            ),
        )
        return MeasuredResult(result, [run.record for run in by_name.values()])

    def of_seed(self, seed: int, out: Path) -> dict[str, Order]:
        """Orders by name; a teacher is named `T-<temperature>-teacher`."""
        setting = self.setting
        training = replace(setting.training, seed=setting.training.seed + seed)
        orders = {
            UNDEFENDED: Order(
                net=setting.net, objective=Normal(), training=training, out=out / UNDEFENDED
            )
        }
        for temperature in setting.temperatures:
            name = f"T-{temperature:g}"
            place = Place(net=setting.net, training=training, out=out / name, start=out / "start")
            hardening = Hardening(temperature=temperature, same_start=setting.same_start)
            graph = hardening_orders(hardening, place)
            orders |= {f"{name}-teacher": graph["teacher"], name: graph["student"]}
        orders[REFERENCE] = Order(
            net=setting.net,
            objective=Adversarial(ball=Ball(epsilon=setting.epsilon), steps=setting.steps),
            training=training,
            out=out / REFERENCE,
        )
        return orders
