"""The main job, small here and whole in `test_claims.py`; and its report."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from denature.core.errors import ConfigError, RunError
from denature.core.record import find_records
from denature.recipes.demo import Demo
from denature.recipes.runner import run
from denature.report import summarise
from denature.report.page import render
from denature.report.results import Outcome
from denature.report.runs import page as page_of_runs
from tests.evaluations import is_drawn_again


def test_the_demo_keeps_its_contract(demo: Outcome) -> None:
    found = json.loads(demo.to_json())
    assert set(found) >= {"teachers", "students", "seconds", "report"}
    assert set(found["teachers"]) == {"normal", "nasty"}
    kinds = {(s["student"], s["teacher"], s["answers"]) for s in found["students"]}
    assert kinds == {
        ("mlp", "none", "none"),
        ("mlp", "normal", "soft"),
        ("mlp", "nasty", "soft"),
        ("mlp", "nasty", "labels"),
    }
    for accuracy in [t["accuracy"] for t in found["teachers"].values()] + [
        s["accuracy"] for s in found["students"]
    ]:
        assert accuracy["over"] == "seeds and images"
        assert accuracy["n"] == 2
        assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert Path(found["report"]).is_file()


def test_every_run_of_the_demo_lies_in_its_folder(demo: Outcome) -> None:
    records = sorted(demo.report.parent.rglob("record.json"))
    assert len(records) == len(demo.records) == 12
    for record in records:
        assert (record.parent / "weights.safetensors").is_file()


def test_a_student_never_starts_from_its_teachers_weights(demo: Outcome) -> None:
    pairs = [(it.seed, it.inputs["teacher"].seed) for it in demo.records if "teacher" in it.inputs]
    assert len(pairs) == 2 * 3  # of a normal and a nasty teacher, and of labels
    assert all(seed != teachers for seed, teachers in pairs)


def test_a_second_demo_with_other_settings_does_not_overwrite_the_first(
    demo: Outcome,
) -> None:
    """`demo` was made with other epochs than the real demo has."""
    with pytest.raises(RunError, match=r"another run: .*epochs.*--overwrite"):
        run(Demo(folder=demo.folder, seeds=1, students=("mlp",), teacher="mlp"))


class Links(HTMLParser):
    """Collects whatever a page would fetch, and its headings."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if (
                name in ("src", "href", "xlink:href")
                and tag != "a"  # which waits for a click
                and value
                and not value.startswith(("#", "data:"))
            ):
                self.fetched.append(value)


def test_the_report_is_one_file_that_fetches_nothing(demo: Outcome) -> None:
    page = demo.report.read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert not links.fetched
    assert links.tags.count("script") == 1  # its own, in the file
    assert links.tags.count("svg") == 3
    assert "url(http" not in page


def test_the_report_shows_what_the_records_say(demo: Outcome) -> None:
    page = demo.report.read_text(encoding="utf-8")
    for row in summarise(demo.records).students:
        assert f"{100 * row.accuracy.value:.1f} [" in page
    assert all(record.net.digest in page for record in demo.records)


@pytest.mark.slow
def test_the_same_records_give_the_same_report(demo: Outcome) -> None:
    """In another process, where sets have another order."""
    assert is_drawn_again(demo)
    folder = demo.report.parent
    code = (
        "import sys; from pathlib import Path; from denature.core.record import find_records; "
        "from denature.report.page import render; from denature.report.runs import page; "
        "sys.stdout.buffer.write(render(page(find_records([Path(sys.argv[1])]))).encode())"
    )
    page = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    ).stdout.decode()  # fmt: skip
    assert page == render(page_of_runs(find_records([folder])))


def test_names_from_outside_are_escaped(demo: Outcome) -> None:
    page = render(page_of_runs(demo.records, title="<script>alert(1)</script>"))
    assert "<script>alert" not in page
    assert page.count("<script>") == 1  # its own


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one run"):
        page_of_runs([])


@pytest.mark.parametrize("seeds", [0, -2])
def test_a_demo_of_no_seeds_is_refused(tmp_path: Path, seeds: int) -> None:
    with pytest.raises(ConfigError, match=f"seeds is {seeds}"):
        Demo(folder=tmp_path, seeds=seeds)


def test_a_demo_does_not_mix_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="files that do not belong to a demo"):
        Demo(folder=tmp_path)
