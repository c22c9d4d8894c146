"""Tables of plain texts in the formats of documents."""

import re
from collections.abc import Sequence

from denature.core.text import printable

_MARKUP = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])"  # a backslash before punctuation escapes that
    r"|<(?=[A-Za-z/!?])"  # a tag, a comment, an address
    r"|&(?=#?\w+;)"  # an entity
    r"|(?<=\])[\[(]"  # the target of a link
    r"|(?<![^\W_])_|_(?![^\W_])|[|`*~]"
)
"""What Markdown reads as more than a character; other punctuation stays legible as it is."""


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of texts, in GitHub's Markdown; whatever they hold is shown and not interpreted."""
    header, *rows = [[_cell(text) for text in line] for line in lines]
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)
    )


def _cell(text: str) -> str:
    escaped = _MARKUP.sub(lambda found: "\\" + found[0], printable(text))
    return escaped.replace("$", "\\$") if text.count("$") > 1 else escaped  # a formula
