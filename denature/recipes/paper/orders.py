"""Runs of the paper's experiments, and their positions in its tables and curves."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from denature.recipes.paper.config import DataName
from denature.recipes.paper.recalled import RECALLED
from denature.recipes.paper.settings import PaperSetting
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
class PlacedOrder:
    """One order, its position in a table or curve, and the runs of its comparison."""

    row: str
    column: str
    seed: int
    order: Order
    others: tuple[Order, ...] = ()
    """Further runs, of which that counts whose validation accuracy is the highest, with `order`."""
    against: Order | None = None
    """Baseline of the difference: a run of the same seed."""
    like: Order | None = None
    """For a student of a nasty teacher: the same student of the normal teacher."""
    like_others: tuple[Order, ...] = ()
    """To `like` what `others` are to `order`."""
    x: float | None = None
    """Position on the axis of an ablation."""
    recalled: float | None = None
    """The paper's value there as recalled, in percent."""

    @property
    def orders(self) -> list[Order]:
        """All runs behind this entry, each once, teachers and adversaries first."""
        orders: dict[Order, None] = {}

        def add(order: object) -> None:
            if isinstance(order, Order) and order not in orders:
                add(order.source)
                orders[order] = None

        for order in (self.order, *self.others, self.against, self.like, *self.like_others):
            add(order)
        return list(orders)


@final
@dataclass(frozen=True, kw_only=True)
class ExperimentContext:
    """Orders for one data set in one setting; equal orders are the same run in all experiments."""

    data: DataName
    setting: PaperSetting
    out: Path
    """Folder of the runs, which all experiments share."""

    @property
    def seeds(self) -> int:
        return self.setting.seeds

    def normal(self, net: str, seed: int) -> Order:
        """Order of a normal teacher."""
        return self.order(net, Normal(), seed, teaches=True)

    def nasty(
        self, net: str, seed: int, *, adversary: str | None = None, omega: float | None = None
    ) -> Order:
        """Order of a nasty teacher, with a normal network as adversary."""
        objective = self.setting.nasty(self.data)
        if omega is not None:
            objective = replace(objective, omega=omega)
        source = self.normal(adversary or net, seed)
        return self.order(net, objective, seed, teaches=True, source=source)

    def alone(self, net: str, seed: int, *, fraction: float = 1.0) -> Order:
        """Order of a student without a teacher."""
        return self.order(net, Normal(), seed, fraction=fraction)

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
        """Order of a student that learns from a teacher's answers."""
        loss = self.setting.loss[self.data]
        soft = Distilled(
            temperature=loss.temperature if temperature is None else temperature,
            alpha=loss.alpha if alpha is None else alpha,
        )
        return self.order(net, soft, seed, source=teacher, fraction=fraction)

    def recalled(self, kind: str, teacher: str, column: str) -> float | None:
        """The paper's value for a student or teacher as recalled, in percent.

        None where other data or networks replace the paper's: the values would not be comparable.
        """
        if self.data in self.setting.source or self.setting.stand_in.keys() & {
            *teacher.split(),
            column,
        }:
            return None
        return RECALLED.get((self.data, kind, teacher, column))

    def order(
        self,
        net: str,
        objective: Objective,
        seed: int,
        *,
        teaches: bool = False,
        source: Order | None = None,
        fraction: float = 1.0,
    ) -> Order:
        """Order of the network here for the paper's `net`, in this setting."""
        training = self.setting.training(self.data, net, seed=seed, teaches=teaches)
        return Order(
            net=self.setting.net(net),
            objective=objective,
            training=replace(training, fraction=fraction),
            source=source,
            under=self.out / "runs",
        )

    def column(self, net: str) -> str:
        """The paper's name of a network, with its stand-in here."""
        stand_in = self.setting.net(net)
        return NAMES[net] if stand_in == net else f"{NAMES[net]} ({stand_in})"
