"""Ways to make a network harder to fool: defensive distillation, and what it is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.recipes.hardening.config import Hardening, HardeningMethodName
from denature.train.config import Training
from denature.train.job import Order
from denature.train.objectives import Adversarial, Distilled, Hardened, Normal, Objective
from denature.train.objectives.adversarial import Method

TEACHER_SEEDS = 1000
"""Teachers have seeds of their own: a student must not start from its teacher's weights, unless
`same_start` has both start alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What is hardened, and where it goes."""

    net: str
    training: Training
    out: Path
    start: Path | None = None
    """Where `same_start`'s weights after one epoch go, for several that share them; to `out` by
    default."""


HardeningMethod = Callable[[Hardening, Place], dict[str, Order]]


def orders(hardening: Hardening, place: Place) -> dict[str, Order]:
    """All runs by their names, which are their folders' too; the last is the hardened network."""
    return METHODS[hardening.method](hardening, place)


def _order(
    place: Place,
    name: str,
    objective: Objective,
    *,
    net: str | None = None,
    teaches: bool = False,
    asked: Order | None = None,
    init: Order | None = None,
    generation: int = 0,
    out: Path | None = None,
) -> Order:
    seed = place.training.seed + (TEACHER_SEEDS if teaches else generation)
    return Order(
        net=net or place.net,
        objective=objective,
        training=replace(place.training, seed=seed),
        asked=asked,
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
    """Students, each of the one before."""
    found: dict[str, Order] = {}
    asked = teacher
    for number in range(hardening.generations):
        name = "student" if hardening.generations == 1 else f"student-{number + 1}"
        found[name] = asked = _order(
            place,
            name,
            objective,
            net=hardening.student,
            asked=asked,
            init=init,
            generation=number,
        )
    return found


def defensive_distillation(hardening: Hardening, place: Place) -> dict[str, Order]:
    """A teacher on CE(z / T), students on its softmax(z / T), deployed at 1.

    Papernot et al. 2016, arXiv:1511.04508.
    """
    temperature = hardening.temperature or 20.0
    found: dict[str, Order] = {}
    start = None
    if hardening.same_start:
        once = replace(place.training, epochs=1, schedule="constant", milestones=())
        brief = replace(place, training=once)
        found["start"] = start = _order(brief, "start", Normal(), out=place.start)
    found["teacher"] = _order(
        place, "teacher", Normal(temperature=temperature), teaches=True, init=start
    )
    return found | _generations(
        hardening, place, found["teacher"], Hardened(temperature=temperature), start
    )


def label_smoothing(hardening: Hardening, place: Place) -> dict[str, Order]:
    """The true labels, of which a share goes to all classes alike."""
    return {"smoothed": _order(place, "smoothed", Normal(smoothing=hardening.smoothing))}


def self_distillation(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Students of the same network as their teacher, as they are usually distilled (with T^2)."""
    teacher = _order(place, "teacher", Normal(), teaches=True)
    soft = Distilled(temperature=hardening.temperature or 4.0)
    return {"teacher": teacher} | _generations(hardening, place, teacher, soft)


def adversarial(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Learns from the worst images nearby: PGD training or TRADES."""
    return {hardening.method: _order(place, hardening.method, _adversarial(hardening))}


def robust_distillation(hardening: Hardening, place: Place) -> dict[str, Order]:
    """Students of an adversarially trained teacher's answers to plain images."""
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
