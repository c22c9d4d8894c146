"""Which students learned how much from whom: records grouped over seeds."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from denature.core.record import Record
from denature.core.stats import Estimate, mean_over_seeds, paired_difference

NOT_SETTINGS = ("seed", "view_seed", "device", "evaluate_every")
"""Training fields in which runs of one group may differ."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the same training over one or more seeds."""

    net: str
    kind: str
    """`normal`, `nasty`, `distilled` or `imported`."""
    teacher: str
    """Kind of the teacher: `none`, `normal`, `nasty`, ..."""
    answers: str
    """What the teacher showed: `none`, `soft` or `labels`."""
    note: str
    """The settings, where another row is told apart by nothing else."""
    accuracy: Estimate
    difference: Estimate | None
    """Against the reference of the section, paired by seed: the same student alone, or for a nasty
    teacher its normal one."""
    seeds: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The two tables of a report."""

    teachers: tuple[Row, ...]
    students: tuple[Row, ...]

    def teacher(self, kind: str) -> Row | None:
        return next((row for row in self.teachers if row.kind == kind), None)

    def student(self, net: str, teacher: str, answers: str) -> Row | None:
        wanted = (net, teacher, answers)
        found = (row for row in self.students if (row.net, row.teacher, row.answers) == wanted)
        return next(found, None)


def summarise(records: Iterable[Record]) -> Summary:
    """Group runs that differ in their seed alone; runs that taught another are teachers."""
    measured = [record for record in records if record.accuracy is not None]
    taught = {
        given.digest
        for record in measured
        for role, given in record.inputs.items()
        if role in ("teacher", "adversary")
    }
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in measured:
        teaches = record.kind == "nasty" or record.net.digest in taught
        groups[json.dumps([teaches, *_identity(record)], default=str)].append(record)
    members = list(groups.values())

    def is_teacher(group: Sequence[Record]) -> bool:
        return group[0].kind == "nasty" or group[0].net.digest in taught

    teachers = [g for g in members if is_teacher(g)]
    students = [g for g in members if not is_teacher(g)]
    return Summary(
        tuple(sorted(_rows(teachers, teachers), key=lambda row: (row.kind != "normal", row.net))),
        tuple(sorted(_rows(students, students), key=_reading_order)),
    )


def _identity(record: Record) -> tuple[Any, ...]:
    """What runs of one group share: everything but the seed."""
    return (
        record.kind,
        record.net.name,
        _teacher(record),
        _answers(record),
        record.data and record.data.digest,
        _training(record),
        record.config.get("objective"),
    )


def _training(record: Record) -> Mapping[str, Any]:
    training = record.config.get("training", {})
    return {key: value for key, value in training.items() if key not in NOT_SETTINGS}


def _teacher(record: Record) -> str:
    given = record.inputs.get("teacher")
    return "none" if given is None else given.kind


def _answers(record: Record) -> str:
    if "teacher" not in record.inputs:
        return "none"
    return str(record.config["objective"]["answers"])


def _by_seed(group: Sequence[Record]) -> dict[int, float]:
    return {
        record.seed if record.seed is not None else -1: record.accuracy.value
        for record in group
        if record.accuracy is not None
    }


def _rows(groups: Sequence[Sequence[Record]], among: Sequence[Sequence[Record]]) -> list[Row]:
    names = [(g[0].kind, g[0].net.name, _teacher(g[0]), _answers(g[0])) for g in groups]
    rows = []
    for group, name in zip(groups, names, strict=True):
        first = group[0]
        by_seed = _by_seed(group)
        assert first.accuracy is not None
        rows.append(
            Row(
                net=first.net.name,
                kind=first.kind,
                teacher=_teacher(first),
                answers=_answers(first),
                note=_note(first) if names.count(name) > 1 else "",
                accuracy=(
                    first.accuracy if len(by_seed) == 1 else mean_over_seeds(list(by_seed.values()))
                ),
                difference=_difference(group, among),
                seeds=len(by_seed),
            )
        )
    return rows


def _difference(group: Sequence[Record], among: Sequence[Sequence[Record]]) -> Estimate | None:
    """Against the normal runs of the same network, data and training."""
    first = group[0]
    if first.kind == "normal":
        return None
    for other in among:
        reference = other[0]
        same = (
            reference.kind == "normal"
            and reference.net.name == first.net.name
            and (reference.data and reference.data.digest) == (first.data and first.data.digest)
            and _training(reference) == _training(first)
        )
        if same:
            return paired_difference(_by_seed(group), _by_seed(other))
    return None


def _note(record: Record) -> str:
    """The settings that a caller chose, in words."""
    words = {"temperature": "tau", "batch_size": "batch"}
    chosen = {**record.config.get("objective", {}), **record.given.get("training", {})}
    shown = {k: v for k, v in chosen.items() if k not in ("kind", "answers", *NOT_SETTINGS)}
    return ", ".join(f"{words.get(k, k)} {v}" for k, v in shown.items() if v is not None)


def _reading_order(row: Row) -> tuple[Any, ...]:
    teachers = ["none", "normal", "nasty"]
    rank = teachers.index(row.teacher) if row.teacher in teachers else len(teachers)
    return row.net, rank, row.answers != "soft", row.note
