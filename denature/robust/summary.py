"""The outcomes of an evaluation as shares with intervals, for reports and JSON."""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from denature.core.stats import Estimate, mean_over_images, proportion
from denature.robust.catalogue import ATTACKS
from denature.robust.config import AttackConfig, format_budget
from denature.robust.libraries import left_out
from denature.robust.outcomes import AttackOutcome, EvaluationData
from denature.robust.target import AccessLevel

FEWEST = 5
"""Distances of which a mean is told: the interval of fewer holds the true one too rarely."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackResult:
    """One attack's shares and distances, for reports and JSON."""

    name: str
    norm: str
    robust: dict[str, Estimate]
    """By budget: the share of samples that stay right, over those on which the attack ran before
    the query budget was spent. Empty for an attack that crashed: its survivors are no sample."""
    smallest: Estimate | None
    """Mean distance of the adversarial examples, for an attack that minimises the change."""
    fooled: int
    """Samples with an adversarial example at any distance."""
    not_run: int
    """Samples on which the attack did not run; they count nowhere."""
    seconds: float
    error: str = ""
    crashed: bool = False
    """Whether the attack itself failed; it then has no share, and no verdict rests on it."""
    note: str = ""
    """Part of the attack that could not run on this data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Robustness:
    """Robustness of one network under all attacks."""

    run: str
    net: str
    kind: str
    digest: str
    shows: AccessLevel
    """Outputs that attacks could see."""
    trained_at: float
    """The training temperature."""
    attack_temperature: float
    """Divisor of the logits in pgd-rescaled."""
    shows_probabilities: bool
    gap: float
    """Median of the largest logit less the second."""
    flat: float
    """Share of the samples on which the gradient of the cross-entropy is 0 or not finite."""
    samples: tuple[int, ...]
    """Rows of the test split."""
    clean: Estimate
    attacks: tuple[AttackResult, ...]
    worst: dict[str, dict[str, Estimate]]
    """By norm and budget: the share that stays right against all attacks that ran, over the samples
    on which all of them ran; empty for norms in which no attack ran."""
    effort: str
    seed: int
    environment: dict[str, object] = field(default_factory=dict)
    chosen_on_test: bool = False
    """Whether the network's epoch was chosen by the test images, which it is attacked on."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)


def summary(
    evidence: EvaluationData, config: AttackConfig, environment: dict[str, object]
) -> Robustness:
    """The outcomes as shares with intervals."""
    target, right = evidence.target, evidence.right
    return Robustness(
        run=target.name,
        net=target.net,
        kind=target.kind,
        digest=target.digest,
        shows=target.shows,
        trained_at=target.trained_at,
        attack_temperature=target.temperature,
        shows_probabilities=target.shows_probabilities,
        gap=target.gap,
        flat=float(evidence.flat.mean()),
        samples=tuple(evidence.rows.tolist()),
        clean=proportion(int(right.sum()), len(right)),
        attacks=tuple(_result(evidence, outcome) for outcome in evidence.tried.values()),
        worst=_worst(evidence),
        effort=config.effort,
        seed=config.seed,
        environment=environment,
        chosen_on_test=target.chosen_on_test,
    )


def _result(evidence: EvaluationData, outcome: AttackOutcome) -> AttackResult:
    name, attack, right = outcome.name, ATTACKS[outcome.name], evidence.right
    ran = outcome.ran | ~right
    budgets = evidence.budgets[attack.norm] if attack.only is None else (attack.only,)
    if not attack.smallest and attack.only is None:  # beyond its own an attack was not tried
        budgets = tuple(epsilon for epsilon in budgets if epsilon in outcome.budgets)
    shares = {}
    for epsilon in budgets if ran.any() and not outcome.crashed else ():
        held = right & ran & ~outcome.fooled(attack.norm, epsilon)
        shares[format_budget(epsilon)] = proportion(int(held.sum()), int(ran.sum()))
    fooled = right & np.isfinite(outcome.distances[attack.norm])
    smallest = None
    if attack.smallest and fooled.sum() >= FEWEST and not outcome.crashed:
        smallest = mean_over_images(outcome.distances[attack.norm][fooled].tolist())
    return AttackResult(
        name=name,
        norm=attack.norm,
        robust=shares,
        smallest=smallest,
        fooled=int(fooled.sum()),
        not_run=int((~ran).sum()),
        seconds=outcome.seconds,
        error=outcome.error,
        crashed=outcome.crashed,
        note=left_out(name, evidence.classes),
    )


def _worst(evidence: EvaluationData) -> dict[str, dict[str, Estimate]]:
    """By norm and budget: the share that stays right against all attacks that ran."""
    everything = evidence.everything
    seen = evidence.seen(everything)
    worst: dict[str, dict[str, Estimate]] = {norm: {} for norm in evidence.budgets}
    ran_in = {ATTACKS[name].norm for name in everything}
    for norm, budgets in evidence.budgets.items():
        for epsilon in budgets if norm in ran_in and seen.any() else ():
            # Adversarial examples found before a crash count too.
            held = evidence.robust(list(evidence.tried), norm, epsilon) & seen
            worst[norm][format_budget(epsilon)] = proportion(int(held.sum()), int(seen.sum()))
    return worst
