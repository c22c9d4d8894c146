"""What all pages have in common: structure, first line, no path of the machine, one look."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from denature.audit.result import Interval
from denature.cli.app import main
from denature.core.record import find_records
from denature.core.redact import record_without_paths, without_paths
from denature.core.schema import encode
from denature.core.stats import Estimate
from denature.report.cells import TableCell
from denature.report.flatness import verdict_on_flatness
from denature.report.links import links_of
from denature.report.page import Page, Plot, Table, render
from denature.report.paper import PaperResult
from denature.report.results import page_of, read_outcome
from denature.report.robustness import attack_table
from denature.report.robustness import page as robustness_page
from denature.report.runs import page as page_of_runs
from denature.report.theft import verdict_on_theft
from denature.report.words import percent, share, terms
from denature.robust.config import budget_text
from tests.audits import audit
from tests.browser import CHROMIUM, probe, violations
from tests.made_results import flat, flatness, minima, near, of_training, robustness
from tests.test_audit_page import Elements

ROOT = Path(__file__).parents[1]


def paper() -> Page:
    cells = [
        TableCell(row=row, column="mlp", x=x, seeds=3, accuracy=near(0.5 + 0.1 * x))
        for row in ("alone", "of nasty")
        for x in (1.0, 2.0, 4.0)
    ]
    result = PaperResult(
        name="ablate-alpha", scale="smoke", about="An ablation.", differs="Digits.",
        cells=tuple(cells), axis="alpha",
    )  # fmt: skip
    return page_of(result, [])


def published(folder: str) -> Callable[[], Page]:
    return lambda: read_outcome(ROOT / "results" / folder).page


PAGES: dict[str, Callable[[], Page]] = {
    "audit": lambda: page_of(audit(), []),
    "theft": published("stealing/cifar10"),
    "robustness": lambda: page_of(robustness(budgets=(0.1, 0.2)), []),
    "flatness": lambda: page_of(flatness(flat("a", 0.9, 0.5), flat("b", 0.6, 0.8)), []),
    "flat minima": lambda: page_of(
        minima(
            of_training("plain", robust=0.5, fall=0.5, sensitivity=0.6),
            of_training("T-20", robust=0.7, fall=0.2, sensitivity=0.3),
        ),
        [],
    ),
    "paper": paper,
    "defensive distillation": published("defensive-distillation/smoke"),
    "robustness and extraction": published("robustness-and-extraction/smoke"),
    "nose": published("nose/cpu"),
    "runs": lambda: page_of_runs(find_records([ROOT / "results" / "demo.jsonl"])),
}
"""A page of each kind; the demo's is one of runs."""


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("name", PAGES)
def test_tables_and_figures_say_what_they_are(name: str) -> None:
    page = PAGES[name]()
    assert all(block.caption for block in page.blocks if isinstance(block, Plot))
    elements = Elements(render(page))
    tables = [block for block in page.blocks if isinstance(block, Table) and len(block.lines) > 1]
    assert len(elements.of("caption")) == len(elements.of("table")) >= len(tables) > 0
    assert all(head.get("scope") in ("col", "row") for head in elements.of("th"))
    assert sum(head["scope"] == "row" for head in elements.of("th")) >= sum(
        len(table.lines) - 1 for table in tables
    )
    assert all(image.get("alt") for image in elements.of("img"))
    assert [tag for tag, _ in elements.found if re.fullmatch("h[1-6]|main", tag)][:2] == [
        "main",
        "h1",
    ]


TIPS: dict[str, str] = {
    "theft": "clone; queries 20,000; accuracy, % of the test images 78.4",
    "robustness": "runs/hard; budget, linf 0.2; robust accuracy, % 70",
    "flatness": "a; change of the weights, shares of each filter 0.2; training accuracy, % 98",
    "paper": "of nasty; alpha 2; accuracy on the test split, % 70",
    "robustness and extraction": "labels; accuracy of clones, %",
    "runs": "accuracy on the test split, %",
}


@pytest.mark.parametrize("name", TIPS)
def test_points_of_charts_say_their_values(name: str) -> None:
    tips = re.findall(r"<title>([^<]*)</title>", render(PAGES[name]()))[1:]
    assert any(TIPS[name] in tip for tip in tips), tips[:5]


# The first line


def test_the_first_line_has_result_date_and_scope() -> None:
    stated = replace(audit(), scope="Contract 17: staging, until May.", date="2026-11-26")
    [line] = re.findall(r'<p class="summary">(.*?)</p>', render(page_of(stated, [])))
    assert line.startswith(
        "<strong>With 5,000 queries the worst thief takes 88\u00a0% [84, 92] of the model&#39;s adv"
    )
    assert line.endswith(
        "Tested on 2026-11-26. Scope and permission: Contract 17: staging, until May."
    )
    assert terms("", "2026-11-26").endswith("Scope and permission: none was stated.")
    theft = published("stealing/cifar10")()  # of a version without a scope
    assert theft.dated == "Tested on 2026-11-21. Scope and permission: none was stated."
    assert page_of(robustness(budgets=(0.1,), scope="Ours."), []).dated.endswith(
        "permission: Ours."
    )
    flat_result = replace(flatness(flat("a", 0.6, 0.5)), scope="Ours.", date="2026-11-26")
    assert page_of(flat_result, []).dated == "Tested on 2026-11-26. Scope and permission: Ours."
    assert PAGES["runs"]().dated == "Last run begun on 2026-11-26."


def test_the_command_line_keeps_scope_and_shows_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_figures: None
) -> None:
    monkeypatch.chdir(tmp_path)
    brief = ["--epochs", "1", "--device", "cpu", "--precision", "fp32", "-q"]
    assert main(["train", "mlp", "--data", "digits", "--out", "runs/own", *brief]) == 0
    # From an absolute path, and into one: what is written is relative all the same.
    theft = ["steal", str(tmp_path / "runs/own"), "--pool", "digits", "--budget", "20"]
    theft += ["--student", "mlp", "--scope", "Our own model.", "--out", str(tmp_path / "theft")]
    assert main([*theft, *brief]) == 0
    files = ["result.json", "report.html", "records.jsonl", "table.md"]
    written = {name: (tmp_path / "theft" / name).read_text() for name in files}
    assert all(str(tmp_path) not in text for text in written.values())
    found = json.loads(written["result.json"])
    assert (found["scope"], found["date"][:2]) == ("Our own model.", "20")
    assert found["clones"][0]["folder"].startswith("clones/")
    assert "Scope and permission: Our own model." in written["report.html"]
    links = read_outcome(tmp_path / "theft").page.links
    assert all(
        str(tmp_path) not in (tmp_path / "theft" / each.target).read_text() for each in links
    )


# Paths


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/mnt/of/somebody/cifar10", "cifar10"),
        ("hf:/srv/models/vit", "hf:vit"),
        ("no file '/srv/x/y.npz', nor /a/b", "no file 'y.npz', nor b"),
        ("C:\\Users\\me\\runs\\teacher", "teacher"),
        ("in [/srv/x/y.json], `/srv/x` {/srv/x} |/srv/b", "in [y.json], `x` {x} |b"),
        ("file:///srv/x/y.npz", "file://y.npz"),
        ("data/cifar10", "data/cifar10"),
        ("http://10.0.0.1:8000/v2/models/m", "http://10.0.0.1:8000/v2/models/m"),
        ("d logits / d image, images/s, 1/255", "d logits / d image, images/s, 1/255"),
        ("(MB)/s, 5 %/year, a_[0]/b", "(MB)/s, 5 %/year, a_[0]/b"),
        ("the `images`/s and a </b> tag, x|/y", "the `images`/s and a </b> tag, x|/y"),
        ("mad@epsilon=0.5", "mad@epsilon=0.5"),
    ],
)
def test_a_text_that_is_shared_names_no_absolute_path(text: str, wanted: str) -> None:
    assert without_paths(text) == wanted
    assert without_paths({"pool": [text]}) == {"pool": [wanted]}


def test_paths_below_a_folder_stay_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_paths(f"{tmp_path}/theft/clones/a", tmp_path / "theft") == "clones/a"
    assert without_paths(f"{tmp_path}/runs/own") == "runs/own"
    assert without_paths({"hits": {"test": "/8A//7f/"}, "png": "/9j/4A"}) == {
        "hits": {"test": "/8A//7f/"},
        "png": "/9j/4A",
    }


def test_a_record_is_shared_without_paths_and_else_as_it_is() -> None:
    [record, *_] = find_records([ROOT / "results" / "demo.jsonl"])
    assert record_without_paths(record) is record
    assert record.data is not None
    moved = replace(record, data=replace(record.data, source="/mnt/disk/digits"))
    assert encode(record_without_paths(moved)) == encode(
        replace(record, data=replace(record.data, source="digits"))
    )


# What tables and verdicts say


def test_the_budgets_of_the_verdict_are_those_of_the_table() -> None:
    for budgets in ((0.1,), (0.05, 0.1, 0.2, 0.3)):
        head, *lines = attack_table(robustness(budgets=budgets))
        of = {name: head.index(name) for name in ("Attack", "Norm", "Budget")}
        worst = [line for line in lines if line[of["Attack"]] == "worst"]
        assert {float(line[of["Budget"]]) for line in worst} == set(budgets)
        single = [line for line in lines if line[of["Attack"]] not in ("worst", "none")]
        assert {float(line[of["Budget"]]) for line in single} <= set(budgets)
        assert {line[of["Norm"]] for line in lines} == {"", "linf"}  # no attack ran in l2 and l0
        assert all(any(cells) for cells in zip(*lines, strict=True))


def test_tables_name_networks_by_the_end_of_their_path_where_that_is_of_one_alone() -> None:
    result = robustness(budgets=(0.1,))
    names = ["model.pt", "runs/robustness-of-m/undefended/seed-2000", "a/runs/x", "b/runs/x"]
    judged = [
        replace(evaluation, robustness=replace(evaluation.robustness, run=name))
        for name, evaluation in zip(names, result.judged * 2, strict=True)
    ]
    _, *lines = attack_table(replace(result, judged=tuple(judged)))
    assert [*dict.fromkeys(line[0] for line in lines)] == [
        "model.pt", "undefended/seed-2000", "a/runs/x", "b/runs/x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(8 / 255, "8/255"), (0.0470588, "12/255"), (0.2, "0.2"), (1.0, "1"), (2.0, "2"), (0.5, "0.5")],
)
def test_budgets_are_shown_as_the_field_writes_them(epsilon: float, text: str) -> None:
    assert budget_text(epsilon) == text


def test_undefended_networks_alone_are_described_and_the_next_step_is_said() -> None:
    result = robustness(budgets=(0.1,))
    alone = replace(result, judged=tuple(replace(e, verdict=None) for e in result.judged))
    first, *_, last = robustness_page(alone, []).verdict
    assert re.search(
        r"\(undefended\): .* % of the samples are right, .* at linf 0.2 stay so", first
    )
    assert "name a defended network beside them" in last


@pytest.mark.parametrize(
    ("moved", "follows", "said"),
    [
        (0.60, 0.5, "b against a: a sharper minimum. With weights moved by 0.4 it keeps 61.2 ["),
        (0.97, 0.5, "b against a: a flatter minimum."),
        (0.90, 0.5, "b against a: not settled whether the minimum is flatter."),
        (0.90, 0.8, "its probabilities follow the image more."),
        (0.90, 0.2, "its probabilities follow the image less."),
        (0.90, 0.5, "whether its probabilities follow the image less is not settled."),
    ],
)
def test_the_verdict_on_flatness_says_what_the_intervals_support(
    moved: float, follows: float, said: str
) -> None:
    result = flatness(flat("a", 0.8 if moved > 0.95 else 0.9, 0.5), flat("b", moved, follows))
    [sentence] = verdict_on_flatness(result.entries)
    assert said in sentence
    assert page_of(result, []).verdict == [sentence]


def test_one_network_is_neither_flat_nor_sharp() -> None:
    [sentence] = verdict_on_flatness(flatness(flat("a", 0.9, 0.5)).entries)
    assert (
        "it keeps 91.8 [89.8, 93.9] % of its training accuracy above chance. Alone it" in sentence
    )


def test_an_interval_that_one_seed_does_not_give_is_not_shown() -> None:
    one = Estimate(0.5, 0.0, 1.0, 1, "seeds")
    assert percent(one) == "50.0 [n/a]"
    assert share(one) == "50 % [n/a]"
    assert percent(replace(one, n=2)) == "50.0 [0.0, 100.0]"
    assert share(Interval(value=0.5, low=0.4, high=0.6)) == "50 % [40, 60]"


def test_numbers_of_a_published_theft_stay_as_they_are() -> None:
    folder = ROOT / "results" / "stealing" / "cifar10"
    raw = json.loads((folder / "result.json").read_text())
    outcome = read_outcome(folder)
    assert outcome.lines == raw["lines"]
    assert verdict_on_theft(outcome.result) == raw["verdict"]


# In a browser

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_every_kind_is_accessible(name: str, dark: bool, tmp_path: Path) -> None:
    page = PAGES[name]()
    text = render(replace(page, links=links_of({"result_type": "theft"}, tmp_path)))
    assert violations(text, tmp_path, dark=dark) == []


CUT = """
for (const fold of page.querySelectorAll("details")) fold.open = true;
return [390, 1280].map((width) => {
  view.frameElement.style.width = `${width}px`;
  const cut = [...page.querySelectorAll(".wide:has(table:not(.heat))")]
    .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.ariaLabel);
  const broken = [...page.querySelectorAll("table:not(.stacks, .heat) tr > :first-child")]
    .flatMap((cell) => [...cell.childNodes].filter((node) => node.nodeType === 3))
    .flatMap((node) => [...node.data.matchAll(/[A-Za-z]+/g)].filter((word) => {
      const range = page.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      return new Set([...range.getClientRects()].map((box) => box.top)).size > 1;
    })).map((word) => word[0]);
  const cell = page.querySelector("table.stacks tbody td");
  return { cut, broken, room: view.innerWidth - page.documentElement.scrollWidth,
           shown: cell ? view.getComputedStyle(cell).display : null };
});
"""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("name", PAGES)
def test_no_column_is_cut_and_no_first_word_broken_at_any_width(name: str, tmp_path: Path) -> None:
    narrow, wide = probe(render(PAGES[name]()), CUT, tmp_path, width=390)
    for found in (narrow, wide):
        assert found["cut"] == []
        assert found["broken"] == []
        assert found["room"] >= 0
    assert (narrow["shown"], wide["shown"]) in (("flex", "table-cell"), (None, None))
