"""What a thief may use in one cell of an audit: images of pools, images that it owns, queries."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.audit.source import Source, look, shown_by
from denature.core.errors import ConfigError
from denature.core.seeds import derive, generator
from denature.defenses.base import Stream
from denature.extract.asking.ledger import BudgetSpent
from denature.extract.asking.pool import StoredPool, digest_of, pool_of_tests
from denature.extract.strategies.base import LabelledImages, Situation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from denature.data import Dataset
    from denature.train.config import Training
    from denature.train.run import Run


@final
class PoolOrder:
    """The images of a pool that differ from each other and from the test images.

    Args:
        pool: the images.
        excluded: digests of images that are never queried, such as test images.
    """

    def __init__(self, pool: StoredPool, excluded: Collection[bytes]) -> None:
        self.pool, seen, self.rows = pool, set(excluded), []
        self.contents: dict[int, bytes] = {}
        for row, content in enumerate(pool.contents(range(pool.size))):
            if content not in seen:
                seen.add(content)
                self.rows.append(row)
                self.contents[row] = content

    @property
    def name(self) -> str:
        return self.pool.name

    def shuffled(self, seed: int, first: set[bytes]) -> list[int]:
        """Rows in the order of a seed, without those of which `first` has the digests."""
        order = generator(seed, "queries").permutation(len(self.rows))
        rows = [self.rows[place] for place in order.tolist()]
        return [row for row in rows if self.contents[row] not in first] if first else rows


def seed_of(training: "Training", number: int) -> int:
    """Seed of all that a thief draws in the repetition of this number."""
    return derive(training.seed, "thief", number)


def contents_of_tests(dataset: "Dataset") -> frozenset[bytes]:
    """Digests of the test images."""
    tests = pool_of_tests(dataset)
    return frozenset(tests.contents(range(tests.size)))


def owned_images(
    dataset: "Dataset", tests: frozenset[bytes], *, count: int, seed: int
) -> tuple[LabelledImages, frozenset[bytes]]:
    """Labelled images of a thief, and their digests.

    They are drawn from the training split, differ from each other and from test images.

    Args:
        dataset: the labelled data.
        tests: digests of its test images.
        count: number of images.
        seed: determines them.

    Raises:
        ConfigError: there are not so many.
    """
    train, seen = dataset.train, set(tests)
    order = generator(seed, "owned images").permutation(len(train.rows))
    chosen: list[int] = []
    for row in train.rows[torch.from_numpy(order)].tolist():
        if len(chosen) == count:
            break
        content = digest_of(train.images[row].numpy())
        if content not in seen:
            seen.add(content)
            chosen.append(row)
    if len(chosen) < count:
        raise ConfigError(
            f"The thief owns {count:,} labelled images, and {dataset.config.source} has "
            f"{len(chosen):,} training images that differ from each other and from the test "
            "images. Take a smaller --labelled."
        )
    images, labels = train.images[chosen].numpy(), train.labels[chosen].numpy()
    return LabelledImages(images, labels), frozenset(seen - tests)


@final
@dataclass(kw_only=True, slots=True, eq=False)
class CellAttempt:
    """One thief against one defended model, within one budget; see `Attempt`."""

    situation: Situation
    seed: int
    device: str
    source: Source
    main: PoolOrder
    other: PoolOrder | None = None
    owned: LabelledImages | None = None
    owned_contents: frozenset[bytes] = frozenset()
    backbone: "Run | str | None" = None
    encoder: "nn.Module | None" = None
    spent: int = 0
    simulated: int = 0
    """Calls of `simulate`, each of which draws other random numbers, as a service would."""
    _stream: Stream = field(init=False)
    _orders: dict[bool, list[int]] = field(init=False, default_factory=dict)
    _looked: "tuple[np.ndarray, Sequence[Tensor | None]] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        # The service's randomness is not the thief's: `simulate` derives another seed.
        self._stream = self.source.start(derive(self.seed, "service", self.situation.budget))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.main.pool.images([0]).shape[1:]
        return channels, height, width

    def _pool(self, other: bool) -> PoolOrder:
        pool = self.other if other else self.main
        if pool is None:
            raise ConfigError("There is no pool of another domain; name one with --other-pool.")
        return pool

    def _order(self, other: bool) -> list[int]:
        if other not in self._orders:
            first = set() if other else set(self.owned_contents)
            self._orders[other] = self._pool(other).shuffled(self.seed, first)
        return self._orders[other]

    def _owned_images(self, other: bool) -> int:
        return 0 if other or self.owned is None else len(self.owned.images)

    def pool(self, first: int, count: int, *, other: bool = False) -> np.ndarray:
        owned = self._owned_images(other)
        rows = self._order(other)[max(0, first - owned) : max(0, first + count - owned)]
        images = self._pool(other).pool.images(rows)
        if first >= owned or self.owned is None:
            return images
        return np.concatenate([self.owned.images[first : first + count], images])

    def pool_size(self, *, other: bool = False) -> int:
        return self._owned_images(other) + len(self._order(other))

    def left(self) -> int:
        return self.situation.budget - self.spent

    def ask(self, images: np.ndarray) -> Answers:
        if len(images) > self.left():
            raise BudgetSpent(
                f"The budget of {self.situation.budget:,} queries allows {self.left():,} more; "
                f"{len(images):,} were requested, and none was sent."
            )
        self.spent += len(images)
        return shown_by(self._stream, self.source.harvest(images), images)

    def simulate(self, answers: Answers, images: np.ndarray) -> Answers:
        stream = self.source.start(
            derive(self.seed, "thief", self.situation.budget, self.simulated)
        )
        self.simulated += 1
        # Thieves simulate many answers to the same images, at which networks need to look once.
        if self._looked is None or self._looked[0] is not images:
            self._looked = images, look(stream, images)
        return shown_by(stream, answers, images, self._looked[1])

    @property
    def true_kind(self) -> AnswerKind:
        return self.source.harvest.kind
