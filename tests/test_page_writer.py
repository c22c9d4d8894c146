"""The one writer of pages: columns of tables, sizes of figures, first lines, breaks of lines."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from denature.core.errors import RunError
from denature.core.record import find_records
from denature.report.figures import new_figure
from denature.report.flatness import around, lines
from denature.report.page import Page, Picture, Plot, Table, draw, render, write
from denature.report.runs import page as page_of_runs
from denature.report.words import headline
from denature.robust.flatness import SIZES
from tests.made_results import flat, flatness, near
from tests.test_pages import ROOT

LINES = [
    ["Name", "Runs", "Nothing", "Value %", "Most", "Word", "Digest"],
    ["a", "3", "", "98.1 [97.0, 99.2]", "beyond 5,000", "no evidence", "0c44b717"],
    ["1", "12", "", "97 [n/a] (+0.1 [-1.0, +1.2])", "beyond 5,000 [from 90]", "", "1979b5e3"],
    ["b", "3", "", "labels", "-1e-05", "more robust 2", "12345678"],
]


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/b", ""])
def test_a_figure_is_written_into_the_folder_of_its_page_alone(name: str, tmp_path: Path) -> None:
    """A result may come from others, and states the names of its figures."""
    picture = Picture(name=name, data=b"GIF89a", caption="")
    with pytest.raises(RunError, match="no plain name of a file"):
        draw(Page(title="t", blocks=[picture]), tmp_path / "page")
    assert not list(tmp_path.rglob("*escaped*"))


def test_numbers_stand_to_the_right_and_empty_columns_are_left_out() -> None:
    table = Table(heading="All", lines=LINES)
    assert dict(zip(table.shown[0], table.numbers, strict=True)) == {
        "Name": False, "Runs": True, "Value %": True, "Most": True, "Word": False, "Digest": False,
    }  # fmt: skip
    html = render(Page(title="T", blocks=[table]))
    assert html.count("<td") == 3 * 5
    assert len(re.findall('<td class="number"', html)) == 3 * 3
    assert "Nothing" not in html


def test_a_table_without_rows_keeps_its_columns() -> None:
    table = Table(heading="None", lines=LINES[:1])
    assert table.shown == LINES[:1]
    assert table.numbers == [False] * len(LINES[0])


def test_letters_of_a_narrow_figure_are_not_enlarged() -> None:
    def draw(width: float) -> str:
        plot = Plot(name="p", draw=lambda: new_figure(width, 2), caption="C")
        return render(Page(title="T", blocks=[plot]))

    points = [float(re.findall(r'style="--points: ([\d.]+)"', draw(width))[0]) for width in (3, 6)]
    assert points == [pytest.approx(3 * 72, abs=20), pytest.approx(6 * 72, abs=20)]


def test_the_second_line_counts_runs_by_their_data() -> None:
    first, second, *_ = find_records([ROOT / "results" / "demo.jsonl"])
    assert first.data is not None
    half = replace(second, data=replace(first.data, train=719), seconds=600.0)
    lead = Page(title="T", records=[replace(first, seconds=30.0), half]).lead
    sizes = "719 or 1,438 training and 359 test images"
    assert lead == f"2 runs on digits ({sizes}); 10 min of training in all."
    assert Page(title="T").lead == ""
    assert 'class="lead"' not in render(Page(title="T"))


def test_a_percent_sign_stays_with_its_number() -> None:
    html = render(Page(title="T", about="5 % of it", blocks=[Table(heading="H %", lines=LINES)]))
    assert "5\u00a0% of it" in html
    assert " %" not in html.partition("<main>")[2].partition("</main>")[0]


def test_a_percent_sign_of_an_address_is_left_alone() -> None:
    html = render(Page(title="T", about="40% and 5%, of http://a/b%20c"))
    assert "40\u00a0% and 5\u00a0%, of http://a/b%20c" in html


def test_runs_that_no_verdict_compares_say_their_accuracies() -> None:
    records = find_records([ROOT / "results" / "demo.jsonl"])
    alone = [r for r in records if r.kind == "normal" and r.net.name == "mlp"]
    page = page_of_runs(alone[:1])
    assert (page.title, page.blocks[0].heading) == ("Trained networks", "The networks")
    assert page.summary.startswith("Accuracy 97.")
    assert page.summary.endswith(" % (mlp, alone (true labels)).")
    spoiled = [r for r in records if r.kind == "distilled" and r.seed == records[0].seed]
    two = page_of_runs(spoiled)
    assert two.title == "What students learned"
    assert re.match(r"Accuracies from \d.* to \d.*\.", two.summary)


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("It spoils all: cnn ends -50.2 points off.", "It spoils all."),
        (
            "With one seed nothing is settled; the lowest is 0.5.",
            "With one seed nothing is settled.",
        ),
        ("It is 2.00 % off.", "It is 2.00 % off."),
    ],
)
def test_a_headline_is_the_first_clause(sentence: str, wanted: str) -> None:
    assert headline([sentence, "More."]) == wanted
    assert headline([]) == ""


def test_an_interval_that_reaches_0_does_not_stretch_an_axis() -> None:
    wide = replace(flat("a", 0.9, 0.5), loss=tuple(near(0.01, half=0.02) for _ in SIZES))
    figure = around(flatness(wide).entries)
    assert figure is not None
    assert figure.axes[1].get_ylim() == pytest.approx((0.005, 0.02))


def test_a_figure_draws_every_network() -> None:
    entries = flatness(*(flat(f"net{n}", 0.9, 0.5) for n in range(11))).entries
    for figure in (around(entries), lines(entries)):
        assert figure is not None
        labels = [line.get_label() for line in figure.axes[0].get_lines()]
        assert [label for label in labels if str(label).startswith("net")] == [
            f"net{n}" for n in range(11)
        ]


def test_a_page_that_is_drawn_again_keeps_nothing_of_a_strangers(tmp_path: Path) -> None:
    page = Page(title="t")
    report = write(page, tmp_path)
    report.write_text(report.read_text() + "<script>alert(1)</script>")
    assert "alert" in write(page, tmp_path).read_text()  # one's own page is not drawn twice
    assert "alert" not in write(page, tmp_path, anew=True).read_text()
