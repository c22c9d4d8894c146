"""What a run leaves besides its weights: events to watch it by, and answers for pictures."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from denature.core.compute import Compute
from denature.core.record import EpochRecord, ExampleRecord
from denature.data.dataset import Dataset
from denature.train.learner import Learner
from denature.train.loop import answers_to
from denature.train.run import EVENTS, STATE_FOLDER

EXAMPLES = 8
"""Test images whose logits a record keeps, for pictures of answers."""


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
        from PIL import Image
    except ImportError:
        return None
    buffer = io.BytesIO()
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def events_of(folder: Path | None, learner: Learner) -> Iterator[Callable[[EpochRecord], None]]:
    """Write each epoch as TensorBoard events, beside the state until the run is finished."""
    if folder is None:
        yield lambda epoch: None
        return
    from tensorboardX import SummaryWriter

    # Epochs after the one that a resumed run goes on from are hidden: they are met again.
    again = len(learner.history) + 1 if learner.history else None
    with SummaryWriter(str(folder / STATE_FOLDER / EVENTS), purge_step=again) as writer:

        def write(epoch: EpochRecord) -> None:
            scalars = {
                "loss/train": epoch.loss,
                "accuracy/train": epoch.train_accuracy,
                "accuracy/test": epoch.test_accuracy,
                "accuracy/validation": epoch.validation_accuracy,
                "learning_rate": epoch.lr,
            }
            for name, value in scalars.items():
                if value is not None:
                    writer.add_scalar(name, value, epoch.epoch)

        yield write
