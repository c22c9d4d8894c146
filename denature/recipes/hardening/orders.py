"""Hardening methods: defensive distillation, and the methods it is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.recipes.hardening.config import Hardening, HardeningMethodName
from denature.train.config import Training
from denature.train.objectives import Adversarial, Distilled, Hardened, Normal, Objective
from denature.train.objectives.adversarial import Method
from denature.train.order import Order

TEACHER_SEEDS = 1000
"""Teachers have seeds of their own: a student must not start from its teacher's weights, unless
`same_start` has both start alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Network and training of the hardened network, and the folders of its runs."""

    net: str
    training: Training
    out: Path
    start: Path | None = None
    """Folder of the weights after one epoch, which several networks share with `same_start`; by
    default in `out`."""


HardeningMethod = Callable[[Hardening, Place], dict[str, Order]]


def orders(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Orders of all runs by name, which names the folder too; the last is the hardened network."""
    return METHODS[hardening.method](hardening, place)


def _order(
    place: Place,
    name: str,
    objective: Objective,
    *,
    net: str | None = None,
    teaches: bool = False,
    source: Order | None = None,
    init: Order | None = None,
    generation: int = 0,
    out: Path | None = None,
) -> Order:
    seed = place.training.seed + (TEACHER_SEEDS if teaches else generation)
    return Order(
        net=net or place.net,
        objective=objective,
        training=replace(place.training, seed=seed),
        source=source,
        init=init,
        out=out or place.out / name,
    )


def _adversarial(hardening: Hardening) -> Adversarial:
    ball = Ball(norm=hardening.norm, epsilon=hardening.epsilon)
    method: Method = "trades" if hardening.method == "trades" else "pgd"
    return Adversarial(method=method, ball=ball, steps=hardening.steps, beta=hardening.beta)


def _generations(
    hardening: Hardening,
    place: Place,
    teacher: Order,
    objective: Objective,
    init: Order | None = None,
) -> dict[str, Order]:
    """Orders of students, each distilled from the one before."""
    students: dict[str, Order] = {}
    source = teacher
    for number in range(hardening.generations):
        name = "student" if hardening.generations == 1 else f"student-{number + 1}"
        students[name] = source = _order(
            place,
            name,
            objective,
            net=hardening.student,
            source=source,
            init=init,
            generation=number,
        )
    return students


def defensive_distillation(hardening: Hardening, place: Place) -> dict[str, Order]:
    """A teacher on CE(z / T), students on its softmax(z / T), deployed at temperature 1.

    Papernot et al. 2016, arXiv:1511.04508.
    """
    temperature = hardening.temperature or 20.0
    graph: dict[str, Order] = {}
    start = None
    if hardening.same_start:
        one_epoch = replace(place.training, epochs=1, schedule="constant", milestones=())
        brief = replace(place, training=one_epoch)
        graph["start"] = start = _order(brief, "start", Normal(), out=place.start)
    graph["teacher"] = _order(
        place, "teacher", Normal(temperature=temperature), teaches=True, init=start
    )
    return graph | _generations(
        hardening, place, graph["teacher"], Hardened(temperature=temperature), start
    )


def label_smoothing(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Training on true labels of which a share is spread evenly over all classes."""
    return {"smoothed": _order(place, "smoothed", Normal(smoothing=hardening.smoothing))}


def self_distillation(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Students of the same network as their teacher, by the usual distillation loss (with T^2)."""
    teacher = _order(place, "teacher", Normal(), teaches=True)
    soft = Distilled(temperature=hardening.temperature or 4.0)
    return {"teacher": teacher} | _generations(hardening, place, teacher, soft)


def adversarial(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Training on adversarial examples: PGD training or TRADES."""
    return {hardening.method: _order(place, hardening.method, _adversarial(hardening))}


def robust_distillation(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Students of an adversarially trained teacher, on its answers to clean images."""
    teacher = _order(place, "teacher", _adversarial(hardening), teaches=True)
    soft = Distilled(temperature=hardening.temperature or 4.0)
    return {"teacher": teacher} | _generations(hardening, place, teacher, soft)


METHODS: Mapping[HardeningMethodName, HardeningMethod] = {
    "defensive-distillation": defensive_distillation,
    "label-smoothing": label_smoothing,
    "self-distillation": self_distillation,
    "adversarial": adversarial,
    "trades": adversarial,
    "robust-distillation": robust_distillation,
}
