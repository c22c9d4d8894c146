"""How progress is shown: lines, bars of a terminal, bars of a notebook."""

import re
import sys
import time
from functools import partial
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from denature.cli import show
from denature.cli.show import Display
from denature.cli.terminal import waiting_for_torch
from denature.core import notebook, progress, usual
from denature.core.progress import SILENT, Both, Meter
from tests.test_progress import Clock

# Lines


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[Display, Clock, StringIO]:
    """A display that is no terminal, its clock, and what it wrote."""
    clock, shown = Clock(), StringIO()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(progress.Meter.__init__, "__kwdefaults__", {"clock": clock})
    monkeypatch.setattr(show, "TICK_S", 0.005)
    display = Display()
    display.console = Console(file=shown, width=200, _environ={})
    return display, clock, shown


def test_lines_are_bounded(lines: tuple[Display, Clock, StringIO]) -> None:
    display, clock, shown = lines
    with display.task("all", 100, "images") as outer:
        for run in range(10):
            with display.task(f"run {run}", 10, "images") as inner:
                for step in range(10):
                    clock.now += 0.3
                    Both(inner, outer).advance(1, f"step {step}")
    written = shown.getvalue().splitlines()
    assert len(written) <= 1 + 30 // 5
    assert all(line.startswith("all: ") for line in written)
    assert re.fullmatch(
        r"all: \d of 100 images, \d%, 3 images/s, 3 s, 3\d s left; run 0: step \d", written[0]
    )
    assert re.fullmatch(
        r"all: 2\d of 100 images, 2\d%, 3 images/s, 8 s, 2\d s left; run 2: step \d",
        written[1],
    )
    assert written[-1] == "all: 100 of 100 images in 30.0 s"


def test_work_that_does_not_advance_writes_a_line_too(
    lines: tuple[Display, Clock, StringIO],
) -> None:
    display, clock, shown = lines
    with display.task("slow", 10, "runs"):
        for _ in range(400):
            clock.now += 0.5
            time.sleep(0.01)
            if shown.getvalue().count("\n") == 3:
                break
    assert re.match(
        r"slow: 0 of 10 runs, 0%, [2-5] s\nslow: 0 of 10 runs, 0%, 1\d s\n", shown.getvalue()
    )
    assert 22 <= clock.now - 100 < 40


def test_a_terminal_shows_elapsed_time_while_nothing_advances() -> None:
    display, shown = Display(), StringIO()
    display.console = Console(file=shown, force_terminal=True, width=150, _environ={})
    with display.task("slow", 10, "images") as task:
        task.advance(1, "epoch 1")
        assert display._bars is not None
        [bar] = display._bars.tasks
        bar.fields["meter"].started -= 100
        task.grow(-4)
        display._bars.refresh()
        assert bar.total == 6
    assert re.search(r"slow.*images/s, 10\d s.*epoch 1", shown.getvalue())


@pytest.mark.parametrize(("loading", "quiet"), [(True, False), (True, True), (False, False)])
def test_a_long_import_of_torch_is_mentioned(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    loading: bool,
    quiet: bool,
) -> None:
    monkeypatch.setattr("denature.cli.terminal.QUIET_S", 0.01)
    module = SimpleNamespace(__spec__=SimpleNamespace(_initializing=loading))
    monkeypatch.setitem(sys.modules, "torch", module)
    with waiting_for_torch(quiet=quiet):
        time.sleep(0.1)
    assert ("Loading torch" in capsys.readouterr().err) == (loading and not quiet)


# Notebooks


def test_progress_is_shown_where_someone_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(usual.usual()).__name__ == "Display"
    with monkeypatch.context() as windowed:
        windowed.setattr(sys, "stderr", None)
        assert usual.usual() is SILENT
    monkeypatch.setattr(usual, "in_notebook", lambda: True)
    assert isinstance(usual.usual(), notebook.NotebookDisplay)


def test_bars_of_a_notebook_are_updated_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            shown.append(html._repr_html_())

    def display(html: Any, **options: bool) -> Handle:
        shown.append(html._repr_html_())
        return Handle()

    monkeypatch.setattr(notebook, "_display", display)
    monkeypatch.setattr(notebook, "SHOW_EVERY_S", 0.0)
    now = [0.0]
    metered = partial(Meter, clock=lambda: now[0])
    monkeypatch.setattr("denature.core.notebook.Meter", metered)
    display_of = notebook.NotebookDisplay()
    with display_of.task("<all>", 2, "runs") as outer:
        with display_of.task("one", 0, "images") as inner:
            inner.advance(5, "loss 1")
            assert shown[-1].count("<progress") == 2
            assert "one: 5 images, 0 s (loss 1)" in shown[-1]
        now[0] = 30.0  # later than a warm-up, so the remaining time is known
        outer.advance(1)
        assert shown[-1] == (
            '<div><progress value="1" max="2"></progress> '
            "&lt;all&gt;: 1 of 2 runs, 50%, 30 s, 30 s left</div>"
        )
    assert shown[-1] == ""
    display_of.say("<b>")
    assert shown[-1] == "<div>&lt;b&gt;</div>"
