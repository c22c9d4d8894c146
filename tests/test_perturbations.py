"""Perturbing defenses against the definitions of their papers, and the network that is wrong."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.core.errors import ConfigError
from denature.core.seeds import seeded
from denature.data import load
from denature.defenses.adaptive_misinformation import AdaptiveMisinformation
from denature.defenses.base import Chain, Context, Defense
from denature.defenses.gradient_redirection import GradientRedirection, redirected
from denature.defenses.mad import MAD, farthest_set
from denature.defenses.modelguard_w import ModelGuardW, least_informative
from denature.losses import misinformed
from denature.nets import create
from denature.train import Misinformed, Training, train
from tests.plain_perturbations import (
    every_set,
    mad_objective,
    sets_one_class_at_a_time,
    within_a_ball,
)


def randoms(count: int, classes: int, *, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)


def answers_of_all_sorts(classes: int) -> Tensor:
    """Probabilities from flat to saturated, some with two equal largest ones."""
    scales = torch.tensor([0.1, 1, 3, 8, 40], dtype=torch.float64)
    logits = randoms(15, classes) * scales.repeat(3)[:, None]
    logits[::4, 1] = logits[::4].amax(1)
    return logits.softmax(1)


def a_network(*, classes: int = 5, seed: int = 0) -> nn.Module:
    """A network with convolutions and batch norm, whose statistics are not those of a start."""
    with seeded(seed, "a network"):
        network = create("cnn@width=4", classes=classes, channels=1, image_size=8).double()
        network(torch.rand(64, 1, 8, 8, dtype=torch.float64))
    return network.eval()


PIXELS = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# MAD


def test_mad_takes_the_class_that_turns_the_gradient_of_the_last_layer_most() -> None:
    """The gradients by autograd, over weights and bias of the surrogate's last layer."""
    network, true = a_network(), randoms(6, 5, scale=3, seed=2).softmax(1)
    last = list(network.parameters())[-2:]

    def direction(place: int, answer: Tensor) -> Tensor:
        loss = (network(PIXELS[place : place + 1]).log_softmax(1)[0] * answer).sum()
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, last)])
        return nn.functional.normalize(flat, dim=0)

    stream = Chain((MAD(epsilon=2),)).start({"untrained": network})
    found = stream(Answers("probabilities", true), PIXELS).values
    for place, answer in enumerate(true):
        vertices = torch.eye(5, dtype=torch.float64)
        turns = [
            (direction(place, v) - direction(place, answer)).square().sum().item() for v in vertices
        ]
        torch.testing.assert_close(found[place], vertices[int(np.argmax(turns))])


def cosines(true: Tensor, surrogate: Tensor, targets: list[np.ndarray]) -> np.ndarray:
    """For one answer, the cosine of the gradients at each target."""
    y, p = true.numpy(), surrogate.numpy()
    return np.array([1 - mad_objective(target, y, p) / 2 for target in targets])


@pytest.mark.parametrize(
    ("spread", "exact", "gap"), [(0.02, 30, 1e-9), (0.1, 30, 1e-9), (1.0, 27, 0.02)]
)
def test_the_sets_of_mad_are_compared_with_all_sets(spread: float, exact: int, gap: float) -> None:
    """`spread` is the standard deviation of the surrogate's logits: 1 is like a trained one."""
    true = (randoms(30, 10) * torch.tensor([1.0, 3.0, 8.0]).repeat(10)[:, None]).softmax(1)
    surrogate = randoms(30, 10, scale=spread, seed=1).softmax(1)
    found = farthest_set(surrogate, true, true.argmax(1, keepdim=True))
    apart = np.array([
        cosines(y, p, [u.numpy()])[0] - cosines(y, p, every_set(y.numpy())).min()
        for y, p, u in zip(true, surrogate, found, strict=True)
    ])  # fmt: skip
    assert apart.min() > -1e-9
    assert (apart < 1e-9).sum() >= exact
    assert apart.max() <= gap


def test_the_sets_of_mad_are_no_worse_than_those_of_the_published_search() -> None:
    true, surrogate = randoms(6, 40, scale=3).softmax(1), randoms(6, 40, scale=0.3, seed=1)
    surrogate = surrogate.softmax(1)
    found = farthest_set(surrogate, true, true.argmax(1, keepdim=True))
    for y, p, u in zip(true, surrogate, found, strict=True):
        published = sets_one_class_at_a_time(y.numpy(), p.numpy())
        assert cosines(y, p, [u.numpy()])[0] <= cosines(y, p, published).min() + 1e-9


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("surrogate", ["near uniform", "uniform", "the answers"])
def test_mad_can_keep_the_predicted_class(classes: int, surrogate: str) -> None:
    true = answers_of_all_sorts(classes)
    seen = {
        "near uniform": randoms(15, classes, scale=0.1, seed=1).softmax(1),
        "uniform": torch.full_like(true, 1 / classes),
        "the answers": true,
    }[surrogate]
    for epsilon in (0.1, 1.0, 2.0):
        defense = MAD(epsilon=epsilon, keep_top=True)
        found = defense(Answers("probabilities", true), Context(evidence=seen)).values
        assert defense.keeps_top
        assert found.argmax(1).tolist() == true.argmax(1).tolist()
        assert ((found - true).abs().sum(1) <= epsilon + 1e-12).all()
        torch.testing.assert_close(found.sum(1), torch.ones(15, dtype=torch.float64))
    assert not MAD().keeps_top


# Gradient redirection


def double_backward(network: nn.Module, pixels: Tensor) -> Tensor:
    """The derivative by y of the sum of the gradient of <y, log p>, one image after another."""
    found = []
    for image in pixels:
        log_p = network(image[None]).log_softmax(1)[0]
        y = torch.full_like(log_p, 1 / len(log_p)).detach().requires_grad_()
        gradient = torch.autograd.grad(
            (y * log_p).sum(), list(network.parameters()), create_graph=True
        )
        along_ones = torch.stack([g.sum() for g in gradient]).sum()
        found.append(torch.autograd.grad(along_ones, y)[0])
    return torch.stack(found)


def test_the_coefficients_of_redirection_are_those_of_a_double_backward_pass() -> None:
    network = a_network()
    found = GradientRedirection().look(network, PIXELS)
    torch.testing.assert_close(found, double_backward(network, PIXELS))
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("name", ["mlp", "sepcnn", "resnetc20", "mobilenetv2"])
def test_networks_of_all_kinds_can_be_surrogates(name: str) -> None:
    with seeded(0, "surrogates", name):
        network = create(name, classes=4, channels=1, image_size=8).double().eval()
    found = GradientRedirection().look(network, PIXELS[:2])
    torch.testing.assert_close(found, double_backward(network, PIXELS[:2]))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0])
def test_redirection_is_the_optimum_of_its_linear_programme(epsilon: float) -> None:
    true, coefficients = answers_of_all_sorts(7), randoms(15, 7, seed=3)
    found = redirected(true, coefficients, epsilon)
    assert (found >= 0).all()
    assert ((found - true).abs().sum(1) <= epsilon + 1e-12).all()
    torch.testing.assert_close(found.sum(1), torch.ones(15, dtype=torch.float64))
    for y, c, shown in zip(true.numpy(), coefficients.numpy(), found.numpy(), strict=True):
        optimum = within_a_ball(-c, y, epsilon, lead=None)
        assert c @ shown == pytest.approx(-optimum.fun, abs=1e-6)


# Adaptive misinformation


def test_misinformation_replaces_the_answers_below_tau_alone() -> None:
    true, wrong = answers_of_all_sorts(5), randoms(15, 5, seed=4).softmax(1)
    defense = AdaptiveMisinformation(tau=0.6)
    found = defense(Answers("probabilities", true), Context(evidence=wrong)).values
    unsure = true.amax(1) < 0.6
    assert 0 < unsure.sum() < 15
    torch.testing.assert_close(found, torch.where(unsure[:, None], wrong, true))
    half = torch.tensor([[0.1, 0.6, 0.1, 0.1, 0.1]], dtype=torch.float64)
    found = defense(Answers("probabilities", half), Context(evidence=wrong[:1])).values
    torch.testing.assert_close(found, (half + wrong[:1]) / 2)


# ModelGuard-W


@pytest.mark.parametrize("epsilon", [0.001, 0.2, 1.0, 2.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_modelguard_w_is_the_optimum_of_its_linear_programme(classes: int, epsilon: float) -> None:
    true = answers_of_all_sorts(classes)[:: 5 if classes == 100 else 1]
    order = true.argsort(dim=1, descending=True, stable=True)
    found, top = least_informative(true, order, epsilon), order[:, :1]
    assert (found > -1e-12).all()
    assert ((found.sum(1) - 1).abs() < 1e-12).all()
    assert ((found - true).abs().sum(1) <= epsilon + 1e-12).all()
    lead = found.gather(1, top) - found.scatter(1, top, 0).amax(1, keepdim=True)
    assert (lead > 1e-4 - 1e-12).all()
    for y, shown in zip(true.numpy(), found.numpy(), strict=True):
        cost = np.log(y + 1e-6)
        optimum = within_a_ball(cost, y, epsilon, lead=1e-4)
        assert cost @ shown == pytest.approx(optimum.fun, abs=1e-6)


def test_modelguard_w_raises_one_of_many_equal_classes_as_far_as_a_small_ball_requires() -> None:
    true = torch.cat([torch.full((20,), 1.0), torch.full((30,), 0.01)]).double()[None] / 20.3
    found = least_informative(true, torch.arange(50)[None], 0.001)
    assert (found - true).abs().sum() <= 0.001 + 1e-12
    cost = np.log(true[0].numpy() + 1e-6)
    optimum = within_a_ball(cost, true[0].numpy(), 0.001, lead=1e-4)
    assert cost @ found[0].numpy() == pytest.approx(optimum.fun, abs=1e-6)


def test_modelguard_w_keeps_a_class_that_leads_by_less_than_probabilities_show() -> None:
    logits = torch.zeros(1, 50, dtype=torch.float64)
    logits[0, 30] = 1e-17
    found = ModelGuardW()(Answers("logits", logits)).values
    assert found.argmax(1).tolist() == [30]


# All


@pytest.mark.parametrize("defense", [MAD(), GradientRedirection(), AdaptiveMisinformation()])
def test_what_a_network_says_of_an_image_depends_on_no_other(defense: Defense) -> None:
    network = a_network()
    whole = defense.look(network, PIXELS)
    alone = torch.cat([defense.look(network, PIXELS[k : k + 1]) for k in range(len(PIXELS))])
    torch.testing.assert_close(alone, whole)
    assert (whole.shape, whole.dtype) == ((6, 5), torch.float64)
    with pytest.raises(ConfigError, match=f"needs the {defense.role} network"):
        Chain((defense,)).start()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (MAD, {"epsilon": 0}),
        (MAD, {"epsilon": 2.1}),
        (GradientRedirection, {"epsilon": -1}),
        (ModelGuardW, {"epsilon": 1e-4}),
        (AdaptiveMisinformation, {"tau": 1.5}),
        (AdaptiveMisinformation, {"nu": 0}),
    ],
)
def test_options_out_of_range_are_refused(kind: type[Defense], wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is .*; it must be"):
        kind(**wrong)


# The network that is wrong


def test_the_loss_of_a_wrong_network_is_that_of_the_paper() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, -1.0]], dtype=torch.float64).log_softmax(1)
    found = misinformed(logits, torch.tensor([0, 1]))
    wanted = -(1 - logits.exp()[[0, 1], [0, 1]]).log()
    torch.testing.assert_close(found, wanted)
    many, labels = randoms(20, 6, scale=2), torch.arange(20) % 6
    wanted = -(1 - many.softmax(1)[torch.arange(20), labels]).log()
    torch.testing.assert_close(misinformed(many, labels), wanted)


def test_a_network_that_is_sure_of_the_truth_still_learns_to_be_wrong() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]], requires_grad=True)
    loss = misinformed(logits, torch.tensor([0, 0]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([200 - np.log(2), 0])
    assert logits.grad is not None
    torch.testing.assert_close(
        logits.grad, torch.tensor([[1.0, -0.5, -0.5], [0.0, 0.0, 0.0]]), rtol=1e-6, atol=1e-6
    )


def test_a_misinformed_network_is_wrong_with_confidence() -> None:
    data, training = (
        load("digits"),
        Training(epochs=2, batch_size=64, device="cpu", precision="fp32"),
    )
    run = train("mlp", data, Misinformed(), training)
    assert run.record.kind == "misinformed"
    assert run.record.accuracy is not None
    assert run.record.accuracy.value < 0.02
    with torch.no_grad():
        shown = run.network(data.test.images[:64].float() / 255)
    assert shown.softmax(1).amax(1).mean() > 0.5
