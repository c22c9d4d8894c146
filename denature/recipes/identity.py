"""Identity of a caller's function, by which its answers are kept: its name and its code."""

import dis
import hashlib
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from denature.core.errors import ConfigError, brief

READING = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
"""Instructions of Python that read a global name."""


def identity_of(function: Callable[[np.ndarray], np.ndarray]) -> str:
    """A function's name with a digest of its code: one of a notebook is written again and again.

    Raises:
        ConfigError: its answers depend on more than its code, such as weights elsewhere.
    """
    if not isinstance(function, FunctionType):
        raise _nameless(f"an object of {type(function).__name__}")
    texts: dict[FunctionType, str] = {}
    _read(function, texts)
    digest = hashlib.sha256(" ".join(texts.values()).encode()).hexdigest()[:16]
    return f"{function.__module__}:{function.__qualname__} {digest}"


def _nameless(what: str) -> ConfigError:
    return ConfigError(
        f"The model is {what}, by which its answers cannot be told from those of another one. Pass "
        "name=..., another one for each state, or denature.extract.FunctionVictim(function, "
        "name=...) in its place."
    )


def _read(function: FunctionType, texts: dict[FunctionType, str]) -> None:
    """Add the text of a function and of those of its module that it calls.

    Raises:
        ConfigError: the function holds variables, or reads global data.
    """
    where = f"the function {function.__qualname__}, which"
    code = function.__code__
    if code.co_freevars:
        raise _nameless(f"{where} reads {brief(code.co_freevars)} of the function around it")
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
    if not _is_plain(defaults):
        raise _nameless(f"{where} has defaults that are no numbers or texts")
    known = {
        name: function.__globals__[name] for name in _read_names(code) & {*function.__globals__}
    }
    plain = {name: value for name, value in sorted(known.items()) if _is_plain(value)}
    texts[function] = " ".join(
        [_text_of(code), *(repr(part) for part in (defaults, plain) if part)]
    )
    for name, value in sorted(known.items()):
        if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
            if value not in texts:
                _read(value, texts)
        elif name not in plain and (
            getattr(value, "__module__", None) == function.__module__ or not _is_imported(value)
        ):
            raise _nameless(f"{where} reads the global {name}")


def _is_plain(value: object) -> bool:
    """Whether a value is told apart by its text, in any process."""
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, complex, str, bytes)


def _is_imported(value: Any) -> bool:
    """Whether a value is a library's module, or what it has under the value's own name."""
    if isinstance(value, ModuleType):
        return _is_installed(value)
    if isinstance(value, BuiltinFunctionType):  # a bound one, such as of a list, holds data
        return value.__self__ is None or isinstance(value.__self__, ModuleType | type)
    origin = sys.modules.get(str(getattr(value, "__module__", "")))
    named = origin is not None and getattr(origin, getattr(value, "__name__", ""), None) is value
    return named and _is_installed(origin)


def _is_installed(module: ModuleType | None) -> bool:
    """Whether a module is a library's, which holds no weights of the user's own."""
    name = getattr(module, "__name__", "").partition(".")[0]
    if name in sys.stdlib_module_names or name == "denature":
        return True
    place = str(getattr(module, "__file__", None) or getattr(module, "__path__", ""))
    return "site-packages" in place or "dist-packages" in place


def _read_names(code: CodeType) -> set[str]:
    """Global names that code and the functions in it read."""
    names = {
        str(instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in READING
    }
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return names.union(*map(_read_names, inner))


def _text_of(code: CodeType) -> str:
    """Code as text, the same in every process."""
    consts = " ".join(map(_text_of_const, code.co_consts))
    return f"{code.co_code!r} {code.co_names!r} {consts}"


def _text_of_const(const: object) -> str:
    """A function in code has an address, and a set the order of its process."""
    if isinstance(const, CodeType):
        return _text_of(const)
    if isinstance(const, frozenset):
        return f"frozenset({{{', '.join(sorted(map(repr, const)))}}})"
    return repr(const)
