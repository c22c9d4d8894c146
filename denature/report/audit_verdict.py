"""The verdict of an audit in three sentences, and the words that explain its measures."""

from collections.abc import Sequence

from denature.audit.reading import (
    NONE,
    curve_of,
    defenses,
    final,
    left_by,
    lowers,
    measurable,
    one_seed,
    query_limit,
    short_name,
    short_names,
    spoiled,
)
from denature.audit.result import (
    CHANCE,
    CHECK_MODEL,
    ONE_CLASS,
    AuditPlan,
    AuditResult,
    Baseline,
    Crossing,
    DefensePrice,
    Interval,
)
from denature.extract.config import Threat
from denature.report.words import percent, share

ADVANTAGE = (
    "A model's advantage is its accuracy above what a thief reaches without a query; recovered "
    "advantage is the share of it that the clone has. At 0 % the thief learned nothing, at 100 % "
    "the clone is as good as the model. The worst thief is the one whose clone is best on one half "
    "of the test images; the other half measures it."
)

TO_HALF = (
    "Queries to half: number of queries after which the worst thief has half of the advantage, "
    "interpolated between budgets, and below the smallest one from nothing at one query, under "
    "threat A at as many as the thief owns images. A limit on the queries of one client belongs "
    "below the low end of its interval."
)


def verdict(result: AuditResult) -> list[str]:
    """What is taken, what stops it, and the limit on queries; claims what the intervals support."""
    if not measurable(result):
        return _nothing(result)
    return [_taken(result), _stopped(result), _limit(result)]


def headline(result: AuditResult) -> str:
    """What the worst thief takes, and what the best usable defense leaves, in one sentence."""
    left = _largest(result)
    if not left:
        return "How much of this model can be cloned is not measurable here."
    name = NONE if NONE in left else max(left, key=lambda name: left[name].value)
    where = "without a defense" if name == NONE else f"behind {short_name(result, name)}"
    taken = (
        f"With {_spent(result, name):,} queries the worst thief takes {share(left[name])} of the "
        f"model's advantage {where}"
    )
    useless = {price.defense for price in spoiled(result)}
    usable = [other for other in left if other not in (NONE, name) and other not in useless]
    if not usable:
        return f"{taken}."
    lower = [other for other in usable if _lowers(result, other)]
    if not lower and name == NONE:
        none = (
            "the one defense is not" if len(usable) == 1 else f"none of {len(usable)} defenses is"
        )
        return f"{taken}; {none} shown to lower that."
    best = min(lower or usable, key=lambda name: left[name].value)
    return f"{taken}; the best defense, {short_name(result, best)}, leaves {share(left[best])}."


def thief_of(threat: Threat, plan: AuditPlan) -> str:
    """A thief of a threat, in words."""
    if threat == "A":
        return f"a thief with {plan.labelled:,} labelled images of its own"
    return "a thief without labelled images"


def start_of(baseline: Baseline) -> str:
    """The accuracy of a baseline; that of chance is known without an interval."""
    found = baseline.accuracy
    return share(found) if found.low < found.high else f"{100 * found.value:.0f} %"


def crossing_text(crossing: Crossing, plan: AuditPlan) -> str:
    """`1,200 [800, 1,900]`; what lies beyond the largest budget is called so."""
    if crossing.value is not None and crossing.low == crossing.value == crossing.high:
        return f"at most {crossing.value:,.0f}"  # the images that the thief owns are enough
    low = None if crossing.low is None else f"{crossing.low:,.0f}"
    if crossing.value is None:
        return f"beyond {max(plan.budgets):,}" + (f" [from {low}]" if low else "")
    high = "beyond" if crossing.high is None else f"{crossing.high:,.0f}"
    return f"{crossing.value:,.0f} [{low}, {high}]"


def _nothing(result: AuditResult) -> list[str]:
    gaps = "; ".join(
        f"{thief_of(b.threat, result.plan)} starts from {start_of(b)}" for b in result.baselines
    )
    return [
        "How much of this model can be cloned is not measurable here: it is right on "
        f"{share(result.model.accuracy)} of {result.model.accuracy.n:,} test images"
        + (f", and {gaps} without a query." if gaps else "."),
        f"So the audit says nothing for or against any defense.{_copied(result)}",
        _remedy(result),
    ]


def _copied(result: AuditResult) -> str:
    """How far a clone gives the model's answers, right or wrong, without a defense."""
    found = [
        w for w in result.worst
        if w.defense == NONE and w.recovered_fidelity is not None and w.recovered_fidelity.low > 0
    ]  # fmt: skip
    if not found:
        return ""
    most = max(found, key=lambda worst: worst.fidelity.value)
    return (
        f" Its answers can be copied all the same: with {most.budget:,} queries a clone gives the "
        f"same class on {share(most.fidelity)} of these images."
    )


def _remedy(result: AuditResult) -> str:
    """What would make the gap between model and baseline measurable."""
    guesses = [b.accuracy.value for b in result.baselines if b.name in (CHANCE, ONE_CLASS)]
    if result.model.accuracy.low <= max(guesses, default=1 / len(result.model.classes)):
        return f"The model is not shown to be better than chance. {CHECK_MODEL}"
    if any(b.accuracy.value >= result.model.accuracy.value for b in result.baselines):
        return "The model is no better than what a thief has without a query."
    fewer = ", or fewer labelled images for the thief," if result.plan.labelled else ""
    return f"More test images{fewer} may make the gap measurable."


def _taken(result: AuditResult) -> str:
    """What the worst thief takes without a defense, or else behind the weakest one."""
    bare = {t: i for t in measurable(result) if (i := left_by(result, t).get(NONE)) is not None}
    if bare:
        name, found = NONE, bare
    else:
        lead = max(measurable(result), key=lambda t: max(i.value for i in _left(result, t)))
        name = max(left_by(result, lead), key=lambda d: left_by(result, lead)[d].value)
        found = {lead: left_by(result, lead)[name]}
    lead = max(found, key=lambda threat: found[threat].value)
    worst = final(result, lead)[name]
    others = "".join(
        f"; {thief_of(threat, result.plan)} takes {share(left)}"
        for threat, left in found.items()
        if threat != lead
    )
    where = "without a defense" if name == NONE else f"behind {short_name(result, name)}"
    alone = " With one seed this holds for these clones alone." * one_seed(result)
    return (
        f"{_how_much(found[lead], name)}: with {worst.budget:,} queries {where}, "
        f"{thief_of(lead, result.plan)} takes {share(found[lead])} of the model's advantage, and "
        f"its clone is right on {share(worst.accuracy)} of the test images, the model on "
        f"{share(result.model.accuracy)}{others}.{alone}"
    )


def _left(result: AuditResult, threat: Threat) -> list[Interval]:
    return list(left_by(result, threat).values())


def _how_much(left: Interval, defense: str) -> str:
    model = "The undefended model" if defense == NONE else "The model"
    if left.low >= 0.9:
        return f"{model} can be cloned almost completely"
    if left.low > 0.5:
        return f"A clone recovers more than half of {model[0].lower()}{model[1:]}'s advantage"
    if left.low > 0 and left.high < 0.5:
        return f"{model} was cloned in part"
    if left.high < 0.5:
        return f"{model} was not seen to be cloned"
    return (
        f"Whether a clone recovers half of {model[0].lower()}{model[1:]}'s advantage is not settled"
    )


def _stopped(result: AuditResult) -> str:
    """What usable defenses leave, over all threats; the largest value of a defense counts."""
    useless = {price.defense: price for price in spoiled(result)}
    left = {name: found for name, found in _largest(result).items() if name != NONE}
    tried = {name: found for name, found in left.items() if name not in useless}
    spoils = [useless[name] for name in left if name in useless]
    if not tried:
        none = "No defense was measured" if not spoils else "No usable defense was measured"
        return f"{none}, so nothing is known of what would stop the thief{_not_counted(spoils)}."
    best = min(tried, key=lambda name: tried[name].value)
    worse = " in the worse of both threats" if len(measurable(result)) > 1 else ""
    lowest = (
        f"the lowest measured is {share(tried[best])}{worse}, behind {short_name(result, best)}"
    )
    return f"{_credit(result, list(tried))}{lowest}, {_price(result, best)}{_not_counted(spoils)}."


def _credit(result: AuditResult, tried: Sequence[str]) -> str:
    """How many defenses help, and how far."""
    half = [name for name in tried if _below_half(result, name)]
    lower = [name for name in tried if _lowers(result, name)]
    lowered = f"{_of(len(lower), len(tried), 'lowers', 'lower')} what it takes, and "
    if NONE in _largest(result) and _below_half(result, NONE):
        none = "No thief is shown to take half, with or without a defense"
        return f"{none}; {lowered}" if lower else f"{none}; no defense is shown to lower that: "
    if half:
        kept = f"{_of(len(half), len(tried), 'keeps', 'keep')} the worst thief below half"
        return f"{kept[0].upper()}{kept[1:]}: "
    none_half = "No defense is shown to keep the worst thief below half"
    if lower:
        return f"{none_half}; {lowered}"
    if NONE not in _largest(result):
        return f"{none_half}: "
    none = "The one defense is not" if len(tried) == 1 else f"None of {len(tried)} defenses is"
    return f"{none} shown to lower what the worst thief takes: "


def _not_counted(spoils: Sequence[DefensePrice]) -> str:
    """Defenses that leave honest users without the model's answers."""
    if not spoils:
        return ""
    names = short_names([price.defense for price in spoils])
    said = (f"{names[price.defense]} (keeps {share(price.top1_kept)})" for price in spoils)
    return f"; not counted, for it changes the shown class of too many images: {', '.join(said)}"


def _largest(result: AuditResult) -> dict[str, Interval]:
    """What the worst thief of the worst threat takes, by defense."""
    found: dict[str, Interval] = {}
    for threat in measurable(result):
        for name, left in left_by(result, threat).items():
            if name not in found or left.value > found[name].value:
                found[name] = left
    return found


def _spent(result: AuditResult, name: str) -> int:
    """Queries of the worst thief of the worst threat behind a defense."""
    found = [final(result, threat).get(name) for threat in measurable(result)]
    known = [(w.recovered.value, w.budget) for w in found if w is not None and w.recovered]
    return max(known)[1]


def _below_half(result: AuditResult, name: str) -> bool:
    left = [left_by(result, threat).get(name) for threat in measurable(result)]
    return all(found is not None and found.high < 0.5 for found in left)


def _lowers(result: AuditResult, name: str) -> bool:
    """Whether a defense is shown to lower what the worst thief of the worst threat takes."""
    left = _largest(result)
    return {name, NONE} <= left.keys() and lowers(result, left[name], left[NONE])


def _of(part: int, whole: int, one: str, many: str) -> str:
    if whole == 1:
        return f"the one defense {one}"
    return f"{part} of {whole} defenses {one if part == 1 else many}"


def _price(result: AuditResult, name: str) -> str:
    """What a defense costs honest users."""
    price = next((price for price in result.defenses if price.defense == name), None)
    if price is None:
        return "at a price that was not measured"
    kept = f"which keeps the shown class on {percent(price.top1_kept)} % of the images"
    if price.l1 is None:
        return f"{kept} and shows no probabilities"
    return f"{kept} and moves probabilities by {price.l1:.2f} in all (0 to 2)"


def _limit(result: AuditResult) -> str:
    """Queries to half without a defense, in the threat that reaches it first."""
    first = defenses(result)[0]
    name = NONE if NONE in defenses(result) else first
    curves = {t: c for t in measurable(result) if (c := curve_of(result, name, t))}
    found = {threat: curve.to_half for threat, curve in curves.items()}
    where = "without a defense" if name == NONE else f"behind {short_name(result, name)}"
    if not found:
        return f"How many queries reach half of the advantage {where} is not measurable here."
    most = max(result.plan.budgets)
    ends = {t: c.value for t, c in found.items() if c.value is not None}
    if not ends:
        lows = [c.low for c in found.values() if c.low is not None]
        rest = f", though {min(lows):,.0f} may be enough by its interval" if lows else ""
        return (
            f"Half of the advantage {where} lies beyond {most:,} queries, the largest budget"
            f"{rest}; where the limit on queries belongs is not known from this audit."
        )
    reached = query_limit(result, name)
    assert reached is not None
    threat, half, limit, least = reached
    about = crossing_text(half, result.plan)
    early = (
        f", interpolated below the smallest budget, {least:,}, which an audit with smaller budgets "
        "would measure"
    ) * (limit < least)
    taken = "is taken" if half.high is not None else "may be taken"
    if ends[threat] < least:
        return (
            f"Half of the advantage {taken} {where} by {thief_of(threat, result.plan)} within "
            f"{least:,} queries, the smallest budget, after {about} by interpolation: a limit on "
            f"the queries of one client, over all of its keys, belongs below {limit:,.0f}, which "
            "an audit with smaller budgets would measure."
        )
    return (
        f"Half of the advantage {taken} {where} after about {about} queries by "
        f"{thief_of(threat, result.plan)}: a limit on the queries of one client, over all of its "
        f"keys, belongs below {limit:,.0f}{early}."
    )
