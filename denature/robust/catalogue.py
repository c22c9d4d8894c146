"""The attacks: each only proposes images, and `evaluate` checks in fp32 whether they fool."""

import functools
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from denature.attacks import Ball, cross_entropy, fgsm, margin, pgd
from denature.attacks.config import Norm
from denature.attacks.losses import Goal
from denature.core.errors import ConfigError, MissingExtra, unknown
from denature.core.types import Labels, Logits, PerExample, Pixels
from denature.robust.config import AttackConfig, EffortPreset
from denature.robust.target import AccessLevel, Attacked, allows


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackContext:
    """Target, effort and surrogate of an attack."""

    target: Attacked
    surrogate: Attacked | None
    """Another network, whose gradients a transfer attack follows."""
    preset: EffortPreset
    seed: int
    data: str
    """Digest of the data of the samples."""


Propose = Callable[[AttackContext, Pixels, Labels, float], Pixels]
"""From a context, rightly answered images, their labels and a budget to changed images."""


class Cost(NamedTuple):
    """Passes through a network that an attack needs."""

    gradients: float
    """Forward and backward passes."""
    answers: float = 0.0
    """Forward passes alone; of a black box, queries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """One entry of the catalogue."""

    about: str
    norm: str
    """linf, l2 or l0."""
    propose: Propose
    cost: Callable[[EffortPreset], Cost]
    """Cost of one image at one budget, at most."""
    needs: AccessLevel = "gradients"
    """Outputs that the target must show."""
    smallest: bool = False
    """Whether the attack minimises the change, so that no budget is needed."""
    only: float | None = None
    """A fixed budget, in place of the configured ones."""
    library: str | None = None
    """Library of the attack; None for our own attacks."""


def _fgsm(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    return fgsm(context.target, images, labels, Ball(epsilon=epsilon))


def _pgd(
    context: AttackContext, images: Pixels, labels: Labels, epsilon: float, *, norm: Norm = "linf",
    goal: Goal = cross_entropy,
) -> Pixels:  # fmt: skip
    ball = Ball(norm=norm, epsilon=epsilon)
    return pgd(context.target, images, labels, ball, steps=context.preset.steps, goal=goal)


def _rescaled(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """PGD on the cross-entropy of logits / T, whose softmax does not saturate."""
    temperature = context.target.temperature

    def goal(logits: Logits, labels: Labels) -> PerExample:
        return cross_entropy(logits / temperature, labels)

    return _pgd(context, images, labels, epsilon, goal=goal)


def _restarted(
    context: AttackContext, images: Pixels, labels: Labels, epsilon: float, *, norm: Norm
) -> Pixels:
    """PGD on the logits from several random starts; for each image the one of largest loss."""
    best, most = images, torch.full((len(images),), -torch.inf, device=images.device)
    for _ in range(RESTARTS):
        changed = _pgd(context, images, labels, epsilon, norm=norm, goal=margin)
        with torch.no_grad():
            reached = margin(context.target(changed), labels)
        further = reached > most
        best = torch.where(further[:, None, None, None], changed, best)
        most = torch.where(further, reached, most)
    return best


def _transfer(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """PGD against a surrogate network; the changed images are then tried on the target."""
    surrogate = context.surrogate
    assert surrogate is not None
    ball, device = Ball(epsilon=epsilon), surrogate.device
    images, labels = images.to(device), labels.to(device)
    return pgd(surrogate, images, labels, ball, steps=context.preset.steps, goal=margin)


def _ensemble(*names: str) -> Propose:
    """AutoAttack's named attacks, or its four (Croce and Hein 2020, arXiv:2003.01690)."""

    def propose(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
        with _library("pyautoattack"):
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


STANDARD_TARGETS = 9
"""Target classes of AutoAttack's targeted attacks, where there are as many other classes."""

DLR_CLASSES = 4
"""The targeted difference-of-logits ratio divides by the first logit less the mean of the third and
fourth; with fewer classes it is undefined."""


def _for_classes(classes: int) -> list[str]:
    """AutoAttack's standard attacks that are defined for this number of classes."""
    return ["apgd-ce", *["apgd-t"] * (classes >= DLR_CLASSES), "fab-t", "square"]


def left_out(name: str, classes: int) -> str:
    """Note on the part of an attack that needs more classes; empty for most attacks."""
    if name == "autoattack" and classes < DLR_CLASSES:
        return f"without APGD on the DLR loss, which needs {DLR_CLASSES} classes"
    return ""


def _foolbox(
    name: str, options: Callable[[EffortPreset], dict[str, Any]], **given: Pixels
) -> Propose:
    """An attack of Foolbox that minimises the change (Rauber et al. 2017, arXiv:1707.04131)."""

    def propose(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
        with _library("foolbox"):
            import foolbox
            from foolbox.models.pytorch import PyTorchModel

            model = PyTorchModel(context.target, bounds=(0, 1), device=context.target.device)
            attack = getattr(foolbox.attacks, name)(**options(context.preset))
            _, changed, _ = attack(model, images, labels, epsilons=None, **given)
        proposed: Pixels = changed.detach()
        return proposed

    return propose


def _decision(context: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """HopSkipJump (Chen et al. 2020, arXiv:1904.02144), from the nearest sample of another class.

    The library searches for a start in noise, a thousand times if noise always gets the same class.
    Here it searches twenty times, and only if no sample of another class is in the batch.
    """
    apart = torch.cdist(images.flatten(1), images.flatten(1))
    apart[labels[:, None] == labels[None, :]] = torch.inf
    if bool(apart.isinf().all(dim=1).any()):
        return _foolbox("HopSkipJumpAttack", _hop_options)(context, images, labels, epsilon)
    starts = images[apart.argmin(dim=1)]
    attack = _foolbox("HopSkipJumpAttack", _hop_options, starting_points=starts)
    return attack(context, images, labels, epsilon)


def _hop_options(preset: EffortPreset) -> dict[str, Any]:
    from foolbox.attacks.blended_noise import LinearSearchBlendedUniformNoiseAttack

    noise = LinearSearchBlendedUniformNoiseAttack(directions=20, steps=50)
    return {"steps": _hops(preset), "max_gradient_eval_steps": 1000, "init_attack": noise}


@contextmanager
def _library(name: str) -> Iterator[None]:
    """Silence the prints, logs and warnings of a library.

    Raises:
        MissingExtra: the library is not installed.
    """
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger(name).setLevel(logging.ERROR)
            yield
    except ImportError:
        raise MissingExtra(name, "attacks", "This attack") from None


def _steps(preset: EffortPreset) -> Cost:
    return Cost(preset.steps)


RESTARTS = 5


def _restarted_steps(preset: EffortPreset) -> Cost:
    return Cost(RESTARTS * preset.steps, RESTARTS)


def _hops(preset: EffortPreset) -> int:
    return max(4, preset.iterations // 40)


def _hop_cost(preset: EffortPreset) -> Cost:
    """Queries of HopSkipJump: those for a direction grow as the root of the step, plus searches."""
    return Cost(
        0, 200 + sum(min(1000, 100 * step**0.5) + 40 for step in range(1, _hops(preset) + 1))
    )


ATTACKS: Mapping[str, Attack] = {
    "fgsm": Attack(
        cost=lambda _: Cost(1),
        about="one step along the gradient of the cross-entropy",
        norm="linf",
        propose=_fgsm,
    ),
    "pgd": Attack(cost=_steps, about="many such steps", norm="linf", propose=_pgd),
    "pgd-unbounded": Attack(
        cost=_steps,
        about="many steps without a bound: a model that survives masks its gradients",
        norm="linf",
        propose=_pgd,
        only=1.0,
    ),
    "pgd-margin": Attack(
        cost=_steps,
        about="many steps on the logits, where no softmax can saturate",
        norm="linf",
        propose=functools.partial(_pgd, goal=margin),
    ),
    "pgd-rescaled": Attack(
        cost=_steps,
        about="many steps on logits divided by a temperature",
        norm="linf",
        propose=_rescaled,
    ),
    "pgd-l2": Attack(
        cost=_steps,
        about="many steps on the logits",
        norm="l2",
        propose=functools.partial(_pgd, norm="l2", goal=margin),
    ),
    "transfer": Attack(
        cost=_steps,
        about="adversarial examples of an undefended network",
        norm="linf",
        propose=_transfer,
        needs="labels",
    ),
    "square": Attack(
        cost=lambda preset: Cost(0, preset.queries),
        about="random squares, by the logits alone",
        norm="linf",
        propose=_ensemble("square"),
        needs="scores",
        library="pyautoattack",
    ),
    "deepfool": Attack(
        cost=lambda preset: Cost(10 * min(preset.iterations, 100)),  # ten classes a step
        about="towards the nearest decision boundary, taken as flat",
        norm="l2",
        propose=_foolbox("L2DeepFoolAttack", lambda preset: {"steps": min(preset.iterations, 100)}),
        smallest=True,
        library="foolbox",
    ),
    "carlini-wagner": Attack(
        cost=lambda preset: Cost(6 * preset.iterations),
        about="the smallest change by the logits, its weight searched for",
        norm="l2",
        propose=_foolbox(
            "L2CarliniWagnerAttack",
            lambda preset: {
                "steps": preset.iterations,
                "binary_search_steps": 6,
                "initial_const": 0.1,
                "stepsize": 0.02,
            },
        ),
        smallest=True,
        library="foolbox",
    ),
    "few-pixels": Attack(
        cost=lambda preset: Cost(preset.iterations),
        about="the fewest pixels, by fast minimum-norm steps",
        norm="l0",
        propose=_foolbox("L0FMNAttack", lambda preset: {"steps": preset.iterations}),
        smallest=True,
        library="foolbox",
    ),
    "decision": Attack(
        cost=_hop_cost,
        about="HopSkipJump, by the predicted class alone",
        norm="l2",
        propose=_decision,
        needs="labels",
        smallest=True,
        library="foolbox",
    ),
    "pgd-margin-restarts": Attack(
        cost=_restarted_steps,
        about="PGD on the logits from several random starts",
        norm="linf",
        propose=functools.partial(_restarted, norm="linf"),
    ),
    "pgd-l2-restarts": Attack(
        cost=_restarted_steps,
        about="PGD on the logits from several random starts",
        norm="l2",
        propose=functools.partial(_restarted, norm="l2"),
    ),
    "autoattack": Attack(
        cost=lambda _: Cost(2800, 5000),
        about="the standard ensemble",
        norm="linf",
        propose=_ensemble(),
        library="pyautoattack",
    ),
}


ENSEMBLES: Mapping[str, tuple[str, ...]] = {
    "linf": ("autoattack", "pgd-margin-restarts"),
    "l2": ("pgd-l2-restarts",),
}
"""By norm: the attacks of which "more robust" needs one, the strongest first."""

BLACK_BOX_ATTACKS = ("transfer", "square", "decision")
"""Attacks on a model that shows no gradients."""


def check_names(names: Iterable[str]) -> None:
    """Check that attacks of these names exist.

    Raises:
        ConfigError: a name is unknown.
    """
    for name in names:
        if name not in ATTACKS:
            raise unknown("attack", name, ATTACKS)


def chosen(config: AttackConfig, target: Attacked) -> tuple[str, ...]:
    """The attacks on a target: the configured ones, or those of the effort that work on it.

    A network that was trained at a temperature is always attacked by pgd-rescaled too.

    Raises:
        ConfigError: an attack is unknown, or does not work on the target.
    """
    check_names(config.attacks)
    usual = config.preset.attacks if target.shows == "gradients" else BLACK_BOX_ATTACKS
    working = [name for name in config.attacks or usual if allows(target, ATTACKS[name].needs)]
    if impossible := [name for name in config.attacks if name not in working]:
        offered = ",".join(name for name in ATTACKS if allows(target, ATTACKS[name].needs))
        raise ConfigError(
            f"{target.name} shows {target.shows} only, which is too little for "
            f"{', '.join(impossible)}. Attacks that work: --attacks {offered}."
        )
    if target.trained_at > 1 and "pgd-rescaled" not in working:
        working.append("pgd-rescaled")
    return tuple(working)


def budgets_of(name: str, config: AttackConfig, *, channels: int) -> tuple[float, ...]:
    """The budgets, rising, at which an attack is tried."""
    attack = ATTACKS[name]
    if attack.smallest:
        return (float("inf"),)
    if attack.only is not None:
        return (attack.only,)
    budgets = config.budgets(channels=channels)[attack.norm]
    if name == "autoattack":
        middle = len(budgets) // 2
        return budgets[middle : middle + max(1, config.preset.ensembles)]
    return budgets
