"""Every defense by its name; this module imports nothing heavy."""

import json
from collections.abc import Mapping
from dataclasses import fields

from denature.core.errors import ConfigError, unknown
from denature.core.schema import decode
from denature.defenses.base import Defense
from denature.defenses.label_only import LabelOnly
from denature.defenses.rounding import Rounding
from denature.defenses.temperature import Temperature
from denature.defenses.top_k import TopK

DEFENSES: dict[str, type[Defense]] = {
    defense.name: defense
    for defense in (
        LabelOnly,
        TopK,
        Rounding,
        Temperature,
    )
}


def defense_of(name: str, options: Mapping[str, str]) -> Defense:
    """The defense called `name`, with options such as `{"temperature": "4"}`.

    Raises:
        ConfigError: the name or an option is unknown, or a value cannot be read.
    """
    if name not in DEFENSES:
        raise unknown("defense", name, DEFENSES)
    known = [field.name for field in fields(DEFENSES[name])]
    for key in options:
        if key not in known:
            has = ", ".join(known) or "none"
            raise ConfigError(f"The defense {name} has no option {key!r}; known: {has}.")
    return decode(
        DEFENSES[name],
        {key: _number(text) for key, text in options.items()},
        where=f"The defense {name}",
    )


def _number(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
