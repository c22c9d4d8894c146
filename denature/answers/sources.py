"""Who is asked. A student learns from answers; where they come from is the only difference."""

from typing import Literal, NamedTuple, Protocol, TypeAlias, final

import torch
from torch import Tensor, nn

from denature.core.compute import Compute
from denature.data.feed import Batch, Feed

Kind: TypeAlias = Literal["logits", "probabilities", "label"]


class Answers(NamedTuple):
    """Answers to one batch and what they are; logits are never taken for probabilities."""

    kind: Kind
    values: Tensor
    """float32, batch x classes; for labels int64, batch."""


class Source(Protocol):
    """Something that answers a batch."""

    def __call__(self, batch: Batch) -> Answers: ...


@final
class Live:
    """A network in this process, asked anew each time: in eval mode and without gradient."""

    def __init__(self, network: nn.Module, compute: Compute) -> None:
        self.network = compute.place(network).eval()
        self.compute = compute

    def __call__(self, batch: Batch) -> Answers:
        return Answers("logits", self.compute.answer(self.network, batch.pixels))


@final
class Remembered:
    """Asks `source` once about every sample of a feed that has one view of each, and remembers.

    It asks in the order of the rows, in chunks of one size, because an answer's last bits can
    depend on the batch that it was computed in.
    """

    def __init__(self, source: Source, feed: Feed) -> None:
        if feed.views.count != 1:
            raise ValueError(f"A sample has {feed.views.count} views; one can be remembered.")
        answers = [source(batch) for batch in feed.plain()]
        self.kind = answers[0].kind
        values = torch.cat([answer.values for answer in answers])
        rows = feed.split.rows.to(values.device)
        self._table = values.new_zeros((len(feed.split.labels), *values.shape[1:]))
        self._table[rows] = values

    def __call__(self, batch: Batch) -> Answers:
        return Answers(self.kind, self._table[batch.samples])
