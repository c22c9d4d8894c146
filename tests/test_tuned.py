"""The tuned thief chooses its objective by answers that it holds out."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.core.errors import ConfigError
from denature.core.types import Pixels
from denature.defenses.base import Chain
from denature.defenses.label_only import LabelOnly
from denature.extract.config import thief_training
from denature.extract.strategies.base import Lesson
from denature.extract.strategies.tuned import HeldOutScore, Tuned, score
from denature.nets import optimizer_for
from denature.train import Cloned, Distilled, Run, Training
from denature.train.config import DEFAULT_LR
from tests.attempts import QUICK, Bench, clone_of, train_lesson
from tests.linear_victim import BUDGET, bench, logits


class Oracle(nn.Module):
    """The victim's own logits, or those of the next class."""

    def __init__(self, *, right: bool) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.0 if right else 1.0))

    def forward(self, pixels: Tensor) -> Tensor:
        return logits(pixels).values.roll(int(self.shift), dims=-1)


def candidates(attempt: Bench, right: Cloned | Distilled) -> tuple[list[Lesson], Lesson, str]:
    """The grid, the last lesson and the note, where candidates of one objective are right."""
    steps = Tuned().steps(attempt)
    grid = list(next(steps))

    def run(good: bool) -> Run:
        return cast(Run, SimpleNamespace(network=Oracle(right=good)))

    [last] = steps.send([run(lesson.objective == right) for lesson in grid])
    with pytest.raises(StopIteration) as finished:
        steps.send([run(True)])
    return grid, last, finished.value.value.note


@pytest.mark.parametrize(
    ("objective", "named"),
    [
        (Cloned(temperature=4.0), "tau 4, "),
        (Cloned(temperature=20.0), "tau 20, "),
        (Distilled(answers="labels", alpha=1.0), "labels, "),
    ],
)
def test_the_candidate_that_tells_held_out_answers_learns_all_answers(
    objective: Cloned | Distilled, named: str
) -> None:
    attempt = bench()
    grid, last, note = candidates(attempt, objective)
    assert last.objective == objective
    assert last.training == next(e.training for e in grid if e.objective == objective)
    assert len(last.images) == BUDGET
    assert note.startswith(named)
    assert note.endswith(": 100.0 % of 8 held-out answers")


def test_candidates_share_their_images_and_never_see_the_held_out_ones() -> None:
    grid, last, _ = candidates(bench(), Cloned(temperature=4.0))
    assert len({id(lesson.images) for lesson in grid}) == 1
    assert len({id(lesson.answers) for lesson in grid}) == 1
    assert len(grid[0].images) == BUDGET - 8
    assert len(np.unique(last.images, axis=0)) == BUDGET


@pytest.mark.parametrize("net", ["cnn", "resnet18"])
@pytest.mark.parametrize("budget", [20, 100, 1000])
def test_the_grid_holds_the_training_of_the_naive_thief(net: str, budget: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (budget, 1, 8, 8), np.uint8)
    attempt = bench(images=images, budget=budget, net=net)
    lessons = list(next(Tuned().steps(attempt)))
    found = [lesson.training_for(Training(), net=net) for lesson in lessons]
    naive = thief_training(len(lessons[0].images), net=net)
    rate = naive.lr or DEFAULT_LR[optimizer_for(net)]
    assert (rate, naive.epochs) in {(training.lr, training.epochs) for training in found}
    assert all(training.batch_size <= naive.batch_size for training in found)


def test_held_out_answers_of_labels_leave_one_objective() -> None:
    lessons = next(Tuned().steps(bench(defense=Chain((LabelOnly(),)))))
    assert {lesson.answers.kind for lesson in lessons} == {"label"}
    assert len({lesson.objective for lesson in lessons}) == 1


def test_the_score_is_agreement_then_log_likelihood() -> None:
    answers = Answers("probabilities", torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    logs = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    found = score(logs, answers, torch.tensor([0, 1]))
    wanted = (0.5 * np.log(0.75) + 0.5 * np.log(0.25) + np.log(0.5)) / 2
    assert found == pytest.approx(HeldOutScore(0.5, wanted))
    labels = score(logs, Answers("label", torch.tensor([0, 1])), torch.tensor([0, 1]))
    assert labels == pytest.approx(HeldOutScore(0.5, (np.log(0.75) + np.log(0.5)) / 2))
    assert HeldOutScore(0.6, -9.0) > HeldOutScore(0.5, -1.0)


def test_a_budget_too_small_to_choose_by_is_refused() -> None:
    assert Tuned().excluded(bench(budget=2).situation)
    assert Tuned().excluded(bench(budget=3).situation) is None


def test_a_grid_has_rates_and_shares_above_zero() -> None:
    with pytest.raises(ConfigError, match="grid is"):
        Tuned(grid=((1e-3, 0.0),))
    with pytest.raises(ConfigError, match="grid is"):
        Tuned(grid=())
    with pytest.raises(ConfigError, match="temperatures is"):
        Tuned(temperatures=())


FACTORS = torch.randn(6, 64, generator=torch.Generator().manual_seed(3))
READING = torch.linalg.pinv(FACTORS) @ torch.randn(6, 6, generator=torch.Generator().manual_seed(4))
ROUGH = torch.randn(64, 6, generator=torch.Generator().manual_seed(5))


def smooth_pictures(count: int, seed: int) -> np.ndarray:
    """Images of six random factors."""
    factors = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    pixels = (128 + 20 * factors @ FACTORS).clamp(0, 255).to(torch.uint8)
    return pixels.view(count, 1, 8, 8).numpy()


def nasty_at_20(pixels: Pixels) -> Answers:
    """Logits that tell three classes truly, and have noise where only a high temperature looks.

    The other classes are 14 or 400 below the first: at tau 4 they weigh at most 3 % of it, at
    tau 20 half of it or nothing, in a way that no student can learn.
    """
    flat = pixels.flatten(1)
    scores = 2 * (flat * 255 - 128) / 20 @ READING
    scores = scores - scores.max(dim=1, keepdim=True).values
    noise = torch.where((3000 * flat @ ROUGH).sin() > 0, -14.0, -400.0)
    return Answers("logits", torch.where(scores.argsort(1, True).argsort(1) < 3, scores, noise))


def test_a_tuned_thief_leaves_the_temperature_that_a_victim_spoils() -> None:
    images, tests = smooth_pictures(200, seed=1), smooth_pictures(400, seed=2)
    training = replace(QUICK, epochs=15)
    attempt = bench(victim=nasty_at_20, images=images, budget=200, classes=6, training=training)
    tuned = Tuned(temperatures=(4.0, 20.0), grid=((1e-3, 1.0),), held_out=0.4)
    clone = clone_of(tuned, attempt)
    assert clone.note.startswith("tau 4, ")
    spoiled = train_lesson(
        replace(attempt.lessons[-1], objective=Cloned(temperature=20.0)), attempt
    )
    pixels = torch.from_numpy(tests).float() / 255
    truth = nasty_at_20(pixels).values.argmax(-1)
    kept, lost = (
        (network(pixels).argmax(-1) == truth).double().mean()
        for network in (clone.network, spoiled.network)
    )
    assert kept > lost + 0.05
