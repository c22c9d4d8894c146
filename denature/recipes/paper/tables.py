"""The paper's tables: accuracy of students of normal and nasty teachers."""

from collections.abc import Iterator, Sequence

from denature.recipes.paper.orders import ExperimentContext, PlacedOrder
from denature.recipes.paper.recalled import ALONE, NASTY, NORMAL
from denature.report.cells import TEACHER
from denature.train import Normal, Order

CIFAR10_STUDENTS = ("cnn", "resnetc20", "resnetc32", "resnet18")
LARGE_STUDENTS = ("shufflenetv2", "mobilenetv2", "resnet18")
STRONGER = ("resnet50", "resnext29")
"""Students that are stronger than their ResNet-18 teacher."""

SMOOTHED = Normal(smoothing=0.1)
ALONE_SMOOTHED = "alone, smoothed labels"
"""Objective and row of the yardstick for what soft answers give without a teacher."""

ADVERSARIES = ("resnet18", "cnn", "resnext29")


def cifar10(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """ResNet-18 teaches smaller students, itself, and stronger ones."""
    own = "resnet18"
    students = tuple(net for net in CIFAR10_STUDENTS if context.setting.of_itself or net != own)
    students += _stronger(context)
    yield from _alone(context, students)
    yield from _teacher(context, own, students)


def large(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """Three teachers, two small students, ResNet-18, themselves, and stronger ones."""
    yield from _alone(context, (*LARGE_STUDENTS, *STRONGER))
    yield from _teacher(context, "resnet18", (*LARGE_STUDENTS, *_stronger(context)))
    for net in STRONGER:
        yield from _teacher(context, net, (*LARGE_STUDENTS, net))


def adversary(context: ExperimentContext) -> Iterator[PlacedOrder]:
    """A nasty ResNet-18 with adversaries of its own and of other kinds."""
    yield from _alone(context, CIFAR10_STUDENTS)
    for kind in ADVERSARIES:
        row = f"nasty, pushed from {context.column(kind)}"
        name = "resnet18" if kind == "resnet18" else f"resnet18 from {kind}"
        for seed in range(context.seeds):
            normal = context.normal("resnet18", seed)
            teacher = context.nasty("resnet18", seed, adversary=kind)
            yield from _row(context, row, NASTY, name, teacher, normal, CIFAR10_STUDENTS, seed)


def _stronger(context: ExperimentContext) -> tuple[str, ...]:
    return STRONGER if context.setting.stronger else ()


def _alone(context: ExperimentContext, students: Sequence[str]) -> Iterator[PlacedOrder]:
    for net in students:
        for seed in range(context.seeds):
            yield PlacedOrder(
                row=ALONE,
                column=context.column(net),
                seed=seed,
                order=context.alone(net, seed),
                recalled=context.recalled(ALONE, "", net),
            )
            if context.setting.smoothed:
                yield PlacedOrder(
                    row=ALONE_SMOOTHED,
                    column=context.column(net),
                    seed=seed,
                    order=context.order(net, SMOOTHED, seed),
                    against=context.alone(net, seed),
                )


def _teacher(
    context: ExperimentContext, net: str, students: Sequence[str]
) -> Iterator[PlacedOrder]:
    """Two rows: a normal teacher and a nasty one."""
    for kind in (NORMAL, NASTY):
        for seed in range(context.seeds):
            normal = context.normal(net, seed)
            teacher = normal if kind == NORMAL else context.nasty(net, seed)
            row = f"of {kind} {context.column(net)}"
            yield from _row(context, row, kind, net, teacher, normal, students, seed)


def _row(
    context: ExperimentContext,
    row: str,
    kind: str,
    name: str,
    teacher: Order,
    normal: Order,
    students: Sequence[str],
    seed: int,
) -> Iterator[PlacedOrder]:
    """One row: a teacher and its students."""
    yield PlacedOrder(
        row=row,
        column=TEACHER,
        seed=seed,
        order=teacher,
        against=None if teacher is normal else normal,
        recalled=context.recalled(kind, name, TEACHER),
    )
    for net in students:
        yield PlacedOrder(
            row=row,
            column=context.column(net),
            seed=seed,
            order=context.student(net, teacher, seed),
            against=context.alone(net, seed),
            like=None if teacher is normal else context.student(net, normal, seed),
            recalled=context.recalled(kind, name, net),
        )
