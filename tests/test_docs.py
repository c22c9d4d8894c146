"""The documents tell the truth: their commands run, and their tables come from records."""

import contextlib
import csv
import json
import re
import shlex
import unittest
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from benchmarks.abuse import table as abuse_table
from benchmarks.audit import fidelity_table
from benchmarks.bench import table
from benchmarks.coverage import LIMITS, intervals_table, verdicts_table
from benchmarks.defended import added_table
from denature.cli.app import _combinations, _split_lists, app, main
from denature.cli.commands import COMMANDS
from denature.core.record import Record, find_records
from denature.core.stats import pooled
from denature.extract.theft import read_theft
from denature.recipes.demo import CAVEAT
from denature.recipes.nose.settings import TARGETS
from denature.recipes.paper.catalogue import DESIGNS
from denature.report import nose as nose_page
from denature.report import summarise
from denature.report.kinds import answers_of
from denature.report.results import Outcome, read_outcome
from denature.report.tables import markdown
from denature.report.theft import theft_table
from denature.report.words import student_table, teacher_table

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
        assert "-c constraints.txt" in command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_tables_of_the_demo_are_made_from_records() -> None:
    """To renew them: `denature report results/demo.jsonl --markdown`."""
    records = find_records([ROOT / "results" / "demo.jsonl"])
    summary = summarise(records)
    page = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    assert markdown(teacher_table(summary)) in page
    assert markdown(student_table(summary)) in page
    assert len(records) == 30
    assert len({record.environment["commit"] for record in records}) == 1


def test_the_caveat_of_the_demo_says_what_was_measured() -> None:
    """Of each seed the student that is best on the validation split, beside the demo's own."""
    found = find_records([ROOT / "results" / "demo-choosing.jsonl"])
    chosen, demos = [], []
    for seed in range(3):
        tried = [record for record in found if record.seed == seed]
        settings = {
            (record.config["objective"]["temperature"], record.config["training"]["lr"])
            for record in tried
        }
        assert settings == {(tau, lr) for tau in (1, 4, 20) for lr in (0.0005, 0.002)}
        assert {record.chosen_on for record in tried} == {"validation"}
        chosen.append(
            max(tried, key=lambda it: max(e.validation_accuracy or 0 for e in it.history))
        )
        [demo] = [
            record
            for record in find_records([ROOT / "results" / "demo.jsonl"])
            if (record.seed, record.net.name, answers_of(record)) == (seed, "cnn", "soft")
            and record.inputs["teacher"].kind == "nasty"
        ]
        # The same teacher, or its weights.
        assert {it.inputs["teacher"].digest for it in tried} == {demo.inputs["teacher"].digest}
        demos.append(demo)
    spelt = [
        "{}, {} and {} %".format(*(f"{100 * it.accuracy.value:.1f}" for it in its if it.accuracy))
        for its in (chosen, demos)
    ]
    page = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    for words in spelt:
        assert words in CAVEAT
        assert words in page


@pytest.mark.parametrize(
    "name",
    ["engine", "engine-avx2", "wire", "attacks", "defenses", "gateway", "audit_speed", "threads"],
)
def test_the_tables_of_the_benchmarks_are_made_from_what_was_measured(name: str) -> None:
    """To renew them: `make bench`, whose last lines are the tables."""
    wanted = import_module(f"benchmarks.{name.partition('-')[0]}").WANTED
    found = json.loads((ROOT / "results" / f"{name}-cpu.json").read_text(encoding="utf-8"))
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    assert any(table(found, wanted) in page for page in pages)


def test_readme_states_the_speed_that_was_measured() -> None:
    found = json.loads((ROOT / "results" / "engine-cpu.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for key, digits in (("distill_live", 1), ("distill_stored", 0), ("nasty_stored", 1)):
        assert f"{found[key]['ratio']:.{digits}f} times as fast" in readme
    shares = [100 * line["of_limit"] for line in found.values() if "of_limit" in line]
    assert f"That is {min(shares):.0f} to {max(shares):.0f} % of what bare steps" in readme


def test_the_figures_of_a_server_under_attack_are_those_that_were_measured() -> None:
    """To renew them: `python -m benchmarks.abuse`, as the page says."""
    found = json.loads((ROOT / "results" / "abuse-cpu.json").read_text(encoding="utf-8"))
    assert abuse_table(found) in (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_what_defenses_add_to_a_request_is_what_was_measured() -> None:
    """To renew them: `python -m benchmarks.defended`, as the page says."""
    found = json.loads((ROOT / "results" / "defended-cpu.json").read_text(encoding="utf-8"))
    assert added_table(found) in (ROOT / "docs" / "defending.md").read_text(encoding="utf-8")


def test_the_fidelities_beside_art_are_those_that_were_measured() -> None:
    """To renew them: `python -m benchmarks.audit --art PYTHON --json results/audit-cpu.json`."""
    found = json.loads((ROOT / "results" / "audit-cpu.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "stealing.md").read_text(encoding="utf-8")
    assert fidelity_table(found) in page
    differences = [line["difference"] for line in found.values() if "difference" in line]
    assert len(differences) == 4
    assert all(high >= 0 for _, _, high in differences)


def test_the_error_rates_of_intervals_and_verdicts_are_those_that_were_simulated() -> None:
    """To renew them: `python -m benchmarks.coverage --json results/coverage.json`."""
    found = json.loads((ROOT / "results" / "coverage.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert intervals_table(found) in page
    assert verdicts_table(found) in page
    ours = [line for line in found["intervals"] if line[0] not in LIMITS]
    assert min(line[2] for line in ours) >= 0.93
    undefended = [
        shares
        for name, _, shares in found["verdicts"]
        if name.startswith(("no defense", "three seeds without"))
    ]
    assert undefended
    assert max(shares.get("more robust", 0.0) for shares in undefended) < 0.05


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "results" / "stealing").iterdir()), ids=lambda folder: folder.name
)
def test_the_tables_of_thefts_are_made_from_what_was_measured(folder: Path) -> None:
    theft = read_theft(folder)
    assert theft is not None
    lines = markdown(theft_table(theft))
    assert (folder / "table.md").read_text(encoding="utf-8").strip() == lines
    assert lines in (ROOT / "docs" / "stealing.md").read_text(encoding="utf-8")
    assert find_records([folder / "records.jsonl"])


def remade(folder: Path, page: str) -> Outcome:
    """A published outcome, read from its files; table and verdict stand in its page of the docs."""
    outcome = read_outcome(folder)
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = [list(line) for line in outcome.lines]
    assert (found["lines"], found["verdict"]) == (lines, list(outcome.verdict))
    assert (folder / "table.md").read_text(encoding="utf-8").strip() == markdown(lines)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert markdown(lines) in text
    assert all(record.environment["commit"] for record in outcome.records)
    return outcome


def test_the_table_of_the_stolen_nose_is_made_from_what_was_measured() -> None:
    folder = ROOT / "results" / "nose" / "cpu"
    outcome = remade(folder, "nose.md")
    found = outcome.result
    rows = list(csv.DictReader((folder / "precision.csv").read_text().splitlines()))
    assert len(rows) == len(found.trials) == 30
    for row, trial in zip(rows, found.trials, strict=True):
        assert float(row["mae_last"]) == pytest.approx(trial.last, abs=1e-6)
    # What people marked is in no record.
    stored = [without(list(line), "From people %") for line in outcome.lines[1:]]
    clones = nose_page.clone_table(rows_of_clones(outcome.records))
    assert [without(line, "From people %") for line in clones[1:]] == [
        line for line in stored if line[1].startswith("clone ")
    ]
    page = (ROOT / "docs" / "nose.md").read_text(encoding="utf-8")
    for timings, unit in ((found.theft.clone, "pictures a second"), (found.theft.service, "")):
        fastest = max(timing.images_per_second for timing in timings)
        assert f"{fastest:,.0f} {unit}".strip() in page


def without(line: list[str], column: str) -> list[str]:
    """A line of the nose's table without one of its columns."""
    [header] = nose_page.clone_table([])
    return [cell for name, cell in zip(header, line, strict=True) if name != column]


def rows_of_clones(records: Sequence[Record]) -> list[nose_page.NoseRow]:
    """Rows of the nose's clones, from their records."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.kind != "cloned":
            continue
        assert record.data is not None
        values = tuple(dict.fromkeys(name.partition(".")[0] for name in record.data.classes))
        [target] = [name for name, them in TARGETS.items() if them == values]
        who = "clone from scratch"
        if "backbone" in record.inputs:
            mode = "frozen" if record.config["training"]["frozen"] else "fine-tuned"
            who = f"clone from {record.inputs['backbone'].folder}, {mode}"
        groups[target, who].append(record)
    return [
        nose_page.NoseRow(
            name=who, target=target, net=runs[0].net.name,
            service=pooled([it.error for it in runs if it.error is not None]),
            parameters=runs[0].net.parameters, clones=len(runs),
        )
        for (target, who), runs in groups.items()
    ]  # fmt: skip


HARDENED = [
    path.parent
    for name in ("defensive-distillation", "robustness-and-extraction")
    for path in sorted((ROOT / "results" / name).glob("*/result.json"))
]


def test_there_are_results_of_hardened_networks() -> None:
    assert {folder.parts[-2] for folder in HARDENED} == {
        "defensive-distillation",
        "robustness-and-extraction",
    }


@pytest.mark.parametrize("folder", HARDENED, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_the_tables_of_hardened_networks_are_made_from_what_was_measured(folder: Path) -> None:
    outcome = remade(folder, "hardening.md")
    page = (ROOT / "docs" / "hardening.md").read_text(encoding="utf-8")
    for sentence in outcome.verdict:
        assert sentence in page


@pytest.mark.parametrize("folder", HARDENED, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_hardened_networks_and_clones_scored_what_their_records_say(folder: Path) -> None:
    outcome = read_outcome(folder)
    measured = {record.net.digest: record.accuracy for record in outcome.records}
    victims = getattr(outcome.result, "victims", ())
    for network in victims or outcome.result.findings:
        scores = [measured[judged.robustness.digest] for judged in network.judged]
        assert all(scores)
        assert not victims or scores == list(network.accuracy)
    clones = [
        score.accuracy
        for victim in victims
        for scores in victim.clones.values()
        for score in scores
    ]
    learned = [record.accuracy for record in outcome.records if record.kind == "distilled"]
    assert Counter(clones) == Counter(learned)


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
