"""Tables and figures of the documents are those of results and records."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.abuse import table as abuse_table
from benchmarks.answers import ways_table
from benchmarks.audit import fidelity_table
from benchmarks.bench import table
from benchmarks.coverage import LIMITS, intervals_table, verdicts_table
from benchmarks.defended import added_table
from benchmarks.surrogates import surrogates_table
from denature.core.record import Record, find_records
from denature.core.stats import pooled
from denature.extract.theft import read_theft
from denature.recipes.demo import CAVEAT
from denature.recipes.nose.settings import TARGETS
from denature.report import nose as nose_page
from denature.report import summarise
from denature.report.kinds import answers_of
from denature.report.results import Outcome, read_outcome
from denature.report.tables import markdown
from denature.report.theft import theft_table
from denature.report.words import student_table, teacher_table

ROOT = Path(__file__).parents[1]


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
    assert any(f"{table(found, wanted)}\n\n" in page for page in pages)
    lines = table(found, wanted).splitlines()
    assert len(lines) - 2 >= len(wanted) - UNMEASURED.get(name, 0)


UNMEASURED = {"engine-avx2": 2, "threads": 8}
"""Rows of a benchmark that a result may lack: of other hardware, or of a busy machine."""


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
    lines = abuse_table(found)
    assert len(lines.splitlines()) > 10
    assert f"{lines}\n\n" in (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_other_ways_to_answer_have_the_speed_and_error_that_were_measured() -> None:
    """To renew them: `python -m benchmarks.answers`, as the page says."""
    found = json.loads((ROOT / "results" / "answers-cpu.json").read_text(encoding="utf-8"))
    assert ways_table(found) in (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")


def test_the_table_of_surrogates_is_that_of_the_benchmarks_results() -> None:
    """To renew it: `python -m benchmarks.surrogates --data DATA --json results/surrogates-...`."""
    files = {"digits": "digits", "CIFAR-10": "cifar10"}
    found = {
        data: json.loads((ROOT / "results" / f"surrogates-{name}.json").read_text(encoding="utf-8"))
        for data, name in files.items()
    }
    assert surrogates_table(found) in (ROOT / "docs" / "defending.md").read_text(encoding="utf-8")


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
