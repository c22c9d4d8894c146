"""Which students learned how much from whom: records grouped over seeds."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from denature.core.record import STARTS, Record
from denature.core.stats import Estimate, mean_over_seeds, paired_difference
from denature.train.identity import REPEATED


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the same training over one or more seeds."""

    net: str
    kind: str
    """`normal`, `nasty`, `distilled`, `dafl`, `cloned` or `imported`."""
    teacher: str
    """Kind of the teacher: `none`, `normal`, `nasty`, ...; `victim` of a clone."""
    answers: str
    """What the teacher showed: see `Record.answers`."""
    note: str
    """The settings, where another row is told apart by nothing else."""
    accuracy: Estimate
    difference: Estimate | None
    """Against the reference of the section, paired by seed: the same student alone, or for a nasty
    teacher its normal one."""
    seeds: int
    recipe: str
    teacher_recipe: str | None
    """Of the run that taught; None for a student alone and for teachers."""


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
    """Group runs of one recipe, which differ in seeds alone; runs that taught are teachers."""
    groups: dict[tuple[bool, str], dict[str, Record]] = defaultdict(dict)
    measured = [record for record in records if record.accuracy is not None]
    taught = {
        given.digest
        for record in measured
        for role, given in record.inputs.items()
        if role in ("teacher", "adversary")
    }
    for record in measured:
        teaches = record.kind == "nasty" or record.net.digest in taught
        # By id, so that a run that is named twice counts once.
        groups[teaches, record.recipe][record.id] = record
    members = {key: list(group.values()) for key, group in groups.items()}
    normals = [group for group in members.values() if group[0].kind == "normal"]

    def rows(teaching: bool) -> list[Row]:
        return _rows([g for (teaches, _), g in members.items() if teaches == teaching], normals)

    return Summary(
        tuple(sorted(rows(True), key=lambda row: (row.kind != "normal", row.net, row.note))),
        tuple(sorted(rows(False), key=_reading_order)),
    )


def _teacher(record: Record) -> str:
    given = record.inputs.get("teacher")
    alone = "none" if record.victim is None else "victim"
    return alone if given is None else given.kind


def _training(record: Record) -> dict[str, Any]:
    training = record.config.get("training", {})
    return {key: value for key, value in training.items() if key not in REPEATED}


def _by_seed(group: Sequence[Record]) -> dict[tuple[Any, Any], float]:
    return {
        (record.seed, record.config.get("training", {}).get("view_seed")): record.accuracy.value
        for record in group
        if record.accuracy is not None
    }


def _rows(groups: Sequence[Sequence[Record]], normals: Sequence[Sequence[Record]]) -> list[Row]:
    firsts = [group[0] for group in groups]
    names = [(r.kind, r.net.name, _teacher(r), r.answers) for r in firsts]
    rows = []
    for group, name in zip(groups, names, strict=True):
        first, by_seed = group[0], _by_seed(group)
        alike = [other for other, its in zip(firsts, names, strict=True) if its == name]
        assert first.accuracy is not None
        teacher = first.inputs.get("teacher") or first.victim
        rows.append(
            Row(
                net=first.net.name,
                kind=first.kind,
                teacher=_teacher(first),
                answers=first.answers,
                note=_note(first, alike),
                accuracy=(
                    first.accuracy if len(by_seed) == 1 else mean_over_seeds(list(by_seed.values()))
                ),
                difference=_difference(group, normals),
                seeds=len(by_seed),
                recipe=first.recipe,
                teacher_recipe=None if teacher is None else teacher.recipe,
            )
        )
    return rows


def _difference(group: Sequence[Record], normals: Sequence[Sequence[Record]]) -> Estimate | None:
    """Against the normal runs of the same network, data and training, started anew."""
    first = group[0]
    if first.kind in ("normal", "imported") or first.data is None:
        return None
    by_seed: dict[tuple[Any, Any], float] = {}
    for other in normals:
        reference = other[0]
        if (
            reference.net.name == first.net.name
            and reference.data is not None
            and reference.data.split_digest == first.data.split_digest
            and _training(reference) == _training(first)
            and not STARTS & reference.inputs.keys()
        ):
            by_seed |= _by_seed(other)
    return paired_difference(_by_seed(group), by_seed)


def _note(record: Record, alike: Sequence[Record]) -> str:
    """What tells this row from others of the same name: the settings that differ, in words."""
    described = [_described(other) for other in alike]
    mine = _described(record)
    differing = [key for key in mine if len({str(other.get(key)) for other in described}) > 1]
    return ", ".join(f"{key} {mine[key]}" for key in differing)


def _described(record: Record) -> dict[str, Any]:
    """Everything that can tell two recipes apart, flat."""
    names = {"temperature": "tau", "batch_size": "batch"}
    settings = {**record.config.get("objective", {}), **_training(record)}
    found = {names.get(key, key): value for key, value in settings.items()}
    found["data"] = f"{record.data.source} {record.data.digest[:6]}" if record.data else ""
    for role, given in sorted(record.inputs.items()):
        found[role] = f"{given.kind} {given.net} {given.recipe[:6]}"
    found |= {role: found.get(role, "none") for role in STARTS}
    return found


def _reading_order(row: Row) -> tuple[Any, ...]:
    teachers = ["none", "normal", "nasty"]
    rank = teachers.index(row.teacher) if row.teacher in teachers else len(teachers)
    return row.net, rank, row.answers != "soft", row.note
