"""Conversion of plain values from files to frozen dataclasses, checked on reading."""

import json
import math
from dataclasses import asdict
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from denature.core.errors import ConfigError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def encode(config: "DataclassInstance") -> dict[str, Any]:
    """A config as the plain values that its JSON would give back."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def decode(kind: type[T], data: Any, *, where: str) -> T:
    """Build a `kind` from plain JSON or TOML values.

    Raises:
        ConfigError: a field is missing or of another type; names `where` and the field. Unknown
            fields are ignored: a later version may have written them.
    """
    import msgspec

    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where} cannot be read: {error}.") from None


def check_fields(config: "DataclassInstance", rules: dict[str, tuple[bool, str]]) -> None:
    """Check a config's choices and ranges; called by its `__post_init__`.

    Args:
        config: a dataclass whose `Literal` fields are choices.
        rules: by field, whether its value is valid, and the wanted values in words.

    Raises:
        ConfigError: a value that is no choice, not finite, or breaks its rule.
    """
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is ClassVar:
            continue
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise unknown(name.replace("_", " "), str(value), get_args(kind))
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} is {value}; it must be finite.")
    for name, (good, wanted) in rules.items():
        if not good:
            raise ConfigError(f"{name} is {getattr(config, name)}; it must be {wanted}.")
