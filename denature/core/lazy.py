"""Packages that import a submodule when one of its names is first used.

The help of a command must not pay for importing torch, and configs lie beside code that needs it.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `package` that finds each name of `homes` in its module.

    Args:
        package: the package's name.
        homes: a submodule's name, or the whole one of a module elsewhere, by attribute.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        absolute = home.startswith(f"{package.partition('.')[0]}.")
        return getattr(import_module(home if absolute else f"{package}.{home}"), name)

    return __getattr__
