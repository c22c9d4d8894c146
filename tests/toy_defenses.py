"""Defenses with a memory, noise or a network, for tests.

python -m tests.toy_defenses serve RUN --defense counting

is the command line with these defenses. Torch is imported late: a worker that takes seconds before
it answers its supervisor is started again.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from denature.answers.kinds import AnswerKind
from denature.cli.app import main
from denature.defenses.base import Context, Defense, NetworkRole
from denature.defenses.catalogue import DEFENSES
from denature.defenses.randomness import Randomness

if TYPE_CHECKING:
    from torch import Tensor, nn

    from denature.core.types import Pixels


class Count:
    """Answers given."""

    def __init__(self) -> None:
        import torch

        self.given = torch.zeros(1, dtype=torch.int64)

    def state(self) -> "dict[str, Tensor]":
        return {"given": self.given}

    def restore(self, tensors: "Mapping[str, Tensor]") -> None:
        self.given = tensors["given"]


@dataclass(frozen=True, kw_only=True)
class Counting(Defense):
    """Adds the number of answers given before to all scores: each answer shows its place."""

    name: ClassVar[str] = "counting"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities")
    keeps_top: ClassVar[bool] = True

    by: int = 1

    def begin(self, seed: int) -> Count:
        return Count()

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        import torch

        places = torch.arange(len(values)) + context.memory.given
        context.memory.given += len(values)  # in place, as a codebook may grow
        changed: Tensor = values + self.by * places.unsqueeze(1)
        return changed


@dataclass(frozen=True, kw_only=True)
class Noisy(Defense):
    """Uniform numbers in the place of scores: what is shown is the noise alone."""

    name: ClassVar[str] = "noisy"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("probabilities",)
    keeps_top: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def begin(self, seed: int) -> Randomness:
        return Randomness(seed, self.name)

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        import torch

        return torch.from_numpy(context.memory.generator.random(values.shape))


@dataclass(frozen=True, kw_only=True)
class _Looking(Defense):
    """Shows the logits of the defender's network."""

    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits",)
    keeps_top: ClassVar[bool] = False

    def look(self, network: "nn.Module", pixels: "Pixels") -> "Tensor":
        import torch

        with torch.no_grad():
            evidence: Tensor = network(pixels)
        return evidence

    def _change(self, values: "Tensor", kind: AnswerKind, context: Context) -> "Tensor":
        evidence: Tensor = context.evidence
        return evidence.to(values.dtype)


@dataclass(frozen=True, kw_only=True)
class Untrained(_Looking):
    name: ClassVar[str] = "looking-untrained"
    role: ClassVar[NetworkRole | None] = "untrained"


@dataclass(frozen=True, kw_only=True)
class Surrogate(_Looking):
    name: ClassVar[str] = "looking-surrogate"
    role: ClassVar[NetworkRole | None] = "surrogate"


@dataclass(frozen=True, kw_only=True)
class Misinformation(_Looking):
    name: ClassVar[str] = "looking-misinformation"
    role: ClassVar[NetworkRole | None] = "misinformation"


TOYS: dict[str, type[Defense]] = {
    toy.name: toy for toy in (Counting, Noisy, Untrained, Surrogate, Misinformation)
}

if __name__ in ("__main__", "__mp_main__"):  # the latter in worker processes
    DEFENSES.update(TOYS)
if __name__ == "__main__":
    sys.exit(main())
