"""The thief without images of the victim's domain."""

from dataclasses import dataclass
from typing import ClassVar, final

from denature.extract.strategies.base import (
    Attempt,
    Extra,
    Lesson,
    QuerySource,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
)
from denature.extract.strategies.common import usable


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class OtherDomain(Strategy):
    """Images of another domain, and a clone that learns the answers to them."""

    name: ClassVar[str] = "other-domain"
    about: ClassVar[str] = "Queries random images of another domain, and trains a clone on these."
    source: ClassVar[str] = (
        "Knockoff Nets (Orekondy et al. 2019) and Copycat CNN (Correia-Silva et al. 2018), "
        "which query natural images of any kind; here without reinforcement learning."
    )
    uses: ClassVar[tuple[Extra, ...]] = ("other",)
    queries: ClassVar[QuerySource] = "own"

    def excluded(self, situation: Situation) -> str | None:
        if situation.other_pool is None:
            return "No pool of another domain is given."
        return None

    def steps(self, attempt: Attempt) -> Steps:
        images = attempt.pool(0, attempt.left(), other=True)
        answers = usable(attempt.ask(images))
        [run] = yield [Lesson(images=images, answers=answers)]
        return TrainedClone(run.network)
