"""An audit as a page: what the worst thief takes, what each defense leaves of it, and its price."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from denature.audit.reading import LABELS, NONE, defenses, final, measurable, short_names, threats
from denature.audit.result import CHANCE, ONE_CLASS, AuditResult, DefensePrice, Finding
from denature.core.record import Record
from denature.core.text import counted
from denature.extract.config import Threat
from denature.report.audit_figures import (
    Price,
    accuracy_lost,
    curves,
    front,
    offers,
    plane,
    probabilities_moved,
)
from denature.report.audit_heat import NOTE as HEAT_NOTE
from denature.report.audit_heat import heat_map
from denature.report.audit_tables import (
    cell_table,
    label_table,
    limit_table,
    method_table,
    price_table,
)
from denature.report.audit_verdict import (
    ADVANTAGE,
    TO_HALF,
    headline,
    start_of,
    thief_of,
    verdict,
)
from denature.report.page import Block, Item, Items, Page, Plot, Table
from denature.report.words import share

__all__ = ["AuditResult", "page"]

SEVERITIES = ("high", "medium", "low", "info")

INTERVALS = (
    "Intervals (95 %) cover other seeds and other test images together; of one seed, other test "
    "images alone."
)

IN_FIDELITY = (
    "In fidelity: the advantage that this thief recovers in agreement with the model, where the "
    "column before has that in accuracy. Area: the mean of the recovered advantage over the "
    "logarithm of the budget, from the smallest budget to the largest."
)

PRICES = (
    "Top-1 kept: share of images whose shown class is the undefended model's. Exact: share of "
    "answers that are shown without any change. L1: mean distance of the shown probabilities to "
    "the true ones, 0 to 2. ECE: expected calibration error, in 15 bins. Log loss: in nats. Added: "
    "median time for one image alone. Intervals (95 %) cover other test images, for one draw of "
    "each defense."
)

SERVED = (
    " Defenses that the service has of its own, if any, are part of the model here; the ones in "
    "the tables are added to them."
)

LABEL_BOUND = (
    f"The thief named {LABELS} learns from the shown class alone. No defense that keeps the class "
    "takes this away, whatever it does to scores; only fewer queries do."
)


def page(result: AuditResult, records: Sequence[Record]) -> Page:
    """Verdict, maps, curves, limits on queries, prices, findings, and how the numbers were made."""
    return Page(
        title=f"Audit of {result.model.name}",
        summary=headline(result),
        scope=result.scope,
        date=result.date,
        opening=f"Effort {result.plan.effort}; {counted(len(result.cells), 'cell')} of defense, "
        f"thief and budget; {result.queries:,} queries to the model.",
        about=_about(result),
        differs=_threats(result),
        verdict=verdict(result),
        blocks=tuple(_blocks(result)),
    )


def _about(result: AuditResult) -> str:
    model, plan = result.model, result.plan
    return (
        f"The model shows {_kind(model.kind)} of {len(model.classes):,} classes and is "
        f"right on {share(model.accuracy)} of {model.accuracy.n:,} test images. Thieves query it "
        f"with images of {plan.pool}, at most {max(plan.budgets):,} times, and train a clone "
        f"({plan.net}) on the answers. {ADVANTAGE} An audit tries known thieves, so that what it "
        f"finds is a lower bound.{SERVED * model.served}"
    )


def _kind(kind: str) -> str:
    return "labels" if kind == "label" else kind


def _threats(result: AuditResult) -> str:
    """Each threat with what it starts from."""
    said = []
    for threat in threats(result):
        start = "; ".join(
            f"without a query {_start(base.name)} is right on {start_of(base)} of the images"
            for base in result.baselines
            if base.threat == threat
        )
        said.append(f"Threat {threat}: {thief_of(threat, result.plan)}" + (f"; {start}." if start
                    else "."))  # fmt: skip
    return " ".join(said)


def _start(name: str) -> str:
    return {CHANCE: "chance", ONE_CLASS: "one class for all"}.get(name, f"its best clone ({name})")


def _blocks(result: AuditResult) -> Iterator[Block]:
    for threat in threats(result):
        last = threat == threats(result)[-1]
        yield heat_map(result, threat, note=HEAT_NOTE if last else "")
    heading = "Recovered advantage against queries" + (
        " and money" if result.plan.price_per_1000 is not None else ""
    )
    yield from _headed(heading, [_curves(result, threat) for threat in measurable(result)])
    yield Table(
        lines=limit_table(result), heading="The figure for a limit on queries",
        note=f"{TO_HALF} {IN_FIDELITY} {INTERVALS}",
    )  # fmt: skip
    yield from _headed("What a defense leaves, and what it costs", _planes(result))
    yield Table(
        lines=price_table(result), note=PRICES,
        heading="Prices of the defenses to honest users",
    )  # fmt: skip
    yield _about_defenses(result)
    yield Items(heading="Findings", items=[_finding(found) for found in _ordered(result)])
    yield Table(lines=label_table(result), heading="What labels alone give away", note=LABEL_BOUND)
    yield Items(
        heading="Left out, and why", items=[Item(text=reason) for reason in result.left_out]
    )
    yield Table(lines=method_table(result), heading="How the numbers were made", note=INTERVALS)
    cells = cell_table(result)
    yield Table(
        lines=cells, heading="All cells", folded=f"{counted(len(cells) - 1, 'cell')} with outcomes"
    )


def _headed(heading: str, plots: Sequence[Plot]) -> Iterator[Plot]:
    """Plots side by side, of which the first one has the heading."""
    for place, plot in enumerate(plots):
        yield replace(plot, heading="" if place else heading)


def _curves(result: AuditResult, threat: Threat) -> Plot:
    return Plot(
        name=f"curves-{threat.lower()}",
        draw=partial(curves, result, threat),
        caption=f"Threat {threat}: the worst thief against each defense, with 95 % intervals. "
        "Dashed: half of the advantage.",
        alt=f"Recovered advantage against queries, threat {threat}. {_ends(result, threat)}",
        half=True,
    )


def _ends(result: AuditResult, threat: Threat) -> str:
    """What is left within the largest budget, for readers who do not see the figure."""
    short = short_names(defenses(result))
    said = [
        f"{short[name]} {share(worst.recovered)}"
        for name, worst in final(result, threat).items()
        if worst.recovered is not None
    ]
    budget = max((worst.budget for worst in final(result, threat).values()), default=0)
    return f"Within {budget:,} queries: {'; '.join(said)}."


PLANES: Sequence[tuple[str, Price, str, str]] = (
    ("accuracy", accuracy_lost, "accuracy lost, points", ""),
    (
        "l1", probabilities_moved, "probabilities moved, L1",
        " Defenses that show labels have no place here.",
    ),
)  # fmt: skip
"""Name, price, its label and a remark of each plane."""


def _planes(result: AuditResult) -> list[Plot]:
    return [
        Plot(
            name=f"price-{name}-{threat.lower()}",
            draw=partial(plane, result, threat, price_of, label),
            caption=f"Threat {threat}: recovered advantage against {label}, within the largest "
            "budget. Filled and joined: the Pareto front, by values without their intervals."
            f"{remark}",
            alt=f"Recovered advantage against {label}, threat {threat}. On the Pareto front: "
            f"{_front(result, threat, price_of)}.",
            half=True,
        )
        for threat in measurable(result)
        for name, price_of, label, remark in PLANES
        if len(offers(result, threat, price_of)) > 1
    ]


def _front(result: AuditResult, threat: Threat, price_of: Price) -> str:
    short = short_names(defenses(result))
    return "; ".join(
        f"{short[offer.defense]} ({offer.price:.2f}, {share(offer.left)})"
        for offer in front(offers(result, threat, price_of))
    )


def _about_defenses(result: AuditResult) -> Items:
    short = short_names(defenses(result))
    return Items(
        heading="What the defenses do",
        items=[
            Item(strong=f"{short[price.defense]}.", text=_what(price, short[price.defense]))
            for price in result.defenses
            if price.defense != NONE
        ],
    )


def _what(price: DefensePrice, name: str) -> str:
    """Description of a defense, and its options where there are some."""
    return price.about + (
        f" Its name and options: {price.defense}." if price.defense != name else ""
    )


def _ordered(result: AuditResult) -> list[Finding]:
    return sorted(result.findings, key=lambda found: SEVERITIES.index(found.severity))


def _finding(found: Finding) -> Item:
    return Item(
        badge=found.severity,
        strong=f"{found.name}.",
        text=found.why,
        details=(("Raised if", found.raised_if), ("What to do", found.do)),
        tags=found.tags,
    )
