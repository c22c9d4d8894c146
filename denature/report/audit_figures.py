"""Figures of an audit: recovered advantage against queries and money, and against price."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from denature.audit.reading import NONE, defenses, final, short_names
from denature.audit.result import AuditResult, DefensePrice, Interval, Worst
from denature.extract.config import Threat
from denature.report.figures import (
    AMBER,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    HALF,
    ORANGE,
    PINK,
    SKY,
    new_figure,
)
from denature.report.tooltips import give_tip
from denature.report.words import share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (ORANGE, BLUE, GREEN, PINK, SKY, AMBER, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


class DefenseStyle(NamedTuple):
    """How a defense is drawn in all figures of one page."""

    name: str
    colour: str
    marker: str


def marks(result: AuditResult) -> dict[str, DefenseStyle]:
    """Colour and marker by defense; each pair stands once for up to 70 of them."""
    names = defenses(result)
    short = short_names(names)
    found = {NONE: DefenseStyle(NONE, BLACK, "o")} if NONE in names else {}
    for place, name in enumerate(name for name in names if name != NONE):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[(place + 1) % len(MARKERS)]
        found[name] = DefenseStyle(short[name], colour, marker)
    return found


def curves(result: AuditResult, threat: Threat) -> "Figure | None":
    """Recovered advantage of the worst thief against queries, a line for each defense."""
    lines = _lines(result, threat)
    if not lines:
        return None
    figure = new_figure(*HALF)
    axes = figure.add_subplot()
    drawn = marks(result)
    for place, (name, entries) in enumerate(lines.items()):
        # Side by side, so that intervals at one budget do not cover each other.
        shift = 1.035 ** (place - (len(lines) - 1) / 2)
        _line(axes, drawn[name], entries, shift)
    budgets = sorted({worst.budget for entries in lines.values() for worst in entries})
    axes.set_xscale("log")
    axes.set_xlim(budgets[0] / 1.5, budgets[-1] * 1.5)
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("queries")
    _recovered_axis(axes, [i for entries in lines.values() for w in entries if (i := w.recovered)])
    if price := result.plan.price_per_1000:
        _money_axis(axes, budgets, price)
    _legend(figure, [drawn[name] for name in lines])
    return figure


def _lines(result: AuditResult, threat: Threat) -> dict[str, list[Worst]]:
    """Measured worst thieves by defense, from the smallest budget on."""
    found: dict[str, list[Worst]] = {}
    for worst in sorted(result.worst, key=lambda entry: entry.budget):
        if worst.threat == threat and worst.recovered is not None:
            found.setdefault(worst.defense, []).append(worst)
    return {name: found[name] for name in defenses(result) if name in found}


def _line(axes: "Axes", mark: DefenseStyle, entries: Sequence[Worst], shift: float) -> None:
    points = [(w, i) for w in entries if (i := w.recovered) is not None]
    xs = [worst.budget * shift for worst, _ in points]
    width = 2.0 if mark.name == NONE else 1.2
    axes.plot(xs, [100 * i.value for _, i in points], color=mark.colour, linewidth=width, alpha=0.8)
    for x, (worst, interval) in zip(xs, points, strict=True):
        tip = f"{mark.name}: {share(interval)} with {worst.budget:,} queries, by {worst.thief}"
        _point(axes, x, interval, mark, tip)


def _point(
    axes: "Axes",
    x: float,
    interval: Interval,
    mark: DefenseStyle,
    tip: str,
    *,
    hollow: bool = False,
) -> None:
    """A value with its interval; a wide invisible mark below makes it easy to point at."""
    low, value, high = 100 * interval.low, 100 * interval.value, 100 * interval.high
    axes.plot([x, x], [low, high], color=mark.colour, linewidth=1, alpha=0.5)
    [point] = axes.plot(
        x, value, marker=mark.marker, color=mark.colour, markersize=5.5, linestyle="none",
        markerfacecolor="#ffffff" if hollow else mark.colour, zorder=3,
    )  # fmt: skip
    give_tip(point, tip)


def _recovered_axis(axes: "Axes", found: Sequence[Interval]) -> None:
    """0 to 100 %, and further where values are; intervals may leave the picture."""
    values = [100 * interval.value for interval in found]
    axes.set_ylim(min(-4.0, *(v - 8 for v in values)), max(104.0, *(v + 8 for v in values)))
    axes.axhline(50, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_ylabel("recovered advantage, %")
    axes.grid(color="#eeeeee", linewidth=0.7)
    axes.set_axisbelow(True)


def _money_axis(axes: "Axes", budgets: Sequence[int], price: float) -> None:
    def scaled(factor: float, values: float) -> float:
        return values * factor

    factor = price / 1000
    money = axes.secondary_xaxis(
        "top", functions=(partial(scaled, factor), partial(scaled, 1 / factor))
    )
    money.set_xticks([b * factor for b in budgets], [f"{b * factor:,.2f}" for b in budgets])
    money.minorticks_off()
    money.set_xlabel("US $")


def _legend(figure: "Figure", drawn: Sequence[DefenseStyle]) -> None:
    from matplotlib.lines import Line2D

    figure.tight_layout()
    handles = [
        Line2D([], [], color=m.colour, marker=m.marker, markersize=5, label=m.name) for m in drawn
    ]
    columns = 1 if max(len(m.name) for m in drawn) > 26 else 2
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns,
                  fontsize=7.5)  # fmt: skip


Price = Callable[[AuditResult, DefensePrice], float | None]


def accuracy_lost(result: AuditResult, price: DefensePrice) -> float:
    """Points of accuracy that honest users lose; below 0 where they gain."""
    return 100 * (result.model.accuracy.value - price.accuracy.value)


def probabilities_moved(result: AuditResult, price: DefensePrice) -> float | None:
    """Mean L1 distance to the true probabilities; None for labels."""
    return price.l1


class Offer(NamedTuple):
    """A defense in the plane of price and recovered advantage."""

    defense: str
    price: float
    left: Interval
    thief: str


def offers(result: AuditResult, threat: Threat, price_of: Price) -> list[Offer]:
    """Defenses with a known price and a measured worst thief, within the largest budget."""
    worst = final(result, threat)
    found = []
    for price in result.defenses:
        entry, paid = worst.get(price.defense), price_of(result, price)
        if entry is not None and entry.recovered is not None and paid is not None:
            found.append(Offer(price.defense, paid, entry.recovered, entry.thief))
    return found


def front(found: Sequence[Offer]) -> list[Offer]:
    """The Pareto front, sorted by price; values count, without their intervals."""
    from denature.audit.score import pareto  # brings scipy, which drawing a page again needs late

    places = pareto([(offer.price, offer.left.value) for offer in found])
    return sorted((found[place] for place in places), key=lambda offer: offer.price)


def plane(result: AuditResult, threat: Threat, price_of: Price, label: str) -> "Figure | None":
    """Recovered advantage against price: the front is filled and joined, other defenses hollow."""
    found = offers(result, threat, price_of)
    if len(found) < 2:
        return None
    figure = new_figure(*HALF)
    axes = figure.add_subplot()
    best, drawn = front(found), marks(result)
    axes.step(
        [offer.price for offer in best], [100 * offer.left.value for offer in best],
        where="post", color=GREY, linewidth=1.2, linestyle=(0, (2, 1.5)),
    )  # fmt: skip
    for offer in found:
        mark, on = drawn[offer.defense], offer in best
        tip = f"{mark.name}: {share(offer.left)} by {offer.thief}; {label} {offer.price:.2f}"
        tip += ", on the Pareto front" if on else ""
        _point(axes, offer.price, offer.left, mark, tip, hollow=not on)
    axes.set_xlabel(f"price: {label}")
    axes.margins(x=0.08)
    _recovered_axis(axes, [offer.left for offer in found])
    _legend(figure, [drawn[offer.defense] for offer in found])
    return figure
