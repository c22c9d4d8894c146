"""Orders: requests for runs, which may depend on each other."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from denature.answers.answerer import AnswerChange
from denature.answers.config import InferenceConfig
from denature.answers.transfer import Transfer
from denature.core.schema import encode
from denature.nets.published import PublishedWeights
from denature.train.config import Training
from denature.train.objectives.base import Objective
from denature.train.run import Run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Input: TypeAlias = Run | Transfer | PublishedWeights
"""Inputs of a run besides data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Request for one run: network, objective, training, inputs and folder."""

    net: str | nn.Module
    """A name of the catalogue, `package.module:factory`, or a module, which is trained in place and
    does its own normalisation."""
    objective: Objective
    """Loss of the training."""
    training: Training = field(default_factory=Training)
    """Settings of the training."""
    source: "Run | Order | Transfer | None" = None
    """Source of answers: a student's teacher or a nasty teacher's adversary, as a run or the order
    of one; for a clone, the transfer set of its victim. An objective that asks nothing ignores it,
    but its data travel to workers with a transfer set."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """Inference settings of that source."""
    init: "Run | Order | None" = None
    """A run of the same network, or the order of one; its weights are the initial weights."""
    backbone: "Run | Order | str | None" = None
    """A run of the same network, or the order of one, whose layers except the last are the initial
    weights: classes and image size may differ. Or the network's own name, `timm:NAME` or
    `torchvision:NAME`, for the weights that the library's authors publish."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation per channel for the network's normalisation; by default those of
    the training samples."""
    out: str | Path | None = None
    """Folder for record, weights and events; None keeps the run in memory."""
    under: str | Path | None = None
    """Instead of `out`: parent of the run's folder, which is named by kind, network and id."""

    @property
    def name(self) -> str:
        """Name of the network."""
        net = self.net
        return net if isinstance(net, str) else f"{type(net).__module__}:{type(net).__qualname__}"

    @property
    def title(self) -> str:
        return f"{self.objective.kind} {self.name}, seed {self.training.seed}"


def objective_settings(objective: Objective, defense: AnswerChange | None) -> dict[str, Any]:
    """Fields of an objective as plans state them, and the defense of its answers."""
    # The loss of a clone once rounded the answers, so all plans of clones state its decimals.
    unrounded = {"decimals": None} if objective.kind == "cloned" else {}
    return {**encode(objective), **unrounded, **({} if defense is None else defense.settings)}


def given_by(order: Order) -> dict[str, Any]:
    """Settings of an order that differ from their defaults."""
    defense = order.source.defense if isinstance(order.source, Transfer) else None
    settings = {**changed(order.objective), **({} if defense is None else defense.settings)}
    return {
        "net": order.net,
        "objective": {"kind": order.objective.kind, **settings},
        "training": changed(order.training),
        "asking": changed(order.inference),
    }


def changed(config: "DataclassInstance") -> dict[str, Any]:
    """The fields of a config that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(config)}
    changed = {name for name, default in defaults.items() if getattr(config, name) != default}
    return {name: value for name, value in encode(config).items() if name in changed}
