"""What users see in Python: functions, results in a notebook, tables for other programs."""

import csv as csv_module
import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from denature.api import audit, evaluate, robustness, steal
from denature.api.models import model_of
from denature.audit.result import AuditResult
from denature.cli.app import main
from denature.core import notebook, usual
from denature.core.errors import ConfigError, MissingExtra
from denature.core.frames import html_of
from denature.core.progress import SILENT, Meter
from denature.extract.theft import Theft
from denature.report.results import Outcome
from denature.report.tables import csv, latex, numeric
from denature.train import Run, Training, normal


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8)[:400] / 16, labels[:400]


@pytest.fixture(scope="module")
def run(arrays: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:  # the cache of tests is set for each of them only
        patch.setenv("DENATURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return normal("mlp", arrays, epochs=20, batch_size=32, device="cpu", precision="fp32")


# Functions


@pytest.fixture
def audited(
    run: Run, arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path, without_figures: None
) -> Outcome:
    return audit(
        run, arrays, budget=[20], defense=["label-only"], thief=["naive"], seeds=1, epochs=1,
        name="<b>digits</b>", out=tmp_path / "audit", device="cpu",
    )  # fmt: skip


def test_arrays_become_the_page_of_an_audit(audited: Outcome) -> None:
    assert "Audit of &lt;b&gt;digits" in audited.report.read_text("utf-8")
    assert isinstance(audited.result, AuditResult)
    frame = audited.to_frame()
    assert list(frame["defense"]) == ["none", "label-only"]
    assert (frame["recovered_low"] <= frame["recovered"]).all()
    assert len(repr(audited.result)) < 200
    for shown in (audited, audited.result):
        assert "<b>" not in shown._repr_html_()
        assert "label-only</td>" in shown._repr_html_()


def test_a_module_and_a_function_are_models(
    run: Run, arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path, without_figures: None
) -> None:
    theft = steal(
        run.network, arrays, student="mlp", budget=[20], fidelity=20, fidelity_extra=True,
        out=tmp_path / "theft",
        training=Training(epochs=1, device="cpu", precision="fp32"),
    )  # fmt: skip
    assert theft.report.is_file()
    assert isinstance(theft.result, Theft)
    assert list(theft.to_frame()["queries"]) == [20]
    assert "with 20 queries accuracy" in repr(theft.result)

    def answers(pixels: np.ndarray) -> np.ndarray:
        logits: torch.Tensor = run.network(torch.from_numpy(pixels))
        return logits.detach().numpy()

    of_function = evaluate(answers, arrays, out=tmp_path / "answers")
    assert of_function == evaluate(run, arrays, device="cpu") == run.accuracy


def test_attacks_take_arrays(
    run: Run, arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path, without_figures: None
) -> None:
    found = robustness(
        run, arrays, effort="quick", attacks=["fgsm"], samples=10, controls=1,
        out=tmp_path / "attacks", device="cpu",
    )  # fmt: skip
    frame = found.to_frame()
    assert frame["Robust %"].dtype.kind == "f"
    assert (frame["Robust %_low"] <= frame["Robust %"]).all()


def made(factor: int) -> Callable[[np.ndarray], np.ndarray]:
    """Functions of one name with other code."""
    if factor == 2:
        return lambda pixels: 2 * pixels.mean((2, 3))
    return lambda pixels: 3 * pixels.mean((2, 3))


async def target_of(function: Callable[[np.ndarray], np.ndarray]) -> str:
    victim = model_of(function, "digits")
    assert not isinstance(victim, Run)
    return (await victim.about()).target


def test_a_function_that_was_changed_is_another_model() -> None:
    import asyncio

    names = [asyncio.run(target_of(made(factor))) for factor in (2, 2, 3)]
    assert names[0] == names[1] != names[2]

    class Model:
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return pixels

    with pytest.raises(ConfigError, match=r"Model.*Pass name="):
        model_of(Model(), "digits")
    with pytest.raises(ConfigError, match=r"is int; wanted is a run"):
        model_of(3, "digits")  # type: ignore[arg-type]
    assert not isinstance(model_of(nn.Flatten(), "digits"), Run)


# Results


def test_a_run_shows_itself_in_a_line_a_table_and_a_frame(run: Run) -> None:
    assert repr(run).startswith("<Run: normal mlp on memory:")
    assert len(repr(run)) < 120
    assert run._repr_html_().count("<tr>") == 2
    frame = run.to_frame()
    assert frame["accuracy"][0] == run.accuracy.value
    assert frame["accuracy_high"][0] == run.accuracy.high


def test_a_missing_pandas_is_named_with_its_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"'pandas'.*denature\[pandas\]"):
        run.to_frame()


def test_a_table_in_a_notebook_interprets_nothing_and_ends() -> None:
    rows = [{"<i>": "<script>", "x": 0.5, "x_low": 0.25, "x_high": None}] * 30
    shown = html_of("a & b \x1b[2J", rows)
    assert "<script>" not in shown
    assert "\x1b" not in shown
    assert "10 more rows" in shown
    assert html_of("", [{"x": 0.5, "x_low": 0.25, "x_high": 1.0}]).count("0.5 [0.25, 1]") == 1


LINES = [
    ["Net", "Note", "Accuracy %", "Against", "Images"],
    ["a_b", "=1+1", "97.8 [95.7, 98.9]", "+0.6 [n/a]", "1,797"],
    ["50 %", "-x", "9.5 [9.0, 10.0] (best epoch)", "", "12"],
]


def test_each_number_of_a_table_gets_a_column_of_its_own() -> None:
    header, first, second = numeric(LINES)
    found = dict(zip(header, zip(first, second, strict=True), strict=True))
    assert found["Accuracy %"] == ("97.8", "9.5")
    assert found["Accuracy %_low"] == ("95.7", "9.0")
    assert found["Accuracy %_high"] == ("98.9", "10.0")
    assert found["Accuracy %_remark"] == ("", "(best epoch)")
    assert found["Against"] == ("+0.6", "")
    assert found["Against_low"] == ("", "")
    assert found["Images"] == ("1797", "12")
    assert list(csv_module.reader(io.StringIO(csv(LINES))))[1][1] == "'=1+1"


def test_latex_shows_texts_as_they_are() -> None:
    shown = latex(LINES).splitlines()
    assert shown[0] == r"\begin{tabular}{llrrr}"
    assert shown[4] == r"a\_b & =1+1 & 97.8 [95.7, 98.9] & +0.6 [n/a] & 1,797 \\"
    assert shown[5].startswith(r"50 \% & -x")
    assert latex([["\\x{}^~"], ["<|>"]]).count("text") == 6


def test_commands_print_tables_for_other_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    without_figures: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        normal("mlp", "digits", epochs=1, seed=seed, device="cpu", out=tmp_path / f"runs/{seed}")
    assert main(["runs", "--compare", "--csv"]) == 0
    header, *rows = csv_module.reader(io.StringIO(capsys.readouterr().out))
    assert [row[header.index("seed")] for row in rows] == ["0", "1"]
    assert all(float(row[header.index("Accuracy %_low")]) > 0 for row in rows)
    assert main(["report", "runs", "--latex"]) == 0
    assert capsys.readouterr().out.startswith("\\begin{tabular}")
    assert main(["report", "runs", "--csv", "--latex"]) == 1
    assert "pass one of them" in capsys.readouterr().err


# Progress


def test_progress_is_shown_where_someone_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usual.usual() is SILENT
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(usual.usual()).__name__ == "Display"
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


NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "audit.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the kernel's libraries
def test_the_notebook_runs_and_shows_what_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[2]))
    book = nbformat.read(NOTEBOOK, as_version=4)
    before = [cell.source for cell in book.cells]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=resources).execute()
    assert [cell.source for cell in book.cells] == before
    assert len(list(tmp_path.rglob("report.html"))) == 1
    last = [cell.outputs[-1].data for cell in book.cells if cell.cell_type == "code"]
    assert any("recovered_low" in shown.get("text/html", "") for shown in last)
    assert "Estimate" in last[-1]["text/plain"]
    shown = [output.data for cell in book.cells for output in cell.get("outputs", [])]
    assert any(data.get("text/html") == "" for data in shown), "no bar came and went"
