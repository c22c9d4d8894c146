"""The page of an audit: what it says of results with known numbers, and how a browser shows it."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from denature.audit.result import AuditResult, Crossing
from denature.core.schema import decode, encode
from denature.report.audit_figures import curves, marks
from denature.report.figures import svg
from denature.report.page import HeatMap, Page, render
from denature.report.results import page_of, read_outcome, write_outcome
from tests.audits import FULL, SAME, audit
from tests.browser import CHROMIUM, probe

RESULTS: dict[str, Callable[[], AuditResult]] = {
    "five defenses, five thieves": audit,
    "nothing measurable": lambda: audit(measurable=False),
    "one defense": lambda: audit({"none": {"naive": 0.8}}, threats=("B",), budgets=(1000,)),
    "labels alone": lambda: audit(
        {"none": {"labels": 0.6}, "label-only": {"labels": 0.6}}, kind="label"
    ),
    "no undefended model": lambda: audit({"mad@epsilon=1.0": {"naive": 0.2, "labels": 0.3}}),
    "nothing at all": lambda: audit({}),
}


def text_of(result: AuditResult) -> str:
    return render(page_of(result, [])).replace("\u00a0%", " %")


@pytest.fixture(scope="module")
def text() -> str:
    """The page of the audit of five defenses and five thieves."""
    return text_of(audit())


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_that_is_read_back_gives_the_same_page(name: str) -> None:
    result = RESULTS[name]()
    again = decode(AuditResult, encode(result), where="here")
    assert again == result
    assert text_of(again) == text_of(result)


def test_the_folder_of_an_audit_is_drawn_again(tmp_path: Path) -> None:
    outcome = write_outcome(audit(threats=("A",)), [], tmp_path)
    again = read_outcome(tmp_path)
    assert render(again.page) == outcome.report.read_text()
    assert {"curves-a.svg", "curves-a.png", "price-l1-a.svg", "table.md"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert outcome.lines[0][:3] == ["Defense", "Threat", "Queries to half"]
    assert len(outcome.lines) == 1 + len(FULL)


# Maps and figures


def test_free_queries_have_no_axis_of_dollars() -> None:
    assert curves(audit(price_per_1000=0.0), "B") is not None


def test_the_worst_thief_of_each_column_is_framed() -> None:
    page = page_of(audit(), [])
    [first, second] = [block for block in page.blocks if isinstance(block, HeatMap)]
    for block in (first, second):
        framed = {
            block.columns[place]: name
            for name, cells in block.rows
            for place, cell in enumerate(cells)
            if cell.marked
        }
        assert framed == {
            "none": "tuned", "rounding": "tuned", "label-only": "labels",
            "gaussian": "averaged", "mad": "recovery",
        }  # fmt: skip
    rows = dict(first.rows)
    out, missing = rows["recovery"][3], rows["averaged"][0]
    assert (out.kind, out.text) == ("minor", "30")
    assert "Screened out: 1,000 queries, 1 seed." in out.tip
    assert out.tip.endswith("The second best thief leads it by 21 points.")
    assert (missing.kind, missing.text) == ("empty", "n/a")
    assert missing.tip == "averaged against none. Not applicable. The answers are not random."
    assert rows["naive"][0].share == pytest.approx(0.84)


def test_defenses_are_told_apart_by_shape_and_colour() -> None:
    many = {f"defense-{number}": {"naive": 0.5} for number in range(30)}
    drawn = marks(audit(many))
    assert len({(mark.colour, mark.marker) for mark in drawn.values()}) == 30


def test_options_are_named_where_they_tell_two_settings_apart() -> None:
    taken = {
        name: {"naive": 0.5}
        for name in ("mad@epsilon=0.5", "mad@epsilon=1.0", "top-k@k=3+renormalise=true+label-only")
    }
    assert [mark.name for mark in marks(audit(taken)).values()] == [
        "mad@epsilon=0.5", "mad@epsilon=1.0", "top-k+label-only",
    ]  # fmt: skip


def test_prices_of_queries_are_shown_where_they_are_known() -> None:
    priced, free = audit(price_per_1000=2.0), audit(price_per_1000=None)
    page = page_of(priced, [])
    assert page.tables[0].lines[0][4] == "US $ to half"
    assert page.tables[0].lines[1][4] == "1.89"
    assert all(mark in svg(curves, priced, "A") for mark in ("US $", "2.00", "10.00"))
    assert "US $" not in svg(curves, free, "A")
    assert "US $ to half" not in page_of(free, []).tables[0].lines[0]


# The text of the page


class Elements(HTMLParser):
    """Elements with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_every_figure_says_what_it_shows_and_every_mark_has_a_tooltip(text: str) -> None:
    elements = Elements(text)
    figures = elements.of("svg")
    assert len(figures) == 2 + 4
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert all(image.get("alt") for image in elements.of("img"))
    tips = re.findall(r"<title>([^<]*)</title>", text)[1:]
    lines, budgets, threats, planes = len(FULL), 2, 2, lines_with_l1() + len(FULL)
    assert len(tips) == threats * (lines * budgets + planes)
    assert "mad: 79 % [75, 83] with 5,000 queries, by recovery" in tips
    cells = [cell for cell in elements.of("td") if "title" in cell]
    assert len(cells) == threats * len(FULL) * 5
    assert all(cell["title"] for cell in cells)


def lines_with_l1() -> int:
    return sum(price.l1 is not None for price in audit().defenses)


def test_headings_of_tables_sort(text: str) -> None:
    elements = Elements(text)
    sortable = [head for head in elements.of("th") if "aria-sort" in head]
    assert {head["aria-sort"] for head in sortable} == {"none"}
    assert len(sortable) == len(elements.of("button")) == 9 + 8 + 5 + 11


def test_names_are_escaped_everywhere() -> None:
    bad = '<script>alert("1")</script>&'
    taken = {bad: {"naive": 0.5, f"{bad}thief": 0.6}, "none": {"naive": 0.7}}
    result = audit(taken, threats=("A",))
    result = replace(
        result, left_out=(bad,), model=replace(result.model, name=bad), environment={"commit": bad}
    )
    text = text_of(result)
    assert bad not in text
    assert "alert" in text
    assert text.count("<script>") == 1  # the page's own
    assert len(Elements(text).of("script")) == 1


def test_measures_are_explained_where_they_come_up_first() -> None:
    result = audit()
    page: Page = page_of(result, [])
    assert "recovered advantage is the share of it that the clone has" in page.about
    assert "Defenses that the service has of its own" not in page.about
    served = replace(result, model=replace(result.model, served=True))
    assert "Defenses that the service has of its own" in page_of(served, []).about
    assert "Queries to half: number of queries" in page.tables[0].note
    assert "Threat A: a thief with 500 labelled images of its own; without a query" in page.differs
    assert page.differs.endswith("without a query chance is right on 10 % of the images.")


def test_findings_are_listed_with_condition_advice_and_tags() -> None:
    result = audit(SAME, threats=("A",))
    text = text_of(result)
    assert len(result.findings) > 3
    for finding in result.findings:
        for part in (finding.name, finding.raised_if, finding.do, *finding.tags):
            assert part.replace("'", "&#39;") in text
    severities = re.findall(r'class="badge (\w+)"', text)
    assert severities == sorted(severities, key=("high", "medium", "low", "info").index)


# In a browser

LAYOUT = """
const wide = page.documentElement.scrollWidth;
const cut = [];
for (const text of page.querySelectorAll("figure svg text")) {
  const [a, b] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
  if (a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1)
    cut.push(text.textContent);
}
for (const part of page.querySelectorAll("h1, h2, p, li, dd, figure, .badge, .wide")) {
  const box = part.getBoundingClientRect();
  if (box.right > view.innerWidth + 1 || box.left < -1) cut.push(part.textContent.slice(0, 60));
  if (part.scrollWidth > part.clientWidth + 1 && part.clientWidth && !part.matches(".wide, .badge"))
    cut.push(part.textContent.slice(0, 60));
}
const seen = (element, name) => view.getComputedStyle(element)[name];
return {
  wide, cut, inner: view.innerWidth, dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
  paper: seen(page.body, "backgroundColor"), ink: seen(page.body, "color"),
  figure: seen(page.querySelector("[id$=patch_1] path"), "fill"),
  letters: seen(page.querySelector("figure svg text"), "fill"),
};
"""

WORKING = """
const said = {};
const table = page.querySelector("table.sorts");
const button = table.querySelectorAll("thead button")[2];
const column = () => [...table.tBodies[0].rows].map((row) => row.cells[2].textContent);
button.focus();
said.focused = page.activeElement === button;
button.click();
said.up = column(), said.sort = button.parentNode.getAttribute("aria-sort");
button.click();
said.down = column(), said.back = button.parentNode.getAttribute("aria-sort");
const over = (element) => element.dispatchEvent(
  new view.PointerEvent("pointerover", { bubbles: true, clientX: 380, clientY: 880 }));
const box = page.querySelector(".tip");
said.hidden = box.hidden;
over(page.querySelector("figure svg .tipped use"));
said.mark = box.textContent, said.shown = !box.hidden;
const at = box.getBoundingClientRect();
said.inside = at.left >= 0 && at.right <= view.innerWidth && at.bottom <= view.innerHeight;
over(page.querySelector(".heat td.empty"));
said.cell = box.textContent;
over(page.body);
said.gone = box.hidden;
return said;
"""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["five defenses, five thieves", "long names"])
def test_nothing_is_cut_off_at_any_width(name: str, width: int, dark: bool, tmp_path: Path) -> None:
    long = {f"a-defense-of-a-long-name-{n}@option=0.123456789": FULL["none"] for n in range(12)}
    result = audit({**FULL, **long} if name == "long names" else FULL)
    found = probe(text_of(result), LAYOUT, tmp_path, width=width, dark=dark)
    assert found["cut"] == []
    assert found["wide"] <= found["inner"] == width
    assert found["dark"] == dark
    assert found["figure"] == found["paper"] != found["ink"] == found["letters"]


@pytest.mark.slow
@needs_browser
def test_tables_sort_and_marks_explain_themselves_in_a_browser(tmp_path: Path) -> None:
    result = audit()
    line = replace(result.curves[0], to_half=Crossing(value=None, low=None, high=None))
    result = replace(result, curves=(line, *result.curves[1:]))
    said = probe(text_of(result), WORKING, tmp_path, width=390)
    assert (said["sort"], said["back"]) == ("ascending", "descending")
    numbers = [int(text.split()[0].replace(",", "")) for text in said["up"][:-1]]
    assert numbers == sorted(numbers)
    assert numbers[0] < 1000 < numbers[-1]  # by value, not by digits
    assert said["up"][-1] == said["down"][-1] == "beyond 5,000"
    assert said["down"][:-1] != said["up"][:-1]
    assert all(said[fact] for fact in ("focused", "hidden", "shown", "inside", "gone"))
    assert "queries, by tuned" in said["mark"]
    assert "Not applicable" in said["cell"]
