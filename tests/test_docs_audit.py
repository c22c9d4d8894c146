"""The page of audits says what the catalogues, the command and its line of JSON say."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from denature.audit.config import EFFORTS, STANDARD_THIEVES, AuditConfig
from denature.audit.line import line as line_of_json
from denature.audit.reading import NAIVE, NONE, defenses, difference, final, left_by, raced
from denature.cli.app import app
from denature.cli.commands import GROUPS
from denature.defenses.catalogue import DEFENSES
from denature.extract.config import thief_training
from denature.extract.strategies.base import Situation
from denature.extract.strategies.catalogue import STRATEGIES, strategy_of
from denature.report.results import read_outcome
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


def test_the_readme_says_what_the_published_audit_measured() -> None:
    """And the published result is drawn as the page says it."""
    outcome = read_outcome(ROOT / "results" / "audit" / "digits-standard")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    taken = re.search(r"it takes (\d+ % \[\d+, \d+\]) with 500 queries", readme)
    assert taken is not None
    assert f"a thief without labelled images takes {taken[1]} of the" in outcome.verdict[0]
    assert "with 500 queries" in outcome.verdict[0]
    assert outcome.verdict[1].startswith("None of 10 defenses is shown to lower")
    assert outcome.result.plan.effort == "standard"


def test_the_readme_says_what_the_audit_of_photographs_measured() -> None:
    outcome = read_outcome(ROOT / "results" / "audit" / "cifar10-standard")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [taken] = re.findall(
        r"with 5,000 queries a thief without labelled images takes (.*?) of", readme
    )
    assert f"a thief without labelled images takes {taken} of the model" in outcome.verdict[0]
    assert outcome.verdict[1].startswith(
        "No defense is shown to keep the worst thief below half; 4 of 10 defenses lower what it"
    )
    assert "Four of ten defenses are shown to lower that, by 4 to 5 points" in readme
    idle = {
        name.partition("@")[0]
        for name in defenses(outcome.result)
        if name != NONE
        and all(
            difference(naive, bare).high >= 0
            for threat in ("A", "B")
            if (naive := raced(outcome.result, name, NAIVE, threat))
            and (bare := raced(outcome.result, NONE, NAIVE, threat))
        )
    }
    [stated] = re.findall(r"under threat A; (.*?) are not shown to cost it anything", PAGE)
    assert set(named(stated)) == idle


def test_the_readme_leads_with_the_audit() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme)
    assert pictures[0] == "docs/images/audit.png"
    commands = re.findall(r"^(?:\.venv/bin/)?(make demo|denature \w+)", readme, re.MULTILINE)
    assert commands[:2] == ["make demo", "denature audit"]
    assert next(iter(next(iter(GROUPS.values())))) == "audit"


def test_the_reading_of_the_audited_digits_has_its_numbers() -> None:
    result = read_outcome(ROOT / "results" / "audit" / "digits-standard").result
    cells = {
        (cell.defense.partition("@")[0], cell.thief, cell.budget): cell
        for cell in result.cells
        if cell.threat == "B" and cell.accuracy is not None
    }
    right = {place: 100 * cell.accuracy.value for place, cell in cells.items() if cell.accuracy}
    text = PAGE[PAGE.index("## The digits, audited") : PAGE.index("## CIFAR-10, audited")]
    after = {defense: cells[defense, NAIVE, 500].accuracy for defense in NOISED}
    labels = sorted(right[defense, "labels", 500] for defense in NOISED)
    recovering = ("recovery-network", "recovery-table")
    warded = [right["modelguard-w", thief, 100]
              for thief in (NAIVE, "recovery-table", "tuned", "skeptical")]  # fmt: skip
    moved = [right["mad", thief, 100] for thief in (NAIVE, *recovering)]
    outcomes = [cell.outcome for cell in result.cells]
    for stated in (
        f"{right['modelguard-w', NAIVE, 500]:.1f} % of the images behind ModelGuard-W, and on "
        f"{right[NONE, NAIVE, 500]:.1f} % without a defense; ",
        "behind Gaussian noise on {gaussian-noise} and behind MAD on {mad}, which three".format(
            **{name: share(found, unit=" %") for name, found in after.items()}
        ),
        f"at {labels[0]:.1f} to {labels[-1]:.1f} % behind all three",
        "naive clone is right on {:.0f} %, that of the recovery table, which knows the defense, on "
        "{:.0f} %, those of tuned and skeptical on {:.0f} and {:.0f} %".format(*warded),
        "behind MAD the naive one on {:.0f} %, those of the recovery network and the recovery "
        "table on {:.0f} and {:.0f} %".format(*moved),
        f"ModelGuard-W: {right['modelguard-w', 'recovery-network', 100]:.0f} % of one seed",
        f"{result.queries:,} queries to the model for {len(outcomes)} cells, of which "
        f"{outcomes.count('not applicable')} do not apply",
        f"{result.seconds // 60:.0f} min {result.seconds % 60:.0f} s",
    ):
        assert stated in text, stated
    naive = {name: raced(result, name, NAIVE, "B") for name in defenses(result)}
    bare = naive[NONE]
    assert bare is not None
    lower = [name for name, found in naive.items() if found and difference(found, bare).high < 0]
    assert lower == ["modelguard-w"]


def test_the_table_of_the_audited_photographs_is_that_of_its_result() -> None:
    result = read_outcome(ROOT / "results" / "audit" / "cifar10-standard").result
    left, last = left_by(result, "B"), final(result, "B")
    lines = []
    for price in result.defenses:
        name = price.defense
        naive = raced(result, name, NAIVE, "B")
        assert naive is not None
        points = "" if name == NONE else share(difference(left[name], left[NONE]), "+")
        kept, moved = f"{100 * price.top1_kept.value:.1f}", price.l1
        lines.append(
            f"| `{name}` | {kept} | {'' if moved is None else f'{moved:.2f}'} | {share(naive)} | "
            f"{share(left[name])} | `{last[name].thief}` | {points} |"
        )
    _, _, text = PAGE.partition("<!-- rows of results/audit/cifar10-standard -->\n")
    assert text.split("\n\n")[0].splitlines()[2:] == lines


def test_the_reading_of_the_audited_photographs_has_its_numbers() -> None:
    result = read_outcome(ROOT / "results" / "audit" / "cifar10-standard").result
    text = PAGE[PAGE.index("## CIFAR-10, audited") : PAGE.index("## Each thief, where")]
    worst = {(w.defense, w.threat, w.budget): w for w in result.worst}
    bare, early = worst[NONE, "B", 5000], worst[NONE, "B", 1000]
    assert bare.recovered is not None
    assert early.recovered is not None
    outcomes = [cell.outcome for cell in result.cells]
    right = {
        (cell.defense.partition("@")[0], cell.thief): f"{100 * cell.accuracy.value:.1f} %"
        for cell in result.cells
        if cell.accuracy is not None and (cell.threat, cell.budget) == ("B", 1000)
    }
    [nasty] = [price for price in result.defenses if price.defense == "nasty"]
    taken = left_by(result, "A")
    for stated in (
        f"right on {share(result.model.accuracy, unit=' %')} of 5,000 reported test images",
        f"{result.queries:,} queries to the model for {len(outcomes)} cells, of which "
        f"{outcomes.count('not applicable')} do not apply",
        f"nine tenths of the advantage**, {share(bare.recovered, unit=' %')}, and 1,000 three "
        f"quarters, {share(early.recovered, unit=' %')}",
        f"right on {100 * bare.accuracy.value:.1f} % of the images, the model on "
        f"{100 * result.model.accuracy.value:.1f} %",
        f"clone is right on {right[NONE, 'other-domain']} of the test images, with as many of the "
        f"model's own on {right[NONE, NAIVE]}; behind ModelGuard-W on "
        f"{right['modelguard-w', 'other-domain'].removesuffix(' %')} and "
        f"{right['modelguard-w', NAIVE]}.",
        f"right on {100 * nasty.accuracy.value:.1f} % of the images, names another class than the "
        f"model on {100 * (1 - nasty.top1_kept.value):.0f} %",
        f"of {100 * taken[NONE].value:.1f} %.",
    ):
        assert stated in text, stated
    lower = {
        threat: {
            name.partition("@")[0]: -100 * apart.value
            for name, left in left_by(result, threat).items()
            if (apart := difference(left, left_by(result, threat)[NONE])).high < 0
        }
        for threat in ("A", "B")
    }
    four = {"gaussian-noise", "gradient-redirection", "modelguard-w", "modelguard-s"}
    kept = {name.partition("@")[0]: 100 * left.value for name, left in left_by(result, "B").items()}
    behind = sorted(kept[name] for name in four)
    naive = {
        name.partition("@")[0]: 100 * found.value
        for name in defenses(result)
        if (found := raced(result, name, NAIVE, "B"))
    }
    labels = raced(result, NONE, "labels", "B")
    assert labels is not None
    for stated in (
        f"takes {100 * labels.value:.1f} % without a defense, the worst thief behind `label-only` "
        f"{kept['label-only']:.1f} %, and behind the four {behind[0]:.1f} to {behind[-1]:.1f} %",
        f"takes {naive['modelguard-w']:.1f} % behind ModelGuard-W, and {naive['mad']:.1f} % behind "
        f"MAD and redirection, of {naive[NONE]:.1f} %",
        f"takes {kept['mad']:.1f} % behind MAD, and the tuned thief, which also tries labels, "
        f"{kept['modelguard-w']:.1f} % behind ModelGuard-W",
        f"clones are as good: {kept['nasty']:.1f} %",
    ):
        assert stated in text, stated
    assert round(naive["mad"], 1) == round(naive["gradient-redirection"], 1)
    for threat in ("A", "B"):
        left = left_by(result, threat)
        for name in defenses(result):
            if name != NONE:
                assert difference(left[name], left["label-only"]).high >= 0
    hidden = difference(left_by(result, "B")[NONE], left_by(result, "B")["label-only"])
    assert f"takes {share(hidden, '+').removeprefix('+').replace(' [', ' points less [')}." in text
    assert lower["B"].keys() == four
    assert lower["A"].keys() == {*four, "label-only", "mad"}
    for threat, stated in (("B", "**Four of ten defenses are shown to lower that, by {} to {}"),
                           ("A", "a thief takes {} to {} points less")):  # fmt: skip
        points = lower[threat].values()
        assert stated.format(round(min(points)), round(max(points))) in text


def share(found: Any, sign: str = "", *, unit: str = "") -> str:
    """A value and its interval in percent."""
    value, low, high = (f"{100 * x:{sign}.1f}" for x in (found.value, found.low, found.high))
    return f"{value}{unit} [{low}, {high}]"


def test_each_thief_is_listed_with_what_it_won() -> None:
    """And a thief of the standard set, which needs no second network or pool, won somewhere."""
    found = json.loads((ROOT / "results" / "thieves.json").read_text())
    for rows in (found["costs"], found["gains"]):
        for row in rows:
            row["points"] = "{:+.1f} [{:+.1f}, {:+.1f}]".format(
                *(100 * row["difference"][key] for key in ("value", "low", "high"))
            )
            row |= {key: f"{100 * row[key]:.1f}" for key in ("accuracy", "of_other")}
    costs = [f"| `{row['defense']}` | {row['accuracy']} | {row['points']} |"
             for row in found["costs"]]  # fmt: skip
    gains = [f"| `{row['thief']}` | `{row['defense']}` | {row['budget']} | {row['accuracy']} | "
             f"{row['of_other']} | {row['points']} |" for row in found["gains"]]  # fmt: skip
    for kind, lines in (("costs", costs), ("gains", gains)):
        _, _, text = PAGE.partition(f"<!-- {kind} of results/thieves.json -->\n")
        assert text.split("\n\n")[0].splitlines()[2:] == lines
    won = {row["thief"] for row in found["gains"] if row["difference"]["low"] > 0}
    unmeasured, no_better_than_its_neighbours = {"naive", "other-domain"}, {"active-uncertainty"}
    assert won - no_better_than_its_neighbours | unmeasured == set(STANDARD_THIEVES)
    active = {row["thief"]: row["difference"] for row in found["gains"] if "active" in row["thief"]}
    [uncertain] = (active[name] for name in no_better_than_its_neighbours)
    assert all(uncertain["low"] < other["value"] < uncertain["high"] for other in active.values())
    idle = sum(row["difference"]["high"] >= 0 for row in found["costs"])
    assert idle == 11
    assert "Eleven of these settings take nothing" in PAGE
    assert f"of {len(costs) + len(gains)} rows some two would look settled by chance" in PAGE


NOISED = ("modelguard-w", "gaussian-noise", "mad")
"""Defenses of the standard audit that cost the naive thief much."""
