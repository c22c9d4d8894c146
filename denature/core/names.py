"""Parse the name of a network without importing anything for it.

`resnet18` is an entry of the catalogue, `cnn@width=64+dropout=0.2` an entry with options,
`timm:NAME`, `torchvision:NAME`, `hf:owner/name` and `hf:FOLDER` are networks of a library, and
`package.module:factory` names a module of the user's own.
"""

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from denature.core.errors import ConfigError

LIBRARIES = ("timm", "torchvision", "hf")
"""Packages whose networks can be named; building one executes installed code only."""

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar")
"""Suffixes of files that hold weights without their network."""

PLAIN = r"[A-Za-z0-9_.]+"
REPOSITORY = r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?"
FOLDER = r"\.{0,2}/[^\x00-\x1f]+"


def own_module(name: str) -> str | None:
    """The user's module that building this network imports and executes; None for other names.

    Raises:
        ConfigError: a class or another value stands in place of a name.
    """
    if not isinstance(name, str):  # of a caller in Python, beyond what types can keep out
        given = name if hasattr(name, "__name__") else type(name)
        raise ConfigError(
            f"The network is a {type(name).__name__}; wanted is a name, such as 'cnn' or "
            f"'timm:resnet18', or for code of your own '{given.__module__}:{given.__name__}'."
        )
    module, colon, _ = name.partition(":")
    return module if colon and module not in LIBRARIES else None


def is_attribute(name: str) -> bool:
    """Whether a name has the form `package.module:attribute`."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


def import_named(name: str) -> Any:
    """What `package.module:attribute` names, with modules of the current folder found first.

    This executes the module; it is called with names that the user gives or trusts.

    Raises:
        ImportError, AttributeError: there is none.
        Exception: whatever the module raises.
    """
    module, _, attribute = name.partition(":")
    if (here := os.getcwd()) not in sys.path:  # the console script starts without it
        sys.path.insert(0, here)
    return getattr(importlib.import_module(module), attribute)


def library_of(name: str) -> tuple[str, str] | None:
    """Library and name of `timm:NAME`; None for other names.

    Raises:
        ConfigError: the name could make the library download files.
    """
    library, colon, inner = name.partition(":")
    if not colon or library not in LIBRARIES:
        return None
    if library == "hf":
        if not re.fullmatch(f"{REPOSITORY}|{FOLDER}", inner, re.ASCII):
            raise ConfigError(
                f"The network {name!r} is no model of the hub; wanted is hf:owner/name, or hf: and "
                "the path of a folder, such as hf:./model."
            )
    elif not re.fullmatch(PLAIN, inner):
        raise ConfigError(
            f"The network {name!r} is no plain name of {library}; wanted are letters, digits, _ and"
            f" . after {library}:, such as {library}:resnet18."
        )
    return library, inner


def anywhere(name: str) -> str:
    """The name of a network, from whichever folder it is read: `hf:./model` with the whole path."""
    folder = name.removeprefix("hf:")
    return f"hf:{Path(folder).resolve()}" if name.startswith(("hf:./", "hf:../")) else name


def with_options(name: str) -> tuple[str, dict[str, str]]:
    """Base and options of `cnn@width=64+dropout=0.2`.

    Raises:
        ConfigError: an option lacks a value, or occurs twice.
    """
    base, at, rest = name.partition("@")
    options: dict[str, str] = {}
    for part in rest.split("+") if at else []:
        key, equals, value = part.partition("=")
        if not key or not equals or not value or key in options:
            raise ConfigError(
                f"The network's name {name!r} cannot be parsed; wanted are options such as "
                "cnn@width=64+dropout=0.2."
            )
        options[key] = value
    return base, options
