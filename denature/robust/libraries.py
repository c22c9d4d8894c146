"""Attacks of other libraries, which are imported when an attack runs: AutoAttack and Foolbox."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch

from denature.core.types import Labels, Pixels
from denature.robust.base import AttackContext, AttackCost, Propose
from denature.robust.config import AttackPreset

STANDARD_TARGETS = 9
"""Target classes of AutoAttack's targeted attacks, where there are as many other classes."""

DLR_CLASSES = 4
"""The targeted difference-of-logits ratio divides by the first logit less the mean of the third and
fourth; with fewer classes it is undefined."""


def autoattack(*names: str) -> Propose:
    """AutoAttack's named attacks, or its four (Croce and Hein 2020, arXiv:2003.01690)."""

    def propose(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
        with _silent("pyautoattack"):
            from pyautoattack import AutoAttack

            with torch.no_grad():
                classes = context.target(images[:1]).shape[1]
            attacks = list(names) or _for_classes(classes)
            ensemble = AutoAttack(
                context.target, norm="Linf", eps=epsilon, seed=context.seed,
                device=str(context.target.device), version="custom", attacks=attacks,
            )  # fmt: skip
            # The standard version's other settings are the library's defaults; see its source.
            ensemble.apgd.n_restarts = 1
            ensemble.fab.n_restarts = 1
            targets = min(STANDARD_TARGETS, classes - 1)
            ensemble.apgd_targeted.n_target_classes = targets
            ensemble.fab.n_target_classes = targets
            if names == ("square",):
                ensemble.square.n_queries = context.preset.queries
            result: Any = ensemble.run_standard_evaluation(images, labels, batch_size=len(images))
            changed: Pixels = result[0] if isinstance(result, tuple) else result
        return changed

    return propose


def _for_classes(classes: int) -> list[str]:
    """AutoAttack's standard attacks that are defined for this number of classes."""
    return ["apgd-ce", *["apgd-t"] * (classes >= DLR_CLASSES), "fab-t", "square"]


def left_out(name: str, classes: int) -> str:
    """Note on the part of an attack that needs more classes; empty for most attacks."""
    if name == "autoattack" and classes < DLR_CLASSES:
        return f"without APGD on the DLR loss, which needs {DLR_CLASSES} classes"
    return ""


def foolbox_attack(
    name: str, options: Callable[[AttackPreset], dict[str, Any]], **given: Pixels
) -> Propose:
    """An attack of Foolbox that minimises the change (Rauber et al. 2017, arXiv:1707.04131)."""

    def propose(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
        with _silent("foolbox"):
            import foolbox
            from foolbox.models.pytorch import PyTorchModel

            model = PyTorchModel(context.target, bounds=(0, 1), device=context.target.device)
            attack = getattr(foolbox.attacks, name)(**options(context.preset))
            _, changed, _ = attack(model, images, labels, epsilons=None, **given)
        proposed: Pixels = changed.detach()
        return proposed

    return propose


def decision(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """HopSkipJump (Chen et al. 2020, arXiv:1904.02144), from the nearest sample of another class.

    The library searches for a start in noise, a thousand times if noise always gets the same class.
    Here it searches twenty times, and only if no sample of another class is in the batch.
    """
    apart = torch.cdist(images.flatten(1), images.flatten(1))
    apart[labels[:, None] == labels[None, :]] = torch.inf
    if bool(apart.isinf().all(dim=1).any()):
        return foolbox_attack("HopSkipJumpAttack", _hop_options)(context, images, labels, epsilon)
    starts = images[apart.argmin(dim=1)]
    attack = foolbox_attack("HopSkipJumpAttack", _hop_options, starting_points=starts)
    return attack(context, images, labels, epsilon)


def _hop_options(preset: AttackPreset) -> dict[str, Any]:
    from foolbox.attacks.blended_noise import LinearSearchBlendedUniformNoiseAttack

    noise = LinearSearchBlendedUniformNoiseAttack(directions=20, steps=50)
    return {"steps": _hops(preset), "max_gradient_eval_steps": 1000, "init_attack": noise}


@contextmanager
def _silent(library: str) -> Iterator[None]:
    """Silence the prints, logs and warnings of a library."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger(library).setLevel(logging.ERROR)
        yield


def _hops(preset: AttackPreset) -> int:
    return max(4, preset.iterations // 40)


def hop_cost(preset: AttackPreset) -> AttackCost:
    """Queries of HopSkipJump: those for a direction grow as the root of the step, plus searches."""
    return AttackCost(
        0, 200 + sum(min(1000, 100 * step**0.5) + 40 for step in range(1, _hops(preset) + 1))
    )
