"""Conclusions from the numbers of an audit, each with the condition under which it is raised.

A finding claims what the intervals support. Two numbers differ where the interval of their
difference excludes 0, and a share is passed where the whole interval lies beyond it.
"""

from collections.abc import Callable

from denature.answers.looks import SUM_TOLERANCE
from denature.audit.config import IN_TRAINING
from denature.audit.reading import (
    LABEL_ONLY,
    LABELS,
    NAIVE,
    NONE,
    SAME_FEATURES,
    USABLE,
    defenses,
    difference,
    final,
    is_less_right,
    left_by,
    lowers,
    measurable,
    one_seed,
    query_limit,
    raced,
    short_name,
    short_names,
    spoiled,
    thieves,
    threats,
)
from denature.audit.result import AuditResult, DefensePrice, Finding, Interval, Worst
from denature.core.stats import Estimate
from denature.extract.asking.reading import MEND_NAN
from denature.extract.config import FITTED, SOLVED, Threat

TAGS = ("OWASP ML05", "MITRE ATLAS AML.T0024.002")

USEFUL = 0.1
"""Recovered advantage that a defense has to take away to be of use."""

MARGIN = 0.1
"""Recovered advantage by which one thief may trail another and still take nearly as much."""

LEAKED = 0.1
"""Share of answers that a defense may show unchanged without a finding."""


def findings(result: AuditResult) -> tuple[Finding, ...]:
    """All conclusions that a result supports, in a fixed order; its own findings are not read."""
    found = (check(result) for check in CHECKS)
    return tuple(finding for finding in found if finding is not None)


def nothing_measurable(result: AuditResult) -> Finding | None:
    """No threat leaves a gap between model and baseline that the test images can show."""
    if measurable(result) or not threats(result):
        return None
    return Finding(
        name="Recovered advantage is not measurable here",
        raised_if="The interval of the gap between the model and a thief without a query holds 0, "
        "in every threat.",
        why="The model is hardly better than what a thief has without a query, on "
        f"{result.model.accuracy.n:,} test images.",
        do="Audit again with more test images, or with fewer labelled images for the thief.",
        tags=TAGS,
        severity="info",
    )


def nan_answers(result: AuditResult) -> Finding | None:
    """The model gives NaN in some answers, and nothing is known to hide scores."""
    count = result.model.nan_answers
    if not count:
        return None
    return Finding(
        name="The model answers with NaN",
        raised_if="Some answers of a function or a file hold NaN, and others hold none or fewer.",
        why=f"NaN stands beside scores in {count:,} of {result.queries:,} answers. It counts as a "
        "hidden score, and as the lowest: numbers of this audit rest on scores filled in for it.",
        do=f"If the model hides no scores, {MEND_NAN}; then audit again under another --out.",
        tags=TAGS,
        severity="high",
    )


def not_summing(result: AuditResult) -> Finding | None:
    """Stated probabilities leave a sum of 1 by more than rounding does."""
    count = result.model.not_summing
    if not count:
        return None
    return Finding(
        name="Scores do not sum to 1",
        raised_if="The scores of an answer are all shown, and their sum differs from 1 by more "
        f"than {SUM_TOLERANCE:g}.",
        why=f"This holds for {count:,} of {result.queries:,} answers. Thieves and prices use the "
        "scores scaled to sum to 1, so an audit does not measure what independent scores reveal "
        "beyond that.",
        do="Nothing, if the model rounds its scores coarsely. If each class has an independent "
        "score (sigmoid), read fidelity and accuracy, which depend on the largest score alone.",
        tags=TAGS,
        severity="info",
    )


def no_defense_below_half(result: AuditResult) -> Finding | None:
    """No defense of a threat is shown to keep the worst thief below half of the advantage."""
    open_threats = {
        threat: left
        for threat in measurable(result)
        if (left := _defended(result, threat)) and not _any_below_half(result, threat)
    }
    if not open_threats:
        return None
    surely = any(all(i.low > 0.5 for i in left.values()) for left in open_threats.values())
    return Finding(
        name="No defense is shown to keep the worst thief below half",
        raised_if="In a threat, no interval of what the worst thief takes within the largest "
        "budget lies below 50 %, with or without a usable defense.",
        why=" ".join(_lowest(result, threat) for threat in open_threats),
        do="Do not rely on these defenses alone: limit queries, and watch for clients that query "
        "unlike users.",
        tags=TAGS,
        severity="high" if surely else "medium",
    )


def _defended(result: AuditResult, threat: Threat) -> dict[str, Interval]:
    """What the worst thief takes behind each defense that leaves the model usable."""
    others = {NONE, *(price.defense for price in spoiled(result))}
    return {name: left for name, left in left_by(result, threat).items() if name not in others}


def _any_below_half(result: AuditResult, threat: Threat) -> bool:
    bare = left_by(result, threat).get(NONE)
    usable = [*_defended(result, threat).values(), *([] if bare is None else [bare])]
    return any(found.high < 0.5 for found in usable)


def _lowest(result: AuditResult, threat: Threat) -> str:
    left = _defended(result, threat)
    name = min(left, key=lambda defense: left[defense].value)
    short = short_name(result, name)
    return f"Threat {threat}: the lowest measured is {_share(left[name])}, behind {short}."


def useless_to_users(result: AuditResult) -> Finding | None:
    """Defenses that change the shown class of many images."""
    spoils = spoiled(result)
    if not spoils:
        return None
    return Finding(
        name="A defense ruins the answers for honest users",
        raised_if=f"A defense keeps the shown class of fewer than {100 * USABLE:.0f} % of images, "
        f"with the whole interval, and {IN_TRAINING}, which is another network, is also right less "
        "often than the model.",
        why=" ".join(
            f"Behind {short_name(result, price.defense)}, {_share(price.top1_kept)} of "
            f"images keep their class; {_share(price.accuracy)} are right, and "
            f"{_share(result.model.accuracy)} without it."
            for price in spoils
        ),
        do="Do not use it at this setting; what it takes from a thief, it takes from users too.",
        tags=TAGS,
        severity="high",
    )


def defense_without_benefit(result: AuditResult) -> Finding | None:
    """Defenses that change answers, and are not shown to lower the worst thief in any threat."""
    idle = [
        price
        for price in result.defenses
        if price.defense != NONE and _costs(result, price) and _lowers_nowhere(result, price)
    ]
    if not idle:
        return None
    names = short_names(defenses(result))
    loses = [price for price in idle if _loses_classes(result, price)]
    return Finding(
        name="A defense costs honest users and is not shown to help",
        raised_if="A defense changes answers, and in no threat is its worst thief's recovered "
        "advantage within the largest budget lower than without a defense, by the interval of the "
        "difference; one seed shows no difference.",
        why="Images that keep their class, and how far probabilities move (L1, 0 to 2): "
        + "; ".join(_cost(price, names[price.defense]) for price in idle)
        + ".",
        do="Leave it out, or audit it at a stronger setting."
        if all(_helps_little(result, price) for price in idle)
        else "Audit with more seeds or test images before deciding: the intervals leave room for a "
        f"drop of {100 * USEFUL:.0f} points and more.",
        tags=TAGS,
        severity="medium" if loses else "low",
    )


def _costs(result: AuditResult, price: DefensePrice) -> bool:
    return (price.l1 is None and result.model.kind != "label") or price.exact.high < 1


def _loses_classes(result: AuditResult, price: DefensePrice) -> bool:
    changes = price.defense != IN_TRAINING and price.top1_kept.high < 0.99
    return changes or is_less_right(result, price)


def _lowers_nowhere(result: AuditResult, price: DefensePrice) -> bool:
    """Whether it was compared at all, and is lower in no threat."""
    compared = [
        lowers(result, left[price.defense], left[NONE])
        for threat in measurable(result)
        if {price.defense, NONE} <= (left := left_by(result, threat)).keys()
    ]
    return bool(compared) and not any(compared)


def _helps_little(result: AuditResult, price: DefensePrice) -> bool:
    """Whether its worst thief is shown to lose less than a useful part, in each threat."""
    falls = [
        difference(left[NONE], left[price.defense])
        for threat in measurable(result)
        if {price.defense, NONE} <= (left := left_by(result, threat)).keys()
    ]
    return not one_seed(result) and all(fall.high < USEFUL for fall in falls)


def _cost(price: DefensePrice, name: str) -> str:
    moved = "hidden" if price.l1 is None else f"{price.l1:.2f}"
    return f"{name} {_share(price.top1_kept)}, {moved}"


def helps_against_naive_only(result: AuditResult) -> Finding | None:
    """Defenses that lower the naive thief, while an adaptive one takes as much as before."""
    fooled = [
        text
        for threat in measurable(result)
        for name in _defended(result, threat)
        if (text := _recovers(result, name, threat))
    ]
    if not fooled:
        return None
    return Finding(
        name="A defense is shown to help against the naive thief only",
        raised_if="The naive thief takes less than without the defense and the worst thief takes "
        "more than the naive one, both by the interval of the difference, and the worst thief is "
        "not shown to take less than without the defense.",
        why=" ".join(fooled),
        do="Do not count on it: a thief that knows the defense is not shown to take less.",
        tags=TAGS,
        severity="high",
    )


def _recovers(result: AuditResult, defense: str, threat: Threat) -> str:
    """What the naive and the worst thief take; empty where the condition does not hold."""
    naive = raced(result, defense, NAIVE, threat)
    before = raced(result, NONE, NAIVE, threat)
    left = left_by(result, threat)
    if naive is None or before is None or NONE not in left:
        return ""
    worst = left[defense]
    held = lowers(result, naive, before) and lowers(result, naive, worst)
    held = held and not lowers(result, worst, left[NONE])
    if not held:
        return ""
    thief = final(result, threat)[defense].thief
    short = short_name(result, defense)
    return (
        f"Behind {short}, threat {threat}: the {NAIVE} thief takes {_share(naive)} instead of "
        f"{_share(before)}, but {thief} takes {_share(worst)}."
    )


def labels_suffice(result: AuditResult) -> Finding | None:
    """Labels alone are worth nearly as much to a thief as all that the model shows."""
    if result.model.kind == "label":
        return None
    found = []
    for threat in measurable(result):
        worst = left_by(result, threat).get(NONE)
        labels = raced(result, NONE, LABELS, threat)
        if worst is None or labels is None or worst.low <= 0:
            continue
        thief = final(result, threat)[NONE].thief
        others = [raced(result, NONE, name, threat) for name in thieves(result) if name != LABELS]
        best = max((o for o in others if o is not None), key=lambda o: o.value, default=None)
        if best is not None and difference(labels, best).low > -MARGIN:
            ahead = thief != LABELS and labels.value > worst.value
            found.append(
                f"Threat {threat}: the {LABELS} thief takes {_share(labels)}, the worst thief "
                f"{_share(worst)}"
                + (f"; {thief} was the worst on the half that chooses." if ahead else ".")
            )
    if not found:
        return None
    return Finding(
        name="Labels alone give a thief nearly as much as scores do",
        raised_if="Without a defense, the thief that learns from labels alone trails the best "
        f"other one by less than {100 * MARGIN:.0f} points, by the interval of the difference.",
        why=" ".join(found),
        do="Expect little of defenses that change scores and keep the class: limit queries.",
        tags=TAGS,
        severity="high",
    )


def rate_limit(result: AuditResult) -> Finding | None:
    """Half of the advantage is taken within the largest budget, without a defense."""
    found = query_limit(result)
    if found is None or found.crossing.value is None:
        return None
    half, limit, least = found.crossing, found.limit, found.least
    ends = " to ".join("beyond" if end is None else f"{end:,.0f}" for end in (half.low, half.high))
    settled = half.high is not None
    enough = "are enough" if settled else "may be enough"
    early, unmeasured = found.crossing.value < least, limit < least
    return Finding(
        name="Half of the advantage is taken within the audited queries",
        raised_if="Without a defense, recovered advantage reaches 50 % at a number of queries "
        "within the largest budget.",
        why=f"Threat {found.threat}: {half.value:,.0f} queries {enough} (interval {ends})"
        + (f", by interpolation below the smallest budget, {least:,}." if early else "."),
        do=f"Allow one client fewer than {limit:,.0f} queries in all, the low end "
        + ("of this interval" if limit == half.low else "of the other threat's interval")
        + ", over all of its keys; a limit per second alone only delays a thief."
        + (" Audit smaller budgets first, to measure that number." if unmeasured else ""),
        tags=(*TAGS, "OWASP AISVS C11.5"),
        severity="high" if settled else "medium",
    )


def public_head(result: AuditResult) -> Finding | None:
    """A thief with the model's own public encoder is the worst one."""
    won = [
        worst
        for worst in result.worst
        if worst.thief == SAME_FEATURES and worst.recovered is not None and worst.recovered.low > 0
    ]
    if not won:
        return None
    best = max(won, key=lambda worst: worst.recovered.value if worst.recovered else 0.0)
    assert best.recovered is not None
    # The notes of all seeds: one that was fitted, and not solved, settles nothing.
    notes = [(worst, _note(result, worst)) for worst in won]
    solved = [worst for worst, note in notes if SOLVED in note and FITTED not in note]
    name = "A thief with the model's public encoder is the worst one"
    if solved:
        name = "The model is a public encoder with a linear head, and its head was solved for"
    behind_labels = any(worst.defense == LABEL_ONLY for worst in won)
    return Finding(
        name=name,
        raised_if=f"The thief {SAME_FEATURES} is the worst one against a defense at some budget, "
        "and the whole interval of what it takes lies above 0.",
        why=f"It takes {_share(best.recovered)} with {best.budget:,} queries against "
        f"{short_name(result, best.defense)} (threat {best.threat}).",
        do="Fine-tune the encoder, or keep secret which one it is"
        + ("." if behind_labels else "; show labels, or rounded scores."),
        tags=TAGS,
        severity="high",
    )


def _note(result: AuditResult, worst: Worst) -> str:
    """What the cell of a worst thief says of how its clone was made."""
    place = (worst.defense, worst.thief, worst.threat, worst.budget)
    return next(
        (c.note for c in result.cells if (c.defense, c.thief, c.threat, c.budget) == place), ""
    )


def exact_answers(result: AuditResult) -> Finding | None:
    """A defense shows many answers without any change; one that shows labels does not count."""
    names = short_names(defenses(result))
    leaks = [
        f"Behind {names[price.defense]}, {100 * price.exact.value:.0f} % of answers are shown as "
        "they are."
        for price in result.defenses
        if price.l1 is not None
        and price.defense not in (NONE, LABEL_ONLY)
        and price.exact.low > LEAKED
    ]
    if not leaks:
        return None
    return Finding(
        name="A defense shows true answers",
        raised_if=f"A defense shows more than {100 * LEAKED:.0f} % of answers without any change, "
        "with the whole interval.",
        why=" ".join(leaks),
        do="Count those answers as undefended: a stronger setting, or a codebook that is filled "
        "before the service opens, hides more.",
        tags=TAGS,
        severity="medium",
    )


def _share(found: Interval | Estimate) -> str:
    value, low, high = (100 * end for end in (found.value, found.low, found.high))
    return f"{value:z.0f} % [{low:z.0f}, {high:z.0f}]"


CHECKS: tuple[Callable[[AuditResult], Finding | None], ...] = (
    rate_limit,
    no_defense_below_half,
    helps_against_naive_only,
    labels_suffice,
    public_head,
    exact_answers,
    useless_to_users,
    defense_without_benefit,
    nothing_measurable,
    nan_answers,
    not_summing,
)
