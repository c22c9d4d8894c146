"""A model behind a defense: true answers are asked once, shown ones are made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.answers.looks import ENOUGH
from denature.core.errors import RunError
from denature.defenses.base import Chain, NetworkRole, Stream
from denature.extract.asking.answered import answered
from denature.extract.asking.ledger import BudgetSpent
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import PoolBatch, digest_of
from denature.extract.asking.reading import not_summing, shown_counts
from denature.extract.victims.called import FunctionVictim
from denature.remote.errors import AskFailed

if TYPE_CHECKING:
    from torch import Tensor, nn


@final
class Harvest:
    """True answers of one model to any images; each image is asked once, and its answer is kept.

    Args:
        oracle: the model with the ledger that keeps its answers.
        classes: number of classes of the data.
    """

    def __init__(self, oracle: Oracle, *, classes: int) -> None:
        self.oracle, self.classes = oracle, classes
        self._known: dict[bytes, np.ndarray] = {}
        self._kind: AnswerKind | None = oracle.kind or oracle.about.kind

    @property
    def kind(self) -> AnswerKind:
        """Kind of the true answers; known after the first ones."""
        assert self._kind is not None
        return self._kind

    def __len__(self) -> int:
        """Number of images whose answers are known in this process."""
        return len(self._known)

    @property
    def spent(self) -> int:
        """Queries for audits in this folder, those of earlier processes and lost ones included."""
        return self.oracle.ledger.spent(self.oracle.target, self.oracle.purpose)

    @cached_property
    def shown(self) -> int:
        """Scores that the model shows of each answer, at least, to the images it was asked first.

        The others are imputed in its true answers here. Labels count as one score.
        """
        first = set(islice(self._known, ENOUGH))
        stored = self.oracle.ledger.answers(self.oracle.target, first).values()
        rows = [row for repeats in stored for row in repeats.values()]
        return min(int(np.isfinite(row).sum()) for row in rows)

    @property
    def nan_answers(self) -> int:
        """Answers with NaN, where they show different numbers of scores and none may be hidden."""
        if self.oracle.about.hides:
            return 0
        shown = shown_counts(self.oracle.stored)
        return shown.total() - shown[max(shown)] if len(shown) > 1 else 0

    @property
    def not_summing(self) -> int:
        """Answers of probabilities that show all their scores, which do not sum to 1."""
        return not_summing(self.oracle.stored) if self.kind == "probabilities" else 0

    def __call__(self, images: np.ndarray) -> Answers:
        """The true answers to images, uint8, n x channels x height x width.

        Raises:
            RunError: images remained without an answer.
            AskFailed, BudgetSpent, ConfigError, Stopped: see `Oracle.ask`.
        """
        contents = [digest_of(image) for image in images]
        new = {content: row for row, content in enumerate(contents) if content not in self._known}
        if new:
            self._ask(images[list(new.values())], list(new))
        values = np.stack([self._known[content] for content in contents])
        return Answers(self.kind, torch.from_numpy(values))

    def _next(self) -> str:
        """What to do after a failure: a function fails again, a service may come back."""
        if isinstance(self.oracle.victim, FunctionVictim):
            return "mend it, and run the same command again"
        return "run the same command again to go on"

    def _ask(self, images: np.ndarray, contents: list[bytes]) -> None:
        pool = PoolBatch("audit", images)
        try:
            self.oracle.ask(pool, range(len(images)))
        except BudgetSpent as spent:
            raise BudgetSpent(
                f"{spent} Stored answers are kept: run the same command again with a larger "
                "--max-queries or --max-cost, or with fewer --test-images, budgets or seeds."
            ) from None
        except AskFailed as error:
            raise AskFailed(
                f"{str(error).rstrip('.')}. Stored answers are kept: {self._next()}.",
                again=False,
                billed=error.billed,
            ) from error
        found = answered(self.oracle, pool, range(len(images)), classes=self.classes)
        if len(found.rows) < len(images):
            raise RunError(
                f"{len(images) - len(found.rows)} of {len(images)} images were not answered. Run "
                "the same command again: stored answers are kept."
            )
        self._kind = found.kind
        self._known |= zip(contents, found.values, strict=True)


def shown_by(
    stream: Stream,
    answers: Answers,
    images: np.ndarray,
    evidence: "Sequence[Tensor | None] | None" = None,
) -> Answers:
    """True answers as a service with this defense shows them, float32 or int64, on the CPU.

    A service shows probabilities: logits become probabilities in float64, before the chain unless
    it converts them itself.

    Args:
        stream: the chain's stream.
        answers: logits, probabilities or labels.
        images: uint8, the images of these answers.
        evidence: what `look` found in these images, if it did before.
    """
    if answers.kind != "label":
        answers = answers._replace(values=answers.values.double())
    chain = stream.chain
    if answers.kind == "logits" and not chain.converts_logits:
        answers = Answers("probabilities", answers.values.softmax(-1))
    shown = stream(answers, evidence=look(stream, images) if evidence is None else evidence)
    return shown if shown.kind == "label" else shown._replace(values=shown.values.float())


def look(stream: Stream, images: np.ndarray) -> "tuple[Tensor | None, ...]":
    """What the defender's networks say of images, uint8; see `Stream.look`."""
    return stream.look(torch.from_numpy(images).float().div(255) if stream.chain.roles else None)


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Source:
    """One model behind one defense."""

    name: str
    """Of the defense in tables."""
    harvest: Harvest
    chain: Chain = field(default_factory=Chain)
    networks: "Mapping[NetworkRole, nn.Module]" = field(default_factory=dict)
    digest: str = ""
    """Identity of the model, and of the defender's networks."""

    def start(self, seed: int) -> Stream:
        return self.chain.start(self.networks, seed=seed)

    @property
    def shown_kind(self) -> AnswerKind:
        """Kind of the shown answers.

        Raises:
            ConfigError: the defense does not take what the model shows.
        """
        kind = self.harvest.kind
        if kind == "logits" and not self.chain.converts_logits:
            kind = "probabilities"
        return self.chain.kind(kind)
