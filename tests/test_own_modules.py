"""Modules of a user are trained in place, or refused with what is wanted."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from denature.core.compute import resolve
from denature.core.errors import ConfigError
from denature.data import Dataset, load
from denature.train import (
    Normal,
    Training,
    evaluate_run,
    nasty,
    normal,
    train,
)
from denature.train.loop import evaluate


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


class Own(nn.Module):
    """A user's network that needs all pixels at once and nothing else of ours."""

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.layer = nn.Linear(64, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x.flatten(1))
        return found


def test_networks_of_one_class_and_other_shapes_are_no_repeats(data: Dataset) -> None:
    """Or a table would pool them as seeds of one experiment."""
    quick = Training(epochs=1, device="cpu", precision="fp32")
    small, large = (
        nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        for width in (4, 8)
    )
    same = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    recipes = [
        train(network, data, Normal(), replace(quick, seed=seed)).record.recipe
        for seed, network in enumerate((small, same, large))
    ]
    assert recipes[0] == recipes[1] != recipes[2]


def test_a_module_of_ones_own_is_trained_in_place(data: Dataset) -> None:
    module = Own()
    run = normal(module, data, epochs=3, lr=0.02, precision="fp32")
    assert run.network is module
    assert run.accuracy.value > 0.5
    assert run.accuracy == evaluate_run(run, data)


def test_a_module_with_the_wrong_number_of_outputs_is_refused(data: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"shape \(2, 7\); wanted is \(2, 10\)"):
        normal(Own(7), data)


def test_a_module_that_cannot_take_the_images_is_refused(data: Dataset) -> None:
    with pytest.raises(ConfigError, match="cannot take images of"):
        normal(nn.Conv2d(3, 3, 3), data)


def test_a_module_cannot_be_its_own_adversary(data: Dataset) -> None:
    module = Own()
    teacher = normal(module, data, epochs=1)
    with pytest.raises(ConfigError, match="one module"):
        nasty(module, data, adversary=teacher)


def test_evaluating_puts_a_network_back_into_training(data: Dataset) -> None:
    network = Own().train()
    evaluate(network, data.test, resolve(network, device="cpu", precision="fp32"))
    assert network.training
