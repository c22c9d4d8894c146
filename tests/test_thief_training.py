"""The training of a clone of few images has enough steps, and differs in nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denature.data.feed import steps_per_epoch
from denature.extract.config import LEAST_STEPS, SMALLEST_BATCH, thief_training
from denature.train import Training


def steps(training: Training, images: int) -> int:
    return training.epochs * steps_per_epoch(images, training.batch_size)


@given(images=st.integers(2, 60_000), epochs=st.integers(1, 300), batch_size=st.integers(2, 1_024))
def test_a_clone_gets_enough_steps_and_no_more_epochs_than_they_take(
    images: int, epochs: int, batch_size: int
) -> None:
    template = Training(epochs=epochs, batch_size=batch_size, lr=0.01, seed=7, schedule="constant")
    found = thief_training(images, template)
    assert steps(found, images) >= LEAST_STEPS
    assert replace(found, epochs=epochs, batch_size=batch_size) == template
    assert epochs <= found.epochs
    assert min(SMALLEST_BATCH, batch_size) <= found.batch_size <= batch_size
    if found.epochs > epochs:
        fewer = replace(found, epochs=found.epochs - 1)
        assert steps(fewer, images) < LEAST_STEPS
    if steps(template, images) >= LEAST_STEPS:
        assert found == template


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"),
    [(2, 32, 500), (200, 32, 72), (800, 32, 30), (2_000, 64, 30), (5_000, 128, 30)],
)
def test_batches_are_halved_before_epochs_are_added(
    images: int, batch_size: int, epochs: int
) -> None:
    found = thief_training(images)
    assert (found.batch_size, found.epochs) == (batch_size, epochs)


@pytest.mark.parametrize(
    ("net", "template", "rate"),
    [
        ("cnn@width=16", Training(), 2e-3),
        ("mlp", Training(optimizer="adam", schedule="one-cycle"), 2e-3),
        ("resnetc20", Training(), None),
        ("resnetc20", Training(optimizer="adam"), 2e-3),
        ("cnn", Training(optimizer="sgd"), None),
        ("cnn", Training(lr=5e-4), 5e-4),
        ("cnn", Training(schedule="constant"), None),
        ("package.module:factory", Training(optimizer="adam"), None),
        ("timm:resnet18", Training(), None),
    ],
)
def test_one_cycle_of_adam_peaks_at_twice_the_usual_rate(
    net: str, template: Training, rate: float | None
) -> None:
    """Only where the thief's network is known, and neither rate nor schedule is named."""
    assert thief_training(200, template, net=net).lr == rate
    assert thief_training(200, template).lr == template.lr
