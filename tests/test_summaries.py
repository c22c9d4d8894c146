"""What a report says of runs: rows, differences that are paired by seed, and the verdict."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from denature.core.hits import Hits
from denature.core.record import InputRecord, Record
from denature.core.stats import proportion
from denature.report import summarise
from denature.report.results import Outcome
from denature.report.words import of_one_seed, score, student_table, verdict_on_students


def made(template: Record, kind: str, seed: int, right: int, **changes: Any) -> Record:
    """A record with `right` of 1000 right, of the recipe that its settings and inputs make."""
    inputs: dict[str, InputRecord] = changes.get("inputs", {})
    objective = {"kind": kind, "omega": 0.04, "temperature": 4.0, **changes.get("objective", {})}
    training = {**template.config["training"], "seed": seed, "view_seed": seed}
    settings = f"{kind}-{objective}-{[(role, given.recipe) for role, given in inputs.items()]}"
    recipe = hashlib.sha256(settings.encode()).hexdigest()[:16]
    return replace(
        template,
        kind=kind,
        id=f"{recipe}-{seed}",
        recipe=recipe,
        net=replace(template.net, digest=f"{recipe}-{seed}"),
        accuracy=proportion(right, 1000),
        hits=Hits.pack(np.arange(1000) < right, test="t"),
        config={**template.config, "objective": objective, "training": training},
        inputs=inputs,
    )


def input_of(record: Record) -> InputRecord:
    return InputRecord(
        folder=None, kind=record.kind, net=record.net.name, digest=record.net.digest,
        recipe=record.recipe,
        accuracy=record.accuracy, seed=record.seed,
    )  # fmt: skip


def family(
    template: Record,
    *,
    alone: int,
    soft: int,
    labels: int,
    of_normal: int | None = 900,
    nasty_teacher: int = 980,
) -> list[Record]:
    """Two seeds of a whole experiment with these accuracies, in thousandths."""
    records = []
    for seed in range(2):
        normal = made(template, "normal", 1000 + seed, 990)
        nasty = made(
            template, "nasty", 1000 + seed, nasty_teacher + seed,
            objective={"temperature": 4.0}, inputs={"adversary": input_of(normal)},
        )  # fmt: skip
        plain = {"temperature": 1.0, "smoothing": 0.0}
        records += [normal, nasty]
        records.append(made(template, "normal", seed, alone + seed, objective=plain))
        for teacher, answers, right in (
            (nasty, "soft", soft), (nasty, "labels", labels), (normal, "soft", of_normal),
        ):  # fmt: skip
            if right is None:
                continue
            how: dict[str, Any] = {"objective": {"answers": answers}}
            how["inputs"] = {"teacher": input_of(teacher)}
            records.append(made(template, "distilled", seed, right + 2 * seed, **how))
    return records


def test_differences_are_paired_by_seed(demo: Outcome) -> None:
    summary = summarise(family(demo.records[0], alone=900, soft=700, labels=880))
    row = summary.student("mlp", "nasty", "soft")
    assert row is not None
    assert row.difference is not None
    # Paired differences are -0.200 and -0.199, whatever the spread of each side; what is left is
    # what 200 of 1,000 images that differ leave open.
    assert row.difference.value == pytest.approx(-0.1995)
    assert 0.04 < row.difference.high - row.difference.low < 0.06
    assert row.difference.n == 2
    assert row.from_normal is not None
    assert row.from_normal.value == pytest.approx(-0.2)


def test_a_run_with_a_teacher_is_a_student_in_the_summary(demo: Outcome) -> None:
    summary = summarise(family(demo.records[0], alone=900, soft=700, labels=880))
    assert [row.kind for row in summary.teachers] == ["normal", "nasty"]
    assert [row.teacher for row in summary.students] == ["none", "normal", "nasty", "nasty"]
    alone = summary.student("mlp", "none", "none")
    assert alone is not None
    assert alone.accuracy.value == pytest.approx(0.9005)


@pytest.mark.parametrize(
    ("soft", "of_normal", "labels", "first", "second"),
    [
        (700, 900, 900, "spoils the only student here", "does not protect its labels"),
        (
            899,
            900,
            900,
            "No student is shown to be spoiled by more than 1 point",
            "does not protect",
        ),
        # The normal teacher's student falls as far: that is distillation, and no nasty teacher.
        (700, 700, 900, "No student is shown to be spoiled", "does not protect its labels"),
        (700, None, 900, "it cannot be told whether the nasty teacher or", "does not protect"),
        (700, 900, 800, "spoils the only student here", "costs accuracy"),
        (700, 900, 890, "spoils the only student here", "is not settled"),
    ],
)
def test_the_verdict_says_what_the_numbers_say(
    demo: Outcome, soft: int, of_normal: int | None, labels: int, first: str, second: str
) -> None:
    records = family(demo.records[0], alone=900, soft=soft, labels=labels, of_normal=of_normal)
    one, two = verdict_on_students(summarise(records))
    assert first in one
    assert second in two


@pytest.mark.parametrize(
    ("times", "students"), [(2, "both students here"), (3, "all 3 students here")]
)
def test_the_verdict_counts_students(demo: Outcome, times: int, students: str) -> None:
    summary = summarise(family(demo.records[0], alone=900, soft=700, labels=900))
    many = replace(summary, students=summary.students * times)
    assert f"spoils {students}: " in verdict_on_students(many)[0]


def test_one_image_lost_at_each_seed_spoils_nothing(demo: Outcome) -> None:
    """An interval over seeds alone would be of no width, and below 0."""
    records = family(demo.records[0], alone=900, soft=898, labels=900)
    row = summarise(records).student("mlp", "nasty", "soft")
    assert row is not None
    assert row.difference is not None
    assert row.difference.low < 0 < row.difference.high
    assert "No student is shown to be spoiled" in verdict_on_students(summarise(records))[0]


@pytest.mark.parametrize("objective", [{"temperature": 100.0}, {"smoothing": 0.1}])
def test_a_normal_run_of_another_objective_is_no_student_alone(
    demo: Outcome, objective: dict[str, float]
) -> None:
    template = demo.records[0]
    plain = {"temperature": 1.0, "smoothing": 0.0}
    records = family(template, alone=900, soft=892, labels=900)
    records += [
        made(template, "normal", seed, 650, objective={**plain, **objective}) for seed in range(2)
    ]
    for answers in ("soft", "labels"):
        row = summarise(records).student("mlp", "nasty", answers)
        assert row is not None
        assert row == summarise(records[:-2]).student("mlp", "nasty", answers)
    other = [row for row in summarise(records).students if row.accuracy.value == 0.65]
    assert [row.difference.value for row in other if row.difference] == pytest.approx([-0.2505])


PLAIN = {"temperature": 1.0, "smoothing": 0.0}


def test_one_network_under_several_ids_is_one_seed(demo: Outcome) -> None:
    """As when a run is made again with another number of evaluations."""
    records = family(demo.records[0], alone=900, soft=700, labels=900)
    again = [replace(record, id=f"{record.id}-again") for record in records]
    assert summarise([*records, *again]) == summarise(records)


def test_a_plain_run_that_taught_is_a_student_alone_still(demo: Outcome) -> None:
    template = demo.records[0]
    plain = [made(template, "normal", seed, 900, objective=PLAIN) for seed in range(3)]
    how: dict[str, Any] = {"objective": {"answers": "soft"}}
    how["inputs"] = {"teacher": input_of(plain[0])}
    students = [made(template, "distilled", seed, 850, **how) for seed in range(3)]
    summary = summarise([*plain, *students])
    assert [row.seeds for row in summary.teachers] == [1]
    alone, taught = summary.students
    assert (alone.teacher, alone.seeds) == ("none", 3)
    assert taught.difference is not None
    assert taught.difference.n == 3
    assert taught.difference.value == pytest.approx(-0.05)


def test_students_of_teachers_without_common_seeds_are_paired_by_their_own(
    demo: Outcome,
) -> None:
    records = family(demo.records[0], alone=900, soft=700, labels=900)
    moved = []
    for record in records:
        given = record.inputs.get("teacher")
        if given is not None and given.kind == "nasty":
            other = replace(given, seed=2000 + (given.seed or 0))
            record = replace(record, inputs={"teacher": other})
        moved.append(record)
    row, wanted = (summarise(some).student("mlp", "nasty", "soft") for some in (moved, records))
    assert row is not None
    assert wanted is not None
    assert row.from_normal == wanted.from_normal
    assert row.from_normal is not None


def test_a_control_that_is_missing_for_some_students_is_named(demo: Outcome) -> None:
    template = demo.records[0]
    records = family(template, alone=900, soft=899, labels=900)
    net = replace(template.net, name="cnn")
    other = [
        replace(r, id=f"cnn-{r.id}", recipe=f"cnn-{r.recipe}", net=replace(net, digest=f"c{r.id}"))
        for r in family(template, alone=900, soft=600, labels=900, of_normal=None)
        if r.kind != "nasty" and r.seed is not None and r.seed < 1000
    ]
    [said, *_] = verdict_on_students(summarise([*records, *other]))
    assert "Without the normal teacher's students of cnn it cannot be told" in said
    assert "cnn differs by -30" in said


@pytest.mark.parametrize(
    ("of_normal", "said"),
    [
        (800, "as the normal teacher's labels do"),
        (900, "more than the normal teacher's labels"),
        (None, "what the normal teacher's labels cost is not known here"),
    ],
)
def test_labels_are_held_against_the_normal_teachers(
    demo: Outcome, of_normal: int | None, said: str
) -> None:
    template = demo.records[0]
    records = family(template, alone=900, soft=700, labels=800)
    for seed in range(2) if of_normal is not None else ():
        normal = next(r for r in records if r.kind == "normal" and r.seed == 1000 + seed)
        how: dict[str, Any] = {"objective": {"answers": "labels"}}
        how["inputs"] = {"teacher": input_of(normal)}
        assert of_normal is not None
        records.append(made(template, "distilled", seed, of_normal + 2 * seed, **how))
    assert said in verdict_on_students(summarise(records))[1]


def test_rows_of_other_test_images_are_told_apart(demo: Outcome) -> None:
    template = demo.records[0]
    assert template.data is not None
    first = made(template, "normal", 0, 900, objective=PLAIN)
    data = replace(template.data, test=719, split_digest="other1")
    second = replace(first, id="x", recipe="x", net=replace(first.net, digest="x"), data=data)
    notes = {row.note for row in summarise([first, second]).students}
    assert len(notes) == 2
    assert any("719 images (holdout other1)" in note for note in notes)


def test_controls_of_one_seed_settle_nothing_for_three(demo: Outcome) -> None:
    """A student of three seeds whose controls are of the first alone."""
    template, records = demo.records[0], []
    for seed, right in enumerate((800, 950, 950)):
        normal = made(template, "normal", 1000 + seed, 990)
        nasty = made(template, "nasty", 1000 + seed, 980, inputs={"adversary": input_of(normal)})
        how: dict[str, Any] = {"objective": {"answers": "soft"}}
        records += [
            normal, nasty,
            made(template, "distilled", seed, right, **how, inputs={"teacher": input_of(nasty)}),
        ]  # fmt: skip
        if seed == 0:
            records.append(made(template, "normal", seed, 950, objective=PLAIN))
            records.append(
                made(template, "distilled", seed, 950, **how, inputs={"teacher": input_of(normal)})
            )
    [said] = verdict_on_students(summarise(records))
    assert said.startswith("With one seed nothing is settled")
    [line] = [line for line in student_table(summarise(records)) if "nasty" in line[1]]
    assert line[3].startswith("-15.0 [")
    assert line[3].endswith("(1 of 3 seeds)")


def test_students_of_one_seed_and_three_teachers_all_count(demo: Outcome) -> None:
    """In any order of the records: none is lost, and each is held against the same run alone."""
    template = demo.records[0]
    records = [made(template, "normal", 0, 940, objective=PLAIN)]
    for seed, right in enumerate((930, 910, 905)):
        teacher = made(template, "normal", 1000 + seed, 990)
        how = {"objective": {"answers": "soft"}, "inputs": {"teacher": input_of(teacher)}}
        run = made(template, "distilled", 0, right, **how)
        net = replace(run.net, digest=f"{run.net.digest}-{seed}")
        records += [teacher, replace(run, id=f"{run.id}-{seed}", net=net)]
    first, second = summarise(records), summarise(records[::-1])
    row = first.student("mlp", "normal", "soft")
    assert row is not None
    assert row.seeds == 3
    assert row.accuracy.value == pytest.approx(0.915)
    assert row.difference is not None
    assert row.difference.value == pytest.approx(-0.025)
    # Against one run alone they are one difference, whatever the number of teachers.
    assert of_one_seed(row.difference)
    assert row == second.student("mlp", "normal", "soft")


@pytest.mark.parametrize("other", ["teacher", "storage"])
def test_the_normal_students_control_is_of_the_teacher_that_was_pushed_from(
    demo: Outcome, other: str
) -> None:
    """Neither a student of another normal teacher nor one of fuller answers is a control."""
    template, records = demo.records[0], []
    for seed in range(2):
        normal = made(template, "normal", 1000 + seed, 990)
        nasty = made(template, "nasty", 1000 + seed, 980, inputs={"adversary": input_of(normal)})
        taught = normal
        if other == "teacher":
            taught = made(template, "normal", 1000 + seed, 700, objective={"smoothing": 0.1})
        how = {"objective": {"answers": "soft"}}
        student = made(template, "distilled", seed, 700, **how,
                       inputs={"teacher": input_of(nasty)})  # fmt: skip
        full = made(template, "distilled", seed, 900, **how, inputs={"teacher": input_of(taught)})
        if other == "storage":
            config = {**student.config, "asking": {"storage": "top-1", "form": "plain"}}
            student = replace(student, config=config)
        alone = made(template, "normal", seed, 900, objective=PLAIN)
        records += [normal, nasty, taught, student, full, alone]
    row = summarise(records).student("mlp", "nasty", "soft")
    assert row is not None
    assert row.from_normal is None
    assert (
        "it cannot be told whether the nasty teacher or"
        in verdict_on_students(summarise(records))[0]
    )


def test_plain_runs_of_other_code_are_no_reference(demo: Outcome) -> None:
    template, records = demo.records[0], []
    for seed in range(2):
        ours = made(template, "normal", seed, 900, objective=PLAIN)
        other = made(template, "normal", seed, 700, objective=PLAIN)
        other = replace(other, id=f"old-{seed}", recipe="old",
                        revisions=dict.fromkeys(other.revisions, 0))  # fmt: skip
        how = {"objective": {"answers": "soft"}, "inputs": {"teacher": input_of(ours)}}
        records += [ours, other, made(template, "distilled", seed, 890, **how)]
    for given in (records, records[::-1]):
        row = summarise(given).student("mlp", "normal", "soft")
        assert row is not None
        assert row.difference is not None
        assert row.difference.value == pytest.approx(-0.01)


def test_what_was_chosen_on_the_test_images_is_marked(demo: Outcome) -> None:
    records = [
        replace(record, chosen_on="test" if record.kind == "distilled" else "none")
        for record in family(demo.records[0], alone=900, soft=700, labels=900)
    ]
    summary = summarise(records)
    assert "too high" in verdict_on_students(summary)[-1]
    marked = [line[1] for line in student_table(summary) if "best epoch on the test" in line[1]]
    assert len(marked) == 3
    assert score(records[-1]).endswith("(best epoch on the test images)")


def test_one_seed_is_reported_over_images(demo: Outcome) -> None:
    summary = summarise([r for r in demo.records if r.seed in (0, 1000)])
    assert {row.accuracy.over for row in summary.students} == {"images"}
    assert {row.seeds for row in summary.students} == {1}


def test_students_of_different_teachers_are_never_one_row(demo: Outcome) -> None:
    """Two omegas: two teachers of one name, and students that differ in nothing of their own."""
    template, records = demo.records[0], []
    for seed in range(2):
        normal = made(template, "normal", 1000 + seed, 990)
        records.append(normal)
        for omega, right in ((0.04, 830), (0.5, 95)):
            nasty = made(
                template, "nasty", 1000 + seed, 900,
                objective={"omega": omega}, inputs={"adversary": input_of(normal)},
            )  # fmt: skip
            how = {"objective": {"answers": "soft"}, "inputs": {"teacher": input_of(nasty)}}
            records += [nasty, made(template, "distilled", seed, right, **how)]
    summary = summarise(records)
    assert {row.accuracy.value for row in summary.students} == {0.83, 0.095}
    assert len({row.note for row in summary.students}) == 2
    assert [row.note for row in summary.teachers] == ["", "omega 0.04", "omega 0.5"]


def test_a_run_that_is_named_twice_counts_once(demo: Outcome) -> None:
    assert summarise([*demo.records, *demo.records]) == summarise(demo.records)


def test_the_reference_is_found_also_where_it_taught(demo: Outcome) -> None:
    """One network alone, whose run is the teacher too, as in the README's own commands."""
    template = demo.records[0]
    alone = made(template, "normal", 0, 900, objective={"temperature": 1.0, "smoothing": 0.0})
    how = {"objective": {"answers": "soft"}, "inputs": {"teacher": input_of(alone)}}
    [row] = summarise([alone, made(template, "distilled", 0, 850, **how)]).students
    assert row.difference is not None
    assert row.difference.value == pytest.approx(-0.05)


def test_one_seed_settles_nothing(demo: Outcome) -> None:
    records = family(demo.records[0], alone=900, soft=500, labels=890)
    one, two = verdict_on_students(summarise([r for r in records if r.seed in (0, 1000)]))
    assert "With one seed nothing is settled" in one
    assert "With one seed it is not settled what learning from its labels" in two
