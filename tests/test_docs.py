"""The documents tell the truth: their commands run, and their tables come from records."""

import contextlib
import re
import shlex
import unittest
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from denature.cli.app import _combinations, _split_lists, app, main
from denature.cli.commands import COMMANDS
from denature.core.record import find_records
from denature.recipes.paper.catalogue import DESIGNS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """The `$ denature ...` lines of a page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ denature ")]


def command_lines(page: Path) -> list[str]:
    """All command lines of a page, those that need files of one's own too; none with a `...`."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"```(?:console|sh)\n(.*?)```", text, re.DOTALL))
    lines = re.findall(r"^(?:\$ )?(?:\.venv/bin/)?(denature .*)$", blocks, re.MULTILINE)
    return [line for line in lines if not line.endswith("...")]


@pytest.mark.parametrize("page", [p for p in PAGES if command_lines(p)], ids=lambda p: p.name)
def test_the_command_lines_of_a_page_are_understood(page: Path) -> None:
    for line in command_lines(page):
        for words in _combinations(shlex.split(line, comments=True)[1:]):
            app.parse_args(_split_lists(words), exit_on_error=False, print_error=False)


WITH_CODE = [
    page
    for page in (*PAGES, ROOT / "CONTRIBUTING.md")
    if "```python" in page.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.name)
def test_the_code_of_a_page_runs_in_its_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one test, since the blocks share their names: xdist may run two tests in two processes."""
    monkeypatch.chdir(tmp_path)
    parsers = (PythonCodeBlockParser(), SkipParser())
    for example in Document.parse(str(page), *parsers).examples():
        with contextlib.suppress(unittest.SkipTest):
            example.evaluate()


def follow(page: Path) -> None:
    """Run the commands of a page in the working directory."""
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        assert main(words) == 0, line


TUTORIAL = ROOT / "docs" / "tutorial.md"

# Its commands, and what it says that they find, are in `test_claims.py`.
FOLLOWED = [page for page in PAGES if commands(page) and page != TUTORIAL]


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("page", FOLLOWED, ids=lambda p: p.name)
def test_the_commands_of_a_page_run_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    follow(page)


def test_the_tutorial_shows_every_command_but_what_needs_files_of_ones_own() -> None:
    shown = {line.split()[1] for line in commands(TUTORIAL)}
    assert shown >= set(COMMANDS) - {
        *("import", "mark", "predict", "pull", "push", "rest", "run", "serve")
    }


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_every_line_that_installs_carries_the_constraints(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"pip3? install[^`\n]*", text)
    assert found or page != ROOT / "README.md"
    for command in found:
        assert re.search(r"-c (denature/)?constraints\.txt", command)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


EXPERIMENT_TABLES = sorted((ROOT / "results" / "paper").glob("*/*/table.md"))


@pytest.mark.parametrize("table", EXPERIMENT_TABLES, ids=lambda p: "-".join(p.parts[-3:-1]))
def test_the_tables_of_an_experiments_page_are_those_that_were_measured(table: Path) -> None:
    page = ROOT / "docs" / "experiments" / f"{table.parent.name}.md"
    assert table.read_text(encoding="utf-8").strip() in page.read_text(encoding="utf-8")


def test_every_experiment_has_a_page_with_its_smoke_result() -> None:
    smoke = {path.parent.name for path in EXPERIMENT_TABLES if path.parts[-3] == "smoke"}
    assert smoke == set(DESIGNS)
    index = (ROOT / "docs" / "experiments" / "README.md").read_text(encoding="utf-8")
    for name in DESIGNS:
        assert f"[{name}]({name}.md)" in index
        page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
        assert f"denature reproduce {name} --scale" in page


@pytest.mark.parametrize("name", DESIGNS)
def test_an_experiments_page_shows_what_was_measured_or_says_what_that_needs(name: str) -> None:
    """Beside the smoke result: a table and the figures of a larger scale, or the line, alone."""
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    [measured] = re.findall(r"^## Measured\n\n(.*?)^## Smoke", page, re.DOTALL | re.MULTILINE)
    not_run = re.match(r"Not run(?: on [^:\n]+)?: needs [^\n]+\n", measured)
    folders = [it.parent for it in EXPERIMENT_TABLES if it.parts[-2] == name]
    larger = [folder for folder in folders if folder.parts[-2] != "smoke"]
    assert (not_run is None) == bool(larger)
    for folder in larger:
        assert (folder / "table.md").read_text(encoding="utf-8").strip() in measured
        for figure in folder.glob("*.svg"):
            assert f"](../../results/paper/{folder.parts[-2]}/{name}/{figure.name})" in measured


def test_results_name_no_place_of_a_machine() -> None:
    files = [*(ROOT / "results").rglob("*.jsonl")]
    assert files
    for file in files:
        for record in find_records([file]):
            places = [it.folder for it in record.inputs.values()]
            assert record.data is not None
            for place in (*places, record.data.source):
                assert place is None or not Path(place).is_absolute(), f"{file}: {place}"


def test_each_promise_of_security_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    promises = text[text.index("## Promises") : text.index("## What a proxy")]
    lines = [line for line in promises.splitlines() if line.startswith("- ")]
    named = [re.findall(r"`(test_\w+)`", line) for line in lines]
    assert lines
    assert all(named)
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    missing = [name for names in named for name in names if f"def {name}(" not in sources]
    assert not missing
