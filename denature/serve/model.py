"""A model that is ready to be served."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import torch

from denature.answers.answerer import Answerer, Answers
from denature.core.errors import ConfigError
from denature.core.seeds import generator
from denature.defenses.base import Defended, Networks, Stream
from denature.serve.config import ServedModel
from denature.serve.exposure import expose
from denature.serve.memory import MemoryFile, Tensors, snapshot
from denature.serve.protocol import ModelSignature

if TYPE_CHECKING:
    from denature.serve.upstream import Upstream

FEW = 4096
"""Scores that defenses change in the event loop; a thread changes more, so that others go on."""

TRIED = 2
"""Random images whose answers are checked before anything is served."""


class MemoryCopy(NamedTuple):
    """What the defenses of a model remember after a number of batches."""

    batches: int
    tensors: Tensors


@final
class Model:
    """An answerer behind its defenses, and the exposure of its answers.

    Args:
        served: the resolved settings of this model.
        signature: its input and output on the wire.
        answerer: answers of the kind that the defenses take.
        take: from the images of a request to those that the answerer takes.
        networks: those that its defenses look at.
        seed: of its random defenses.
        memory: folder with what the defenses remembered, for defenses with a memory.
        upstream: a model of another server that answers requests in the answerer's place, which
            then stands for it at the start alone.

    Raises:
        ConfigError: the defenses do not give what is shown.
        RunError: the memory is damaged, or of another model or defense.
    """

    def __init__(
        self,
        served: ServedModel,
        signature: ModelSignature,
        answerer: Answerer,
        *,
        take: Callable[[np.ndarray], torch.Tensor],
        networks: Networks,
        seed: int,
        memory: Path | None = None,
        upstream: "Upstream | None" = None,
    ) -> None:
        self.signature, self.upstream = signature, upstream
        # Replies of another server come in any order, and what remembers answers needs theirs.
        self.at_once = 1 if upstream is None or served.chain.remembers else upstream.at_once
        self._answerer, self._take = answerer, take
        self._defended = Defended(answerer, served.chain, networks, seed)
        self._order = threading.Lock()
        self._batches = self._written = 0
        self._memory: MemoryFile | None = None
        self._try(served.chain.start(networks))
        if memory is not None and served.chain.remembers:
            self._memory = MemoryFile(memory / f"{served.name}.safetensors", self._defended)
            self._memory.restore(self._try)

    def answer(self, requests: Sequence[np.ndarray]) -> np.ndarray:
        """The answers to all images of several requests: float64, or int64 for labels."""
        images = torch.cat([self._take(images) for images in requests])
        return self._shown(self._answerer(images), images)

    async def ask(self, requests: Sequence[np.ndarray]) -> np.ndarray:
        """Like `answer`, by a model of another server."""
        assert self.upstream is not None
        images = torch.cat([self._take(images) for images in requests])
        answers = await self.upstream.ask(images)
        if answers.values.numel() <= FEW and not self._order.locked():
            return self._shown(answers, images)
        return await asyncio.to_thread(self._shown, answers, images)

    def _shown(self, answers: Answers, images: torch.Tensor) -> np.ndarray:
        with self._order:  # answers change the memory of the defenses
            self._batches += 1
            return self._defended.stream(answers, images).values.cpu().numpy()

    def copy_memory(self) -> MemoryCopy | None:
        """What the defenses remember; None where nothing is kept or nothing changed."""
        if self._memory is None or self._batches == self._written:
            return None
        with self._order:
            return MemoryCopy(self._batches, snapshot(self._defended.stream))

    def write_memory(self, copy: MemoryCopy) -> None:
        """Write a copy to the model's file.

        Raises:
            OSError: the file could not be written.
        """
        assert self._memory is not None
        self._memory.write(copy.tensors)
        self._written = copy.batches

    def _try(self, stream: Stream) -> None:
        """Check the answers of a stream, not the served one, to a few random images."""
        if not stream.chain.defenses:
            return
        shape = (TRIED, *(max(size, 1) for size in self.signature.shape))
        pixels = self._take(generator(0, "trial").integers(0, 256, shape, dtype=np.uint8))
        exposure, scores = self.signature.exposure, len(self.signature.classes)
        shown = expose(stream(self._answerer(pixels), pixels).values.cpu().numpy(), exposure)
        count = int(np.isfinite(shown).sum())
        wanted = TRIED * (1 if exposure.kind == "label" else exposure.top or scores)
        if count != wanted:
            raise ConfigError(
                f"The defense {stream.chain.name} shows {count} finite scores of {TRIED} random "
                f"images, where {wanted} are wanted: one of its parts needs scores that an earlier "
                "one hides, or gives values that are not finite. Put what hides scores last."
            )
