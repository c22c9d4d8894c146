"""The model behind each defense, and the defender's networks."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import final

from torch import nn

from denature.audit.attempt import PoolOrder
from denature.audit.clone_training import CloneTrainer
from denature.audit.config import IN_TRAINING, UNDEFENDED
from denature.audit.source import Harvest, Source
from denature.core.errors import ConfigError, unknown
from denature.core.seeds import derive, seeded
from denature.defenses.base import Chain, NetworkRole
from denature.defenses.catalogue import DEFENSES, chain_of
from denature.extract.strategies.base import Lesson
from denature.nets import create
from denature.train.run import Run
from denature.train.untrained import untrained

SURROGATE_EPOCHS = 10
"""Epochs of the defender's surrogate (Mazeika et al. 2022: 10 of 50)."""

SURROGATE_IMAGES = 5000


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Defender:
    """Puts defenses in front of one model."""

    harvest: Harvest
    digest: str
    """Identity of the model."""
    chains: Mapping[str, Chain | None]
    """Output defenses by name, in the order of the result; None for `IN_TRAINING`."""
    nasty: tuple[Harvest, str] | None
    """True answers and identity of the nasty teacher; None where the model cannot be trained."""
    misinformation: Run | None
    """The network that is trained to be wrong, where a chain needs it."""
    pool: PoolOrder
    """Images that the surrogate learns from."""
    trainer: CloneTrainer
    folder: Path
    model: Run | None = None
    """The model, where it is a run."""
    only_planned: bool = False
    """Whether sources are counted only, and need no networks."""
    left_out: list[str] = field(default_factory=list)
    """Defenses that cannot be audited here, with the reason; filled by `sources`."""

    def sources(self) -> Iterator[Source]:
        """The model behind each defense, the undefended one first.

        Raises:
            ConfigError: the model shows no classes.
        """
        for name, chain in self.chains.items():
            if chain is None:
                if self.nasty is None:
                    self.left_out.append(f"{name}: it is trained from a run, and this is none.")
                    continue
                harvest, digest = self.nasty
                yield Source(name=name, harvest=harvest, digest=digest)
                continue
            reason = self._reason_against(chain)
            if reason is None:
                yield self._source(name, chain)
            elif name == UNDEFENDED:
                raise ConfigError(reason)
            else:
                self.left_out.append(f"{name}: {reason}")

    @property
    def images(self) -> int:
        """Images that the surrogate learns from; 0 where no chain needs it."""
        chains = [chain for chain in self.chains.values() if chain is not None]
        needed = any(
            "surrogate" in chain.roles for chain in chains if not self._reason_against(chain)
        )
        return min(SURROGATE_IMAGES, len(self.pool.rows)) if needed else 0

    def _reason_against(self, chain: Chain) -> str | None:
        try:
            Source(name="", harvest=self.harvest, chain=chain).shown_kind  # noqa: B018
            chain.check_scores(self.harvest.classes)
        except ConfigError as error:
            return str(error)
        first = chain.defenses[0] if chain.defenses else None
        if first is None or self.harvest.kind == "label" or first.gives == "label":
            return None
        classes, shown = self.harvest.classes, self.harvest.shown
        if shown >= classes or first.shows(classes) <= shown:
            return None
        return f"The model shows {shown} of {classes} scores, and this defense changes all of them."

    def _source(self, name: str, chain: Chain) -> Source:
        if self.only_planned:
            return Source(name=name, harvest=self.harvest, chain=chain)
        found = {role: self._network(role) for role in sorted(chain.roles)}
        return Source(
            name=name,
            harvest=self.harvest,
            chain=chain,
            networks={role: network.eval() for role, (network, _) in found.items()},
            digest=" ".join([self.digest, *(digest for _, digest in found.values())]),
        )

    def _network(self, role: NetworkRole) -> tuple[nn.Module, str]:
        """A network of the defender, and its identity."""
        if role == "untrained":
            return self._untrained
        run = self._surrogate if role == "surrogate" else self.misinformation
        assert run is not None
        return run.network, run.digest

    @cached_property
    def _untrained(self) -> tuple[nn.Module, str]:
        trainer = self.trainer
        data = trainer.dataset
        if self.model is not None:
            return untrained(self.model), f"untrained {self.model.record.net.name}, as served"
        mean, std = data.train.statistics()
        with seeded(trainer.training.seed, "untrained surrogate"):
            network = create(
                trainer.net,
                classes=len(data.classes),
                channels=data.channels,
                image_size=data.image_size,
                mean=mean,
                std=std,
            )
        return network, f"untrained {trainer.net} {trainer.training.seed}, normalised"

    @cached_property
    def _surrogate(self) -> Run:
        """A student of the true answers to the pool, as the defender expects the thief's."""
        rows = self.pool.shuffled(self.trainer.training.seed, set())[:SURROGATE_IMAGES]
        images = self.pool.pool.images(rows)
        lesson = Lesson(
            images=images,
            answers=self.harvest(images),
            training={"epochs": SURROGATE_EPOCHS},
        )
        seed = derive(self.trainer.training.seed, "surrogate")
        groups = self.trainer.orders([lesson], self.folder, seed=seed, recipe="surrogate")
        [run] = self.trainer.train(groups, 1)
        return run


def chain_named(name: str) -> Chain | None:
    """The chain of an output defense; None for the in-training defense.

    Raises:
        ConfigError: no such defense, or the in-training one beside others or with options.
    """
    if name == IN_TRAINING:
        return None
    parts = set(re.split(r"[+@]", name))
    if IN_TRAINING in parts:
        raise ConfigError(
            f"The defense {name!r} cannot be read: {IN_TRAINING} is another model, which has no "
            "options here and no other defenses in front of it. Name it alone."
        )
    if parts == {name} and name not in DEFENSES and name != UNDEFENDED:
        raise unknown("defense", name, [*DEFENSES, UNDEFENDED, IN_TRAINING])
    return chain_of(name)
