"""The catalogue of attacks, and which of them an evaluation runs at which budgets."""

import functools
from collections.abc import Iterable, Mapping

from denature.attacks import margin
from denature.core.errors import ConfigError, unknown
from denature.robust.base import Attack, AttackCost
from denature.robust.config import AttackConfig
from denature.robust.gradients import (
    fast_gradient,
    pgd_cost,
    projected_gradient,
    rescaled,
    restarted,
    restarted_cost,
    transfer,
)
from denature.robust.libraries import autoattack, decision, foolbox_attack, hop_cost
from denature.robust.target import Attacked, allows

ATTACKS: Mapping[str, Attack] = {
    "fgsm": Attack(
        cost=lambda _: AttackCost(1),
        about="one step along the gradient of the cross-entropy",
        norm="linf",
        propose=fast_gradient,
    ),
    "pgd": Attack(cost=pgd_cost, about="many such steps", norm="linf", propose=projected_gradient),
    "pgd-unbounded": Attack(
        cost=pgd_cost,
        about="many steps without a bound: a model that survives masks its gradients",
        norm="linf",
        propose=projected_gradient,
        only=1.0,
    ),
    "pgd-margin": Attack(
        cost=pgd_cost,
        about="many steps on the logits, where no softmax can saturate",
        norm="linf",
        propose=functools.partial(projected_gradient, goal=margin),
    ),
    "pgd-rescaled": Attack(
        cost=pgd_cost,
        about="many steps on logits divided by a temperature",
        norm="linf",
        propose=rescaled,
    ),
    "pgd-l2": Attack(
        cost=pgd_cost,
        about="many steps on the logits",
        norm="l2",
        propose=functools.partial(projected_gradient, norm="l2", goal=margin),
    ),
    "transfer": Attack(
        cost=pgd_cost,
        about="adversarial examples of an undefended network",
        norm="linf",
        propose=transfer,
        needs="labels",
    ),
    "square": Attack(
        cost=lambda preset: AttackCost(0, preset.queries),
        about="random squares, by the logits alone",
        norm="linf",
        propose=autoattack("square"),
        needs="scores",
    ),
    "deepfool": Attack(
        cost=lambda preset: AttackCost(10 * min(preset.iterations, 100)),  # ten classes a step
        about="towards the nearest decision boundary, taken as flat",
        norm="l2",
        propose=foolbox_attack(
            "L2DeepFoolAttack", lambda preset: {"steps": min(preset.iterations, 100)}
        ),
        smallest=True,
    ),
    "carlini-wagner": Attack(
        cost=lambda preset: AttackCost(6 * preset.iterations),
        about="the smallest change by the logits, its weight searched for",
        norm="l2",
        propose=foolbox_attack(
            "L2CarliniWagnerAttack",
            lambda preset: {
                "steps": preset.iterations,
                "binary_search_steps": 6,
                "initial_const": 0.1,
                "stepsize": 0.02,
            },
        ),
        smallest=True,
    ),
    "few-pixels": Attack(
        cost=lambda preset: AttackCost(preset.iterations),
        about="the fewest pixels, by fast minimum-norm steps",
        norm="l0",
        propose=foolbox_attack("L0FMNAttack", lambda preset: {"steps": preset.iterations}),
        smallest=True,
    ),
    "decision": Attack(
        cost=hop_cost,
        about="HopSkipJump, by the predicted class alone",
        norm="l2",
        propose=decision,
        needs="labels",
        smallest=True,
    ),
    "pgd-margin-restarts": Attack(
        cost=restarted_cost,
        about="PGD on the logits from several random starts",
        norm="linf",
        propose=functools.partial(restarted, norm="linf"),
    ),
    "pgd-l2-restarts": Attack(
        cost=restarted_cost,
        about="PGD on the logits from several random starts",
        norm="l2",
        propose=functools.partial(restarted, norm="l2"),
    ),
    "autoattack": Attack(
        cost=lambda _: AttackCost(2800, 5000),
        about="the standard ensemble",
        norm="linf",
        propose=autoattack(),
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
