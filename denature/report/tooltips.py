"""Texts for marks and figures in SVG: a tooltip without a script, and what a figure shows."""

import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.artist import Artist

_TIP = "tip: "

_MARK = re.compile(rf'<g id="{_TIP}([^"]*)">')


def give_tip(artist: "Artist", text: str) -> None:
    """Give an artist a text beside the pointer; matplotlib has a place for ids alone."""
    artist.set_gid(f"{_TIP}{text}")


def titled(svg: str) -> str:
    """An <svg> element whose marks have their texts as titles, which browsers show."""
    return _MARK.sub(r'<g class="tipped"><title>\1</title>', svg)


def described(svg: str, alt: str) -> str:
    """An <svg> element that is read out as one picture, by a text in place of it."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
