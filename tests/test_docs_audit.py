"""The page of audits says what the catalogues, the command and its line of JSON say."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from denature.audit.config import EFFORTS, AuditConfig
from denature.audit.line import line as line_of_json
from denature.cli.app import EXPLAINED, app
from denature.cli.commands import GROUPS
from denature.defenses.catalogue import DEFENSES
from denature.extract.config import thief_training
from denature.extract.strategies.base import Situation
from denature.extract.strategies.catalogue import STRATEGIES, strategy_of
from denature.train import Training
from tests.audits import audit

ROOT = Path(__file__).parents[1]

PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")


def rows(first: str) -> dict[str, dict[str, str]]:
    """Rows of a table of the page by their first cell; `first` heads its first column."""
    lines = iter(PAGE.splitlines())
    header = cells(next(line for line in lines if line.startswith(f"| {first} |")))
    assert next(lines).startswith("| ---")
    found = {}
    for line in lines:
        if not line.startswith("|"):
            break
        found[cells(line)[0].strip("`")] = dict(zip(header, cells(line), strict=True))
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def named(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def test_every_defense_and_every_thief_has_a_row() -> None:
    assert list(rows("defense")) == list(DEFENSES)
    assert list(rows("thief")) == list(STRATEGIES)


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_is_stated_as_it_is(name: str) -> None:
    row, defense = rows("defense")[name], DEFENSES[name]
    options = [option for option in defense().spelled.partition("@")[2].split("+") if option]
    assert (named(row["options"]) or row["options"]) == (options or "none")
    assert row["takes"] == ", ".join(defense.takes)
    assert row["gives"] == (defense.gives or "the same")
    assert row["network"] == (defense.role or "no")
    keeps = "yes" if defense().keeps_top else "no"
    for option, value in asdict(defense()).items():
        switched: dict[str, Any] = {option: True}
        if value is False and defense(**switched).keeps_top != defense().keeps_top:
            keeps = f"with `{option}`"
    assert row["keeps the class"] == keeps


def test_the_defenses_that_perturb_and_those_that_are_random_are_named() -> None:
    [perturbed] = re.findall(r"^Scores are \*perturbed\* (.*?)\. Answers", PAGE, re.MULTILINE)
    noise = {name for name in DEFENSES if name.endswith("-noise")}
    assert {*named(perturbed), *noise} == {n for n, defense in DEFENSES.items() if defense.perturbs}
    assert noise == {name for name, defense in DEFENSES.items() if defense.random}


SITUATION = Situation(
    threat="B", kind="probabilities", random=True, perturbs=True, classes=10, net="cnn",
    budget=1000, labelled=0, backbone="a network", encoder=True, other_pool="a pool",
)  # fmt: skip
"""Every thief applies here."""

REASONS: Mapping[str, Mapping[str, Any]] = {
    "labels are shown": {"kind": "label", "threat": "A", "labelled": 10},
    "labels are shown, under threat B": {"kind": "label"},
    "the answers are not random": {"random": False},
    "scores are not perturbed": {"perturbs": False},
    "no `--other-pool`": {"other_pool": None},
    "no `--backbone`": {"backbone": None},
    "no `--encoder`": {"encoder": False},
}
"""What the page says of thieves that do not apply, and a situation in which that is so."""


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_thief_applies_as_stated(name: str) -> None:
    row, strategy = rows("thief")[name], strategy_of(name)
    stated = row["does not apply"]
    cost = strategy.trained_images(1000, Training()) / (1000 * thief_training(1000).epochs)
    assert float(row["cost"]) == round(cost, 2)
    assert strategy.excluded(SITUATION) is None
    excluded = [
        reason
        for reason, change in REASONS.items()
        if strategy.excluded(replace(SITUATION, **change)) is not None
    ]
    if "labels are shown" in excluded:  # then under threat B too
        excluded.remove("labels are shown, under threat B")
    least = int((re.findall(r"fewer than (\d+) queries", stated) or [2])[0])
    assert strategy.excluded(replace(SITUATION, budget=least)) is None
    if least > 2:
        assert strategy.excluded(replace(SITUATION, budget=least - 1)) is not None
        excluded.append(f"fewer than {least} queries")
    # `skeptical` alone may also lack a stage, which no network of the catalogue does.
    said = stated.replace(", or the clone's network has no such stage", "")
    assert said == (", or ".join(excluded) or "applies always")


def test_the_efforts_are_stated_as_they_are() -> None:
    found = rows("`--effort`")
    assert list(found) == list(EFFORTS)
    for effort, preset in EFFORTS.items():
        config = AuditConfig(effort=effort)
        budgets = [len(config.budgets(10**6, channels=channels)) for channels in (1, 3)]
        counted = [len(config.defenses), len(config.thieves), *budgets]
        numbers = [int(cell) for cell in list(found[effort].values())[1:]]
        assert numbers == [*counted, preset.seeds, preset.labelled]


def test_the_thieves_of_threat_a_are_named() -> None:
    [listed] = re.findall(r"Under threat A run (.*?); under B all thieves", PAGE)
    assert named(listed) == [name for name, thief in STRATEGIES.items() if "A" in thief.threats]


def test_options_that_are_named_exist_and_all_of_the_plan_are_named() -> None:
    arguments = app["audit"].assemble_argument_collection()
    known = {name for argument in arguments for name in argument.names}
    shown = set(re.findall(r"(?<![-\w])--[a-z][-\w]*", PAGE))
    assert shown <= known
    plan = {f"--{name.replace('_', '-')}" for name in asdict(AuditConfig())}
    others = {"--pool", "--other-pool", "--backbone", "--encoder", "--estimate", "--fail-above"}
    service = {"--model", "--output", "--kind", "--key-file", "--max-queries", "--max-cost"}
    assert plan | others | service <= shown


def test_the_keys_of_the_line_of_json_are_stated() -> None:
    found = json.loads(line_of_json(audit(), seconds=1.0, report=Path("report.html")))
    stated = {key: row for heads, row in rows("key").items() for key in named(f"`{heads}`")}
    assert set(stated) == set(found)
    for key, row in stated.items():
        value = found[key][0] if isinstance(found[key], list) and found[key] else found[key]
        if isinstance(value, dict):
            [about] = [text for head, text in row.items() if head != "key"]
            assert set(named(about)) == set(value), key


def test_the_readme_leads_with_the_audit() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme)
    assert pictures[0] == "docs/images/audit.png"
    commands = re.findall(r"^(?:\.venv/bin/)?(make demo|denature \w+)", readme, re.MULTILINE)
    assert commands[:2] == ["make demo", "denature audit"]
    assert next(iter(next(iter(GROUPS.values())))) == "audit"
    assert EXPLAINED.endswith(
        "Start with `denature demo`, then `denature audit MODEL --data DATA`."
    )
