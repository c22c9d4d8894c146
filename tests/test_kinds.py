"""What a kind of run is called and counts as: its objective says so, and core/ has no list."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import denature
from denature.cli.options import COMMAND_OF_KIND, TRAINERS
from denature.core.errors import RunError
from denature.core.record import InputRecord, Record
from denature.report.kinds import (
    KINDS,
    answers_of,
    check_inputs,
    is_plain,
    label_of,
    objective_of,
)
from denature.report.summary import summarise
from denature.train import Normal, Training, train
from denature.train.objectives import Objective

QUICK = Training(epochs=1, batch_size=256, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def normal() -> Record:
    return train("mlp", "digits", Normal(), QUICK).record


def other(record: Record, kind: str, **objective: Any) -> Record:
    """The record as one of another kind, whose input is the record itself."""
    role = KINDS[kind].asks
    given = InputRecord(
        folder=None, kind="normal", net="mlp", digest="d", recipe="r", accuracy=None, seed=0
    )
    inputs = {} if role is None else {role: given}
    config = {**record.config, "objective": {"kind": kind, **objective}}
    return replace(record, kind=kind, config=config, inputs=inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_each_objective_names_its_role_and_label(kind: str, normal: Record) -> None:
    objective: Any = KINDS[kind]
    assert issubclass(objective, Objective)
    assert objective.kind == kind
    assert objective.asks in (None, "teacher", "adversary", "victim")
    assert label_of(kind, teacher="nasty", answers="all answers")
    assert objective_of(other(normal, kind)) == objective()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("normal", "alone (true labels)"),
        ("adversarial", "true labels of attacked images"),
        ("hardened", "nasty teacher, hardened by its answers"),
        ("cloned", "a victim's labels only"),
        ("distilled", "nasty teacher, labels only"),
        ("dafl", "nasty teacher, labels only"),
        ("imported", "alone (true labels)"),
    ],
)
def test_labels_are_those_of_before(kind: str, said: str) -> None:
    assert label_of(kind, teacher="nasty", answers="labels only") == said


@pytest.mark.parametrize(
    ("kind", "objective", "answers"),
    [
        ("normal", {}, "none"),
        ("adversarial", {}, "none"),
        ("nasty", {}, "none"),
        ("distilled", {"answers": "labels"}, "labels"),
        ("distilled", {}, "soft"),
        ("hardened", {}, "soft"),
        ("skeptical", {}, "soft"),
        ("dafl", {}, "synthetic"),
        ("cloned", {}, "normal"),
    ],
)
def test_the_kind_of_answers_follows_from_objective_and_input(
    kind: str, objective: dict[str, Any], answers: str, normal: Record
) -> None:
    """A victim's entry has the kind of its answers in the place of a kind of run."""
    assert answers_of(other(normal, kind, **objective)) == answers


def test_only_normal_runs_of_default_settings_are_plain(normal: Record) -> None:
    assert is_plain(normal)
    assert is_plain(other(normal, "normal"))
    assert not is_plain(other(normal, "normal", temperature=4.0))
    assert not is_plain(other(normal, "normal", smoothing=0.1))
    assert not is_plain(replace(normal, inputs={"init": next(iter(
        other(normal, "distilled").inputs.values()))}))  # fmt: skip
    assert not any(is_plain(other(normal, kind)) for kind in KINDS if kind != "normal")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].asks is not None])
def test_a_record_without_the_run_that_was_asked_is_refused(kind: str, normal: Record) -> None:
    record = other(normal, kind)
    check_inputs(record)
    with pytest.raises(RunError, match=f"names no {KINDS[kind].asks}"):
        summarise([replace(record, inputs={})])


def test_a_record_that_contradicts_itself_is_refused(normal: Record) -> None:
    with pytest.raises(ValueError, match="the objective of a nasty run is of the kind normal"):
        replace(normal, kind="nasty")
    with pytest.raises(ValueError, match="names no run that gave them"):
        replace(normal, config={**normal.config, "asking": {"storage": "auto"}})


def test_every_command_that_trains_has_its_objective() -> None:
    assert set(COMMAND_OF_KIND) <= KINDS.keys()
    for command, objective in TRAINERS.items():
        assert COMMAND_OF_KIND[objective.kind] == command
        assert fields(objective)


def test_core_knows_no_kind_of_run() -> None:
    """`label` and `normal` are also words of other things; these kinds are not."""
    named = {f'"{kind}"' for kind in KINDS}
    for file in (Path(denature.__file__).parent / "core").glob("*.py"):
        assert not [kind for kind in named if kind in file.read_text(encoding="utf-8")], file
