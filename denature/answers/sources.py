"""Sources of answers. A student learns from answers in the same way, whatever their source."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, final

import torch

from denature.answers.answerer import Answers
from denature.answers.coding import Coding
from denature.answers.inference import Inference
from denature.answers.store import Store
from denature.core.types import Logits, Pixels
from denature.data.feed import Batch

AHEAD = 8
"""Batches that are looked up in a store at once, so that missing answers fill whole chunks."""

AHEAD_BYTES = 32 * 2**20
"""Fewer batches are looked up at once where their pixels would exceed this."""


class AnswerSource(Protocol):
    """A source that answers batches."""

    def answered(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answers]]:
        """Each batch with its answers; some batches may be read ahead of time."""


@final
class LiveAnswers:
    """A network in this process that answers at each call; its coding rounds the answers."""

    def __init__(self, inference: Inference, coding: Coding) -> None:
        self.inference = inference
        self.coding = coding

    def ask(self, pixels: Pixels) -> Logits:
        return self.coding.round(self.inference(pixels))

    def answered(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answers]]:
        for batch in batches:
            yield batch, Answers("logits", self.ask(batch.pixels))


@final
class StoredAnswers:
    """A store, and the network that computes the answers missing from it."""

    def __init__(self, live: LiveAnswers, store: Store) -> None:
        self.live = live
        self.store = store

    def answered(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answers]]:
        waiting = iter(batches)
        for first in waiting:
            ahead = max(1, min(AHEAD, AHEAD_BYTES // max(1, first.pixels.nbytes)))
            window = [first, *islice(waiting, ahead - 1)]
            values = self._look_up(window).split([len(batch.samples) for batch in window])
            for batch, part in zip(window, values, strict=True):
                yield batch, Answers("logits", part)

    def _look_up(self, window: list[Batch]) -> Logits:
        """The answers to all batches of a window in order; missing ones are computed and stored."""
        samples = torch.cat([batch.samples for batch in window]).numpy()
        views = torch.cat([batch.views for batch in window]).numpy()
        places = self.store.places(samples, views)
        found, present = self.store.read(places)
        missing = torch.from_numpy(~present).nonzero()[:, 0]
        device = window[0].pixels.device
        values = torch.from_numpy(found).to(device, non_blocking=True)
        if len(missing):
            pixels = torch.cat([batch.pixels for batch in window])
            computed = self.live.ask(pixels[missing.to(device)])
            self.store.write(places[missing.numpy()], computed.cpu().numpy())
            values[missing.to(device)] = computed
        return values
