"""Names of classes in what a server says of its model, in the forms that servers use."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

NAMED = ("names", "labels", "class_names", "classes", "id2label", "label2id")
"""Parameters in which servers name classes; denature's own is the first."""

SEPARATORS = ("\n", ";", "|", ",")
"""Separators of names in a text; the comma is last, since names may contain commas."""

FORMS = "a list, an object of numbers from 0 to names or the reverse, and a text with commas"
"""Known forms of class names."""

LONGEST_NAME = 200


def read_names(
    described: Sequence[Mapping[str, Any]], count: int | None
) -> tuple[tuple[str, ...], str | None]:
    """Names of an answer's numbers, or of classes, from the parameters of an output or a model.

    Args:
        described: metadata of the output and of the model.
        count: required number of names; None where the shape does not state it.

    Returns:
        The names, and where there are none an excerpt of the value in their place.
    """
    unread = None
    for parameters in (metadata.get("parameters") for metadata in described):
        for key in NAMED:
            value = parameters.get(key) if isinstance(parameters, dict) else None
            if names := _names_of(value, count):
                return names, None
            if unread is None and isinstance(value, list | dict | str) and value:
                unread = f"{key}: {_excerpt(value)}"
    return (), unread


def _names_of(value: object, count: int | None) -> tuple[str, ...]:
    """Names in a list, an object of numbers to names or of names to numbers, or a text of these."""
    if isinstance(value, str):
        return _read_text(value.strip(), count)
    if isinstance(value, dict):
        if value.keys() == {"string_value"}:  # as Triton's configuration writes a parameter
            return _names_of(value["string_value"], count)
        value = _in_order(value)
    if not isinstance(value, list) or len(value) < 2 or len(value) != (count or len(value)):
        return ()
    if not all(isinstance(name, str) and _is_short(name) for name in value):
        return ()
    return tuple(value)


def _in_order(value: Mapping[str, object]) -> list[object] | None:
    """The names of an object in the order of their numbers, which count from 0."""
    turned = {str(number): name for name, number in value.items() if type(number) is int}
    by_number = turned if len(turned) == len(value) else value
    numbers = [str(number) for number in range(len(value))]
    if by_number.keys() != {*numbers}:
        return None
    return [by_number[number] for number in numbers]


def _read_text(text: str, count: int | None) -> tuple[str, ...]:
    """Names in a JSON text, or in one with separators between them."""
    if text.startswith(("[", "{")):
        try:
            inner = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return ()
        return _names_of(inner, count)
    for separator in SEPARATORS:
        if names := _names_of([name.strip() for name in text.split(separator)], count):
            return names
    return ()


def _excerpt(value: list[Any] | dict[str, Any] | str) -> str:
    """Type, length and first item of a value from a server."""
    if isinstance(value, str):
        return f"a text, {_brief(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}, such as {_brief(value[0])}"
    key, item = next(iter(value.items()))
    return f"an object of {len(value)}, such as {_brief(key)}: {_brief(item)}"


def _brief(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return f"{value!r:.30}"


def _is_short(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()
