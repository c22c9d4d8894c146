"""The runs of the paper's experiments, and their places in its tables and curves."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from denature.recipes.paper.recalled import RECALLED
from denature.recipes.paper.settings import DataName, Setting
from denature.train import Distilled, Normal, Order
from denature.train.objectives import Objective

NAMES = {
    "cnn": "CNN",
    "resnetc20": "ResNetC-20",
    "resnetc32": "ResNetC-32",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnext29": "ResNeXt-29",
    "shufflenetv2": "ShuffleNetV2",
    "mobilenetv2": "MobileNetV2",
}
"""The paper's names of the networks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One run, its place, and what it is compared with."""

    row: str
    column: str
    seed: int
    order: Order
    against: Order | None = None
    """The same seed's run that the difference is taken from."""
    like: Order | None = None
    """Where the order is a nasty teacher's student: the same of the normal teacher."""
    x: float | None = None
    """Where it lies on the axis of an ablation."""
    recalled: float | None = None
    """What the paper is recalled to report there, in percent."""

    @property
    def orders(self) -> list[Order]:
        """All runs behind this point, each once, those that are asked first."""
        found: dict[Order, None] = {}

        def add(order: object) -> None:
            if isinstance(order, Order) and order not in found:
                add(order.asked)
                found[order] = None

        for order in (self.order, self.against, self.like):
            add(order)
        return list(found)


@final
@dataclass(frozen=True, kw_only=True)
class ExperimentContext:
    """Orders for one data set in one setting; equal ones are the same run wherever they appear."""

    data: DataName
    setting: Setting
    out: Path
    """Folder of all runs of all experiments, which share them."""
    seeds: int

    def normal(self, net: str, seed: int) -> Order:
        """A normal teacher."""
        return self._order(net, Normal(), seed, teaches=True)

    def nasty(
        self, net: str, seed: int, *, adversary: str | None = None, omega: float | None = None
    ) -> Order:
        """A nasty teacher, with a normal network as adversary."""
        push = self.setting.nasty(self.data)
        push = push if omega is None else replace(push, omega=omega)
        return self._order(net, push, seed, teaches=True, asked=self.normal(adversary or net, seed))

    def alone(self, net: str, seed: int, *, fraction: float = 1.0) -> Order:
        """A student without a teacher."""
        return self._order(net, Normal(), seed, fraction=fraction)

    def student(
        self,
        net: str,
        teacher: Order,
        seed: int,
        *,
        temperature: float | None = None,
        alpha: float | None = None,
        fraction: float = 1.0,
    ) -> Order:
        """A student of a teacher's answers."""
        loss = self.setting.loss[self.data]
        soft = Distilled(
            temperature=loss.temperature if temperature is None else temperature,
            alpha=loss.alpha if alpha is None else alpha,
        )
        return self._order(net, soft, seed, asked=teacher, fraction=fraction)

    def recalled(self, kind: str, teacher: str, column: str) -> float | None:
        """What the paper is recalled to report for a student or teacher, in percent.

        None where other data or networks stand for the paper's: it would compare what is not alike.
        """
        if self.data in self.setting.source or self.setting.stand_in:
            return None
        return RECALLED.get((self.data, kind, teacher, column))

    def _order(
        self,
        net: str,
        objective: Objective,
        seed: int,
        *,
        teaches: bool = False,
        asked: Order | None = None,
        fraction: float = 1.0,
    ) -> Order:
        training = self.setting.training(self.data, net, seed=seed, teaches=teaches)
        return Order(
            net=self.setting.net(net),
            objective=objective,
            training=replace(training, fraction=fraction),
            asked=asked,
            under=self.out / "runs",
        )

    def column(self, net: str) -> str:
        """The paper's name of a network, with what stands for it here."""
        here = self.setting.net(net)
        return NAMES[net] if here == net else f"{NAMES[net]} ({here})"
