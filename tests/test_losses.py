"""The two losses against numbers worked out by hand, by the formulas of the paper."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from denature.core.errors import ConfigError
from denature.losses import (
    distillation,
    hard_distillation,
    self_undermining,
    softened_divergence,
)
from denature.losses.soft import log_probabilities

TEMPERATURES = (0.5, 1.0, 4.0, 20.0)


def by_hand_softmax(logits: Sequence[float], tau: float) -> list[float]:
    weights = [math.exp(logit / tau) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def by_hand_divergence(first: Sequence[float], second: Sequence[float], tau: float) -> float:
    """tau^2 KL(softmax(first / tau) || softmax(second / tau))."""
    pairs = zip(by_hand_softmax(first, tau), by_hand_softmax(second, tau), strict=True)
    return tau**2 * sum(p * math.log(p / q) for p, q in pairs)


def by_hand_cross_entropy(logits: Sequence[float], label: int) -> float:
    return -math.log(by_hand_softmax(logits, 1)[label])


def answers(
    *, seed: int = 0, batch: int = 6, classes: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of two networks and the labels of a batch."""
    generator = torch.Generator().manual_seed(seed)
    first, second = 3 * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    return first.to(dtype), second.to(dtype), labels


def exactly(values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_two_classes_give_the_nasty_loss_that_pen_and_paper_give() -> None:
    """At tau 2, p = (3/4, 1/4) and q = (1/2, 1/2); at tau 1 the nasty side is (9/10, 1/10)."""
    nasty, adversary = exactly([[2 * math.log(3), 0.0]]), exactly([[5.0, 5.0]])
    divergence = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    loss = self_undermining(nasty, adversary, torch.tensor([0]), temperature=2, omega=0.04)
    assert loss.item() == pytest.approx(math.log(10 / 9) - 0.04 * divergence, rel=1e-12)


def test_two_classes_give_the_student_loss_that_pen_and_paper_give() -> None:
    """The teacher shows (3/4, 1/4) at tau 2; the student shows (1/2, 1/2) at every tau."""
    teacher, student = exactly([[2 * math.log(3), 0.0]]), exactly([[1.0, 1.0]])
    divergence = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    loss = distillation(student, teacher, torch.tensor([1]), temperature=2, alpha=0.9)
    assert loss.item() == pytest.approx(0.9 * divergence + 0.1 * math.log(2), rel=1e-12)


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_the_nasty_loss_is_the_formula_for_each_example(tau: float) -> None:
    nasty, adversary, labels = answers()
    expected = [
        by_hand_cross_entropy(n, y) - 0.04 * by_hand_divergence(n, a, tau)
        for n, a, y in zip(nasty.tolist(), adversary.tolist(), labels.tolist(), strict=True)
    ]
    loss = self_undermining(nasty, adversary, labels, temperature=tau, omega=0.04)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_the_student_loss_is_the_formula_for_each_example(tau: float, alpha: float) -> None:
    student, teacher, labels = answers()
    expected = [
        alpha * by_hand_divergence(t, s, tau) + (1 - alpha) * by_hand_cross_entropy(s, y)
        for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True)
    ]
    loss = distillation(student, teacher, labels, temperature=tau, alpha=alpha)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_learning_from_labels_weighs_two_cross_entropies(alpha: float) -> None:
    student, teacher, labels = answers()
    shown = teacher.argmax(-1)
    expected = [
        alpha * by_hand_cross_entropy(s, t) + (1 - alpha) * by_hand_cross_entropy(s, y)
        for s, t, y in zip(student.tolist(), shown.tolist(), labels.tolist(), strict=True)
    ]
    loss = hard_distillation(student, shown, labels, alpha=alpha)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_float32_agrees_with_float64(tau: float) -> None:
    exact = answers(classes=100)
    first, second, labels = answers(classes=100, dtype=torch.float32)
    for single, double in (
        (
            self_undermining(first, second, labels, temperature=tau, omega=0.04),
            self_undermining(*exact, temperature=tau, omega=0.04),
        ),
        (
            distillation(first, second, labels, temperature=tau, alpha=0.9),
            distillation(*exact, temperature=tau, alpha=0.9),
        ),
    ):
        assert single.dtype == torch.float32
        # tau^2 lifts the rounding of the small differences of probabilities at large tau.
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_huge_logits_stay_finite(tau: float) -> None:
    first = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    second = torch.tensor([[-1e4, 1e4, 0.0]])
    label = torch.tensor([1])
    loss = self_undermining(first, second, label, temperature=tau, omega=0.04) + distillation(
        first, second, label, temperature=tau, alpha=0.9
    )
    loss.sum().backward()
    assert loss.isfinite().all()
    assert first.grad is not None
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_gradients_are_those_of_finite_differences(tau: float) -> None:
    own, other, labels = answers(batch=3, classes=4)
    own.requires_grad_()
    shown = other.argmax(-1)
    assert torch.autograd.gradcheck(
        lambda x: self_undermining(x, other, labels, temperature=tau, omega=0.04), own
    )
    assert torch.autograd.gradcheck(
        lambda x: distillation(x, other, labels, temperature=tau, alpha=0.9), own
    )
    assert torch.autograd.gradcheck(lambda x: hard_distillation(x, shown, labels, alpha=0.9), own)
    assert torch.autograd.gradcheck(
        lambda x, y: softened_divergence(x, y, temperature=tau),
        (own, other.clone().requires_grad_()),
    )


def test_the_gradient_flows_through_the_nasty_side_and_never_into_the_adversary() -> None:
    nasty, adversary, labels = answers()
    nasty.requires_grad_()
    adversary.requires_grad_()
    loss = self_undermining(nasty, adversary, labels, temperature=4, omega=0.04)
    entropy = F.cross_entropy(nasty, labels, reduction="none")
    (through_divergence,) = torch.autograd.grad((loss - entropy).sum(), nasty, retain_graph=True)
    assert (through_divergence.abs().amax(1) > 1e-3).all()
    loss.sum().backward()
    assert adversary.grad is None


def test_the_nasty_gradient_climbs_the_divergence() -> None:
    nasty, adversary, labels = answers()
    nasty.requires_grad_()

    def divergence() -> Tensor:
        return softened_divergence(nasty, adversary, temperature=4).mean()

    before = divergence().item()
    # Where the label term has weight 0 only the divergence moves the network.
    loss = self_undermining(nasty, adversary, labels, temperature=4, omega=1)
    (loss - F.cross_entropy(nasty, labels, reduction="none")).mean().backward()
    assert nasty.grad is not None
    with torch.no_grad():
        nasty -= 0.01 * nasty.grad
    assert divergence().item() > before


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_copying_a_perfect_copy_costs_nothing(tau: float) -> None:
    logits, _, labels = answers()
    logits.requires_grad_()
    copy = logits.detach() + 7.0  # a shift of all logits changes no probability
    cost = distillation(logits, copy, labels, temperature=tau, alpha=1)
    torch.testing.assert_close(cost, torch.zeros_like(cost), rtol=0, atol=1e-11)
    cost.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-12)


def test_a_nasty_teacher_equal_to_its_adversary_has_the_cross_entropy_left() -> None:
    logits, _, labels = answers()
    loss = self_undermining(logits, logits.clone(), labels, temperature=4, omega=0.04)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, reduction="none"))


def test_the_teacher_or_the_nasty_side_comes_first_in_the_divergence() -> None:
    """KL((9/10, 1/10) || (1/2, 1/2)) is 0.368, the other way round it is 0.511."""
    sure, unsure = exactly([[math.log(9), 0.0]]), exactly([[0.0, 0.0]])
    label = torch.tensor([0])
    forward = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    backward = 0.5 * math.log(5 / 9) + 0.5 * math.log(5)
    assert backward > forward + 0.1

    def student(own: Tensor, teacher: Tensor) -> float:
        return distillation(own, teacher, label, temperature=1, alpha=1).item()

    def nasty(own: Tensor, adversary: Tensor) -> float:
        entropy = F.cross_entropy(own, label).item()
        return entropy - self_undermining(own, adversary, label, temperature=1, omega=1).item()

    assert student(unsure, teacher=sure) == pytest.approx(forward, rel=1e-12)
    assert student(sure, teacher=unsure) == pytest.approx(backward, rel=1e-12)
    assert nasty(sure, adversary=unsure) == pytest.approx(forward, rel=1e-12)
    assert nasty(unsure, adversary=sure) == pytest.approx(backward, rel=1e-12)


def test_at_large_temperatures_the_divergence_is_half_the_variance_of_the_differences() -> None:
    first, second, _ = answers()
    limit = 0.5 * (first - second).var(dim=1, correction=0)
    errors = [
        ((softened_divergence(first, second, temperature=tau) - limit).abs() / limit).max().item()
        for tau in (10.0, 100.0, 1000.0)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_a_cap_stops_the_push_and_leaves_the_label_term() -> None:
    nasty, adversary, labels = answers()
    reached = softened_divergence(nasty, adversary, temperature=4)
    cap = reached.median().item()
    over = reached > cap
    assert 0 < over.sum() < len(over)

    def gradient(cap: float | None, omega: float = 0.04) -> Tensor:
        own = nasty.clone().requires_grad_()
        loss = self_undermining(own, adversary, labels, temperature=4, omega=omega, cap=cap)
        return torch.autograd.grad(loss.sum(), own)[0]

    torch.testing.assert_close(gradient(cap)[over], gradient(None, omega=0)[over])
    torch.testing.assert_close(gradient(cap)[~over], gradient(None)[~over])
    capped = self_undermining(nasty, adversary, labels, temperature=4, omega=0.04, cap=cap)
    expected = F.cross_entropy(nasty, labels, reduction="none") - 0.04 * reached.clamp(max=cap)
    torch.testing.assert_close(capped, expected)


def test_without_a_weight_only_the_cross_entropy_is_left() -> None:
    own, other, labels = answers()
    entropy = F.cross_entropy(own, labels, reduction="none")
    shown = other.argmax(-1)
    for loss in (
        self_undermining(own, other, labels, temperature=4, omega=0),
        distillation(own, other, labels, temperature=4, alpha=0),
        hard_distillation(own, shown, labels, alpha=0),
    ):
        torch.testing.assert_close(loss, entropy, rtol=0, atol=0)


def test_alpha_one_knows_no_true_label() -> None:
    own, other, labels = answers()
    elsewhere = (labels + 1) % own.shape[1]
    shown = other.argmax(-1)
    for true in (labels, elsewhere):
        torch.testing.assert_close(
            distillation(own, other, true, temperature=4, alpha=1),
            softened_divergence(other, own, temperature=4),
            rtol=0,
            atol=0,
        )
        torch.testing.assert_close(
            hard_distillation(own, shown, true, alpha=1),
            F.cross_entropy(own, shown, reduction="none"),
            rtol=0,
            atol=0,
        )


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_log_probabilities_teach_as_the_logits_behind_them_do(tau: float) -> None:
    student, teacher, labels = answers()
    torch.testing.assert_close(
        distillation(
            student,
            log_probabilities(teacher.softmax(-1)),
            labels,
            temperature=tau,
            alpha=0.9,
        ),
        distillation(student, teacher, labels, temperature=tau, alpha=0.9),
    )


def test_a_probability_of_zero_can_be_learnt_from() -> None:
    student = torch.zeros(1, 3, requires_grad=True)
    teacher = log_probabilities(torch.tensor([[1.0, 0.0, 0.0]]))
    loss = distillation(student, teacher, torch.tensor([0]), temperature=1, alpha=1)
    assert loss.item() == pytest.approx(math.log(3), rel=1e-6)


def test_examples_of_a_batch_do_not_mix() -> None:
    own, other, labels = answers()
    shown = other.argmax(-1)

    def losses(rows: slice) -> list[Tensor]:
        return [
            self_undermining(own[rows], other[rows], labels[rows], temperature=4, omega=0.04),
            distillation(own[rows], other[rows], labels[rows], temperature=4, alpha=0.9),
            hard_distillation(own[rows], shown[rows], labels[rows], alpha=0.9),
        ]

    for whole, head, tail in zip(
        losses(slice(None)), losses(slice(2)), losses(slice(2, None)), strict=True
    ):
        assert whole.shape == labels.shape
        torch.testing.assert_close(whole, torch.cat([head, tail]))


row = st.lists(st.floats(-30, 30), min_size=4, max_size=4)


@settings(deadline=None)
@given(first=row, second=row, tau=st.floats(0.5, 50), shift=st.floats(-20, 20))
def test_a_divergence_is_never_negative_nor_above_what_the_second_side_allows(
    first: list[float], second: list[float], tau: float, shift: float
) -> None:
    p, q = exactly(first), exactly(second)
    value = softened_divergence(p, q, temperature=tau)
    bound = -F.log_softmax(q / tau, dim=-1).min() * tau**2
    assert -1e-9 <= value <= bound + 1e-9
    shifted = softened_divergence(p + shift, q - shift, temperature=tau)
    torch.testing.assert_close(shifted, value, rtol=1e-7, atol=1e-7)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(softened_divergence(p[order], q[order], temperature=tau), value)


@pytest.mark.parametrize("tau", [0.0, -4.0, math.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(tau: float) -> None:
    own, other, labels = answers()
    with pytest.raises(ConfigError, match=f"temperature is {tau}.*above 0"):
        self_undermining(own, other, labels, temperature=tau, omega=0.04)
    with pytest.raises(ConfigError, match=f"temperature is {tau}.*above 0"):
        distillation(own, other, labels, temperature=tau, alpha=0.9)


@pytest.mark.parametrize("omega", [-0.01, math.nan])
def test_an_omega_below_zero_is_refused(omega: float) -> None:
    with pytest.raises(ConfigError, match=f"omega is {omega}"):
        self_undermining(*answers(), temperature=4, omega=omega)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    own, other, labels = answers()
    with pytest.raises(ConfigError, match=f"alpha is {alpha}"):
        distillation(own, other, labels, temperature=4, alpha=alpha)
    with pytest.raises(ConfigError, match=f"alpha is {alpha}"):
        hard_distillation(own, other.argmax(-1), labels, alpha=alpha)


@pytest.mark.parametrize(
    "shape", [(6, 7), (5, 5), (1, 5), (5,)], ids=["classes", "batch", "one row", "no batch"]
)
def test_networks_that_answer_differently_shaped_are_refused(shape: tuple[int, ...]) -> None:
    """Broadcasting would turn some of these into a number that means nothing."""
    own, _, labels = answers(batch=6, classes=5)
    other = torch.zeros(shape, dtype=own.dtype)
    with pytest.raises(ConfigError, match="same classes"):
        self_undermining(own, other, labels, temperature=4, omega=0.04)
    with pytest.raises(ConfigError, match="same classes"):
        distillation(own, other, labels, temperature=4, alpha=0.9)
