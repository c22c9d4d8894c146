"""The paper's ablations: each varies one hyperparameter and fixes all others."""

from collections.abc import Iterator, Mapping, Sequence

from denature.recipes.paper.orders import ExperimentContext, Point
from denature.report.experiment import TEACHER
from denature.train import Order

STUDENTS = ("cnn", "resnetc20", "resnetc32")
OMEGAS = (0, 0.004, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1)
"""0.004 is the value in the paper's text as recalled, 0.04 the value in its code."""
TEMPERATURES = (1, 2, 4, 8, 12, 16, 20)
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
FRACTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 1)


def omega(lab: ExperimentContext) -> Iterator[Point]:
    """The weight of the adversarial term in training the teacher; with 0 the teacher is normal."""
    for x in lab.setting.sweeps.get("omega", OMEGAS):
        for seed in range(lab.seeds):
            nasty, normal = lab.nasty("resnet18", seed, omega=x), lab.normal("resnet18", seed)
            yield Point(row="nasty teacher", column=TEACHER, x=x, seed=seed, order=nasty,
                        against=normal)  # fmt: skip
            for net in STUDENTS:
                yield Point(row="of nasty", column=lab.column(net), x=x, seed=seed,
                            order=lab.student(net, nasty, seed),
                            against=lab.alone(net, seed),
                            like=lab.student(net, normal, seed) if x else None)  # fmt: skip


def temperature(lab: ExperimentContext) -> Iterator[Point]:
    """The distillation temperature tau_S in training the students."""
    return _student_sweep(lab, "temperature", TEMPERATURES)


def alpha(lab: ExperimentContext) -> Iterator[Point]:
    """The weight of the teacher's term in training the students."""
    return _student_sweep(lab, "alpha", ALPHAS)


def _student_sweep(lab: ExperimentContext, name: str, default: Sequence[float]) -> Iterator[Point]:
    """Students of both teachers, at each value of one hyperparameter of their loss."""
    for x in lab.setting.sweeps.get(name, default):
        for seed in range(lab.seeds):
            yield from _teachers(lab, x, seed)
            for net in STUDENTS:
                yield from _both(lab, net, x, seed, lab.alone(net, seed), {name: x})


def samples(lab: ExperimentContext) -> Iterator[Point]:
    """The share of the training samples that the thief has; teachers train on all samples."""
    # As floats: a fraction of 1.0, not 1, gives the same run as in other experiments.
    for x in map(float, lab.setting.sweeps.get("samples", FRACTIONS)):
        for seed in range(lab.seeds):
            yield from _teachers(lab, 100 * x, seed)
            for net in STUDENTS:
                alone = lab.alone(net, seed, fraction=x)
                yield Point(row="alone", column=lab.column(net), x=100 * x, seed=seed, order=alone)
                yield from _both(lab, net, 100 * x, seed, alone, {"fraction": x})


def _teachers(lab: ExperimentContext, x: float, seed: int) -> Iterator[Point]:
    """The normal and the nasty teacher, which are the same at every point."""
    normal = lab.normal("resnet18", seed)
    yield Point(row="normal", column=TEACHER, x=x, seed=seed, order=normal)
    yield Point(row="nasty", column=TEACHER, x=x, seed=seed, order=lab.nasty("resnet18", seed),
                against=normal)  # fmt: skip


def _both(
    lab: ExperimentContext,
    net: str,
    x: float,
    seed: int,
    alone: Order,
    changes: Mapping[str, float],
) -> Iterator[Point]:
    """A student of the normal teacher and a student of the nasty one."""
    of_normal, of_nasty = (
        lab.student(net, teacher, seed, **changes)
        for teacher in (lab.normal("resnet18", seed), lab.nasty("resnet18", seed))
    )
    column = lab.column(net)
    yield Point(row="of normal", column=column, x=x, seed=seed, order=of_normal, against=alone)
    yield Point(row="of nasty", column=column, x=x, seed=seed, order=of_nasty,
                against=alone, like=of_normal)  # fmt: skip
