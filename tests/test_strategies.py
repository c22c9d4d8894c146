"""Strategies of a thief: what holds for every one, and what those of labels and averages do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.core.errors import ConfigError
from denature.core.types import Pixels
from denature.defenses.base import Chain, Context, Defense
from denature.defenses.label_only import LabelOnly
from denature.defenses.randomness import Randomness
from denature.defenses.temperature import Temperature
from denature.defenses.top_k import TopK
from denature.extract.asking.ledger import BudgetSpent
from denature.extract.strategies.augmented import Augmented
from denature.extract.strategies.base import LabelledImages, Lesson, Situation, Strategy
from denature.extract.strategies.catalogue import STRATEGIES, strategy_of
from denature.extract.strategies.common import averaged, lesson_labels
from denature.extract.strategies.label_smoothing import LabelSmoothing
from denature.extract.strategies.labels import PredictedLabels
from denature.extract.strategies.naive import Naive
from denature.extract.strategies.repeated import Repeated
from denature.extract.strategies.skeptical import SkepticalStudent, stages_of
from denature.extract.strategies.small_alpha import SmallAlpha
from denature.extract.strategies.tuned import Tuned
from denature.train import Cloned, Distilled, Skeptical
from tests.attempts import Bench, clone_of
from tests.linear_victim import BUDGET, CLASSES, POOL, TESTS, bench, logits, probabilities

SMALL: Mapping[str, Strategy] = {"tuned": Tuned(temperatures=(4.0,), grid=((1e-3, 1.0),))}
"""Settings that take less time than the defaults."""


@dataclass(frozen=True, kw_only=True)
class Noise(Defense):
    """Gaussian noise on logits."""

    name: ClassVar[str] = "noise"
    takes: ClassVar[tuple[AnswerKind, ...]] = ("logits",)
    random: ClassVar[bool] = True
    perturbs: ClassVar[bool] = True
    keeps_top: ClassVar[bool] = False

    scale: float = 1.0

    def begin(self, seed: int) -> Randomness:
        return Randomness(seed, self.name)

    def _change(self, values: Tensor, kind: AnswerKind, context: Context) -> Tensor:
        drawn = context.memory.generator.normal(scale=self.scale, size=values.shape)
        return values + torch.from_numpy(drawn).float()


OWNED = LabelledImages(POOL[:12], np.arange(12) % CLASSES)

BENCHES: Mapping[str, dict[str, Any]] = {
    "probabilities": {},
    "logits-with-noise": {"victim": logits, "defense": Chain((Noise(),))},
    "labels": {"defense": Chain((LabelOnly(),))},
    "one-score": {"defense": Chain((TopK(k=1),))},
    "owned": {"owned": OWNED},
}


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return SMALL.get(request.param) or strategy_of(request.param)


@pytest.fixture(params=BENCHES)
def settings(request: pytest.FixtureRequest, strategy: Strategy) -> dict[str, Any]:
    settings = BENCHES[request.param]
    if strategy.excluded(bench(**settings).situation):
        pytest.skip("not applicable, which another test covers")
    return settings


# What holds for every strategy


def test_a_strategy_is_found_by_its_name_and_says_what_it_does(strategy: Strategy) -> None:
    assert isinstance(strategy, STRATEGIES[strategy.name])
    assert strategy.about.endswith(".")
    assert strategy.source.endswith(".")


def test_an_unknown_strategy_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match="Did you mean naive"):
        strategy_of("naiv")


@pytest.mark.parametrize("name", BENCHES)
def test_a_strategy_applies_or_says_in_a_sentence_why_not(strategy: Strategy, name: str) -> None:
    reason = strategy.excluded(bench(**BENCHES[name]).situation)
    assert reason is None or ((reason[0].isupper() or " " in reason) and reason.endswith("."))


def test_a_clone_costs_its_queries_and_answers_all_classes(
    strategy: Strategy, settings: dict[str, Any]
) -> None:
    answered = 0

    def victim(pixels: Pixels) -> Answers:
        nonlocal answered
        answered += len(pixels)
        answers: Answers = settings.get("victim", probabilities)(pixels)
        return answers

    attempt = bench(**{**settings, "victim": victim})
    answered = 0
    clone = clone_of(strategy, attempt)
    assert 0 < answered == BUDGET - attempt.left() <= BUDGET
    assert not clone.network.training
    assert clone.network(torch.rand(3, 1, 8, 8)).shape == (3, CLASSES)
    trained = sum(
        len(lesson.images) * lesson.training_for(attempt.training).epochs
        for lesson in attempt.lessons
    )
    assert trained <= strategy.trained_images(BUDGET, attempt.training)


def test_the_same_seed_gives_the_same_clone(strategy: Strategy, settings: dict[str, Any]) -> None:
    clones = [clone_of(strategy, bench(**settings)) for _ in range(2)]
    assert clones[0].note == clones[1].note
    assert_same(clones[0].network, clones[1].network)


def test_lessons_hold_no_test_images_and_finite_answers(
    strategy: Strategy, settings: dict[str, Any]
) -> None:
    attempt, tests = bench(**settings), {image.tobytes() for image in TESTS}
    clone_of(strategy, attempt)
    assert attempt.lessons
    for lesson in attempt.lessons:
        assert not tests & {image.tobytes() for image in lesson.images}
        assert len(lesson.images) == len(lesson.answers.values)
        assert lesson.answers.values.isfinite().all()


def test_more_than_the_budget_is_not_answered() -> None:
    attempt = bench(budget=3)
    attempt.ask(POOL[:2])
    with pytest.raises(BudgetSpent):
        attempt.ask(POOL[:2])
    assert attempt.left() == 1


def assert_same(one: nn.Module, other: nn.Module) -> None:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def only_lesson(strategy: Strategy, attempt: Bench) -> Lesson:
    """The first lessons of a strategy that trains once, without the training."""
    [lesson] = next(strategy.steps(attempt))
    return lesson


# Labels


def test_a_clone_of_labels_ignores_the_scores() -> None:
    plain, cooled = (
        clone_of(PredictedLabels(), bench(defense=Chain(defenses))).network
        for defenses in ((), (Temperature(temperature=3.0),))
    )
    assert_same(plain, cooled)
    naive = clone_of(Naive(), bench(defense=Chain((Temperature(temperature=3.0),)))).network
    assert not torch.equal(next(naive.parameters()), next(plain.parameters()))


def test_owned_images_have_their_true_labels_and_others_the_shown_classes() -> None:
    attempt = bench(owned=LabelledImages(POOL[:2], np.array([4, 4])))
    images = POOL[[5, 1, 0]]
    answers = Answers("probabilities", torch.eye(CLASSES)[[2, 0, 1]])
    assert lesson_labels(attempt, images, answers).tolist() == [2, 4, 4]
    assert lesson_labels(bench(), images, answers).tolist() == [2, 0, 1]


@pytest.mark.parametrize("strategy", [LabelSmoothing(), SmallAlpha(), SkepticalStudent()])
def test_students_of_labels_learn_the_true_ones_where_they_are_known(strategy: Strategy) -> None:
    attempt = bench(owned=OWNED)
    lesson = only_lesson(strategy, attempt)
    assert lesson.labels is not None
    shown = probabilities(torch.from_numpy(lesson.images).float() / 255).values.argmax(-1)
    count = len(OWNED.images)
    assert (lesson.labels[:count] == OWNED.labels).all()
    assert (lesson.labels[count:] == shown[count:].numpy()).all()
    assert (lesson.labels[:count] != shown[:count].numpy()).any()


def test_smoothed_labels_keep_their_share_and_spread_the_rest() -> None:
    lesson = only_lesson(LabelSmoothing(smoothing=0.25), bench(defense=Chain((LabelOnly(),))))
    assert lesson.labels is not None
    wanted = np.full((BUDGET, CLASSES), 0.05)
    wanted[np.arange(BUDGET), lesson.labels] = 0.8
    assert np.allclose(lesson.answers.values.numpy(), wanted)
    assert isinstance(lesson.objective, Cloned)
    assert lesson.objective.temperature == 1


def test_a_small_alpha_weighs_the_scores_little() -> None:
    lesson = only_lesson(SmallAlpha(), bench())
    assert lesson.objective == Distilled(alpha=0.1, temperature=4.0)


def test_a_small_alpha_has_a_use_for_labels_only_beside_true_ones() -> None:
    labels = Chain((LabelOnly(),))
    assert SmallAlpha().excluded(bench(defense=labels).situation)
    assert SmallAlpha().excluded(bench(defense=labels, owned=OWNED).situation) is None


# The skeptical student


def test_a_skeptical_student_has_a_detached_output_unless_it_is_coupled() -> None:
    for coupled in (False, True):
        objective = only_lesson(SkepticalStudent(coupled=coupled), bench(net="cnn")).objective
        assert objective == Skeptical(coupled=coupled)


def test_a_skeptical_student_needs_scores_and_stages() -> None:
    assert (stages_of("mlp", CLASSES), stages_of("cnn", CLASSES)) == (1, 3)
    assert "no scores" in str(
        SkepticalStudent().excluded(bench(defense=Chain((LabelOnly(),))).situation)
    )
    assert SkepticalStudent(shallow=2).excluded(bench(net="mlp").situation) == (
        "mlp has 1 stages of features before its last, and the auxiliary head needs 2."
    )
    assert SkepticalStudent(shallow=2).excluded(bench(net="cnn").situation) is None


# Averages


def test_the_average_of_answers_is_the_mean_of_scores_and_the_share_of_votes() -> None:
    scores = Answers("probabilities", torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.4, 0.6], [1, 0]]))
    mean = averaged(scores, 2, 2)
    assert mean.kind == "probabilities"
    assert torch.allclose(mean.values, torch.tensor([[0.6, 0.4], [0.75, 0.25]]))
    votes = averaged(Answers("label", torch.tensor([2, 0, 2, 1, 0, 0])), 3, 3)
    assert votes.kind == "probabilities"
    assert torch.allclose(votes.values, torch.tensor([[1 / 3, 0, 2 / 3], [2 / 3, 1 / 3, 0]]))


def error_of(strategy: Strategy, attempt: Bench) -> float:
    """Root of the mean squared error of the logits that a clone learns."""
    lesson = only_lesson(strategy, attempt)
    truth = logits(torch.from_numpy(lesson.images).float() / 255).values
    return float((lesson.answers.values - truth).square().mean().sqrt())


def test_repeats_shrink_independent_errors_by_their_root() -> None:
    settings = {"victim": logits, "defense": Chain((Noise(scale=2.0),)), "budget": 120}
    single = error_of(Naive(), bench(**settings))
    assert single == pytest.approx(2.0, rel=0.15)
    attempt = bench(**settings)
    assert error_of(Repeated(repeats=4), attempt) == pytest.approx(1.0, rel=0.15)
    [asked] = attempt.asked
    assert len(asked) == 120
    assert len(np.unique(asked, axis=0)) == 30


def test_repeats_are_for_random_answers_only() -> None:
    reason = Repeated().excluded(bench().situation)
    assert reason == "An image has one answer, so that a repeated query shows nothing new."
    noisy = bench(victim=logits, defense=Chain((Noise(),))).situation
    assert Repeated().excluded(noisy) is None
    assert Repeated(repeats=4).excluded(replace(noisy, budget=7))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_an_image_and_views_of_it_are_queried_and_their_mean_is_learned(
    shape: tuple[int, int, int],
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)

    def victim(pixels: Pixels) -> Answers:
        return Answers("probabilities", pixels.flatten(1)[:, :CLASSES].softmax(-1))

    attempt = bench(images=images, budget=30, victim=victim)
    lesson = only_lesson(Augmented(count=3), attempt)
    [asked] = attempt.asked
    views = asked.reshape(3, 10, *shape)
    assert (views[0] == lesson.images).all()
    assert all(len(np.unique(views[:, image], axis=0)) == 3 for image in range(10))
    own = [victim(torch.from_numpy(part).float() / 255).values for part in views]
    assert torch.allclose(lesson.answers.values, torch.stack(own).mean(0))


def test_averages_need_a_budget_for_two_images() -> None:
    situation: Situation = bench(budget=5).situation
    assert Augmented(count=3).excluded(situation)
    assert Augmented(count=2).excluded(situation) is None
