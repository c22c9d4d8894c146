"""Texts of strangers at the borders: secrets, terminals, and the formats of reports."""

import ast
import json
import unicodedata
from dataclasses import replace
from itertools import accumulate
from operator import and_, eq
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import denature
from denature.audit.gate import junit
from denature.cli.app import main
from denature.cli.show import Display, print_table
from denature.core.record import read_record
from denature.core.text import printable
from denature.remote.redaction import (
    REDACTED,
    SHARED,
    redacted,
    server_text,
    without_secrets,
)
from denature.report.figures import logit_responses, svg
from denature.report.page import HeatCell, HeatMap, Item, Items, Link, Page, Table, render
from denature.report.tables import markdown
from tests.audits import audit
from tests.encoded_keys import ENCODINGS

EVIL = (
    "\x1b[2J\x1b]0;title\x07", "$\\frac{x$", "$\\notacommand$", "<script>alert(1)</script>",
    "a|b\nc", "\u202ereversed", "[red]", ":smile:", "[x](javascript:1)", "\x00\x7f\x9b31m", "_x",
    "&lt;b&gt;", "\\_*`~", "50 $ or 60 $",
)  # fmt: skip

KEYS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/", min_size=16)
KEYS = KEYS.filter(lambda key: sum(map(str.isalnum, key)) >= 16)


# Secrets


@given(KEYS, st.sampled_from(sorted(ENCODINGS)), st.text("щя ,", max_size=20), st.data())
@settings(max_examples=150, deadline=None)
def test_no_form_of_a_key_and_no_part_of_it_gets_through(
    key: str, form: str, around: str, data: st.DataObject
) -> None:
    encode, width = ENCODINGS[form]
    whole = encode(key)
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    # What stands before the key, such as "Bearer", is no secret.
    others = (encode(char * len(key)) for char in "~A")
    public = min(sum(accumulate(map(eq, whole, other), and_)) for other in others)
    for first, part in ((0, whole), (start, whole[start:end])):
        shown = redacted(around + part + around, [key])
        assert shown.startswith(around)
        assert shown.endswith(around)
        said = shown.replace(REDACTED, "")
        window = (SHARED + 3) * width  # an escape that is cut, and the ends of base64
        letters = "".join(char for char in part[max(0, public - first) :] if char.isalnum())
        left = "".join(char for char in said if char.isalnum())
        rows = {letters[n : n + window] for n in range(len(letters) - window + 1)}
        assert not any(row in left for row in rows)


@given(st.text(), KEYS)
def test_other_texts_stay_as_they_are(text: str, key: str) -> None:
    if sum(char.isascii() and char.isalnum() for char in text) < SHARED:
        assert redacted(text, [key]) == text
    assert redacted(text, []) == text


@pytest.mark.parametrize("key", ["ab", "a", "----", "1234567", "päss wörd"])
def test_short_and_odd_keys_are_taken_out_as_they_stand(key: str) -> None:
    assert redacted(f"the key {key}!", [key]) == f"the key {REDACTED}!"


def test_a_key_is_taken_out_before_a_text_is_cut() -> None:
    key = "Zm9vYmFyLXNlY3JldC0wMTIzNDU2Nzg5YWJjZGVm"
    shown = server_text("x" * 280 + key + "y", [key])
    assert shown == "x" * 280 + REDACTED + "y"
    assert len(server_text("x" * 10_000, [key])) == 300
    named = {key: [{"name": f"m{key}"}], "n": 3, "deep": [[key.lower()]]}
    clean = {REDACTED: [{"name": f"m{REDACTED}"}], "n": 3, "deep": [[REDACTED]]}
    assert without_secrets(named, [key]) == clean


# Terminals


@given(st.text() | st.sampled_from(EVIL))
@example("\ud800 \U000e0001 \u2028")
def test_printable_text_has_no_controls_and_json_stays_json(text: str) -> None:
    shown = printable(text)
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not {unicodedata.category(char) for char in shown} & hidden
    assert printable(shown) == shown
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text
    if not {unicodedata.category(char) for char in text} & hidden:
        assert shown == text


@pytest.mark.parametrize("evil", EVIL)
def test_no_control_reaches_the_terminal(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.say(f"reading {evil}")
    with display.task(evil, 2, "images") as task:
        task.advance(2, evil)
    print_table([["Name", evil], [evil, "1"]])
    for words in (["eval", evil], ["ledger", evil], ["data", evil], ["train", evil, "-v"], [evil]):
        assert main([*words, *(["--data", "digits"] if words[0] == "eval" else [])]) > 0
    out, err = capsys.readouterr()
    assert printable(out + err, keep="\n") == out + err
    if evil in ("[red]", ":smile:"):
        assert evil in out
        assert evil in err


def test_a_bar_shows_markup_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal rich draws bars, whose columns read markup where they are not told not to."""
    from io import StringIO

    from rich.console import Console

    display, shown = Display(), StringIO()
    display.console = Console(file=shown, force_terminal=True, width=200, _environ={})
    with display.task("a [/b] \x1b[2J c", 2, "images") as task:
        task.advance(1, "[/x]")
        assert display._bars is not None
        display._bars.refresh()
    assert "a [/b] \\u001b[2J c" in shown.getvalue()


def test_all_commands_print_through_the_border() -> None:
    files = sorted((Path(denature.__file__).parent / "cli").rglob("*.py"))
    assert len(files) > 10
    for path in files:
        tree = ast.parse(path.read_text())
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        prints = any(isinstance(called, ast.Name) and called.id == "print" for called in calls)
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "denature.cli.terminal"
            for alias in node.names
        }
        assert not prints or "print" in imported or path.name == "terminal.py", path
        written = {called.attr for called in calls if isinstance(called, ast.Attribute)}
        assert "print_exc" not in written, path


# Formats


@given(st.lists(st.lists(st.text(max_size=20) | st.sampled_from(EVIL), min_size=3, max_size=3)))
@settings(max_examples=80, deadline=None)
def test_a_markdown_table_shows_its_texts_and_interprets_none(rows: list[list[str]]) -> None:
    text = markdown([["A", "B", "C"], *rows])
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 3 * (len(rows) + 1)
    for cell, wanted in zip(cells[3:], (text for row in rows for text in row), strict=True):
        kinds = {child.type for child in cell.children or ()}
        assert kinds <= {"text", "text_special"}
        shown = "".join(child.content for child in cell.children or ())
        assert shown.strip() == printable(wanted).strip()


def test_ordinary_cells_are_legible_in_the_source() -> None:
    line = ["resnet18@width=2", "-12.3 [-15.0, -9.6] (1 of 3 seeds)", "top_k", "US $", "a < b & c"]
    assert markdown([line]).splitlines()[0] == "| " + " | ".join(line) + " |"


@pytest.mark.parametrize("evil", EVIL)
def test_a_page_shows_texts_as_texts(evil: str) -> None:
    heat = HeatMap(columns=[evil], rows=[(evil, [HeatCell(text=evil, tip=evil)])], caption=evil)
    item = Item(text=evil, strong=evil, badge=evil, details=[(evil, evil)], tags=[evil])
    html = render(
        Page(
            title=evil, summary=evil, scope=evil, about=evil, differs=evil, verdict=[evil],
            opening=evil, links=[Link(text=evil, target=evil)],
            blocks=[Table(lines=[[evil], [evil]], note=evil, heading=evil, folded=evil), heat,
                    Items(items=[item], heading=evil)],
        )
    )  # fmt: skip
    assert html.count("<script>") == 1  # of the page itself
    assert "<script>alert" not in html
    assert printable(html, keep="\n\t") == html


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Records of a normal and of a nasty teacher, whose classes have hostile names."""
    import tarfile

    with tarfile.open(Path(__file__).with_name("former.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    names = [name.replace("\0", "\1") for name in EVIL[:10]]  # a record with a NUL is refused
    for path in (tmp_path / "runs").glob("*/record.json"):
        record = json.loads(path.read_text())
        record["data"]["classes"] = names
        path.write_text(json.dumps(record))
    return tmp_path / "runs"


def test_names_of_classes_do_not_end_a_report(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normal, nasty = read_record(runs / "teacher"), read_record(runs / "nasty")
    drawn = svg(lambda: logit_responses(normal, nasty, temperature=4.0))
    texts = {element.text for element in ElementTree.fromstring(drawn).iter() if element.text}
    assert {"$\\frac{x$", "$\\notacommand$", "<script>alert(1)</script>"} <= texts
    assert printable(drawn, keep="\n\t") == drawn
    words = ["report", str(runs), "--out", str(tmp_path / "page.html"), "--markdown"]
    assert main([*words, "--title", EVIL[0]]) == 0
    shown = capsys.readouterr().out
    assert printable(shown, keep="\n") == shown
    page = (tmp_path / "page.html").read_text()
    assert printable(page, keep="\n\t") == page


def test_logarithmic_axes_write_powers() -> None:
    from matplotlib.figure import Figure

    def draw() -> Figure:
        figure = Figure()
        axes = figure.add_subplot()
        axes.plot([1, 1e6], [1, 2])
        axes.set_xscale("log")
        axes.set_title("$x^2$")
        return figure

    drawn = svg(draw)
    assert "mathdefault" not in "".join(ElementTree.fromstring(drawn).itertext())
    assert "$x^2$" in drawn


@pytest.mark.parametrize("evil", EVIL)
def test_a_junit_file_is_xml(evil: str) -> None:
    result = audit()
    worst = tuple(replace(one, defense=evil, thief=evil) for one in result.worst)
    text = junit(replace(result, worst=worst), 0.0)
    cases = ElementTree.fromstring(text).iter("testcase")
    assert {case.get("name") for case in cases} == {printable(evil, keep="\n")}
