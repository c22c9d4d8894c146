"""Defenses as a reader of their papers would write them down: one answer after another, in lists.

Each function maps answers, in the order in which they are shown, to the shown ones. The first
arguments are those of `Plain`; the options of the defense follow.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from denature.answers.kinds import AnswerKind
from denature.core.seeds import generator

Row: TypeAlias = list[float]

Plain: TypeAlias = Callable[[list[Any], AnswerKind, Any], list[Any]]
"""From answers as nested lists, their kind, and what the defender's network says of the images (or
None), to the shown answers."""

NAN = float("nan")


def softmax(row: Row) -> Row:
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / math.fsum(weights) for weight in weights]


def scaled(row: Row) -> Row:
    total = math.fsum(row)
    return [value / total for value in row]


def distribution(row: Row, kind: AnswerKind) -> Row:
    return softmax(row) if kind == "logits" else row


def first_of_largest(row: Row) -> int:
    return row.index(max(row))


def label_only(rows: list[Any], kind: AnswerKind, _: Any) -> list[Any]:
    return rows if kind == "label" else [first_of_largest(row) for row in rows]


def top_k(rows: list[Row], kind: AnswerKind, _: Any, *, k: int, renormalise: bool = False) -> Any:
    shown = []
    for row in rows:
        kept = sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
        total = math.fsum(row[c] for c in kept) if renormalise else 1
        shown.append([row[c] / total if c in kept else NAN for c in range(len(row))])
    return shown


def sparse_logits(rows: list[Row], kind: AnswerKind, _: Any, *, percent: int) -> list[Row]:
    shown: list[Row] = top_k(rows, kind, _, k=max(1, percent * len(rows[0]) // 100))
    return shown


def temperature(rows: list[Row], kind: AnswerKind, _: Any, *, temperature: float) -> list[Row]:
    if kind == "logits":
        return [[value / temperature for value in row] for row in rows]
    return [scaled([value ** (1 / temperature) for value in row]) for row in rows]


def reverse_sigmoid(
    rows: list[Row], kind: AnswerKind, _: Any, *, beta: float, gamma: float
) -> list[Row]:
    def f(y: float) -> float:
        if y in (0, 1):
            return y - beta * (y - 0.5)
        sigmoid = 1 / (1 + math.exp(-gamma * math.log(y / (1 - y))))
        return max(0, y - beta * (sigmoid - 0.5))

    return [scaled([f(y) for y in distribution(row, kind)]) for row in rows]


def gaussian_noise(
    rows: list[Row], kind: AnswerKind, _: Any, *, scale: float, space: str = "scores", seed: int = 0
) -> list[Row]:
    random = generator(seed, "defense", "gaussian-noise")
    shown = []
    for row in rows:
        noise = [scale * random.standard_normal() for _ in row]
        if kind == "logits":
            shown.append([value + n for value, n in zip(row, noise, strict=True)])
            continue
        if space == "log-odds":
            odds = [y / (1 - y) * math.exp(n) for y, n in zip(row, noise, strict=True)]
            shown.append(scaled([o / (1 + o) for o in odds]))
            continue
        noisy = [value + n for value, n in zip(row, noise, strict=True)]
        if max(noisy) <= 0:
            shown.append([float(c == first_of_largest(noisy)) for c in range(len(row))])
        else:
            shown.append(scaled([max(0, value) for value in noisy]))
    return shown


def dirichlet_noise(
    rows: list[Row], kind: AnswerKind, _: Any, *, concentration: float, seed: int = 0
) -> list[Row]:
    random = generator(seed, "defense", "dirichlet-noise")
    shown = []
    for row in rows:
        shapes = [concentration * y for y in distribution(row, kind)]
        above_one = [random.standard_gamma(shape + 1) for shape in shapes]
        uniform = [math.exp(-random.standard_gamma(1)) for _ in shapes]
        gammas = zip(above_one, uniform, shapes, strict=True)
        shown.append(scaled([g * u ** (1 / shape) for g, u, shape in gammas]))
    return shown


def modelguard_s(rows: list[Row], kind: AnswerKind, _: Any, *, epsilon: float) -> list[Row]:
    books: dict[int, list[Row]] = {}
    shown = []
    for row in rows:
        answer = distribution(row, kind)
        book = books.setdefault(first_of_largest(row), [])
        for codeword in book:
            if np.linalg.norm(np.subtract(codeword, answer), ord=1) <= epsilon:
                break
        else:
            book.append(codeword := answer)
        shown.append(codeword)
    return shown
