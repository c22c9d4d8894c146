"""The thief that averages the answers to several views of an image."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch

from denature.core.schema import check_fields
from denature.core.seeds import generator
from denature.data.views import Views, auto_views, views
from denature.extract.strategies.base import (
    Attempt,
    Lesson,
    QuerySource,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
    images_of_training,
)
from denature.extract.strategies.common import averaged
from denature.train.config import Training


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Augmented(Strategy):
    """Random images of the pool, several views of each, and a clone of the mean answers.

    The clone learns the mean answer at the image itself. Each view is charged, so that there are
    fewer images, which costs more on digits than the mean gains: docs/audit.md has the numbers.
    """

    name: ClassVar[str] = "augmented"
    about: ClassVar[str] = (
        "Queries each random image and augmented views of it, and trains a clone on the image with "
        "the mean answer."
    )
    source: ClassVar[str] = (
        "The smoothing attack of ModelGuard (Tang et al., USENIX Security 2024), three views of an "
        "image; here the image itself is the first of them, and no view is queried twice."
    )
    queries: ClassVar[QuerySource] = "own"

    count: int = 3
    """Queries of each image: itself, and augmented views of it."""

    def __post_init__(self) -> None:
        check_fields(self, {"count": (self.count >= 2, "at least 2")})

    def excluded(self, situation: Situation) -> str | None:
        if situation.budget < 2 * self.count:
            return f"Two images, {self.count} views of each, cost more than the budget."
        return None

    def trained_images(self, budget: int, training: Training) -> float:
        return images_of_training(max(2, budget // self.count), training)

    def steps(self, attempt: Attempt) -> Steps:
        images = attempt.pool(0, attempt.left() // self.count)
        every = [images, *self._views(images, attempt)]
        answers = attempt.ask(np.concatenate(every))
        mean = averaged(answers, len(every), attempt.situation.classes)
        [run] = yield [Lesson(images=images, answers=mean)]
        return TrainedClone(run.network)

    def _views(self, images: np.ndarray, attempt: Attempt) -> list[np.ndarray]:
        """Augmented views of each image, all different, and none is the image itself."""
        family = _family(attempt.image_shape)
        numbers = np.setdiff1d(np.arange(family.count), [_unchanged(family)])
        random = generator(attempt.seed, "augmented")
        drawn = random.permuted(np.tile(numbers, (len(images), 1)), axis=1)[:, : self.count - 1]
        pixels = torch.from_numpy(images)
        return [family.apply(pixels, torch.from_numpy(column)).numpy() for column in drawn.T]


def _family(shape: tuple[int, int, int]) -> Views:
    """The views that training takes for such images, or shifts where it takes none."""
    channels, size, _ = shape
    name = auto_views(channels=channels, image_size=size)
    return views("crop" if name == "none" else name, channels=channels, image_size=size)


def _unchanged(family: Views) -> int:
    """The number of the view that is the image itself; see `Views.apply`."""
    side = 2 * family.padding + 1
    middle = family.padding * side + family.padding
    return 2 * middle if family.flip else middle
