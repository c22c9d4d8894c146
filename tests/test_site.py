"""The documentation as a site, without building it, which `make check` does."""

import re
from pathlib import Path

from mkdocs.utils.yaml import yaml_load

from docs.hooks import MODULES, expanded

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def pages(nav: object) -> list[str]:
    """The pages of a navigation, in its order."""
    if isinstance(nav, dict):
        return pages(list(nav.values()))
    return [uri for part in nav for uri in pages(part)] if isinstance(nav, list) else [str(nav)]


def test_every_page_is_in_the_navigation_once() -> None:
    found = pages(expanded(yaml_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert len(found) == len(set(found))
    missing = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - set(found)
    assert not missing, "add them to mkdocs.yml"


def test_the_modules_that_the_page_on_python_imports_are_in_the_reference() -> None:
    text = (DOCS / "python.md").read_text("utf-8")
    named = set(re.findall(r"from denature\.([\w.]+) import", text))
    for names in re.findall(r"from denature import ([\w, ]+)", text):
        named |= set(names.split(", "))
    assert named
    assert named <= set(MODULES)
