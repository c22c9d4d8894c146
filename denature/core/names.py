"""What a network's name says, before anything is imported for it.

`resnet18` is a line of the catalogue, `cnn@width=64+dropout=0.2` one with options, `timm:NAME` and
`torchvision:NAME` are a library's, and `package.module:factory` is a module of the user's own.
"""

import re

from denature.core.errors import ConfigError

LIBRARIES = ("timm", "torchvision")
"""Packages whose networks can be named; they execute nothing but what is installed."""


def own_module(name: str) -> str | None:
    """The user's module that making this network would import and so execute; None for others."""
    module, colon, _ = name.partition(":")
    return module if colon and module not in LIBRARIES else None


def library_of(name: str) -> tuple[str, str] | None:
    """Library and name of `timm:NAME`; None for others.

    Raises:
        ConfigError: the name could make the library fetch something.
    """
    library, colon, inner = name.partition(":")
    if not colon or library not in LIBRARIES:
        return None
    if not re.fullmatch(r"[A-Za-z0-9_.]+", inner):
        raise ConfigError(
            f"The network {name!r} is no plain name of {library}; wanted are letters, digits, _ and"
            f" . after {library}:, such as {library}:resnet18."
        )
    return library, inner


def with_options(name: str) -> tuple[str, dict[str, str]]:
    """Base and options of `cnn@width=64+dropout=0.2`.

    Raises:
        ConfigError: an option without a value, or twice.
    """
    base, at, rest = name.partition("@")
    options: dict[str, str] = {}
    for part in rest.split("+") if at else []:
        key, equals, value = part.partition("=")
        if not key or not equals or not value or key in options:
            raise ConfigError(
                f"The network's name {name!r} cannot be read; options are written such as "
                "cnn@width=64+dropout=0.2."
            )
        options[key] = value
    return base, options
