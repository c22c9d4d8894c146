"""Thieves that undo a defense, choose their queries, or know more than the victim's answers."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.core.types import Pixels
from denature.data import load
from denature.defenses.base import Chain, Context, Defense
from denature.defenses.catalogue import chain_of
from denature.extract.strategies.active import (
    Active,
    ActiveBoth,
    ActiveKCenter,
    ActiveUncertainty,
)
from denature.extract.strategies.base import Strategy
from denature.extract.strategies.linear_head import SameFeatures, fit, solve
from denature.extract.strategies.networks import log_scores, outputs
from denature.extract.strategies.other_domain import OtherDomain
from denature.extract.strategies.pretrained import Pretrained
from denature.extract.strategies.recovering import FLOOR, Pairs, RecoveryMap
from denature.extract.strategies.recovery_network import RecoveryNetwork, subset
from denature.extract.strategies.recovery_table import RecoveryTable, look_up, prior
from denature.train import Run, Training, train
from denature.train.objectives import Normal
from tests.attempts import Bench, clone_of

QUICK_NETWORK = RecoveryNetwork(epochs=(2, 4, 3), images=300, iterations=20)
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
def pool() -> np.ndarray:
    split = load("digits").train
    images: np.ndarray = split.images[split.rows].numpy()
    return np.unique(images, axis=0)


@pytest.fixture(scope="module")
def trained() -> Run:
    return train("mlp", "digits", Normal(), Training(epochs=4, device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def bench(pool: np.ndarray, trained: Run) -> Bench:
    """Against a network on digits without a defense, to be changed by `replace`."""

    def victim(pixels: Pixels) -> Answers:
        with torch.no_grad():
            return Answers("probabilities", trained.network(pixels).softmax(-1))

    return Bench(victim=victim, images=pool, budget=120)


def against(bench: Bench, **changes: Any) -> Bench:
    return replace(bench, asked=[], lessons=[], **changes)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().sum(-1).mean())


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
    assert len(attempt.lessons) == len(QUICK_NETWORK.epochs) + 1
    assert all(lesson.answers.kind == "label" for lesson in attempt.lessons[:-1])


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
    bench: Bench, pool: np.ndarray, thief: type[Active]
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


# The same features


class Encoder(nn.Module):
    """A frozen encoder with random weights, 16 features of digits."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh()).to(dtype)
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.body(pixels.to(self.dtype))
        return features


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
    assert solve(features[:3], nothing, 1e-3, trusted=True) == (None, 0)


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
