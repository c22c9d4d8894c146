"""README and the page of audits say what the published audits and the thieves' table measured."""

import json
import re
from pathlib import Path
from typing import Any

from denature.audit.config import STANDARD_THIEVES
from denature.audit.reading import NAIVE, NONE, defenses, difference, final, left_by, raced
from denature.report.results import read_outcome

ROOT = Path(__file__).parents[1]

PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")

NOISED = ("modelguard-w", "gaussian-noise", "mad")
"""Defenses of the standard audit that cost the naive thief much."""


def share(found: Any, sign: str = "", *, unit: str = "") -> str:
    """A value and its interval in percent."""
    value, low, high = (f"{100 * x:{sign}.1f}" for x in (found.value, found.low, found.high))
    return f"{value}{unit} [{low}, {high}]"


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
    assert set(re.findall(r"`([^`]+)`", stated)) == idle


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
