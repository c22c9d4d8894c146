"""Kinds of runs in reports: what a record's objective says of it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from denature.core.errors import RunError
from denature.core.record import STARTS, Record
from denature.core.schema import decode
from denature.datafree.config import Dafl
from denature.train.objectives import Normal, Objective
from denature.train.objectives.catalogue import OBJECTIVES

KINDS: Mapping[str, type[Objective]] = {**OBJECTIVES, Dafl.kind: Dafl}
"""Objectives by kind; the kind `imported` has none."""


def objective_of(record: Record) -> Any:
    """The objective of a run; settings that a record of before lacks have their defaults."""
    settings = record.config.get("objective", {})
    return decode(KINDS[record.kind], settings, where=f"the objective of {record.id}")


def check_inputs(record: Record) -> None:
    """Check that a record names the run that its objective asks.

    Raises:
        RunError: it does not; the record was changed.
    """
    role = KINDS[record.kind].asks if record.kind in KINDS else None
    if role is not None and role not in record.inputs:
        raise RunError(
            f"The record {record.id} is of a {record.kind} run and names no {role}; make it again."
        )


def answers_of(record: Record) -> str:
    """Kind of its teacher's answers: `soft`, `labels`, `synthetic`, or `none` without a teacher.

    `synthetic` stands for answers to generated images. A clone has the kind of answers that its
    victim returned.
    """
    if record.victim is not None:
        return record.victim.kind
    if "teacher" not in record.inputs:
        return "none"
    usual = KINDS.get(record.kind, Normal).answers_shown
    return str(record.config["objective"].get("answers", usual))


def is_plain(record: Record) -> bool:
    """Whether the run used the unchanged true labels alone, from random initial weights.

    A `normal` run at another temperature or with smoothed labels is a defense, and a run that
    started from another run has learned more: neither serves as a baseline.
    """
    objective, settings = KINDS.get(record.kind), record.config.get("objective", {})
    if objective is None or STARTS & record.inputs.keys():
        return False
    usual = all(settings.get(f.name, f.default) == f.default for f in fields(objective))
    return usual and objective.baseline


def label_of(kind: str, *, teacher: str, answers: str) -> str:
    """The source that a run learned from, in words.

    Args:
        kind: of the run; an imported one counts as trained alone.
        teacher: kind of its teacher.
        answers: kind of the teacher's answers, in words.
    """
    return KINDS.get(kind, Normal).label.format(teacher=teacher, answers=answers)
