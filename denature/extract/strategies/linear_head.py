"""The thief that knows the victim's frozen encoder, and solves for its private linear head."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from denature.answers.answerer import Answers
from denature.core.schema import check_fields
from denature.extract.config import FITTED, SOLVED
from denature.extract.strategies.base import (
    Attempt,
    Extra,
    Situation,
    Steps,
    Strategy,
    TrainedClone,
)
from denature.extract.strategies.common import usable
from denature.extract.strategies.networks import outputs

SPARE = 8
"""Answers beyond those that determine the head, which tell whether it was solved."""


class LinearHead(NamedTuple):
    """A linear head whose logits have mean 0 over the classes; softmax does not change by that."""

    weight: Tensor
    """float64, classes x d."""
    bias: Tensor
    """float64, classes."""


class EncoderWithHead(nn.Module):
    """An encoder with a linear head on its features; from pixels in [0, 1] to logits."""

    def __init__(self, encoder: nn.Module, head: LinearHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(head.weight.shape[1], len(head.bias), dtype=dtype)
        with torch.no_grad():
            self.head.weight.copy_(head.weight)
            self.head.bias.copy_(head.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(pixels))
        return logits


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SameFeatures(Strategy):
    """Solves a linear system for the head, or fits the head where answers are not exact."""

    name: ClassVar[str] = "same-features"
    revision: ClassVar[int] = 2
    """2: a head that no spare answer confirms asks for the others first."""
    about: ClassVar[str] = (
        "Takes the public encoder, and solves for the victim's linear head from d + 1 answers, d "
        "being the number of features."
    )
    trainings: ClassVar[float] = 0.1
    source: ClassVar[str] = (
        "Grey-box extraction (OpenReview cotg54BSX8); the fit for rounded answers and labels is "
        "logistic regression, chosen on held-out answers."
    )
    uses: ClassVar[tuple[Extra, ...]] = ("encoder",)

    tolerance: float = 1e-3
    """Root mean square error of log-probabilities, in nats, up to which a head counts as solved."""
    decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    """Weights of the squared norm of the head in a fit, among which held-out answers choose."""

    def __post_init__(self) -> None:
        rules = {
            "tolerance": (self.tolerance > 0, "above 0"),
            "decays": (bool(self.decays) and min(self.decays) > 0, "above 0"),
        }
        check_fields(self, rules)

    def excluded(self, situation: Situation) -> str | None:
        if not situation.encoder:
            return "The victim is not known to be a public encoder with a linear head."
        return None

    def steps(self, attempt: Attempt) -> Steps:
        yield from ()  # the head is solved for, and no network is trained
        encoder = attempt.encoder
        assert encoder is not None
        width = outputs(encoder, attempt.pool(0, 1), device=attempt.device).shape[1]
        trusted = not attempt.situation.perturbs
        images = attempt.pool(0, min(attempt.left(), width + 1 + SPARE))
        features, shown = outputs(encoder, images, device=attempt.device), attempt.ask(images)
        head, rank, spare = solve(features, shown, self.tolerance, trusted=trusted)
        rest = attempt.pool(len(images), attempt.left())
        # Of rounded answers those with a zero are left out: where so no answer is spare, a head
        # that interpolates rounded numbers would be believed.
        if (head is None or rank <= width or not spare) and len(rest):
            features = torch.cat([features, outputs(encoder, rest, device=attempt.device)])
            shown = Answers(shown.kind, torch.cat([shown.values, attempt.ask(rest).values]))
            head, _, _ = solve(features, shown, self.tolerance, trusted=trusted)
        note = f"{SOLVED} {len(features):,} answers"
        if head is None:
            head, decay = fit(features, shown, attempt.situation.classes, self.decays)
            note = f"{FITTED} {len(features):,} answers, decay {decay:g}"
        return TrainedClone(EncoderWithHead(encoder, head, features.dtype).eval(), note)


def solve(
    features: Tensor, shown: Answers, tolerance: float, *, trusted: bool
) -> tuple[LinearHead | None, int, int]:
    """The head whose answers are those shown, if there is one, its rank and its spare answers.

    The rank is that of its system, d + 1 where the answers determine the head. There is no head
    where no linear one gives these answers, or where too few answers are there to tell.

    log p_i - mean_k log p_k is linear in the features, with weights w_i - mean_k w_k; of logits as
    well. Least squares in float64.

    Args:
        features: n x d.
        shown: answers to the same images; those with a hidden score or a zero are left out.
        tolerance: largest root mean square error that spare answers may leave, in nats.
        trusted: accept a head that no spare answer can contradict.
    """
    if shown.kind == "label":
        return None, 0, 0
    values = shown.values
    logs = (values if shown.kind == "logits" else values.log()).double()
    whole = logs.isfinite().all(dim=1)
    logs, inputs = logs[whole], _with_ones(features[whole])
    if not len(logs):
        return None, 0, 0
    logs = logs - logs.mean(dim=1, keepdim=True)
    # Directions of features that are weaker than the rounding of the answers hold none of the head.
    precision = max(torch.finfo(values.dtype).eps, torch.finfo(features.dtype).eps)
    solution, _, rank, _ = np.linalg.lstsq(
        inputs.numpy(), logs.numpy(), rcond=precision * max(inputs.shape)
    )
    spare = len(logs) - int(rank)
    if spare == 0 and not (trusted and rank == inputs.shape[1]):
        return None, int(rank), spare
    left = np.square(inputs.numpy() @ solution - logs.numpy()).sum() / max(spare, 1)
    if np.sqrt(left / logs.shape[1]) > tolerance:
        return None, int(rank), spare
    found = torch.from_numpy(solution)
    return LinearHead(found[:-1].T.contiguous(), found[-1]), int(rank), spare


def fit(
    features: Tensor, shown: Answers, classes: int, decays: tuple[float, ...]
) -> tuple[LinearHead, float]:
    """The head of least cross-entropy to the answers, and its decay.

    Each decay is judged on a fifth of the answers by a fit to the others.

    Args:
        features: n x d.
        shown: answers to the same images.
        classes: number of classes.
        decays: weights of the squared norm of the head, for features of unit variance.
    """
    targets, plain = _targets(shown, classes), features.double()
    scale, middle = plain.std(dim=0, correction=0), plain.mean(dim=0)
    scale = torch.where(scale > 0, scale, 1.0)
    inputs = _with_ones((plain - middle) / scale).numpy()
    held_out = np.arange(len(inputs)) % 5 == 4
    best = decays[0]
    if held_out.any():
        best = min(decays, key=partial(_held_out_loss, inputs, targets, held_out))
    solution = torch.from_numpy(_regression(inputs, targets, best))
    weight = (solution[:-1] / scale[:, None]).T.contiguous()
    return LinearHead(weight, solution[-1] - weight @ middle), best


def _targets(shown: Answers, classes: int) -> np.ndarray:
    """Probabilities, float64, n x classes; of labels 0 and 1."""
    full = usable(shown)
    if full.kind == "label":
        values = nn.functional.one_hot(full.values, classes)
    else:
        values = full.values.softmax(-1) if full.kind == "logits" else full.values
    targets: np.ndarray = values.double().numpy()
    return targets


def _held_out_loss(
    inputs: np.ndarray, targets: np.ndarray, held_out: np.ndarray, decay: float
) -> float:
    """Mean cross-entropy of held-out answers, in nats, of a fit to the others."""
    from scipy.special import log_softmax

    solution = _regression(inputs[~held_out], targets[~held_out], decay)
    logs = log_softmax(inputs[held_out] @ solution, axis=1)
    return float(-(targets[held_out] * logs).sum(axis=1).mean())


def _regression(inputs: np.ndarray, targets: np.ndarray, decay: float) -> np.ndarray:
    """Multinomial logistic regression on soft targets, (d + 1) x classes, without decay of biases.

    scikit-learn's takes classes only, so it would need each row as often as there are classes.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    shape = inputs.shape[1], targets.shape[1]
    decays = np.full((shape[0], 1), decay)
    decays[-1] = 0

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = flat.reshape(shape)
        logs = log_softmax(inputs @ solution, axis=1)
        value = -(targets * logs).sum() / len(inputs) + (decays * solution**2).sum()
        slope = inputs.T @ (np.exp(logs) - targets) / len(inputs) + 2 * decays * solution
        return float(value), slope.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
    solution: np.ndarray = found.x.reshape(shape)
    return solution


def _with_ones(features: Tensor) -> Tensor:
    """The features in float64, and a column of ones for the bias."""
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
