"""Thieves that undo a defense, choose their queries, or start from another network."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.core.types import Pixels
from denature.defenses.base import Chain, Context, Defense
from denature.extract.config import thief_training
from denature.extract.strategies.active import (
    Active,
    ActiveBoth,
    ActiveKCenter,
    ActiveUncertainty,
)
from denature.extract.strategies.base import Strategy
from denature.extract.strategies.linear_head import SameFeatures
from denature.extract.strategies.networks import log_scores, outputs
from denature.extract.strategies.other_domain import OtherDomain
from denature.extract.strategies.pretrained import Pretrained
from denature.extract.strategies.recovering import FLOOR, Pairs, RecoveryMap
from denature.extract.strategies.recovery_network import RecoveryNetwork, subset
from denature.extract.strategies.recovery_table import RecoveryTable, look_up, prior
from denature.train import Run, Training, train
from denature.train.objectives import Normal
from tests.attempts import Bench, Encoder, against, bench_on_digits, clone_of, distance

QUICK_NETWORK = RecoveryNetwork(lengths=(0.5, 1, 0.75), images=300, iterations=20)
QUICK_TABLE = RecoveryTable(rows=5000)


@dataclass(frozen=True, kw_only=True)
class Flattened(Defense):
    """A toy defense that can be undone: the fourth root of probabilities, scaled to sum to 1."""

    name: ClassVar[str] = "flattened"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("probabilities",)
    perturbs: ClassVar[bool] = True
    keeps_top: ClassVar[bool] = True

    decimals: int = 9

    def _change(self, values: Tensor, kind: AnswerKind, context: Context) -> Tensor:
        roots = values**0.25
        return (roots / roots.sum(-1, keepdim=True)).round(decimals=self.decimals)


@pytest.fixture(scope="module")
def trained() -> Run:
    return train("mlp", "digits", Normal(), Training(epochs=4, device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def bench(trained: Run) -> Bench:
    return bench_on_digits(trained.network)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Recovery of true answers


def recovered_and_shown(strategy: Strategy, bench: Bench) -> tuple[float, float]:
    """Mean L1 distance to the true answers, of what the clone learned and of what was shown."""
    clone_of(strategy, bench)
    lesson = bench.lessons[-1]
    assert (lesson.images == np.concatenate(bench.asked)).all()
    true = bench.victim(torch.from_numpy(lesson.images).float() / 255)
    shown = bench.defense(true)
    return distance(lesson.answers.values, true.values), distance(shown.values, true.values)


def test_a_network_undoes_a_defense_that_can_be_undone(bench: Bench) -> None:
    attempt = against(bench, defense=Chain((Flattened(),)))
    recovered, shown = recovered_and_shown(QUICK_NETWORK, attempt)
    assert recovered < 0.1 * shown
    assert len(attempt.lessons) == len(QUICK_NETWORK.lengths) + 1
    assert all(lesson.answers.kind == "label" for lesson in attempt.lessons[:-1])


def test_shadow_models_have_shares_of_a_clones_steps(bench: Bench) -> None:
    """A budget of 120 has 500 steps; five to thirty epochs of it would be 15 to 90."""
    [*shadows] = next(RecoveryNetwork().steps(against(bench, defense=Chain((Flattened(),)))))
    for lesson, length in zip(shadows, RecoveryNetwork().lengths, strict=True):
        usual = thief_training(len(lesson.images))
        found = lesson.training_for(Training())
        assert found.batch_size == usual.batch_size
        assert found.epochs == pytest.approx(length * usual.epochs, abs=0.5)


def test_a_table_undoes_most_of_a_defense_that_shows_different_answers_alike(bench: Bench) -> None:
    attempt = against(bench, defense=Chain((Flattened(decimals=2),)))
    recovered, shown = recovered_and_shown(QUICK_TABLE, attempt)
    assert recovered < 0.4 * shown


@pytest.mark.parametrize("strategy", [QUICK_NETWORK, QUICK_TABLE], ids=lambda s: s.name)
def test_recovery_takes_logits_too(bench: Bench, strategy: Strategy) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Cooled(Flattened):
        takes: ClassVar[tuple[AnswerKind, ...]] = ("logits",)

        def _change(self, values: Tensor, kind: AnswerKind, context: Context) -> Tensor:
            return values / 4

    def victim(pixels: Pixels) -> Answers:
        return Answers("logits", bench.victim(pixels).values.log())

    attempt = against(bench, victim=victim, defense=Chain((Cooled(),)))
    clone_of(strategy, attempt)
    lesson = attempt.lessons[-1]
    true = victim(torch.from_numpy(lesson.images).float() / 255).values
    recovered = distance(lesson.answers.values, true.exp())
    assert recovered < 0.5 * distance((true / 4).softmax(-1), true.exp())


def test_a_map_without_gain_is_not_used(bench: Bench) -> None:
    """Where the shown answers are the true ones, a map can only do harm."""

    @dataclass(frozen=True, kw_only=True)
    class Unchanged(Flattened):
        def _change(self, values: Tensor, kind: AnswerKind, context: Context) -> Tensor:
            return values

    attempt = against(bench, defense=Chain((Unchanged(),)))
    clone = clone_of(QUICK_NETWORK, attempt)
    lesson = attempt.lessons[-1]
    true = bench.victim(torch.from_numpy(lesson.images).float() / 255).values
    assert "shown answers were kept" in clone.note
    assert torch.allclose(lesson.answers.values, true, atol=20 * FLOOR)


def test_a_map_is_the_same_for_the_same_seed(rng: np.random.Generator) -> None:
    true = np.log(prior(rng, 200, 4, 0.1))
    pairs = [Pairs(true / 2, true)]
    first, again, other = (RecoveryMap.fit(pairs, seed=s, iterations=3) for s in (1, 1, 2))
    assert (first(true) == again(true)).all()
    assert (first(true) != other(true)).any()


def test_recovered_rows_are_distributions(rng: np.random.Generator) -> None:
    true = np.log(prior(rng, 200, 4, 0.1))
    found = RecoveryMap.fit([Pairs(true / 2, true)], seed=0, iterations=3)(true)
    assert np.exp(found).sum(axis=1) == pytest.approx(np.ones(200))


def test_shadow_models_learn_from_half_of_the_images_and_classes(rng: np.random.Generator) -> None:
    labels = np.arange(10).repeat(100)
    rows = subset(labels, 0.5, rng)
    counts = np.bincount(labels[rows], minlength=10)
    assert (counts == 100).sum() == 5
    assert (counts[counts < 100] > 25).all()
    assert (counts[counts < 100] < 75).all()
    assert subset(np.zeros(1, np.int64), 0.5, rng).tolist() == [0]


# The table


def test_look_up_by_hand() -> None:
    known = np.array([[0.7, 0.3], [0.705, 0.295], [0.9, 0.1], [0.2, 0.8]])
    true = np.array([[0.9, 0.1], [0.8, 0.2], [1.0, 0.0], [0.4, 0.6]])
    shown = np.array([[0.7, 0.3], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9]])
    found = look_up(shown, known, true, 0.011)
    assert found == pytest.approx(np.array([[0.85, 0.15], [0.8, 0.2], [0.4, 0.6], [0.4, 0.6]]))


def test_look_up_compares_answers_of_one_shown_class_where_there_are_any() -> None:
    known, true = np.array([[0.51, 0.49], [0.1, 0.9]]), np.array([[0.6, 0.4], [0.0, 1.0]])
    found = look_up(np.array([[0.49, 0.51]]), known, true, 0.1)
    assert found.tolist() == [[0.0, 1.0]]
    alone = look_up(np.array([[0.49, 0.51]]), known[:1], true[:1], 0.1)
    assert alone.tolist() == [[0.6, 0.4]]


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_prior_is_uniform_over_classes_and_wide_in_confidence(
    rng: np.random.Generator, classes: int
) -> None:
    drawn = prior(rng, 20_000, classes, 0.1)
    assert drawn.sum(axis=1) == pytest.approx(np.ones(20_000))
    assert drawn.min() > 0
    assert drawn.mean(axis=0) == pytest.approx(np.full(classes, 1 / classes), rel=0.15)
    tops = np.bincount(drawn.argmax(axis=1), minlength=classes)
    assert tops == pytest.approx(np.full(classes, 20_000 / classes), rel=0.3)
    assert (drawn.max(axis=1) > 0.99).mean() > 0.05
    assert (drawn.max(axis=1) < 5 / classes).mean() > 0.05


def test_a_prior_of_one_concentration_has_its_moments(rng: np.random.Generator) -> None:
    """Dirichlet(1, 1, 1): mean 1/3, variance 1/18 of each."""
    drawn = prior(rng, 40_000, 3, 30.0 / 10)  # from 3, so a part of the range only
    narrow = prior(rng, 40_000, 3, 29.999)  # sums of 30: variance (1/3)(2/3)/31
    assert narrow.var(axis=0) == pytest.approx(np.full(3, 2 / 9 / 31), rel=0.05)
    assert drawn.var(axis=0).min() > narrow.var(axis=0).max()


def test_logarithms_of_scores_by_hand() -> None:
    hidden = torch.tensor([[0.5, torch.nan, torch.nan]])
    assert np.exp(log_scores(Answers("probabilities", hidden), floor=0.01)) == pytest.approx(
        np.array([[0.5, 0.25, 0.25]])
    )
    zero = Answers("probabilities", torch.tensor([[1.0, 0.0]]))
    assert np.exp(log_scores(zero, floor=0.01)) == pytest.approx(np.array([[1.0, 0.01]]))
    logits = Answers("logits", torch.tensor([[0.0, np.log(3)]]))
    assert np.exp(log_scores(logits, floor=0.01)) == pytest.approx(np.array([[0.25, 0.75]]))
    one = Answers("logits", torch.tensor([[torch.nan, 2.0]]))
    assert np.exp(log_scores(one, floor=0.01)) == pytest.approx(np.array([[0.01, 1.0]]))


# Active thieves


class Stripes(nn.Module):
    """Logits of three classes, the brightness of the first row of pixels deciding."""

    def forward(self, pixels: Tensor) -> Tensor:
        bright = pixels[:, 0, 0].mean(-1)
        return torch.stack([4 * bright, 4 * (1 - bright), torch.zeros_like(bright)], dim=-1)


@pytest.mark.parametrize("thief", [ActiveUncertainty, ActiveKCenter, ActiveBoth])
def test_rounds_follow_the_clone_from_the_queried_images_on(
    bench: Bench, thief: type[Active]
) -> None:
    """The second round is what the selection says of the clone's answers to the rest."""
    attempt = against(bench, budget=20)
    steps = thief(rounds=2, candidates=100).steps(attempt)
    [lesson] = next(steps)
    images = attempt.pool(0, 100)
    assert (lesson.images == images[:10]).all()
    run = cast(Run, SimpleNamespace(network=Stripes()))
    [last] = steps.send([run])
    guesses = outputs(Stripes(), images).softmax(-1)
    expected = thief.select(guesses[10:], guesses[:10], 10) + 10
    assert (last.images == images[[*range(10), *expected.tolist()]]).all()
    if thief is ActiveUncertainty:
        entropy = torch.special.entr(guesses[10:]).sum(-1)
        assert set(expected.tolist()) == set((entropy.topk(10).indices + 10).tolist())
    if thief is ActiveKCenter:
        far = torch.cdist(guesses[10:], guesses[:10]).amin(-1)
        assert int(expected[0]) == 10 + int(far.argmax())
    with pytest.raises(StopIteration):
        steps.send([run])


def test_each_round_has_its_share_of_the_budget(bench: Bench) -> None:
    attempt = against(bench, budget=50)
    clone_of(ActiveUncertainty(rounds=4), attempt)
    assert [len(images) for images in attempt.asked] == [12, 13, 13, 12]
    assert [len(lesson.images) for lesson in attempt.lessons] == [12, 25, 38, 50]


# What all of them have in common


def test_a_thief_of_another_domain_asks_its_images_only(
    bench: Bench, rng: np.random.Generator
) -> None:
    other = rng.integers(0, 256, (80, 1, 8, 8), dtype=np.uint8)
    attempt = against(bench, other=other)
    clone_of(OtherDomain(), attempt)
    [asked] = attempt.asked
    assert len(asked) == 80
    assert {image.tobytes() for image in asked} == {image.tobytes() for image in other}


def test_a_pretrained_thief_starts_from_the_backbone(bench: Bench, trained: Run) -> None:
    attempt = against(bench, backbone=trained, net="cnn")
    still = replace(attempt.training, epochs=1, lr=1e-12)
    clone = clone_of(Pretrained(), replace(attempt, training=still))
    weights, start = clone.network.state_dict(), trained.network.state_dict()
    moved = [name for name in weights if not torch.allclose(weights[name], start[name], atol=1e-6)]
    last = list(dict(trained.network.named_parameters()))[-2:]
    assert {name for name in moved if "mean" not in name and "std" not in name} <= set(last)
    assert last[0] in moved


THIEVES = [
    QUICK_NETWORK,
    QUICK_TABLE,
    ActiveUncertainty(candidates=200),
    ActiveKCenter(candidates=200),
    ActiveBoth(candidates=200),
    SameFeatures(),
    Pretrained(),
    OtherDomain(),
]


@pytest.mark.parametrize("strategy", THIEVES, ids=lambda thief: thief.name)
@pytest.mark.parametrize("budget", [8, 40])
def test_no_image_is_asked_twice_and_no_budget_exceeded(
    bench: Bench, trained: Run, strategy: Strategy, budget: int
) -> None:
    attempt = against(
        bench,
        budget=budget,
        defense=Chain((Flattened(),)),
        encoder=Encoder(torch.float32),
        backbone=trained,
        other=255 - bench.images,
    )
    assert strategy.excluded(attempt.situation) is None
    clone = clone_of(strategy, attempt)
    asked = [image.tobytes() for images in attempt.asked for image in images]
    assert len(asked) <= budget
    assert len(set(asked)) == len(asked)
    pixels = torch.from_numpy(bench.images[:3]).float() / 255
    assert clone.network(pixels).shape == (3, 10)
    assert not clone.network.training


@pytest.mark.parametrize("strategy", THIEVES, ids=lambda thief: thief.name)
def test_a_strategy_is_excluded_where_it_makes_no_sense(bench: Bench, strategy: Strategy) -> None:
    reasons = {
        "recovery-network": "nothing to recover",
        "recovery-table": "nothing to recover",
        "active-uncertainty": "rounds need",
        "active-k-center": "rounds need",
        "active-both": "rounds need",
        "same-features": "public encoder",
        "pretrained": "pretrained network",
        "other-domain": "another domain",
    }
    reason = strategy.excluded(against(bench, budget=5).situation)
    assert reasons[strategy.name] in str(reason)
    labels = replace(bench.situation, kind="label", perturbs=True)
    if strategy.name.startswith("recovery"):
        assert "Labels hold no scores" in str(strategy.excluded(labels))
