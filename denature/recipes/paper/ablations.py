"""The paper's ablations: one knob is turned, everything else stays."""

from collections.abc import Iterator, Sequence

from denature.recipes.paper.orders import TEACHER, Lab, Point
from denature.train import Order

STUDENTS = ("cnn", "resnetc20", "resnetc32")
OMEGAS = (0, 0.004, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1)
"""0.004 is what the paper's text is recalled to say, 0.04 what its code uses."""
TEMPERATURES = (1, 2, 4, 8, 12, 16, 20)
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
FRACTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 1)


def omega(lab: Lab) -> Iterator[Point]:
    """The weight of the push, in training the teacher."""
    for x in lab.setting.sweeps.get("omega", OMEGAS):
        for seed in range(lab.seeds):
            nasty = lab.nasty("resnet18", seed, omega=x)
            yield Point(row="nasty teacher", column=TEACHER, x=x, seed=seed, order=nasty,
                        against=lab.normal("resnet18", seed))  # fmt: skip
            for net in STUDENTS:
                yield Point(row="of nasty", column=lab.column(net), x=x, seed=seed,
                            order=lab.student(net, nasty, seed),
                            against=lab.alone(net, seed))  # fmt: skip


def temperature(lab: Lab) -> Iterator[Point]:
    """tau_S, in training the students."""
    return _turned(lab, "temperature", TEMPERATURES)


def alpha(lab: Lab) -> Iterator[Point]:
    """The share of the teacher's term, in training the students."""
    return _turned(lab, "alpha", ALPHAS)


def _turned(lab: Lab, knob: str, usual: Sequence[float]) -> Iterator[Point]:
    """Students of both teachers, with one knob of their loss at each of its points."""
    for x in lab.setting.sweeps.get(knob, usual):
        for seed in range(lab.seeds):
            for row, teacher in _teachers(lab, seed):
                for net in STUDENTS:
                    yield Point(row=row, column=lab.column(net), x=x, seed=seed,
                                order=lab.student(net, teacher, seed, **{knob: x}),
                                against=lab.alone(net, seed))  # fmt: skip


def samples(lab: Lab) -> Iterator[Point]:
    """The share of the training samples that the thief has; the teachers had all."""
    for x in lab.setting.sweeps.get("samples", FRACTIONS):
        for seed in range(lab.seeds):
            for net in STUDENTS:
                alone = lab.alone(net, seed, fraction=x)
                column = lab.column(net)
                yield Point(row="alone", column=column, x=100 * x, seed=seed, order=alone)
                for row, teacher in _teachers(lab, seed):
                    yield Point(row=row, column=column, x=100 * x, seed=seed,
                                order=lab.student(net, teacher, seed, fraction=x),
                                against=alone)  # fmt: skip


def _teachers(lab: Lab, seed: int) -> Iterator[tuple[str, Order]]:
    yield "of normal", lab.normal("resnet18", seed)
    yield "of nasty", lab.nasty("resnet18", seed)
