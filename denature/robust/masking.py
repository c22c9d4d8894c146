"""Checks for gradient masking, after AutoAttack's flags and Athalye et al. 2018.

A check compares attacks on the same samples. A difference counts if it is at least `LEAST` of the
samples and significant, by a sign test over the samples on which the two attacks disagree.
"""

from collections.abc import Mapping
from math import comb

from denature.core.checks import Check, Rule, run_checks
from denature.robust.config import budget_text
from denature.robust.outcomes import EvaluationData

LEAST = 0.05
"""Smallest share of the samples that counts."""

ACCIDENT = 0.05
"""Significance level: probability of any such difference between equally strong attacks."""


def look(evidence: EvaluationData) -> list[Check]:
    """Run all checks on one network."""
    return run_checks(SIGNS, evidence)


def chance(more: int, fewer: int) -> float:
    """Probability that at least `more` of `more + fewer` disagreements go one way by accident."""
    total = more + fewer
    return float(sum(comb(total, k) for k in range(more, total + 1)) / 2**total)


def _stronger(evidence: EvaluationData, strong: list[str], weak: list[str]) -> tuple[bool, str]:
    """Whether an attack of `strong` fools samples that `weak` do not, at any budget in linf.

    Attacks of `strong` are tested one by one: several together are stronger by their number alone.
    """
    sentences, largest = [], (0.0, 0)
    tests = len(strong) * len(evidence.budgets["linf"])
    seen = {name: evidence.seen([name, *weak]) & evidence.right for name in strong}
    seen = {name: sure for name, sure in seen.items() if sure.any()}
    if not seen:
        absent = [name for name in (*strong, *weak) if name not in evidence.everything]
        return False, f"Not checked: {', '.join(absent) or 'some attacks'} did not run."
    for name, sure in seen.items():
        for epsilon in evidence.budgets["linf"]:
            by_strong = ~evidence.robust([name], "linf", epsilon)[sure]
            by_weak = ~evidence.robust(weak, "linf", epsilon)[sure]
            more, fewer = int((by_strong & ~by_weak).sum()), int((by_weak & ~by_strong).sum())
            largest = max(largest, ((more - fewer) / int(sure.sum()), int(sure.sum())))
            if more - fewer >= LEAST * sure.sum() and chance(more, fewer) < ACCIDENT / tests:
                sentences.append(
                    f"{name} fools {by_strong.mean():.0%} of {int(sure.sum())} samples at "
                    f"{budget_text(epsilon)}, {' and '.join(weak)} {by_weak.mean():.0%}"
                )
    if not sentences:
        absent = [name for name in strong if name not in seen]
        left = f" {', '.join(absent)} did not run." if absent else ""
        most, count = largest
        return False, (
            f"The difference is settled as {LEAST:.0%} of the samples or more at no budget; its "
            f"largest value is {most:.0%}" + (f" of {count}.{left}" if count else f".{left}")
        )
    return True, "; ".join(sentences) + "."


def _flat(evidence: EvaluationData) -> tuple[bool, str]:
    if evidence.target.shows != "gradients":
        return False, f"Not checked: the model shows {evidence.target.shows} only."
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
    return random, (
        "The same images are answered in several ways."
        if random
        else "The same image always gets the same answer."
    )


SIGNS: Mapping[str, Rule[EvaluationData]] = {
    "flat gradients": Rule(
        raised_if=f"The input's gradient is 0 or not finite on {LEAST:.0%} of the samples or more.",
        why="Where a softmax saturates, or a step is not differentiable, there is nothing to "
        "follow, and an attack that follows gradients stands still.",
        advice="Believe attacks on the logits, and those without gradients, only.",
        look=_flat,
    ),
    "the cross-entropy misleads": Rule(
        raised_if="PGD on the logits, or with the temperature put back, fools more samples than "
        "PGD on the cross-entropy.",
        why="Large logits push the softmax to 1, whose gradients vanish: the network is as easy to "
        "fool as before, and only the usual loss does not say so.",
        advice="Report the attack on the logits; the other measures the loss, not the network.",
        look=_logits,
    ),
    "black-box attacks are stronger": Rule(
        raised_if="Images that fool an undefended network, or random squares, fool more samples "
        "than attacks that follow the network's own gradients.",
        why="A white-box attack should be at least as strong as a black-box one; if it is not, its "
        "gradients mislead it.",
        advice="Look for a better gradient: a smooth stand-in for what is not differentiable.",
        look=_without_gradients,
    ),
    "one step beats many": Rule(
        raised_if="One step along the gradient fools more samples than many.",
        why="Many small steps can do all that one large one can, unless the small ones are caught "
        "in a place that the large one jumps over.",
        advice="Take more restarts and other step sizes, and attack the logits.",
        look=_one_step,
    ),
    "unbounded attacks fail": Rule(
        raised_if=f"With any image allowed PGD leaves {LEAST:.0%} of the samples right, or more.",
        why="At that budget any image can become any other, so an attack that fails follows "
        "misleading gradients.",
        advice="Distrust every number of an attack by this gradient, at any budget.",
        look=_unbounded,
    ),
    "answers are random": Rule(
        raised_if="The same image is answered in several ways.",
        why="An attack follows one draw, and is judged by another.",
        advice="Attack the mean over many draws (Athalye et al. 2018).",
        look=_random,
    ),
}
