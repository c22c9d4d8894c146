"""How fast perturbing defenses are, in ratios of things measured in turns in one run.

    python -m benchmarks.defenses [--json FILE] [--device cpu] [--quick] [--cpu-time]

MAD, gradient redirection and ModelGuard-W with 100 classes, in batches of 512 answers, against
plain code that takes one query after another: the gradient of each class by autograd, and a solver
of linear programmes. Surrogates are `cnn` and `mlp` with random weights, in fp32 and in our memory
layout; their forward passes are part of both sides. Images are random bytes of the shape of
CIFAR-10. Before anything is timed, both sides are compared. *Pass alone* is the surrogate's forward
pass over the batch, which no way to compute a defense can be faster than; *without passes* leaves
them out of both sides. `--cpu-time` measures the time of the processor on one thread, as on a busy
machine.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench import Bench
from denature.answers.answerer import Answers
from denature.core.compute import resolve
from denature.core.memory import keep_freed_memory
from denature.defenses.base import Chain, Context, Defense
from denature.defenses.gradient_redirection import GradientRedirection
from denature.defenses.mad import MAD
from denature.defenses.modelguard_w import ModelGuardW
from denature.nets import create

BATCH, CLASSES = 512, 100

WANTED = {
    "mad_mlp": "answers/s, MAD, surrogate `mlp` | Jacobian of the last layer by query | >= 100",
    "mad_cnn": "the same, `cnn` | the same | ",
    "pass_mlp": "images/s, pass alone, `mlp` | the same | ",
    "pass_cnn": "the same, `cnn` | the same | ",
    "mad_without": "answers/s, MAD without passes | the same without its pass, `cnn` | >= 100",
    "redirection_mlp": "answers/s, redirection, `mlp` | gradients of all classes by query | >= 100",
    "redirection_cnn": "the same, `cnn` | the same | >= 100",
    "redirection_twice_mlp": "the same, `mlp` | a double backward pass by query | ",
    "redirection_twice_cnn": "the same, `cnn` | the same | ",
    "modelguard_w": "answers/s, ModelGuard-W | a linear programme by query | >= 100",
}

EPSILON = 1.0


def last_weights(network: nn.Module) -> Tensor:
    return [parameter for parameter in network.parameters() if parameter.ndim == 2][-1]


def log_probabilities(network: nn.Module, pixels: Tensor) -> Iterator[Tensor]:
    return (network(image[None]).log_softmax(1)[0] for image in pixels)


def mad_by_query(network: nn.Module, pixels: Tensor, answers: Tensor) -> Tensor:
    return mad_of(log_probabilities(network, pixels), last_weights(network), answers)


def mad_of(log_probabilities: Iterable[Tensor], last: Tensor, answers: Tensor) -> Tensor:
    """MAD with the Jacobian of the last layer's weights and the objective at every vertex."""
    shown = []
    for log_p, answer in zip(log_probabilities, answers, strict=True):
        rows = [torch.autograd.grad(v, last, retain_graph=True)[0].flatten() for v in log_p]
        jacobian = torch.stack(rows)
        true = F.normalize(answer.float() @ jacobian, dim=0)
        turns = [(F.normalize(row, dim=0) - true).square().sum() for row in jacobian]
        target = F.one_hot(torch.stack(turns).argmax(), CLASSES)
        share = min(1.0, EPSILON / float((answer - target).abs().sum()))
        shown.append((1 - share) * answer + share * target)
    return torch.stack(shown)


def moved(answer: Tensor, coefficients: Tensor) -> Tensor:
    """The greedy move of mass to the class of the largest coefficient."""
    order = coefficients.argsort().tolist()
    shown, left = answer.clone(), min(EPSILON / 2, 1 - float(answer[order[-1]]))
    shown[order[-1]] += left
    for giver in order[:-1]:
        amount = min(left, float(shown[giver]))
        shown[giver] -= amount
        left -= amount
    return shown


def redirection_by_class(network: nn.Module, pixels: Tensor, answers: Tensor) -> Tensor:
    """Redirection with the gradient of each class."""
    parameters, shown = list(network.parameters()), []
    for image, answer in zip(pixels, answers, strict=True):
        log_p = network(image[None]).log_softmax(1)[0]
        found = []
        for value in log_p:
            gradient = torch.autograd.grad(value, parameters, retain_graph=True)
            found.append(torch.stack([g.sum() for g in gradient]).sum())
        shown.append(moved(answer, torch.stack(found)))
    return torch.stack(shown)


def redirection_twice(network: nn.Module, pixels: Tensor, answers: Tensor) -> Tensor:
    """Redirection with the derivative of a gradient by the answer."""
    parameters, shown = list(network.parameters()), []
    for image, answer in zip(pixels, answers, strict=True):
        log_p = network(image[None]).log_softmax(1)[0]
        y = answer.to(log_p.dtype).requires_grad_()
        gradient = torch.autograd.grad((y * log_p).sum(), parameters, create_graph=True)
        along = torch.stack([g.sum() for g in gradient]).sum()
        shown.append(moved(answer, torch.autograd.grad(along, y)[0]))
    return torch.stack(shown)


def programme_by_query(answers: Tensor) -> Tensor:
    """ModelGuard-W by a solver: variables are the answer and its distances from the true one."""
    one, zero = np.eye(CLASSES), np.zeros((CLASSES, CLASSES))
    ball = np.vstack([np.hstack([one, -one]), np.hstack([-one, -one])])
    length = np.hstack([zero[0], one.sum(0)])[None]
    total = np.hstack([one.sum(0), zero[0]])[None]
    shown = []
    for y in answers.numpy():
        top = int(y.argmax())
        lead = np.hstack([np.delete(one, top, axis=0) - one[top], zero[1:]])
        found = linprog(
            np.concatenate([np.log(y + 1e-6), zero[0]]),
            np.vstack([ball, length, lead]),
            np.concatenate([y, -y, [EPSILON], np.full(CLASSES - 1, -1e-4)]),
            total, [1.0], bounds=(0, None),
        )  # fmt: skip
        shown.append(found.x[:CLASSES])
    return torch.from_numpy(np.stack(shown))


Plain = Callable[[Tensor, Tensor], Tensor]
"""From images and true answers to shown ones, one after another."""


def compare(
    bench: Bench, key: str, defense: Defense, network: nn.Module, pixels: Tensor, true: Tensor,
    plain: Plain, count: int,
) -> None:  # fmt: skip
    """Check that a defense and its plain code show the same, and time both; `count` plain ones."""
    stream = Chain((defense,)).start({} if defense.role is None else {defense.role: network})
    answers = Answers("probabilities", true)

    def ours() -> int:
        stream(answers, pixels)
        return len(true)

    def theirs() -> int:
        plain(pixels[:count], true[:count])
        return count

    apart = stream(answers, pixels).values[:count] - plain(pixels[:count], true[:count])
    assert apart.abs().max() < 1e-4, f"{key}: the answers differ by {apart.abs().max()}"
    bench.compare(key, ours, theirs)


def compare_passes(
    bench: Bench, name: str, network: nn.Module, pixels: Tensor, true: Tensor
) -> None:
    """Time the surrogate's forward pass beside MAD by query, and MAD with no pass on both sides."""

    def forward() -> int:
        with torch.no_grad():
            network(pixels)
        return len(pixels)

    def by_query() -> int:
        mad_by_query(network, pixels[:4], true[:4])
        return 4

    bench.compare(f"pass_{name}", forward, by_query)
    if name != "cnn":
        return
    mad, answers = MAD(epsilon=EPSILON), Answers("probabilities", true)
    context = Context(mad.look(network, pixels))
    before = list(log_probabilities(network, pixels[:4]))

    def change() -> int:
        mad(answers, context)
        return len(true)

    def change_by_query() -> int:
        mad_of(before, last_weights(network), true[:4])
        return 4

    bench.compare("mad_without", change, change_by_query)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, to see that it runs")
    parser.add_argument("--cpu-time", action="store_true", help="of one thread, not wall clock")
    given = parser.parse_args()
    if given.cpu_time:
        torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    bytes_ = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    true = (3 * torch.randn(BATCH, CLASSES, dtype=torch.float64)).softmax(1)
    compute = resolve(create("mlp", classes=CLASSES), device=given.device, precision="fp32")
    clock = time.thread_time if given.cpu_time else time.perf_counter
    bench = Bench(compute.device, repeats=2 if given.quick else 7, clock=clock)
    for name in ("mlp", "cnn"):
        network = create(name, classes=CLASSES)
        placed = resolve(network, device=given.device, precision="fp32")
        network, pixels = placed.place(network).eval(), placed.pixels(bytes_.to(placed.device))
        for key, defense, plain, count in (
            ("mad", MAD(epsilon=EPSILON), mad_by_query, 4),
            ("redirection", GradientRedirection(epsilon=EPSILON), redirection_by_class, 2),
            ("redirection_twice", GradientRedirection(epsilon=EPSILON), redirection_twice, 8),
        ):
            one_by_one = partial(plain, network)
            compare(bench, f"{key}_{name}", defense, network, pixels, true, one_by_one, count)
        compare_passes(bench, name, network, pixels, true)

    def programme(_: Tensor, answers: Tensor) -> Tensor:
        return programme_by_query(answers)

    weak = ModelGuardW(epsilon=EPSILON)
    compare(bench, "modelguard_w", weak, nn.Identity(), pixels, true, programme, 8)
    bench.finish(WANTED, given.json, device=compute.hardware, threads=torch.get_num_threads(),
                 clock="cpu time" if given.cpu_time else "wall clock")  # fmt: skip


if __name__ == "__main__":
    main()
