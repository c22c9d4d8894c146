"""Keywords that several functions share, declared once in a TypedDict."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from denature.core.errors import unknown

F = TypeVar("F", bound=Callable[..., Any])


def with_keywords(keywords: type[Any], defaults: Mapping[str, Any]) -> Callable[[F], F]:
    """Decorator of functions that end in `**options: Unpack[keywords]`.

    `help` and the completion of a notebook show all keywords by name, as they show parameters, and
    any other name is refused with the nearest of them.

    Args:
        keywords: a TypedDict.
        defaults: by name, of these keywords at least.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        *given, _ = signature.parameters.values()
        named = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=of
            )
            for name, of in keywords.__annotations__.items()
        ]
        shown = signature.replace(parameters=[*given, *named])

        @functools.wraps(function)
        def checked(*args: Any, **options: Any) -> Any:
            for name in options:
                if name not in shown.parameters:
                    raise unknown("option", name, shown.parameters)
            return function(*args, **options)

        cast(Any, checked).__signature__ = shown
        return cast(F, checked)

    return decorate


def many(values: object) -> tuple[Any, ...]:
    """Several values; one value alone stands for itself, as on the command line."""
    if isinstance(values, Iterable) and not isinstance(values, str):
        return tuple(values)
    return (values,)
