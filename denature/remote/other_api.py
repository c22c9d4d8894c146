"""What answers at a URL where no server of the Open Inference Protocol does."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from denature.core.untrusted import check_cost
from denature.remote.redaction import WINDOW, server_text

OPENAPI = "/openapi.json"
"""Where FastAPI, BentoML, LitServe and others describe what they answer."""

MOST_PATHS = 5
"""Paths of another API that are named."""

WAYS = (
    "Three ways on: the URL of an Open Inference server, as in http://HOST:8000/v2/models/NAME; "
    "any other HTTP API by a .toml description in place of the URL, which `denature rest try "
    "FILE.toml IMAGE` tries on one image; or a function of your own that asks it, "
    "package.module:function."
)


TITLE = re.compile(rb"<title[^>]*>(.{1,1000}?)</title", re.DOTALL | re.IGNORECASE)

SHOWN = 60
"""Characters of a page that are shown."""


def described(body: bytes, kind: str | None, secrets: Sequence[str]) -> str:
    """What a reply that is no JSON holds: its content type, and a page's title or beginning."""
    kind = server_text(kind or "no content type", secrets, most=SHOWN)
    title = TITLE.search(body[:WINDOW])
    text = (title[1] if title else body[:WINDOW]).decode("utf-8", "replace")
    text = server_text(" ".join(text.split()), secrets, most=SHOWN)
    if not text:
        return f"{kind} and nothing in it"
    return f"{kind}, {'the page' if title else 'which begins'} {text!r}"


def posted_paths(description: bytes | None, secrets: Sequence[str]) -> str:
    """The paths of an OpenAPI description that take a POST, as a sentence; empty where none do."""
    try:
        check_cost(description or b"")
        paths: Any = msgspec.json.decode(description or b"")["paths"]
        found = [path for path, methods in paths.items() if "post" in methods]
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    if not found:
        return ""
    named = ", ".join(server_text(str(path), secrets, most=80) for path in found[:MOST_PATHS])
    more = ", ..." if len(found) > MOST_PATHS else ""
    return f" Its {OPENAPI} has POST {named}{more}."
