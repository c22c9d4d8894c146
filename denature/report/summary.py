"""Accuracies of teachers and students, and their differences: records grouped over seeds."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from denature.core.record import STARTS, Record
from denature.core.stats import Estimate, Score, mean_score, paired_difference, pooled
from denature.report.kinds import answers_of, check_inputs, is_plain
from denature.train.identity import REPEATED


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the same training over one or more seeds."""

    net: str
    kind: str
    """See `Record.kind`."""
    teacher: str
    """Kind of the teacher: `none`, `normal`, `nasty`, ...; `victim` of a clone."""
    answers: str
    """Kind of answers that the teacher showed: see `denature.report.kinds.answers_of`."""
    note: str
    """The settings that tell this row from others of the same name; empty without such rows."""
    accuracy: Estimate
    difference: Estimate | None
    """Against the reference of the section, paired by seed: the same student alone, or for a nasty
    teacher its normal one."""
    from_normal: Estimate | None
    """Of a nasty teacher's student: against the same student of the normal teacher."""
    chosen_on_test: bool
    """Whether an epoch was kept because it was best on the test images; the accuracy is then
    biased upwards."""
    seeds: int
    recipe: str
    teacher_recipe: str | None
    """Recipe of the teacher; None for a student alone and for teachers."""


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
    """Group runs of one recipe, which differ in seeds alone.

    Runs that taught are teachers. Where some runs of a recipe taught and others did not, all of
    them are students alone too, for what was done with them later changes none of them.

    Raises:
        RunError: a record lacks the input that its objective asks.
    """
    recipes: dict[str, dict[str, Record]] = defaultdict(dict)
    measured = [record for record in records if record.accuracy is not None]
    taught = {
        given.digest
        for record in measured
        for role, given in record.inputs.items()
        if role not in STARTS
    }
    for record in measured:
        check_inputs(record)
        # By weights: a run that is named twice, or made again with another number of evaluations,
        # is no second seed.
        recipes[record.recipe].setdefault(record.net.digest, record)
    all_groups = [list(group.values()) for group in recipes.values()]
    teachers, students = [], []
    for group in all_groups:
        teach = [r for r in group if r.kind == "nasty" or r.net.digest in taught]
        if teach:
            teachers.append(teach)
        if len(teach) < len(group):
            students.append(group)
    return Summary(
        tuple(
            sorted(
                _rows(teachers, all_groups),
                key=lambda row: (row.kind != "normal", row.net, row.note),
            )
        ),
        tuple(sorted(_rows(students, all_groups), key=_reading_order)),
    )


def _teacher(record: Record) -> str:
    given = record.inputs.get("teacher")
    alone = "none" if record.victim is None else "victim"
    return alone if given is None else given.kind


def _training(record: Record) -> dict[str, Any]:
    training = record.config.get("training", {})
    return {key: value for key, value in training.items() if key not in REPEATED}


def _seeds(record: Record, *, teacher: bool) -> tuple[Any, ...]:
    """Key that pairs runs: their own seeds, and with `teacher` the seed of their teacher."""
    given = record.inputs.get("teacher") if teacher else None
    training = record.config.get("training", {})
    return record.seed, training.get("view_seed"), given and given.seed


def _rows(groups: Sequence[Sequence[Record]], all_groups: Sequence[Sequence[Record]]) -> list[Row]:
    firsts = [group[0] for group in groups]
    names = [(r.kind, r.net.name, _teacher(r), answers_of(r)) for r in firsts]
    rows = []
    for group, name in zip(groups, names, strict=True):
        first = group[0]
        scores = [score for record in group if (score := record.score) is not None]
        alike = [
            other for other, other_name in zip(firsts, names, strict=True) if other_name == name
        ]
        teacher = first.inputs.get("teacher") or first.victim
        rows.append(
            Row(
                net=first.net.name,
                kind=first.kind,
                teacher=_teacher(first),
                answers=answers_of(first),
                note=_note(first, alike),
                accuracy=pooled([score.accuracy for score in scores]),
                difference=_difference(group, _alone(first, all_groups)),
                from_normal=_difference(group, _of_normal(first, all_groups), teacher=True),
                chosen_on_test=any(record.chosen_on == "test" for record in group),
                seeds=len(scores),
                recipe=first.recipe,
                teacher_recipe=None if teacher is None else teacher.recipe,
            )
        )
    return rows


def _difference(
    group: Sequence[Record], reference: Sequence[Record], *, teacher: bool = False
) -> Estimate | None:
    """Mean difference of the runs from the references of the same seeds, where there are any.

    Runs of one seed that have several teachers are one seed, by their mean: against the same run
    alone they are no independent differences. Where teachers have no seeds in common, students are
    paired by their own.
    """
    treated, control = (_by_seed(side, teacher=teacher) for side in (group, reference))
    if teacher and not treated.keys() & control.keys():
        treated, control = (_by_seed(side, teacher=False) for side in (group, reference))
    return paired_difference(treated, control)


def _by_seed(records: Sequence[Record], *, teacher: bool) -> dict[tuple[Any, ...], Score]:
    """The score of each seed, the mean of its runs."""
    found: dict[tuple[Any, ...], list[Score]] = defaultdict(list)
    for record in records:
        if (score := record.score) is not None:
            found[_seeds(record, teacher=teacher)].append(score)
    return {seed: mean_score(scores) for seed, scores in found.items()}


def _alone(record: Record, all_groups: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """The plain runs of the same network, data and training; none for a reference itself.

    A `normal` run of another temperature or smoothing is no reference, but another defense. Among
    plain runs of several recipes, those of the same code and number of processes are taken; if that
    leaves several recipes or none, the result is empty.
    """
    if is_plain(record) or record.kind == "imported":
        return []
    plain = [
        group for group in all_groups if is_plain(group[0]) and _trained_alike(group[0], record)
    ]
    if len(plain) > 1:
        plain = [group for group in plain if _made_alike(group[0], record)]
    return plain[0] if len(plain) == 1 else []


def _made_alike(record: Record, other: Record) -> bool:
    """Whether two runs were made by the same code, in as many processes."""
    shared = record.revisions.keys() & other.revisions.keys()
    return all(record.revisions[part] == other.revisions[part] for part in shared) and (
        record.config.get("processes") == other.config.get("processes")
    )


def _of_normal(record: Record, all_groups: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """Runs of the same student with a normal teacher, for a student of a nasty teacher.

    The normal teacher is the adversary of the nasty one. Without the nasty teacher's own record,
    the only normal teacher among the records is taken.
    """
    if _teacher(record) != "nasty":
        return []
    students = [
        group
        for group in all_groups
        if _teacher(group[0]) == "normal"
        and group[0].kind == record.kind
        and group[0].config.get("objective") == record.config.get("objective")
        and _asking(group[0]) == _asking(record)
        and _trained_alike(group[0], record)
    ]
    recipe = record.inputs["teacher"].recipe
    pushed = {
        other.inputs["adversary"].recipe
        for group in all_groups
        for other in group
        if other.recipe == recipe and "adversary" in other.inputs
    }
    if pushed:
        students = [group for group in students if group[0].inputs["teacher"].recipe in pushed]
    return students[0] if len(students) == 1 else []


def _asking(record: Record) -> dict[str, Any]:
    """How the answers of a run's teacher were stored and learned from."""
    inference = record.config.get("asking", {})
    return {key: value for key, value in inference.items() if key != "form"}


def _trained_alike(record: Record, other: Record) -> bool:
    return (
        record.net.name == other.net.name
        and record.data is not None
        and other.data is not None
        and record.data.split_digest == other.data.split_digest
        and _training(record) == _training(other)
    )


def _note(record: Record, alike: Sequence[Record]) -> str:
    """Settings that tell this row from others of the same name, in words."""
    described = [_described(other) for other in alike]
    settings = _described(record)
    differing = [key for key in settings if len({str(other.get(key)) for other in described}) > 1]
    return ", ".join(f"{key} {settings[key]}" for key in differing)


def _described(record: Record) -> dict[str, Any]:
    """All settings that can tell two recipes apart, as a flat dictionary."""
    names = {"temperature": "tau", "batch_size": "batch"}
    settings = {**record.config.get("objective", {}), **_training(record), **_asking(record)}
    found = {names.get(key, key): value for key, value in settings.items()}
    if record.data is not None:
        data = record.data
        found["data"] = f"{data.source} {data.digest[:6]}"
        found["tested on"] = f"{data.test:,} images ({data.test_origin} {data.split_digest[:6]})"
    for role, given in sorted(record.inputs.items()):
        found[role] = f"{given.kind} {given.net} {given.recipe[:6]}"
    found |= {role: found.get(role, "none") for role in STARTS}
    return found


def _reading_order(row: Row) -> tuple[Any, ...]:
    teachers = ["none", "normal", "nasty"]
    rank = teachers.index(row.teacher) if row.teacher in teachers else len(teachers)
    return row.net, rank, row.answers != "soft", row.note
