"""A split on a device, served as batches of views."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from denature.core.compute import Compute
from denature.core.types import Indices, Labels, Pixels
from denature.data import views as views_
from denature.data.dataset import Split
from denature.data.landmarks import axes_of


class Batch(NamedTuple):
    """One batch; `samples` and `views` together identify its images."""

    samples: Indices
    """On the host, as are `views`, so that look-ups by them wait for no device."""
    views: Indices
    pixels: Pixels
    """On the device, as are `labels`."""
    labels: Labels


class Feed:
    """The images of a split as uint8 on the device, cut into batches there.

    On a CPU no image is copied: the images may stay in a mapped file.

    Args:
        split: the images.
        compute: device and memory layout of the batches.
        views: family of views to draw from.
        names: names of landmark coordinates, which move with the views.
    """

    def __init__(
        self,
        split: Split,
        *,
        compute: Compute,
        views: views_.Views = views_.NONE,
        names: Sequence[str] = (),
    ):
        self.split = split
        self.views = views
        self.compute = compute
        self._images = split.images.to(compute.device)
        self._labels = split.labels.to(compute.device)
        self._axes = torch.from_numpy(axes_of(names)).to(compute.device)

    def __len__(self) -> int:
        return len(self.split)

    def epoch(
        self,
        epoch: int,
        *,
        view_seed: int,
        batch_size: int,
        first: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """All samples once, in this epoch's order and views, from batch number `first` on.

        A last batch of fewer than two samples a part is left out: batch norm cannot take it.

        Args:
            epoch: counted from 1.
            view_seed: seed of the order and of the views.
            batch_size: samples of a whole batch, of all parts together.
            first: number of the first batch.
            part: index and number of parts; of each batch this part is yielded.
        """
        samples = views_.epoch_order(self.split.rows, view_seed=view_seed, epoch=epoch)
        numbers = self.views.numbers(
            view_seed=view_seed, epoch=epoch, samples=len(self.split.labels)
        )[samples]
        keep = steps_per_epoch(len(samples), batch_size, parts=part[1]) * batch_size
        taken = slice(first * batch_size, keep)
        yield from self._batches(samples[taken], numbers[taken], batch_size, part=part)

    def plain(self) -> Iterator[Batch]:
        """All samples once, in the order of their rows, without augmentation.

        A batch holds 512 images of up to 32 pixels a side, and fewer larger ones, so that the
        activations of a batch need the same memory.
        """
        side = max(self.split.images.shape[-1], 32)
        batch_size = 512 * 32**2 // side**2 or 1
        yield from self._batches(
            self.split.rows, torch.zeros_like(self.split.rows), batch_size, views=views_.NONE
        )

    def every_view(self, number: int, *, batch_size: int = 512) -> Iterator[Batch]:
        """All samples once, in the order of their rows, in the view of this number."""
        numbers = torch.full_like(self.split.rows, number)
        yield from self._batches(self.split.rows, numbers, batch_size)

    def look(self, samples: Indices, numbers: Indices) -> Batch:
        """These views of these samples, as one batch."""
        [batch] = self._batches(samples, numbers, len(samples))
        return batch

    def _batches(
        self,
        samples: Indices,
        numbers: Indices,
        batch_size: int,
        *,
        views: views_.Views | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        views = views or self.views
        # One copy an epoch instead of two a batch; on a CPU the same memory.
        on_device = [keys.to(self.compute.device) for keys in (samples, numbers)]
        batches = (_cut(keys, batch_size, part) for keys in (samples, numbers, *on_device))
        for chosen, view, rows, shown in zip(*batches, strict=True):
            if not len(chosen):
                return
            # index_select copies whole images: a ninth of the time of indexing.
            images = views.apply(self._images.index_select(0, rows), shown)
            labels = self._labels[rows]
            if self.split.landmarks and views.count > 1:
                labels = labels + views.moves(shown, size=images.shape[-1]) @ self._axes
            yield Batch(chosen, view, self.compute.pixels(images), labels)


def _cut(keys: Indices, batch_size: int, part: tuple[int, int]) -> Iterator[Indices]:
    """One part of each batch."""
    rank, size = part
    for batch in keys.split(batch_size):
        yield batch if size == 1 else batch.tensor_split(size)[rank]


def steps_per_epoch(samples: int, batch_size: int, *, parts: int = 1) -> int:
    """How many batches `Feed.epoch` yields."""
    full, rest = divmod(samples, batch_size)
    return full + (rest >= 2 * parts)
