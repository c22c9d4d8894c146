"""The documents tell the truth: their commands run, and their tables come from records."""

import csv
import json
import re
import shlex
from collections import Counter, defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import table
from benchmarks.coverage import LIMITS, intervals_table, verdicts_table
from denature.cli.app import COMMANDS, main
from denature.core.record import Record, find_records
from denature.core.schema import decode
from denature.core.stats import Estimate, mean_over_seeds
from denature.extract.theft import read_theft
from denature.recipes.demo import CAVEAT
from denature.recipes.nose.settings import TARGETS
from denature.recipes.paper.catalogue import DESIGNS
from denature.recipes.robustness_and_extraction import TEACHER_SEEDS
from denature.report import defensive, robustness_and_extraction, summarise
from denature.report import nose as nose_page
from denature.report.divergence import not_nasty
from denature.report.kinds import answers_of
from denature.report.theft import theft_table
from denature.report.words import markdown, student_table, teacher_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """The `$ denature ...` lines of a page's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ denature ")]


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_the_commands_of_a_page_run_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        assert main(words) == 0, line


def test_the_readme_shows_every_command_but_what_needs_files_of_ones_own() -> None:
    shown = {line.split()[1] for line in commands(ROOT / "README.md")}
    assert shown >= set(COMMANDS) - {"import", "mark", "predict", "run", "serve"}


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


def test_the_tables_of_the_readme_are_made_from_records() -> None:
    """To renew them: `denature report results/demo.jsonl --markdown`."""
    records = find_records([ROOT / "results" / "demo.jsonl"])
    summary = summarise(records)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert markdown(teacher_table(summary)) in readme
    assert markdown(student_table(summary)) in readme
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
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for words in spelt:
        assert words in CAVEAT
        assert words in readme


@pytest.mark.parametrize("name", ["engine", "wire", "attacks"])
def test_the_tables_of_the_benchmarks_are_made_from_what_was_measured(name: str) -> None:
    """To renew them: `make bench`, whose last lines are the tables."""
    wanted = import_module(f"benchmarks.{name}").WANTED
    found = json.loads((ROOT / "results" / f"{name}-cpu.json").read_text(encoding="utf-8"))
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    assert any(table(found, wanted) in page for page in pages)


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


def test_the_table_of_the_stolen_nose_is_made_from_what_was_measured() -> None:
    folder = ROOT / "results" / "nose" / "cpu"
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = markdown(found["lines"])
    assert (folder / "table.md").read_text(encoding="utf-8").strip() == lines
    page = (ROOT / "docs" / "nose.md").read_text(encoding="utf-8")
    assert lines in page
    rows = list(csv.DictReader((folder / "precision.csv").read_text().splitlines()))
    assert len(rows) == len(found["trials"]) == 30
    for row, trial in zip(rows, found["trials"], strict=True):
        assert float(row["mae_last"]) == pytest.approx(trial["last"], abs=1e-6)
    clones = rows_of_clones(find_records([folder / "records.jsonl"]))
    # What people marked is in no record.
    stored = [without(line, "From people %") for line in found["lines"][1:]]
    assert [without(line, "From people %") for line in nose_page.clone_table(clones)[1:]] == [
        line for line in stored if line[1].startswith("clone ")
    ]
    points = [
        nose_page.PrecisionPoint(
            decimals=it["precision"], trial=it["trial"], last=it["last"], best=it["best"],
            people=it["people"],
        )
        for it in found["trials"]
    ]  # fmt: skip
    base = Estimate(0.0, 0.0, 0.0, 1, "images")
    theft = nose_page.NoseTheft(
        victim="", queries=found["queries"], answers=0, tests=0, unseen=0, money=found["money"],
        dated="", clone=(), service=(),
    )  # fmt: skip
    _, error, decimals = nose_page.verdict_on_clones(clones, points, base, theft)
    assert any(told.startswith(error.split("; always")[0]) for told in found["verdict"])
    assert decimals in found["verdict"]


def without(line: list[str], column: str) -> list[str]:
    """A line of the nose's table without one of its columns."""
    [header] = nose_page.clone_table([])
    return [cell for name, cell in zip(header, line, strict=True) if name != column]


def rows_of_clones(records: list[Record]) -> list[nose_page.NoseRow]:
    """Rows of the nose's clones, from their records; intervals over clones, as the page says.

    Since that run the intervals of new results cover other test pictures too.
    """
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
            service=mean_over_seeds([it.error.value for it in runs if it.error is not None]),
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


def remade(found: Any, records: list[Record]) -> tuple[list[list[str]], list[str]]:
    """Table and verdict of hardened networks, made anew from the stored evaluations."""
    budget = found["budget"]
    if "findings" in found:
        findings = decode(tuple[defensive.Finding, ...], found["findings"], where="findings")
        return defensive.success_table(findings, budget), defensive.verdict_on_temperatures(
            findings
        )
    victims = decode(
        tuple[robustness_and_extraction.VictimResult, ...], found["worlds"], where="worlds"
    )
    alone = [
        it.accuracy for it in records if it.kind == "normal" and (it.seed or 0) < TEACHER_SEEDS
    ]
    lines = robustness_and_extraction.victim_table(
        victims, [it for it in alone if it is not None], budget
    )
    return lines, [*robustness_and_extraction.verdict_on_victims(victims), *not_nasty(records)]


@pytest.mark.parametrize("folder", HARDENED, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_the_tables_of_hardened_networks_are_made_from_what_was_measured(folder: Path) -> None:
    found = in_names_of_now(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    records = find_records([folder / "records.jsonl"])
    lines, sentences = remade(found, records)
    assert (found["lines"], found["verdict"]) == (lines, sentences)
    assert (folder / "table.md").read_text(encoding="utf-8").strip() == markdown(lines)
    page = (ROOT / "docs" / "hardening.md").read_text(encoding="utf-8")
    for text in (markdown(lines), *sentences):
        assert text in page
    assert all(record.environment["commit"] for record in records)


@pytest.mark.parametrize("folder", HARDENED, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_hardened_networks_and_clones_scored_what_their_records_say(folder: Path) -> None:
    found = in_names_of_now(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    records = find_records([folder / "records.jsonl"])
    measured = {it.net.digest: it.accuracy for it in records}
    for network in found.get("worlds") or found["findings"]:
        scores = [measured[judged["robustness"]["digest"]] for judged in network["judged"]]
        assert all(scores)
        if "accuracy" in network:
            assert scores == [decode(Estimate, it, where="") for it in network["accuracy"]]
    clones = [
        decode(Estimate, it["accuracy"], where="")
        for victim in found.get("worlds", ())
        for them in victim["clones"].values()
        for it in them
    ]
    learned = [it.accuracy for it in records if it.kind == "distilled"]
    assert Counter(clones) == Counter(learned)


def in_names_of_now(plain: Any) -> Any:
    """A stored result with the fields of today; a gain of before had one budget and no interval."""
    if isinstance(plain, list):
        return [in_names_of_now(it) for it in plain]
    if not isinstance(plain, dict):
        return plain
    names = {"cooled_by": "attack_temperature", "copies": "clones"}
    fields = {names.get(key, key): in_names_of_now(value) for key, value in plain.items()}
    unknown = {"value": 0.0, "low": -1.0, "high": 1.0, "n": 1, "over": "seeds"}
    if "sure" in fields:
        fields |= {"budgets": [fields["epsilon"]], "difference": unknown}
    elif "word" in fields and "masked" not in fields:
        fields |= {"samples": 0, "networks": [1, 1], "masked": unknown}
    return fields


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
