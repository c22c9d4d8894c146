"""The border for texts of a server: secrets go first, then controls, then what is too long.

A server may repeat the key that it was sent, whole or in part, in an error, a name or a header.
Every such text passes `server_text` or `without_secrets` before it is cut, stored, raised or shown.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from denature.core.text import printable

REDACTED = "[redacted]"

SHARED = 8
"""Letters and digits in a row that a text may not share with a secret; fewer tell too little."""

SHORTEST = 4
"""Letters and digits of a secret that is looked for in other forms than its own."""

WINDOW = 1 << 16
"""Characters of a text that are read; texts are shown shorter by far."""

_UNIT = re.compile(
    r"%(?:25)*(?P<percent>[0-9A-Fa-f]{2})"
    r"|\\[uU](?:0000)?(?P<unicode>[0-9A-Fa-f]{4})"
    r"|\\x(?P<hex>[0-9A-Fa-f]{2})"
    r"|\\(?P<octal>[0-3][0-7]{2})"
    r"|&#[xX]0*(?P<entity>[0-9A-Fa-f]{1,5});"
    r"|&#0*(?P<decimal>[0-9]{1,6});"
    r"|&(?:amp|lt|gt|quot|apos);"
    r"|(?P<plain>[A-Za-z0-9])"
)
"""A letter or digit, written plainly or as an escape; nothing else is compared."""

_BASES = {"octal": 8, "decimal": 10}


class _Folded(NamedTuple):
    """Letters and digits of a text in lower case, and where each stands in it."""

    letters: str
    places: list[tuple[int, int]]


def _fold(text: str) -> _Folded:
    letters, places = [], []
    for unit in _UNIT.finditer(text):
        form = unit.lastgroup
        if form is None:
            continue
        given = unit[form]
        char = given if form == "plain" else chr(int(given, _BASES.get(form, 16)))
        if char.isascii() and char.isalnum():
            letters.append(char.lower())
            places.append(unit.span())
    return _Folded("".join(letters), places)


def _forms(secret: str) -> Iterator[str]:
    """A secret as it stands, in hexadecimal digits, and in base64 at each of its three phases."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield raw.hex()
    for phase, lead in enumerate((0, 2, 3)):  # characters that the bytes before it decide as well
        coded = base64.b64encode(bytes(phase) + raw).decode().rstrip("=")
        yield coded[lead:] if (phase + len(raw)) % 3 == 0 else coded[lead:-1]


@lru_cache(maxsize=32)
def _pieces(secret: str) -> tuple[int, frozenset[str]]:
    """All rows of so many letters and digits that forms of a secret hold."""
    folded = [_fold(form).letters for form in _forms(secret)]
    size = min(SHARED, len(folded[0]))
    if size < SHORTEST:
        return 1, frozenset()
    rows = (text[n : n + size] for text in folded for n in range(len(text) - size + 1))
    return size, frozenset(rows)


def redacted(text: str, secrets: Sequence[str]) -> str:
    """Text without secrets: whole, in part, and in percent, base64, hexadecimal or JSON's escapes.

    Case, and characters that are no letters or digits, such as line breaks in a key, are ignored.
    """
    for secret in secrets:
        text = _without(text.replace(secret, REDACTED) if secret else text, secret)
    return text


def _without(text: str, secret: str) -> str:
    size, pieces = _pieces(secret)
    letters, places = _fold(text)
    found: list[tuple[int, int]] = []
    for n in range(len(letters) - size + 1):
        if letters[n : n + size] in pieces:
            start, end = places[n][0], places[n + size - 1][1]
            if found and start <= found[-1][1]:
                start = found.pop()[0]
            found.append((start, end))
    kept, at = [], 0
    for start, end in found:
        kept += [text[at:start], REDACTED]
        at = end
    return "".join(kept) + text[at:]


def server_text(text: str, secrets: Sequence[str], *, most: int = 300) -> str:
    """A server's text in one printable line without secrets, of `most` characters."""
    return printable(redacted(text[:WINDOW], secrets))[:most]


def without_secrets(value: Any, secrets: Sequence[str]) -> Any:
    """A decoded JSON value whose texts, and keys of objects, hold no secrets.

    Raises:
        RecursionError: the value is nested too deeply.
    """
    if isinstance(value, str):
        return redacted(value, secrets)
    if isinstance(value, list):
        return [without_secrets(item, secrets) for item in value]
    if isinstance(value, dict):
        return {
            redacted(key, secrets): without_secrets(item, secrets) for key, item in value.items()
        }
    return value
