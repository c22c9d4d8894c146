"""Results as files: every type of result is read back as it was written, and drawn again."""

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from denature.core.errors import ConfigError, RunError
from denature.core.progress import Progress
from denature.core.schema import decode
from denature.core.stats import Estimate
from denature.data import Dataset, load
from denature.recipes import catalogue
from denature.recipes.catalogue import EXPERIMENTS, Listed, experiment
from denature.recipes.experiment import MeasuredResult, Request, Setting
from denature.recipes.paper.config import PaperOptions
from denature.recipes.runner import run
from denature.report import results
from denature.report.page import Page, Table, render
from denature.report.results import TYPES, page_of, read_outcome
from denature.train import Normal, Order, Run, Training
from denature.train.session import Session


def example(kind: Any, number: int = 1) -> Any:
    """A value of a type, with all parts of nested dataclasses filled in."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return parts[-1]
    if origin in (Union, types.UnionType):
        return example(next(part for part in parts if part is not type(None)), number)
    if origin is tuple:
        members = parts[:1] * 2 if parts[-1] is Ellipsis else parts
        return tuple(example(part, number + place) for place, part in enumerate(members))
    if origin in (dict, Mapping):
        return {f"key {place}": example(parts[1], number + place) for place in (1, 2)}
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(
            **{field.name: example(hints[field.name], number) for field in dataclasses.fields(kind)}
        )  # type: ignore[operator]
    plain = {str: f"text {number}", int: number, float: number / 3, bool: True, object: "plain"}
    return plain[kind]


@pytest.mark.parametrize("name", TYPES)
def test_a_result_of_every_type_is_read_back_as_it_was(name: str) -> None:
    """So its page, a pure function of result and records, is drawn again as it was."""
    module, _, kind = TYPES[name].partition(":")
    form = getattr(import_module(f"denature.report.{module}"), kind)
    assert form.result_type == name
    assert callable(import_module(f"denature.report.{module}").page)
    result = example(form)
    plain = json.loads(json.dumps({"result_type": name, **dataclasses.asdict(result)}))
    assert decode(form, plain, where="here") == result


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_names_its_runs_before_anything_is_measured(
    name: str, tmp_path: Path
) -> None:
    made = experiment(Request(name=name, scale="smoke", seeds=2, device="cpu"), tmp_path)
    orders = made.orders()
    assert orders
    seeds = {order.training.seed for order in orders}
    assert len(seeds) > 1 or name == "nose"  # whose seeds are those of clones
    assert tmp_path in made.folder.parents
    assert not list(tmp_path.iterdir())


def test_options_of_another_experiment_are_refused(tmp_path: Path) -> None:
    tamed = PaperOptions(tame=True)
    request = Request(name="defensive-distillation", scale="smoke")
    with pytest.raises(ConfigError, match="was given PaperOptions; it takes none of its own"):
        experiment(request, tmp_path, tamed)
    made: Any = experiment(Request(name="tsne", scale="smoke"), tmp_path, tamed)
    assert made.setting.tame
    with pytest.raises(ConfigError, match="There is no scale 'huge'"):
        experiment(Request(name="tsne", scale="huge"), tmp_path)
    with pytest.raises(ConfigError, match="seeds is 0"):
        experiment(Request(name="tsne", scale="smoke", seeds=0), tmp_path)


# A toy experiment: all that a new one needs.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ToyResult:
    result_type = "toy"
    accuracies: tuple[Estimate, ...]


def page(result: ToyResult, records: Sequence[Any]) -> Page:
    lines = [["Seed", "Accuracy"]]
    lines += [[str(seed), f"{one.value:.3f}"] for seed, one in enumerate(result.accuracies)]
    return Page(title="Toy", verdict=["It ran."], blocks=[Table(heading="Seeds", lines=lines)])


TOY_SETTINGS = {"smoke": Setting(scale="smoke", differs="Digits.", seeds=2)}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Toy:
    setting: Setting
    folder: Path

    @staticmethod
    def of(request: Request, out: Path) -> "Toy":
        return Toy(setting=request.setting(TOY_SETTINGS), folder=out)

    @property
    def runs_folder(self) -> Path:
        return self.folder

    def data(self, progress: Progress) -> Dataset:
        return load("digits", progress=progress)

    def orders(self) -> list[Order]:
        brief = Training(epochs=1, device="cpu", precision="fp32")
        return [
            Order(
                net="mlp", objective=Normal(), training=dataclasses.replace(brief, seed=seed),
                out=self.folder / f"seed-{seed}",
            )
            for seed in range(self.setting.seeds)
        ]  # fmt: skip

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        made = [runs[order] for order in self.orders()]
        result: Any = ToyResult(accuracies=tuple(run.accuracy for run in made))
        return MeasuredResult(result, [run.record for run in made])


def test_a_new_experiment_is_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This file stands for its file; estimate, runs, result, page and report follow."""
    this = import_module(__name__)
    monkeypatch.setattr(results, "import_module", lambda name: this)
    monkeypatch.setattr(catalogue, "import_module", lambda name: this)
    monkeypatch.setitem(TYPES, "toy", "here:ToyResult")
    entry = Listed(about="A toy.", home="here:Toy")
    monkeypatch.setitem(EXPERIMENTS, "toy", entry)
    made = experiment(Request(name="toy", scale="smoke"), tmp_path / "toy")
    outcome = run(made)
    assert [line[0] for line in outcome.lines] == ["Seed", "0", "1"]
    assert (tmp_path / "toy" / "table.md").read_text().count("\n") == 4
    again = read_outcome(tmp_path / "toy")
    assert again.result == outcome.result
    assert render(again.page) == render(outcome.page) == outcome.report.read_text()
    written = outcome.report.stat().st_mtime_ns
    run(made)
    assert outcome.report.stat().st_mtime_ns == written
    assert page_of(outcome.result, outcome.records).verdict == ["It ran."]
    # Another result under the same texts is another page.
    other = dataclasses.replace(outcome.result, accuracies=outcome.result.accuracies[:1])
    assert render(page_of(other, outcome.records)) != render(outcome.page)


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("{", RunError, "cannot be read"),
        ('{"verdict": []}', ConfigError, "an earlier version wrote it"),
        ('{"result_type": "demu"}', ConfigError, "Did you mean demo"),
        ('{"result_type": "demo"}', ConfigError, "missing required field"),
    ],
)
def test_a_result_that_cannot_be_read_is_named(
    tmp_path: Path, text: str, error: type[Exception], why: str
) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(error, match=why):
        read_outcome(tmp_path)
