"""Example answers in a record, for figures."""

import numpy as np
from torch import nn

from denature.core.compute import Compute
from denature.core.record import ExampleRecord
from denature.data.dataset import Dataset
from denature.data.png import to_png
from denature.train.loop import answers_to

EXAMPLES = 8
"""Number of test images whose logits a record keeps, for figures of answers."""


def examples_of(
    network: nn.Module, dataset: Dataset, compute: Compute
) -> tuple[ExampleRecord, ...]:
    """Logits for the first test image of each class, up to `EXAMPLES` of them."""
    labels = dataset.test.labels[dataset.test.rows].numpy()
    firsts = np.sort(np.unique(labels, return_index=True)[1])[:EXAMPLES]
    examples = []
    for batch, logits in answers_to(network, dataset.test.take(firsts), compute):
        for sample, label, row in zip(batch.samples, batch.labels, logits, strict=True):
            png = _png(dataset.test.images[int(sample)].numpy())
            answer = tuple(round(value, 4) for value in row.tolist())
            examples.append(
                ExampleRecord(sample=int(sample), label=int(label), logits=answer, png=png)
            )
    return tuple(examples)


def _png(image: np.ndarray) -> str | None:
    try:
        return to_png(image)
    except ImportError:  # Pillow is optional: without it a record holds the logits alone
        return None
