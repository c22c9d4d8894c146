"""The thief that starts from a public network."""

from dataclasses import dataclass
from typing import ClassVar, final

from denature.extract.strategies.base import (
    Attempt,
    Extra,
    Lesson,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
)
from denature.extract.strategies.common import query, usable


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrained(Strategy):
    """A clone whose layers but the last start as those of a pretrained network."""

    name: ClassVar[str] = "pretrained"
    about: ClassVar[str] = (
        "Queries random images, and trains a clone that starts from a pretrained network."
    )
    source: ClassVar[str] = (
        "The strong thief of arXiv:2502.18077, which fine-tunes a foundation model; here the "
        "backbone that is given, with the training of the other clones."
    )
    uses: ClassVar[tuple[Extra, ...]] = ("backbone",)

    def excluded(self, situation: Situation) -> str | None:
        if situation.backbone is None:
            return "No pretrained network is given."
        return None

    def steps(self, attempt: Attempt) -> Steps:
        backbone = attempt.backbone
        assert backbone is not None
        net = backbone if isinstance(backbone, str) else backbone.record.net.name
        images, answers = query(attempt)
        [run] = yield [Lesson(images=images, answers=usable(answers), net=net, backbone=backbone)]
        return TrainedClone(run.network)
