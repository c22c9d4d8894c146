"""Is what looks robust only hard to follow? After AutoAttack's flags and Athalye et al. 2018.

Each compares attacks on the same samples. A difference counts where it is at least `LEAST` of the
samples and no accident: a sign test of the samples on which the two attacks disagree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb

from denature.robust.evaluate import EvaluationData, format_budget

LEAST = 0.05
"""Share of the samples."""

ACCIDENT = 0.05
"""Probability that any such difference is seen if the attacks were equally strong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One sign of masked gradients."""

    name: str
    raised: bool
    found: str
    """The numbers."""
    raised_if: str
    why: str
    advice: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign:
    """One line of the catalogue: three sentences, and how it is looked for."""

    raised_if: str
    why: str
    advice: str
    look: Callable[[EvaluationData], tuple[bool, str]]


def look(evidence: EvaluationData) -> list[Check]:
    """All checks on one network."""
    found = []
    for name, sign in SIGNS.items():
        raised, numbers = sign.look(evidence)
        found.append(
            Check(
                name=name,
                raised=raised,
                found=numbers,
                raised_if=sign.raised_if,
                why=sign.why,
                advice=sign.advice,
            )
        )
    return found


def chance(more: int, fewer: int) -> float:
    """How likely at least `more` of `more + fewer` disagreements go one way by accident."""
    total = more + fewer
    return float(sum(comb(total, k) for k in range(more, total + 1)) / 2**total)


def _stronger(evidence: EvaluationData, strong: list[str], weak: list[str]) -> tuple[bool, str]:
    """Whether one of some attacks fools samples that others do not, at any budget in linf.

    One by one: several attacks together are stronger than one for no reason but their number.
    """
    said = []
    looks = len(strong) * len(evidence.budgets["linf"])
    seen = {name: evidence.seen([name, *weak]) & evidence.right for name in strong}
    seen = {name: sure for name, sure in seen.items() if sure.any()}
    if not seen:
        absent = [it for it in (*strong, *weak) if it not in evidence.everything]
        return False, f"Not looked at: {', '.join(absent) or 'some'} did not run."
    for name, sure in seen.items():
        for epsilon in evidence.budgets["linf"]:
            by_strong = ~evidence.robust([name], "linf", epsilon)[sure]
            by_weak = ~evidence.robust(weak, "linf", epsilon)[sure]
            more, fewer = int((by_strong & ~by_weak).sum()), int((by_weak & ~by_strong).sum())
            if more - fewer >= LEAST * sure.sum() and chance(more, fewer) < ACCIDENT / looks:
                said.append(
                    f"{name} fools {by_strong.mean():.0%} of {int(sure.sum())} samples at "
                    f"{format_budget(epsilon)}, {' and '.join(weak)} {by_weak.mean():.0%}"
                )
    if not said:
        return False, f"At no budget by {LEAST:.0%} or more."
    return True, "; ".join(said) + "."


def _flat(evidence: EvaluationData) -> tuple[bool, str]:
    if evidence.target.shows != "gradients":
        return False, f"Not looked at: {evidence.target.shows} are all that it shows."
    share = float(evidence.flat[evidence.right].mean()) if evidence.right.any() else 0.0
    return share >= LEAST, f"{share:.0%} of {int(evidence.right.sum())} samples."


def _logits(evidence: EvaluationData) -> tuple[bool, str]:
    return _stronger(evidence, ["pgd-margin", "pgd-rescaled"], ["pgd"])


def _without_gradients(evidence: EvaluationData) -> tuple[bool, str]:
    return _stronger(evidence, ["transfer", "square"], ["pgd", "fgsm"])


def _one_step(evidence: EvaluationData) -> tuple[bool, str]:
    return _stronger(evidence, ["fgsm"], ["pgd"])


def _unbounded(evidence: EvaluationData) -> tuple[bool, str]:
    sure = evidence.seen(["pgd-unbounded"]) & evidence.right
    if not sure.any():
        return False, "pgd-unbounded did not run."
    held = float(evidence.robust(["pgd-unbounded"], "linf", 1.0)[sure].mean())
    return held >= LEAST, f"{held:.0%} of {int(sure.sum())} samples stay right."


def _random(evidence: EvaluationData) -> tuple[bool, str]:
    random = evidence.target.is_random
    return random, "The same images are answered in several ways." if random else "They are not."


SIGNS: Mapping[str, Sign] = {
    "flat gradients": Sign(
        raised_if=f"The input's gradient is 0 or not finite on {LEAST:.0%} of the samples or more.",
        why="Where a softmax saturates, or a step is not differentiable, there is nothing to "
        "follow, and an attack that follows gradients stands still.",
        advice="Believe attacks on the logits, and those without gradients, only.",
        look=_flat,
    ),
    "the cross-entropy misleads": Sign(
        raised_if="PGD on the logits, or with the temperature put back, fools more samples than "
        "PGD on the cross-entropy.",
        why="Large logits push the softmax to 1, whose gradients vanish: the network is as easy to "
        "fool as before, and only the usual loss does not say so.",
        advice="Report the attack on the logits; the other measures the loss, not the network.",
        look=_logits,
    ),
    "who sees no gradients is stronger": Sign(
        raised_if="Images that fool an undefended network, or random squares, fool more samples "
        "than attacks that follow the network's own gradients.",
        why="Whoever sees more cannot be weaker, unless what he sees misleads him.",
        advice="Look for a better gradient: a smooth stand-in for what is not differentiable.",
        look=_without_gradients,
    ),
    "one step beats many": Sign(
        raised_if="One step along the gradient fools more samples than many.",
        why="Many small steps can do all that one large one can, unless the small ones are caught "
        "in a place that the large one jumps over.",
        advice="Take more restarts and other step sizes, and attack the logits.",
        look=_one_step,
    ),
    "unbounded attacks fail": Sign(
        raised_if=f"With any image allowed PGD leaves {LEAST:.0%} of the samples right, or more.",
        why="Any image can be made into any other then, so whoever fails has lost his way.",
        advice="Distrust every number of an attack by this gradient, at any budget.",
        look=_unbounded,
    ),
    "answers are random": Sign(
        raised_if="The same image is answered in several ways.",
        why="An attack follows one draw, and is judged by another.",
        advice="Attack the mean over many draws (Athalye et al. 2018).",
        look=_random,
    ),
}


def is_masked(checks: list[Check]) -> bool:
    return any(check.raised for check in checks)
