"""Texts for marks and figures in SVG: a tooltip without a script, and what a figure shows."""

import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_TIP = "tip: "

_MARK = re.compile(rf'<g id="{_TIP}([^"]*)">')

_ID = re.compile(r'\bid="|href="#|url\(#')

_WIDTH = re.compile(r'<svg [^>]*\bwidth="([\d.]+)pt"')

REACH = 9
"""Size in points of the invisible mark that makes a point easy to hit."""


def give_tip(artist: "Artist", text: str) -> None:
    """Give an artist a text beside the pointer; matplotlib has a place for ids alone."""
    artist.set_gid(f"{_TIP}{text}")


def add_tips(figure: "Figure") -> None:
    """Give what is drawn its name and values: each marked point and bar, and lines without marks.

    A figure that gives tooltips of its own is left as it is.
    """
    everything = [artist for axes in figure.axes for artist in axes.get_children()]
    if any(str(artist.get_gid() or "").startswith(_TIP) for artist in everything):
        return
    for axes in figure.axes:
        for line in list(axes.lines):
            _tip_line(axes, line)
        for bars in axes.containers:
            for bar in getattr(bars, "patches", ()):
                place = _spelled(axes.xaxis, bar.get_x() + bar.get_width() / 2)
                give_tip(bar, f"{bars.get_label()}, {place}: {bar.get_height():.3g}")


def _tip_line(axes: "Axes", line: "Line2D") -> None:
    name = "" if str(line.get_label()).startswith("_") else str(line.get_label())
    if line.get_marker() in ("None", None, "", " "):
        if name:
            give_tip(line, name)
        return
    places: Any = line.get_xydata()
    for x, y in places:
        [point] = axes.plot(x, y, "o", markersize=REACH, alpha=0.0, zorder=line.get_zorder() + 1,
                            scalex=False, scaley=False)  # fmt: skip
        give_tip(point, "; ".join(_words(axes, name, float(x), float(y))))


def _words(axes: "Axes", name: str, x: float, y: float) -> Iterator[str]:
    """A point's series and its values, each with the label of its axis."""
    series = name or axes.get_title()
    if series:
        yield series
    for axis, value in ((axes.xaxis, x), (axes.yaxis, y)):
        label = " ".join(axis.get_label_text().split()).partition(" (")[0]
        yield f"{label} {_spelled(axis, value)}".strip()


def _spelled(axis: Any, value: float) -> str:
    """A value as a number, or as the name nearest to it on an axis of names."""
    ticks = [
        (abs(value - place), label.get_text())
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
    ]
    names = [text for _, text in ticks if text]
    if names and not any(re.match(r"[-+\u2212$]?[\d.]", text) for text in names):
        return str(min(ticks)[1])
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def titled(svg: str) -> str:
    """An <svg> element whose marks have their texts as titles, which browsers show."""
    return _MARK.sub(r'<g class="tipped"><title>\1</title>', svg)


def described(svg: str, alt: str, name: str) -> str:
    """An <svg> element that is read out as one picture, by a text in place of it.

    Its ids begin with a name: those of another figure on the page are others. Its style knows its
    width in points, in which its letters have the size of a page's text.
    """
    own = _ID.sub(rf"\g<0>{escape(re.sub(r'[^a-zA-Z0-9-]', '-', name))}-", svg)
    wide = _WIDTH.search(own)
    points = f' style="--points: {wide[1]}"' if wide else ""
    return own.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}"{points} ', 1)
