"""Ways in which a server may write a key that it was sent."""

import base64
import random
from collections.abc import Callable
from urllib.parse import quote


def mixed(key: str) -> str:
    """Some characters as percent escapes, some as they are."""
    chance = random.Random(key)
    return "".join(f"%{ord(char):02x}" if chance.random() < 0.5 else char for char in key)


def in_base64(key: str, *, before: str = "", url: bool = False) -> str:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    return encode((before + key).encode()).decode()


ENCODINGS: dict[str, tuple[Callable[[str], str], int]] = {
    "plain": (str, 1),
    "upper": (str.upper, 1),
    "wrapped": (lambda key: "\r\n".join(key[n : n + 5] for n in range(0, len(key), 5)), 1),
    "spaced": (lambda key: "\u200b".join(key), 1),
    "quoted": (lambda key: quote(key, safe=""), 1),
    "percent": (lambda key: "".join(f"%{ord(char):02X}" for char in key), 3),
    "percent twice": (lambda key: "".join(f"%25{ord(char):02X}" for char in key), 5),
    "mixed": (mixed, 3),
    "hex": (lambda key: key.encode().hex(), 1),
    "base64": (in_base64, 1),
    "base64 of an address": (lambda key: in_base64(key, before="u:", url=True), 1),
    "base64 of a header": (lambda key: in_base64(key, before="Bearer "), 1),
    "json": (lambda key: "".join(f"\\u{ord(char):04x}" for char in key), 6),
    "entities": (lambda key: "".join(f"&#{ord(char)};" for char in key), 6),
    "octal": (lambda key: "".join(f"\\{ord(char):03o}" for char in key), 4),
}
"""Each way, and how many characters it writes for one at most."""
