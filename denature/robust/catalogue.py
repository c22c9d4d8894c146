"""The attacks. Each only proposes images: whether they fool is looked at by `evaluate`, in fp32."""

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
    """Who is attacked, how hard, and who else may help."""

    target: Attacked
    surrogate: Attacked | None
    """Another network, whose gradients a transfer follows."""
    preset: EffortPreset
    seed: int
    data: str
    """Digest of the data that the samples are of."""


Propose = Callable[[AttackContext, Pixels, Labels, float], Pixels]
"""From a scene, images that are answered rightly, their labels and a budget to changed images."""


class Cost(NamedTuple):
    """What an attack asks of a network."""

    gradients: float
    """Passes forward and back."""
    answers: float = 0.0
    """Passes forward alone: of a black box, queries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """One line of the catalogue."""

    about: str
    norm: str
    """linf, l2 or l0."""
    propose: Propose
    cost: Callable[[EffortPreset], Cost]
    """Of one image at one budget, at most."""
    needs: AccessLevel = "gradients"
    """What the target must show."""
    smallest: bool = False
    """Looks for the smallest change, so that no budget is needed."""
    only: float | None = None
    """A budget of its own, whatever was asked for."""
    library: str | None = None
    """Whose it is; None for ours."""


def _fgsm(scene: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    return fgsm(scene.target, images, labels, Ball(epsilon=epsilon))


def _pgd(
    scene: AttackContext, images: Pixels, labels: Labels, epsilon: float, *, norm: Norm = "linf",
    goal: Goal = cross_entropy,
) -> Pixels:  # fmt: skip
    ball = Ball(norm=norm, epsilon=epsilon)
    return pgd(scene.target, images, labels, ball, steps=scene.preset.steps, goal=goal)


def _rescaled(scene: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """PGD on the cross-entropy of logits / T: with the temperature put back nothing saturates."""
    temperature = scene.target.temperature

    def goal(logits: Logits, labels: Labels) -> PerExample:
        return cross_entropy(logits / temperature, labels)

    return _pgd(scene, images, labels, epsilon, goal=goal)


def _restarted(
    scene: AttackContext, images: Pixels, labels: Labels, epsilon: float, *, norm: Norm
) -> Pixels:
    """PGD on the logits from several random starts; of each image the one that came furthest."""
    best, most = images, torch.full((len(images),), -torch.inf, device=images.device)
    for _ in range(RESTARTS):
        changed = _pgd(scene, images, labels, epsilon, norm=norm, goal=margin)
        with torch.no_grad():
            reached = margin(scene.target(changed), labels)
        further = reached > most
        best = torch.where(further[:, None, None, None], changed, best)
        most = torch.where(further, reached, most)
    return best


def _transfer(scene: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """PGD against another network; its images are then shown to the target."""
    surrogate = scene.surrogate
    assert surrogate is not None
    ball, there = Ball(epsilon=epsilon), surrogate.device
    images, labels = images.to(there), labels.to(there)
    return pgd(surrogate, images, labels, ball, steps=scene.preset.steps, goal=margin)


def _ensemble(*names: str) -> Propose:
    """Some of AutoAttack's attacks, or its four (Croce and Hein 2020, arXiv:2003.01690)."""

    def propose(scene: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
        with _library("pyautoattack"):
            from pyautoattack import AutoAttack

            with torch.no_grad():
                classes = scene.target(images[:1]).shape[1]
            which = list(names) or _for_classes(classes)
            made = AutoAttack(
                scene.target, norm="Linf", eps=epsilon, seed=scene.seed,
                device=str(scene.target.device), version="custom", attacks=which,
            )  # fmt: skip
            # The standard version's other settings are the library's defaults; see its source.
            made.apgd.n_restarts = 1
            made.fab.n_restarts = 1
            targets = min(STANDARD_TARGETS, classes - 1)
            made.apgd_targeted.n_target_classes = made.fab.n_target_classes = targets
            if names == ("square",):
                made.square.n_queries = scene.preset.queries
            found: Any = made.run_standard_evaluation(images, labels, batch_size=len(images))
            changed: Pixels = found[0] if isinstance(found, tuple) else found
        return changed

    return propose


STANDARD_TARGETS = 9
"""Classes that AutoAttack's targeted attacks try, where there are as many others."""

DLR_CLASSES = 4
"""The targeted difference-of-logits ratio divides by the first logit less the mean of the third and
fourth; with fewer classes there is none."""


def _for_classes(classes: int) -> list[str]:
    """AutoAttack's standard attacks, as far as so many classes allow them."""
    return ["apgd-ce", *["apgd-t"] * (classes >= DLR_CLASSES), "fab-t", "square"]


def left_out(name: str, classes: int) -> str:
    """What of an attack cannot be run on so few classes, as a note; empty for most."""
    if name == "autoattack" and classes < DLR_CLASSES:
        return f"without APGD on the DLR loss, which needs {DLR_CLASSES} classes"
    return ""


def _foolbox(
    name: str, options: Callable[[EffortPreset], dict[str, Any]], **given: Pixels
) -> Propose:
    """An attack of Foolbox for the smallest change (Rauber et al. 2017, arXiv:1707.04131)."""

    def propose(scene: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
        with _library("foolbox"):
            import foolbox
            from foolbox.models.pytorch import PyTorchModel

            model = PyTorchModel(scene.target, bounds=(0, 1), device=scene.target.device)
            attack = getattr(foolbox.attacks, name)(**options(scene.preset))
            _, changed, _ = attack(model, images, labels, epsilons=None, **given)
        found: Pixels = changed.detach()
        return found

    return propose


def _decision(scene: AttackContext, images: Pixels, labels: Labels, epsilon: float) -> Pixels:
    """HopSkipJump (Chen et al. 2020, arXiv:1904.02144), from the nearest sample of another class.

    The library looks for a start in noise, a thousand times where noise is always the same class;
    here it looks twenty times, and only where there is no sample of another class.
    """
    apart = torch.cdist(images.flatten(1), images.flatten(1))
    apart[labels[:, None] == labels[None, :]] = torch.inf
    if bool(apart.isinf().all(dim=1).any()):
        return _foolbox("HopSkipJumpAttack", _hop_options)(scene, images, labels, epsilon)
    starts = images[apart.argmin(dim=1)]
    follow = _foolbox("HopSkipJumpAttack", _hop_options, starting_points=starts)
    return follow(scene, images, labels, epsilon)


def _hop_options(trouble: EffortPreset) -> dict[str, Any]:
    from foolbox.attacks.blended_noise import LinearSearchBlendedUniformNoiseAttack

    noise = LinearSearchBlendedUniformNoiseAttack(directions=20, steps=50)
    return {"steps": _hops(trouble), "max_gradient_eval_steps": 1000, "init_attack": noise}


@contextmanager
def _library(name: str) -> Iterator[None]:
    """Somebody else's code, which prints, logs and warns."""
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger(name).setLevel(logging.ERROR)
            yield
    except ImportError:
        raise MissingExtra(name, "attacks", "This attack") from None


def _steps(trouble: EffortPreset) -> Cost:
    return Cost(trouble.steps)


RESTARTS = 5


def _restarted_steps(trouble: EffortPreset) -> Cost:
    return Cost(RESTARTS * trouble.steps, RESTARTS)


def _hops(trouble: EffortPreset) -> int:
    return max(4, trouble.iterations // 40)


def _hop_cost(trouble: EffortPreset) -> Cost:
    """HopSkipJump's estimate of a direction grows as the root of the steps; around it searches."""
    return Cost(
        0, 200 + sum(min(1000, 100 * step**0.5) + 40 for step in range(1, _hops(trouble) + 1))
    )


ATTACKS: Mapping[str, Attack] = {
    "fgsm": Attack(
        cost=lambda _: Cost(1),
        about="one step along the gradient of the cross-entropy",
        norm="linf",
        propose=_fgsm,
    ),
    "pgd": Attack(cost=_steps, about="many steps of it", norm="linf", propose=_pgd),
    "pgd-unbounded": Attack(
        cost=_steps,
        about="many steps with any image allowed: who does not fall here hides his gradients",
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
        about="many steps with the temperature put back",
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
        about="what fools an undefended network",
        norm="linf",
        propose=_transfer,
        needs="labels",
    ),
    "square": Attack(
        cost=lambda it: Cost(0, it.queries),
        about="random squares, by the logits alone",
        norm="linf",
        propose=_ensemble("square"),
        needs="scores",
        library="pyautoattack",
    ),
    "deepfool": Attack(
        cost=lambda it: Cost(10 * min(it.iterations, 100)),  # ten classes a step
        about="towards the nearest border, taken for flat",
        norm="l2",
        propose=_foolbox("L2DeepFoolAttack", lambda it: {"steps": min(it.iterations, 100)}),
        smallest=True,
        library="foolbox",
    ),
    "carlini-wagner": Attack(
        cost=lambda it: Cost(6 * it.iterations),
        about="the smallest change by the logits, its weight searched for",
        norm="l2",
        propose=_foolbox(
            "L2CarliniWagnerAttack",
            lambda it: {
                "steps": it.iterations,
                "binary_search_steps": 6,
                "initial_const": 0.1,
                "stepsize": 0.02,
            },
        ),
        smallest=True,
        library="foolbox",
    ),
    "few-pixels": Attack(
        cost=lambda it: Cost(it.iterations),
        about="the fewest pixels, by fast minimum-norm steps",
        norm="l0",
        propose=_foolbox("L0FMNAttack", lambda it: {"steps": it.iterations}),
        smallest=True,
        library="foolbox",
    ),
    "decision": Attack(
        cost=_hop_cost,
        about="HopSkipJump, by the answered class alone",
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
"""By norm the attacks that "more robust" needs one of, the strongest first."""

BLACK_BOX_ATTACKS = ("transfer", "square", "decision")
"""What can be tried on somebody who shows no gradients."""


def check_names(names: Iterable[str]) -> None:
    """Whether there are such attacks.

    Raises:
        ConfigError: one is not there.
    """
    for name in names:
        if name not in ATTACKS:
            raise unknown("attack", name, ATTACKS)


def chosen(asked: AttackConfig, target: Attacked) -> tuple[str, ...]:
    """The attacks on somebody: those that were asked for, or those of the effort that work there.

    Who was trained at a temperature is always attacked with it put back, too.

    Raises:
        ConfigError: an attack that there is not, or that does not work there.
    """
    check_names(asked.attacks)
    usual = asked.preset.attacks if target.shows == "gradients" else BLACK_BOX_ATTACKS
    working = [it for it in asked.attacks or usual if allows(target, ATTACKS[it].needs)]
    if impossible := [it for it in asked.attacks if it not in working]:
        offered = ", ".join(it for it in ATTACKS if allows(target, ATTACKS[it].needs))
        raise ConfigError(
            f"{target.name} shows {target.shows} only, and {', '.join(impossible)} cannot do with "
            f"that. What works there: --attacks {offered.replace(' ', '')}."
        )
    if target.trained_at > 1 and "pgd-rescaled" not in working:
        working.append("pgd-rescaled")
    return tuple(working)


def budgets_of(name: str, asked: AttackConfig, *, channels: int) -> tuple[float, ...]:
    """The budgets, rising, at which an attack is tried."""
    attack = ATTACKS[name]
    if attack.smallest:
        return (float("inf"),)
    if attack.only is not None:
        return (attack.only,)
    wanted = asked.budgets(channels=channels)[attack.norm]
    if name == "autoattack":
        middle = len(wanted) // 2
        return wanted[middle : middle + max(1, asked.preset.ensembles)]
    return wanted
