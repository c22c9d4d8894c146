"""Texts of strangers on their way to a terminal or a log, lines of errors, numbers in words."""

import re
import unicodedata

_SUSPECT = re.compile(r"[^\x20-\x7e]")

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories of controls, formats, surrogates, unassigned characters and breaks."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Text in which control and format characters are visible escapes, such as `\u001b`.

    So no text moves a cursor, sets a title, forges a line or reverses the direction of writing. The
    escapes are JSON's, so that JSON stays JSON.

    Args:
        text: any text, also with surrogates.
        keep: characters that stay as they are, such as a newline.
    """
    if _SUSPECT.search(text) is None:
        return text
    return "".join(
        _escaped(char) if unicodedata.category(char) in _HIDDEN and char not in keep else char
        for char in text
    )


def counted(number: int, one: str, many: str = "") -> str:
    """`1 run`, `2 runs`; `many` is a plural other than with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def line_of(error: BaseException) -> str:
    """The first line of an error, without its full stop; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))
