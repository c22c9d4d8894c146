"""Of the site: the pages that are no files of docs/, and links to files outside; see mkdocs.yml."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from denature.cli.commands import GROUPS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

AT_THE_TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")

MODULES = (
    *("api", "data", "train", "losses", "audit.config", "extract", "extract.config"),
    *("robust.config", "datafree.config", "datafree.deepinversion"),
    *("recipes.catalogue", "recipes.experiment", "recipes.runner", "core.compute", "core.errors"),
)
"""Modules to call from Python."""

COMMANDS_PAGE = """# {group}

::: cyclopts
    module: denature.cli.app:app
    commands: [{names}]
    generate_toc: false
    skip_preamble: true

## Examples

```sh
{examples}
```
"""

MODULE_PAGE = """---
title: {module}
---
# denature.{module}

::: denature.{module}
"""

REQUEST = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?https?:[^>]*>")

LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)]*)?\)")


def reference() -> dict[str, str]:
    """The pages that are made of the commands' options and of docstrings."""
    pages = {}
    for group, commands in GROUPS.items():
        examples = (example for command in commands.values() for example in command.examples)
        pages[f"commands/{group.lower().replace(' ', '-')}.md"] = COMMANDS_PAGE.format(
            group=group,
            names=", ".join(commands),
            examples="\n".join(f"denature {example}" for example in examples),
        )
    return pages | {f"reference/{it}.md": MODULE_PAGE.format(module=it) for it in MODULES}


def expanded(nav: Any) -> Any:
    """The navigation with every page of a folder in the place of `FOLDER/*`."""
    if isinstance(nav, dict):
        return {title: expanded(below) for title, below in nav.items()}
    if isinstance(nav, list):
        parts = [expanded(below) for below in nav]
        return [it for part in parts for it in (part if isinstance(part, list) else [part])]
    folder, star, _ = nav.partition("/*")
    if not star:
        return nav
    written = sorted(f"{folder}/{page.name}" for page in (DOCS / folder).glob("*.md"))
    return [*written, *(uri for uri in reference() if uri.startswith(f"{folder}/"))]


def targets(page: Path) -> Iterator[Path]:
    """The files and folders to which a page links."""
    for _, link, _ in LINK.findall(page.read_text("utf-8")):
        if (target := (page.parent / link).resolve()).exists():
            yield target


def address(file: Path) -> Path:
    """The place in the site, whose top is that of docs/ and of the repository."""
    return file.relative_to(DOCS if DOCS in file.parents else ROOT)


def on_config(config: MkDocsConfig) -> None:
    config.nav = expanded(config.nav)


def on_files(files: Files, config: MkDocsConfig) -> None:
    top = [ROOT / name for name in AT_THE_TOP]
    linked = {it for page in [*DOCS.rglob("*.md"), *top] for it in targets(page) if it.is_file()}
    for file in sorted(it for it in {*top, *linked} if DOCS not in it.parents):
        uri, place = str(address(file)), config.site_dir
        files.append(File(uri, str(ROOT), place, config.use_directory_urls))
    for uri, text in reference().items():
        files.append(File.generated(config, uri, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to places in the site; those to folders outside of docs/ are text."""
    if page.file.abs_src_path is None:
        return markdown
    here = Path(page.file.abs_src_path)
    if ROOT / "results" in here.parents:
        page.meta["search"] = {"exclude": True}  # its numbers stand in the pages too

    def moved(link: re.Match[str]) -> str:
        target = (here.parent / link[2]).resolve()
        if not target.exists():
            return link[0]
        if target.is_dir():
            pages = sorted(target.glob("*.md")) if DOCS in target.parents else []
            if not pages:
                return link[1]
            target = pages[0]
        to = os.path.relpath(address(target), address(here).parent)
        return f"[{link[1]}]({to}{link[3] or ''})"

    return LINK.sub(moved, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """The site works without a network, and no other host learns of its readers."""
    if found := REQUEST.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {found[0]}")
