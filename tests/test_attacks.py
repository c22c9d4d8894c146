"""Attacks along the gradient, against networks whose worst case is known by pen and paper."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from denature.attacks import Ball, cross_entropy, fgsm, margin, pgd
from denature.attacks.config import Norm
from denature.core.errors import ConfigError
from denature.data import load
from denature.train import Normal, Training, train


def linear(weights: Tensor) -> nn.Module:
    """Two classes: the logit of class 1 is weights . x, that of class 0 is 0."""
    layer = nn.Linear(weights.numel(), 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(weights), weights]).flatten(1))
    return nn.Sequential(nn.Flatten(), layer)


WEIGHTS = torch.tensor([[[3.0, -4.0], [0.0, 0.0]]])
"""Of length 5; two pixels do not matter."""


@pytest.mark.parametrize("goal", [cross_entropy, margin])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_a_linear_network_falls_as_far_as_the_ball_allows(goal: object, steps: int) -> None:
    """In linf the logit falls by epsilon |w|_1, in l2 by epsilon |w|_2."""
    network, images = linear(WEIGHTS), torch.full((1, 1, 2, 2), 0.5)
    before = float((WEIGHTS * 0.5).sum())
    for norm, fall in (("linf", 7.0), ("l2", 5.0)):
        ball = Ball(norm=norm, epsilon=0.1)  # type: ignore[arg-type]
        found = pgd(network, images, torch.tensor([1]), ball, steps=steps, start=False,
                    step_size=0.1, goal=goal)  # type: ignore[arg-type]  # fmt: skip
        assert network(found)[0, 1].item() == pytest.approx(before - 0.1 * fall, rel=1e-5)


def test_one_step_of_fgsm_is_epsilon_times_the_sign() -> None:
    images = torch.full((1, 1, 2, 2), 0.5)
    found = fgsm(linear(WEIGHTS), images, torch.tensor([1]), Ball(epsilon=0.03))
    torch.testing.assert_close(found - 0.5, torch.tensor([[[[-0.03, 0.03], [0.0, 0.0]]]]))
    found = fgsm(linear(WEIGHTS), images, torch.tensor([1]), Ball(norm="l2", epsilon=0.05))
    torch.testing.assert_close(found - 0.5, torch.tensor([[[[-0.03, 0.04], [0.0, 0.0]]]]))


def test_the_margin_is_the_largest_wrong_logit_less_the_right_one() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0], [5.0, 0.0, 1.0]])
    found = margin(logits, torch.tensor([1, 2]))
    assert found.tolist() == [-2.0, 4.0]
    assert cross_entropy(logits, torch.tensor([1, 2]))[1].item() == pytest.approx(
        math.log(math.exp(5) + 1 + math.e) - 1
    )


@settings(max_examples=40, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(0, 1),
    steps=st.integers(1, 5),
    start=st.booleans(),
    seed=st.integers(0, 5),
)
def test_no_attack_leaves_the_ball_or_the_range(
    norm: Norm, epsilon: float, steps: int, start: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 3))
    images, labels = torch.rand(5, 3, 4, 4), torch.randint(3, (5,))
    before = images.clone()
    found = pgd(network, images, labels, Ball(norm=norm, epsilon=epsilon), steps=steps, start=start)
    assert torch.equal(images, before)
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    change = (found - images).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert size.max() <= epsilon + 1e-5
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_where_there_is_no_gradient_nothing_moves(norm: Norm) -> None:
    network = linear(torch.zeros(1, 2, 2))
    images = torch.rand(3, 1, 2, 2)
    found = pgd(network, images, torch.tensor([0, 1, 0]), Ball(norm=norm, epsilon=0.2), start=False)
    torch.testing.assert_close(found, images)


@pytest.mark.parametrize(
    "made_of",
    [lambda x: torch.where(x > 0, x.log(), -100.0), torch.sqrt],
    ids=["not a number", "infinite"],
)
def test_a_pixel_without_a_gradient_stays_and_the_others_move(made_of: Any) -> None:
    def network(pixels: torch.Tensor) -> torch.Tensor:
        first = made_of(pixels).flatten(1)[:, :1]
        rest = pixels.flatten(1)[:, 1:].sum(1, keepdim=True)
        return torch.cat([first + rest, -rest], 1)

    images = torch.full((4, 1, 2, 2), 0.5)
    images[:, 0, 0, 0] = 0.0  # where the gradient of the logarithm is not finite
    for norm in ("linf", "l2"):
        ball, labels = Ball(norm=norm, epsilon=0.1), torch.zeros(4, dtype=torch.int64)
        found = pgd(network, images, labels, ball, steps=3, start=False)
        assert found.isfinite().all()
        assert (found[:, 0, 1, 1] < 0.5).all()


def test_more_steps_fool_a_network_more() -> None:
    data = load("digits")
    training = Training(epochs=4, batch_size=64, device="cpu", precision="fp32")
    network = train("cnn", data, Normal(), training).network
    images = data.test.images[data.test.rows].float() / 255
    labels = data.test.labels[data.test.rows]
    torch.manual_seed(0)
    rights = []
    for steps in (0, 1, 20):
        seen = images
        if steps:
            seen = pgd(network, images, labels, Ball(epsilon=0.15), steps=steps, start=steps > 1)
        rights.append((network(seen).argmax(1) == labels).float().mean().item())
    plain, one, many = rights
    assert plain > 0.9
    assert many < one < plain
    assert many < 0.3


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda: Ball(epsilon=-0.1), "at least 0"),
        (lambda: Ball(epsilon=8), "For pixels of 0 to 255 give 8/255"),
        (lambda: Ball(norm="l1"), "norm"),  # type: ignore[arg-type]
        (lambda: pgd(linear(WEIGHTS), torch.rand(1, 1, 2, 2), torch.tensor([0]), Ball(), steps=0),
         "steps is 0"),
        (lambda: pgd(linear(WEIGHTS), torch.rand(1, 1, 2, 2), torch.tensor([0]), Ball(),
                     step_size=-1.0), "step_size is -1"),
        (lambda: pgd(linear(WEIGHTS), torch.full((1, 1, 2, 2), 200.0), torch.tensor([0]), Ball()),
         r"lie in \[200, 200\]; wanted are \[0, 1\]"),
        (lambda: pgd(linear(WEIGHTS), torch.full((1, 1, 2, 2), torch.nan), torch.tensor([0]),
                     Ball()), "lie in"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told(wrong: object, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        wrong()  # type: ignore[operator]
