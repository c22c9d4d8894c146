"""What files say, checked at the door and turned into frozen dataclasses."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from denature.core.errors import ConfigError

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
        ConfigError: a field is missing, unknown or of another type; names `where` and each field.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        checked: T = TypeAdapter(kind).validate_python(data)
        return checked
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        raise ConfigError(f"{where} cannot be read: {faults}.") from None
