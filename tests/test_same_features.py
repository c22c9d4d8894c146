"""A thief that has the encoder of its victim solves for the head."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.core.types import Pixels
from denature.data import load
from denature.defenses.catalogue import chain_of
from denature.extract.strategies.linear_head import SameFeatures, fit, solve
from denature.extract.strategies.networks import outputs
from denature.train import Run
from tests.attempts import Bench, Encoder, against, bench_on_digits, clone_of, distance


@pytest.fixture(scope="module")
def bench(trained_mlp: Run) -> Bench:
    return bench_on_digits(trained_mlp.network)


def headed(bench: Bench, kind: AnswerKind = "probabilities", **changes: Any) -> tuple[Bench, Any]:
    """An attempt on the encoder with a head that was fitted to the digits, and this head."""
    encoder = changes.pop("encoder", None) or Encoder()
    split = load("digits").train
    features = outputs(encoder, split.images[split.rows].numpy())
    head, _ = fit(features, Answers("label", split.labels[split.rows]), 10, (1e-4,))

    def victim(pixels: Pixels) -> Answers:
        with torch.no_grad():
            logits = encoder(pixels).double() @ head.weight.T + head.bias
            logits = logits.to(encoder.dtype)
        return Answers(kind, logits if kind == "logits" else logits.softmax(-1))

    attempt = against(bench, victim=victim, encoder=encoder, net="none", **changes)
    return attempt, head


def centred(tensor: Tensor) -> Tensor:
    return (tensor - tensor.mean(dim=0)).double()


def test_the_head_of_a_fit_classifies_digits(bench: Bench) -> None:
    attempt, _ = headed(bench)
    test = load("digits").test
    answers = attempt.victim(test.images[test.rows].float() / 255).values
    assert (answers.argmax(-1) == test.labels[test.rows]).float().mean() > 0.85


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("budget", [17, 20, 100])
def test_one_answer_more_than_features_solves_the_head(
    bench: Bench, kind: AnswerKind, budget: int
) -> None:
    attempt, head = headed(bench, kind, budget=budget)
    clone = clone_of(SameFeatures(), attempt)
    found = cast(Any, clone.network).head
    assert (centred(found.weight) - centred(head.weight)).abs().max() < 1e-6
    assert (centred(found.bias) - centred(head.bias)).abs().max() < 1e-6
    assert not attempt.lessons
    assert sum(map(len, attempt.asked)) == min(budget, 17 + 8)
    pixels = torch.from_numpy(attempt.images).float() / 255
    with torch.no_grad():
        own, true = clone.network(pixels), attempt.victim(pixels).values
    logits = true if kind == "logits" else true.log()
    assert distance(own.softmax(-1), logits.softmax(-1)) < 1e-6


def test_answers_in_single_precision_leave_the_probabilities_of_the_head(bench: Bench) -> None:
    """Measured: 4e-6 at most, where answers are 6e-8 apart from the exact ones."""
    attempt, _ = headed(bench, encoder=Encoder(torch.float32), budget=25)
    clone = clone_of(SameFeatures(), attempt)
    pixels = torch.from_numpy(attempt.images).float() / 255
    with torch.no_grad():
        assert distance(clone.network(pixels).softmax(-1), attempt.victim(pixels).values) < 1e-4


@pytest.mark.parametrize(
    ("defense", "least", "most"),
    [
        ("temperature", 0.999, 1.0),
        ("rounding@decimals=3", 0.93, 0.998),
        ("rounding@decimals=1", 0.88, 0.995),
        ("top-k@k=3", 0.88, 0.995),
        ("label-only", 0.80, 0.98),
    ],
)
def test_what_defenses_leave_of_the_head(
    bench: Bench, defense: str, least: float, most: float
) -> None:
    """Share of images on which clone and victim agree after 200 queries.

    A temperature hides nothing of the predicted class: the system stays linear.
    """
    attempt, _ = headed(bench, budget=200, defense=chain_of(defense))
    clone = clone_of(SameFeatures(), attempt)
    pixels = torch.from_numpy(attempt.images).float() / 255
    with torch.no_grad():
        own, true = clone.network(pixels), attempt.victim(pixels).values
    agreement = float((own.argmax(-1) == true.argmax(-1)).float().mean())
    assert least <= agreement <= most
    solved = defense == "temperature"
    assert ("solved" in clone.note) == solved
    assert sum(map(len, attempt.asked)) == (25 if solved else 200)


def test_noise_is_no_head(bench: Bench) -> None:
    """Spare answers contradict the system; without spare answers a perturbed one is not trusted."""
    features = outputs(Encoder(), bench.images[:40])
    noise = torch.randn(40, 10, dtype=torch.float64)
    assert solve(features, Answers("logits", noise), 1e-3, trusted=True)[0] is None
    square = Answers("logits", noise[:17])
    assert solve(features[:17], square, 1e-3, trusted=False)[0] is None
    assert solve(features[:17], square, 1e-3, trusted=True)[1] == 17
    assert solve(features[:16], Answers("logits", noise[:16]), 1e-3, trusted=True)[0] is None
    nothing = Answers("logits", torch.full((3, 10), torch.nan))
    assert solve(features[:3], nothing, 1e-3, trusted=True) == (None, 0, 0)


def test_features_that_are_missing_in_the_first_answers_take_the_others(bench: Bench) -> None:
    """A feature that 25 images leave at 0 is found among the rest."""

    class Sparse(Encoder):
        def forward(self, pixels: Tensor) -> Tensor:
            features = super().forward(pixels)
            rare = pixels.double().sum(dim=(1, 2, 3)) > threshold
            return torch.where(rare[:, None], features, features * (torch.arange(16) > 0))

    attempt = against(bench, budget=300)
    sums = torch.from_numpy(attempt.pool(0, 300)).double().sum(dim=(1, 2, 3)) / 255
    threshold = float(sums[:25].max()) + 1e-3
    assert (sums > threshold).any()
    attempt, head = headed(bench, encoder=Sparse(), budget=300)
    clone = clone_of(SameFeatures(), attempt)
    found = cast(Any, clone.network).head
    assert sum(map(len, attempt.asked)) == 300
    assert (centred(found.weight) - centred(head.weight)).abs().max() < 1e-6
