"""What users see in Python: functions, results in a notebook, tables for other programs."""

import copy
import csv as csv_module
import inspect
import io
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from denature.api import ModelKeywords, audit, evaluate, flatness, robustness, steal
from denature.api.keywords import model_options
from denature.audit.config import AuditConfig
from denature.audit.result import AuditResult
from denature.cli.app import app, main
from denature.cli.options import OutputOptions, RunOptions
from denature.core.errors import ConfigError, MissingExtra, Stopped
from denature.core.frames import html_of
from denature.core.keywords import many
from denature.core.stopping import Stopper
from denature.data.config import ReaderConfig
from denature.extract.theft import Theft, read_theft
from denature.recipes.commands import audit_of
from denature.recipes.given import ModelLike
from denature.recipes.models import ModelOptions
from denature.remote.config import RequestConfig
from denature.report.results import Outcome
from denature.report.tables import csv, latex, numeric
from denature.train import Run, Training, normal
from denature.train.session import Session


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

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.mark.parametrize("function", [audit, steal, robustness, evaluate], ids=lambda f: f.__name__)
def test_each_function_names_the_keywords_of_models_and_its_page_names_all(
    function: Callable[..., Any],
) -> None:
    _, _, *named = inspect.signature(function).parameters
    assert {*ModelKeywords.__annotations__, "trust"} <= {*named}
    page = PAGE.read_text(encoding="utf-8")
    assert not [name for name in named if f"`{name}`" not in page]
    with pytest.raises(ConfigError, match=r"no option 'classs'.* classes"):
        function("no model", "digits", classs=10)


def test_the_keywords_of_models_are_the_options_of_commands() -> None:
    wanted = get_type_hints(ModelOptions)
    wanted["service_model"] = wanted.pop("model")
    found = get_type_hints(ModelKeywords)
    assert found.keys() == wanted.keys()
    assert {name for name in wanted if found[name] != wanted[name]} == {"mean", "std"}  # or a list
    given = model_options({"service_model": "a", "mean": [0.5], "scale": 255})
    assert given == ModelOptions(model="a", mean=(0.5,), scale=255)
    assert model_options({}) == ModelOptions()


def test_one_value_needs_no_list(run: Run) -> None:
    assert many("label-only") == ("label-only",)
    assert many(50) == many([50]) == many(np.array([50])) == (50,)
    with pytest.raises(ConfigError, match="There is no thief 'knockof'"):
        audit(run, "digits", thief="knockof")


FUNCTION_OF: dict[str, Callable[..., Any]] = {
    "audit": audit,
    "steal": steal,
    "robustness": robustness,
    "eval": evaluate,
    "flatness": flatness,
}

BY_OTHER_MEANS = [ReaderConfig, RequestConfig, Training, OutputOptions, RunOptions]
"""Options of commands that an argument of a function holds: data, pace, training, session."""


@pytest.mark.parametrize("command", FUNCTION_OF)
def test_a_function_has_the_options_of_its_command(command: str) -> None:
    """But for what a call does not print, and what its exit code would say."""
    arguments = [each for each in app[command].assemble_argument_collection() if each.index is None]
    names = {each.name.removeprefix("--").replace("-", "_") for each in arguments} - {"*"}
    names -= {field.name for kind in BY_OTHER_MEANS for field in fields(kind)}
    names -= {"estimate", "probe", "fail_above"} | ({"scope"} if command == "eval" else set())
    found = {*inspect.signature(FUNCTION_OF[command]).parameters}
    assert names - found <= ({"model"} if "service_model" in found else set())


def test_an_audit_says_its_plan_first_and_has_a_folder_of_its_own(
    run: Run,
    arrays: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    without_figures: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = audit(
        run, arrays, budget=20, defense="label-only", thief="naive", seeds=1, epochs=1, device="cpu"
    )
    said = capsys.readouterr().err
    assert "Effort quick: 2 defenses, 1 thief, a budget of 20 queries" in said
    assert said.index("Training: about") < said.index("audit: ")
    assert run.digest[:8] in found.folder.name


def test_models_of_one_name_have_folders_of_their_own(
    run: Run, arrays: tuple[np.ndarray, np.ndarray]
) -> None:
    def folder(model: ModelLike) -> str:
        return audit_of(
            model, arrays, config=AuditConfig(), options=ModelOptions(), pace=RequestConfig()
        ).folder.name

    def zeros(pixels: np.ndarray) -> np.ndarray:
        return np.zeros(len(pixels), np.int64)

    first, other = copy.deepcopy(run.network), copy.deepcopy(run.network)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    names = {folder(first), folder(other), folder(zeros)}
    assert len(names) == 3
    assert folder(first) in names
    assert all(re.fullmatch(r"audit-of-[\w-]+-[0-9a-f]{8}", name) for name in names)


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
    run: Run, arrays: tuple[np.ndarray, np.ndarray], place: Path, without_figures: None
) -> None:
    theft = steal(
        run.network, arrays, student="mlp", budget=[20], test_images=20, fidelity_extra=True,
        kind="logits", training=Training(epochs=1, device="cpu", precision="fp32"),
    )  # fmt: skip
    assert theft.report.is_file()
    assert theft.folder.match("runs/theft-of-*-with-memory-*")
    assert read_theft(theft.folder) == theft.result
    assert isinstance(theft.result, Theft)
    assert list(theft.to_frame()["queries"]) == [20]
    assert "with 20 queries accuracy" in repr(theft.result)

    def answers(pixels: np.ndarray) -> np.ndarray:
        logits: torch.Tensor = run.network(torch.from_numpy(pixels))
        return logits.detach().numpy()

    of_function = evaluate(answers, arrays, name="answers", out=place / "answers")
    assert of_function == evaluate(run, arrays, device="cpu") == run.accuracy


def mean(pixels: np.ndarray) -> np.ndarray:
    return -np.repeat(pixels.mean((2, 3)), 10, 1)


def test_a_function_takes_other_numbers_and_its_kind_is_stated(
    arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    largest = []

    def shares(pixels: np.ndarray) -> np.ndarray:
        largest.append(pixels.max())
        return np.full((len(pixels), 10), 0.1)

    terms: dict[str, Any] = {"name": "shares", "test_images": 20, "scale": 255}
    evaluate(shares, arrays, out=tmp_path / "a", kind="probabilities", **terms)
    assert max(largest) == 255
    with pytest.raises(ConfigError, match="stated to be logits but look like probabilities"):
        evaluate(shares, arrays, out=tmp_path / "b", kind="logits", **terms)
    with pytest.raises(ConfigError, match="leave it out"):
        evaluate(shares, arrays, out=tmp_path / "c", net="cnn", **terms)


def test_a_function_is_measured_in_any_thread_within_a_price(
    arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(
            evaluate, mean, arrays, price_per_1000=1000, max_cost=20, out=tmp_path / "answers"
        )
    assert asked.result().n == 20
    with pytest.raises(ConfigError, match="price"):
        evaluate(mean, arrays, max_cost=20, out=tmp_path / "unpriced")


def test_the_stopper_of_a_session_ends_an_evaluation(
    arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    session = Session(stopper=Stopper(wish=lambda: True))
    with pytest.raises(Stopped, match="a stop request"):
        evaluate(mean, arrays, out=tmp_path / "answers", session=session)


def test_a_price_limits_no_network_of_this_process(
    run: Run, arrays: tuple[np.ndarray, np.ndarray]
) -> None:
    for function in (evaluate, robustness):
        with pytest.raises(ConfigError, match="max_cost limits what queries cost"):
            function(run, arrays, price_per_1000=1, max_cost=1)


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


def test_the_flatness_of_a_run_is_measured_with_arrays(
    run: Run, arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path, without_figures: None
) -> None:
    plan: dict[str, Any] = {"samples": 20, "directions": 2, "device": "cpu"}
    [one] = flatness(run, arrays, out=tmp_path / "one", **plan).result.networks
    [_, two] = flatness([run, run], arrays, out=tmp_path / "two", **plan).result.networks
    assert one.accuracy == two.accuracy
    assert (tmp_path / "one" / "result.json").exists()
    with pytest.raises(ConfigError, match="No run was named"):
        flatness([], arrays)


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


def test_dollars_end_a_measurement_at_a_random_part_of_the_test_images(tmp_path: Path) -> None:
    """Images lie class by class as often as not, and the first of them are no sample."""
    pixels = np.repeat(np.arange(10, dtype=np.uint8) * 20, 60)
    images = np.zeros((600, 1, 8, 8), np.uint8) + pixels[:, None, None, None]
    images[:, 0, 0, 0] = np.arange(600) % 60
    images[:, 0, 0, 1] = np.arange(600) // 60
    labels = np.repeat(np.arange(10), 60)

    def first_classes(asked: np.ndarray) -> np.ndarray:
        """Right on the classes 0 to 2 alone."""
        classes = np.rint(asked[:, 0, 7, 7] * 255 / 20).astype(np.int64)
        return np.where(classes < 3, classes, 0)

    found = evaluate(
        first_classes, (images, labels), test_images=120, price_per_1000=1.0, max_cost=0.05,
        name="first", out=tmp_path / "first",
    )  # fmt: skip
    assert found.n == 50
    assert found.low < 0.3 < found.high


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("1.23e-05 [1e-05, 2e-05]", ["1.23e-05", "1e-05", "2e-05"]),
        ("2 [1, inf]", ["2", "1", ""]),
        ("1,200 [0, beyond]", ["1200", "0", ""]),
        ("-1.5 [-2.0, -1e+03]", ["-1.5", "-2.0", "-1e+03"]),
        ("98.1 [n/a]", ["98.1", "", ""]),
    ],
)
def test_intervals_of_any_number_are_columns(cell: str, parts: list[str]) -> None:
    header, line = numeric([["run", "value"], ["a", cell]])
    assert header == ["run", "value", "value_low", "value_high"]
    assert line[1:] == parts
