"""What tests of defenses share: answers, and streams with a small network for each role."""

import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.core.seeds import seeded
from denature.core.types import Pixels
from denature.defenses.base import Chain, Defense, Networks, Stream

CLASSES = 6


def networks_for(defense: Defense, classes: int) -> Networks:
    """A small network with random weights for the role of a defense; none without a role."""
    if defense.role is None:
        return {}
    with seeded(0, "networks of defenses", classes):
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes)
        ).eval()
    return {defense.role: network}


def pixels_for(count: int) -> Pixels:
    """The images of the first answers, which the network of a role looks at."""
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def stream_of(defense: Defense, classes: int = CLASSES, *, seed: int = 0) -> Stream:
    return Chain((defense,)).start(networks_for(defense, classes), seed=seed)


def defended(defense: Defense, answers: Answers, *, seed: int = 0) -> Answers:
    """Answers as the first ones of a stream; their images are those of `pixels_for`."""
    classes = answers.values.shape[1] if answers.values.ndim == 2 else CLASSES
    return stream_of(defense, classes, seed=seed)(answers, pixels_for(len(answers.values)))


def part_of(answers: Answers, stream: Stream, places: list[int] | slice) -> Tensor:
    """The next answers of a stream: those at some places, with their images."""
    pixels = pixels_for(len(answers.values))[places]
    return stream(Answers(answers.kind, answers.values[places]), pixels).values


def answers_of(
    kind: AnswerKind,
    count: int = 40,
    *,
    classes: int = CLASSES,
    dtype: torch.dtype = torch.float32,
) -> Answers:
    """Random answers; some have equal largest values."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    logits[::5, 3] = logits[::5, 1] = logits[::5].amax(dim=1)
    return in_kind(logits, kind, dtype)


def in_kind(logits: Tensor, kind: AnswerKind, dtype: torch.dtype) -> Answers:
    """Logits as answers of a kind."""
    if kind == "label":
        return Answers(kind, logits.argmax(1))
    scores = {"logits": logits, "probabilities": logits.softmax(1), "landmarks": logits.sigmoid()}
    return Answers(kind, scores[kind].to(dtype))


def adversarial_logits(classes: int, dtype: torch.dtype) -> Tensor:
    """Finite logits that are hard on a defense, in the precision of `dtype`, as float64.

    Flat to very sharp rows, ties of two and of all classes, leads in the last digit, saturated and
    huge logits.
    """
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, classes, generator=generator, dtype=torch.float64)
    rows = [scale * base for scale in (0.01, 1, 8, 50)]
    top = base.amax(1, keepdim=True)
    tied, lead = base.clone(), base.clone()
    tied[:, 0] = tied[:, -1] = top[:, 0]
    lead[:, 0] = top[:, 0]
    lead[:, -1] = top[:, 0].to(dtype).nextafter(torch.tensor(torch.inf, dtype=dtype)).double()
    saturated = base + 1e4 * torch.nn.functional.one_hot(base.argmin(1), classes)
    rows += [tied, lead, 100 * lead, saturated, 1e30 * base, torch.zeros_like(base[:2])]
    return torch.cat(rows).to(dtype).double()


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def alike(defense: Defense, a: Tensor, b: Tensor) -> bool:
    """Whether answers are equal: to the bit, or as nearly as a network computes its outputs."""
    if defense.role is None:
        return same(a, b)
    return a.dtype == b.dtype and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
