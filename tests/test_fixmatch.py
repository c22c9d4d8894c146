"""FixMatch: its loss, its strong views, and the thief that learns from unqueried images by it."""

import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.core.errors import ConfigError
from denature.core.types import Pixels
from denature.data import load
from denature.data.strong import _cut, _moved, _shaded, strong
from denature.extract.strategies.base import LabelledImages
from denature.extract.strategies.fixmatch import SemiSupervised
from denature.train import FixMatch, Training
from tests.attempts import Bench, clone_of

# The loss


def by_definition(
    weak: Tensor, altered: Tensor, labels: Tensor, *, threshold: float, weight: float
) -> float:
    """Equations 3 and 4 of the paper, image by image; all images count as unlabelled."""
    labelled, own = [], []
    for logits, other, label in zip(weak, altered, labels.tolist(), strict=True):
        if label >= 0:
            labelled.append(-float(logits.log_softmax(-1)[label]))
        probabilities = logits.softmax(-1)
        sure = float(probabilities.max()) >= threshold
        own.append(-float(other.log_softmax(-1)[int(probabilities.argmax())]) if sure else 0.0)
    supervised = sum(labelled) / len(labelled) if labelled else 0.0
    return supervised + weight * sum(own) / len(own)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("labels", [[0, -1, 2, -1, -1, 1], [-1] * 6, [2, 1, 0, 0, 1, 2]])
def test_the_loss_is_that_of_the_paper(threshold: float, labels: list[int]) -> None:
    answers = 3 * torch.randn(12, 3)
    objective = FixMatch(threshold=threshold, weight=0.7)
    pixels, seen = torch.rand(6, 1, 8, 8), []

    def ask(given: Pixels) -> Tensor:
        seen.append(given)
        return answers

    logits, losses = objective.probed(nn.Identity(), ask, pixels, torch.tensor(labels))
    expected = by_definition(
        answers[:6], answers[6:], torch.tensor(labels), threshold=threshold, weight=0.7
    )
    assert float(losses.mean()) == pytest.approx(expected, rel=1e-5)
    assert (logits == answers[:6]).all()
    [both] = seen
    assert (both[:6] == pixels).all()
    assert both.shape == (12, 1, 8, 8)


def test_a_prediction_gets_no_gradient_as_a_label() -> None:
    answers = torch.randn(4, 3, requires_grad=True)
    _, losses = FixMatch(threshold=0).probed(
        nn.Identity(), lambda pixels: answers, torch.rand(2, 1, 8, 8), torch.tensor([-1, -1])
    )
    losses.sum().backward()
    assert answers.grad is not None
    assert (answers.grad[:2] == 0).all()
    assert (answers.grad[2:] != 0).all()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"threshold is 1\.5"):
        FixMatch(threshold=1.5)
    with pytest.raises(ConfigError, match="weight is -1"):
        FixMatch(weight=-1)


# Strong views


def unmoved(count: int) -> Tensor:
    return torch.zeros(count, 7)


def test_strong_views_are_images_and_follow_the_seed() -> None:
    pixels = torch.rand(64, 3, 16, 16)
    torch.manual_seed(1)
    first = strong(pixels)
    torch.manual_seed(1)
    assert (strong(pixels) == first).all()
    assert (strong(pixels) != first).any()
    assert first.shape == pixels.shape
    assert 0 <= first.min() <= first.max() <= 1
    changed = (first != pixels).flatten(1).any(dim=1)
    assert changed.all()


def test_a_view_without_strength_is_the_image() -> None:
    pixels = torch.rand(4, 1, 8, 8)
    assert torch.allclose(_moved(pixels, unmoved(4)), pixels, atol=1e-5)
    assert torch.allclose(_shaded(pixels, unmoved(4)), pixels, atol=1e-6)


def test_moves_by_hand() -> None:
    pixels = torch.rand(4, 1, 8, 8)
    strength = unmoved(4)
    strength[0, 0] = math.pi / 2
    strength[1, 3] = strength[2, 4] = 2 / 8  # a pixel of eight, in half sides
    strength[3, 1] = 0.5
    moved = _moved(pixels, strength)
    assert torch.allclose(moved[0], pixels[0].rot90(1, (1, 2)), atol=1e-5)
    assert torch.allclose(moved[1, :, :, :-1], pixels[1, :, :, 1:], atol=1e-5)
    assert (moved[1, :, :, -1] == 0).all()
    assert torch.allclose(moved[2, :, :-1], pixels[2, :, 1:], atol=1e-5)
    # A shear moves the rows above and below the middle to opposite sides.
    rows = torch.arange(8) + 0.5 - 4
    columns = torch.arange(8) + rows[:, None] * 0.5
    low = columns.floor().long()
    share = columns - low
    padded = nn.functional.pad(pixels[3, 0], (8, 8))
    expected = padded.gather(1, low + 8) * (1 - share) + padded.gather(1, low + 9) * share
    assert torch.allclose(moved[3, 0], expected, atol=1e-5)


def test_shades_by_hand() -> None:
    pixels = torch.tensor([0.2, 0.4]).view(1, 1, 1, 2).expand(2, 1, 1, 2)
    strength = unmoved(2)
    strength[0, 5], strength[1, 6] = 0.5, -0.5
    shaded = _shaded(pixels, strength)
    assert shaded[0].flatten().tolist() == pytest.approx([0.3, 0.6])
    assert shaded[1].flatten().tolist() == pytest.approx([0.25, 0.35])


def test_a_square_is_cut_out() -> None:
    cut = _cut(torch.zeros(2, 1, 8, 8), torch.tensor([[0.5, 0.25, 1.0], [0.5, 0.5, 0.0]]))
    expected = torch.zeros(8, 8)
    expected[2:6, 0:4] = 0.5
    assert (cut[0, 0] == expected).all()
    assert (cut[1] == 0).all()


# The thief


@pytest.fixture
def bench() -> Bench:
    split = load("digits").train
    images: np.ndarray = np.unique(split.images[split.rows].numpy(), axis=0)

    def victim(pixels: Pixels) -> Answers:
        return Answers("label", (pixels.sum(dim=(1, 2, 3)) * 10).long() % 10)

    return Bench(victim=victim, images=images, budget=20, training=Training(epochs=1))


def test_unqueried_images_have_no_label(bench: Bench) -> None:
    clone = clone_of(SemiSupervised(unlabelled=360), bench)
    [lesson], [asked] = bench.lessons, bench.asked
    labels = cast(np.ndarray, lesson.labels)
    assert lesson.objective == FixMatch()
    assert (labels == lesson.answers.values.numpy()).all()
    known = labels >= 0
    assert known.sum() == 3 * 20
    assert len(labels) == 60 + 360
    shown = bench.victim(torch.from_numpy(lesson.images[known]).float() / 255).values.numpy()
    assert (labels[known] == shown).all()
    queried = {image.tobytes() for image in asked}
    assert {image.tobytes() for image in lesson.images[known]} == queried
    others = [image.tobytes() for image in lesson.images[~known]]
    assert len(set(others)) == 360
    assert not queried & set(others)
    assert clone.note == "20 labels, 360 images without one"


def test_owned_images_keep_their_true_labels(bench: Bench) -> None:
    """Those beyond the budget too."""
    owned = LabelledImages(bench.images[:30], np.full(30, 7))
    attempt = replace(bench, owned=owned, asked=[], lessons=[])
    clone_of(SemiSupervised(unlabelled=10), attempt)
    labels = cast(np.ndarray, attempt.lessons[0].labels)
    assert (labels == 7).all()
    assert len(labels) == 30


def test_a_pool_without_other_images_is_learned_as_it_is(bench: Bench) -> None:
    attempt = replace(bench, images=bench.images[:20], asked=[], lessons=[])
    clone_of(SemiSupervised(), attempt)
    assert len(attempt.lessons[0].images) == 20
