"""Both worlds at once: are nasty teachers robust, and are hardened networks hard to clone?"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.core.compute import resolve
from denature.core.errors import ConfigError, unknown
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.record import write_records
from denature.core.stats import proportion
from denature.core.stopping import Stopper
from denature.data import Dataset, load
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place
from denature.recipes.hardening.orders import orders as ways
from denature.recipes.robustness import robustness_by_name
from denature.report import worlds as page
from denature.report.divergence import not_nasty
from denature.report.words import markdown
from denature.report.worlds import CLONED_BY, CloneScore, VictimResult
from denature.robust.config import AttackConfig
from denature.train import Adversarial, CheckpointConfig, Distilled, Nasty, Normal, Order, Run, make
from denature.train.config import Device, Precision, Training
from denature.train.loop import answers_to

NORMAL, ALONE = "normal", "alone"

TEACHER_SEEDS = 1000
"""Victims have seeds of their own: a clone must not start from its victim's weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One size."""

    scale: str
    differs: str
    """What a reader must know of it."""
    data: str
    victim: str
    """The victims' network."""
    clone: str
    """The clones'."""
    teacher_training: Training
    """Of victims."""
    student_training: Training
    """Of clones."""
    nasty: Nasty
    distillation_temperature: float
    """Temperature of defensive distillation."""
    epsilon: float
    """Of adversarial training."""
    steps: int
    """Of its attack."""
    asked: AttackConfig
    seeds: int

    def on(self, device: Device, precision: Precision) -> "Setting":
        """The same on another device."""
        return replace(
            self,
            teacher_training=replace(self.teacher_training, device=device, precision=precision),
            student_training=replace(self.student_training, device=device, precision=precision),
        )


SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(
        scale="smoke",
        differs="Digits of 8x8 pixels; victims and clones are trained as in the demo.",
        data="digits",
        victim="cnn",
        clone="cnn",
        teacher_training=Training(epochs=30, batch_size=64, schedule="step", milestones=(19,)),
        student_training=Training(epochs=20, batch_size=64, lr=5e-4),
        nasty=Nasty(temperature=20, omega=0.04),
        distillation_temperature=20,
        epsilon=0.1,
        steps=7,
        asked=AttackConfig(samples=100, linf=(0.05, 0.1, 0.2)),
        seeds=3,
    ),
    "cpu": Setting(
        scale="cpu",
        differs="A fifth of CIFAR-10's training images and short schedules.",
        data="cifar10",
        victim="cnn",
        clone="cnn",
        teacher_training=Training(epochs=12, schedule="step", milestones=(8,), fraction=0.2),
        student_training=Training(epochs=12, fraction=0.2),
        nasty=Nasty(temperature=20, omega=0.03),
        distillation_temperature=20,
        epsilon=8 / 255,
        steps=5,
        asked=AttackConfig(effort="quick", samples=200),
        seeds=1,
    ),
    "paper": Setting(
        scale="paper",
        differs="The nasty paper's ResNet-18 on CIFAR-10 and its tau and omega, 30 epochs, victims "
        "with a step at 19, clones on one cycle.",
        data="cifar10",
        victim="resnet18",
        clone="resnet18",
        teacher_training=Training(epochs=30, schedule="step", milestones=(19,)),
        student_training=Training(epochs=30),
        nasty=Nasty(temperature=4, omega=0.04),
        distillation_temperature=100,
        epsilon=8 / 255,
        steps=10,
        asked=AttackConfig(effort="full"),
        seeds=3,
    ),
}


def setting(scale: str) -> Setting:
    """The setting of this name.

    Raises:
        ConfigError: there is none.
    """
    if scale not in SETTINGS:
        raise unknown("scale", scale, SETTINGS)
    return SETTINGS[scale]


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessAndExtractionResult:
    """What came out, and where it lies."""

    scale: str
    differs: str
    seeds: int
    budget: float
    """In linf, at which robustness stands in the table."""
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The table for people: header and lines."""
    worlds: tuple[VictimResult, ...]
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def wanted(setting: Setting, out: Path) -> dict[tuple[int, str], Order]:
    """All networks by seed and name.

    Raises:
        ConfigError: no seeds.
    """
    if setting.seeds < 1:
        raise ConfigError(f"seeds is {setting.seeds}; it must be at least 1.")
    found: dict[tuple[int, str], Order] = {}
    for seed in range(setting.seeds):
        folder = out / setting.scale / f"seed-{seed}"
        of = victims(setting, seed, folder)
        its = of | clones(setting, seed, of, folder)
        found |= {(seed, name): order for name, order in its.items()}
    return found


def victims(setting: Setting, seed: int, out: Path) -> dict[str, Order]:
    """Whom clones are made of, by name; the normal one first."""
    teacher_training = replace(setting.teacher_training, seed=TEACHER_SEEDS + seed)

    def order(name: str, objective: Normal | Nasty | Adversarial, asked: Order | None) -> Order:
        return Order(
            net=setting.victim, objective=objective, training=teacher_training, asked=asked,
            out=out / name,
        )  # fmt: skip

    normal = order(NORMAL, Normal(), None)
    place = Place(net=setting.victim, training=teacher_training, out=out / "distilled")
    pushed = Adversarial(ball=Ball(epsilon=setting.epsilon), steps=setting.steps)
    return {
        NORMAL: normal,
        "nasty": order("nasty", setting.nasty, normal),
        "distilled": ways(Hardening(temperature=setting.distillation_temperature), place)[
            "student"
        ],
        "adversarial": order("adversarial", pushed, None),
    }


def clones(setting: Setting, seed: int, of: Mapping[str, Order], out: Path) -> dict[str, Order]:
    """A clone of each victim by each way, and the same network alone."""
    student_training = replace(setting.student_training, seed=seed)
    tau = setting.nasty.temperature
    by: Mapping[str, Distilled] = {
        "all answers": Distilled(temperature=tau),
        "probabilities": Distilled(temperature=1.0, alpha=1.0),
        "labels": Distilled(answers="labels"),
    }
    assert tuple(by) == CLONED_BY
    found = {
        ALONE: Order(
            net=setting.clone,
            objective=Normal(),
            training=student_training,
            out=out / "clones" / ALONE,
        )
    }
    for name, victim in of.items():
        for way, objective in by.items():
            found[f"{name} by {way}"] = Order(
                net=setting.clone,
                objective=objective,
                training=student_training,
                asked=victim,
                out=out / "clones" / f"{name}-{way.replace(' ', '-')}",
            )
    return found


def reproduce(
    setting: Setting,
    data: str,
    out: Path,
    *,
    keeping: CheckpointConfig | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> RobustnessAndExtractionResult:
    """Make, attack and clone all networks; what is finished in `out` is not done again.

    Args:
        setting: at which size.
        data: where its images are.
        out: folder for everything.
        keeping: how often state is written.
        stopper: asked whether to stop.
        progress: told how far it is.

    Raises:
        DenatureError: see `denature.core.errors`.
        Stopped: the stopper wanted it; ask again to go on.
    """
    orders = wanted(setting, out)
    out = out / setting.scale
    dataset = load(data, progress=progress)
    made = make(list(orders.values()), dataset, keeping=keeping, stopper=stopper, progress=progress)
    runs = dict(zip(orders, made, strict=True))
    names = list(victims(setting, 0, out))
    judged = robustness_by_name(
        runs, names, dataset.config, setting.asked, out / "robustness", undefended=NORMAL,
        device=setting.teacher_training.device, keeping=keeping, stopper=stopper, progress=progress,
    )  # fmt: skip
    worlds = tuple(
        VictimResult(
            name=name,
            accuracy=tuple(runs[seed, name].accuracy for seed in range(setting.seeds)),
            judged=judged[name],
            copies={way: tuple(_copied(runs, name, way, dataset, setting)) for way in CLONED_BY},
        )
        for name in names
    )
    alone = tuple(runs[seed, ALONE].accuracy for seed in range(setting.seeds))
    budgets = setting.asked.budgets(channels=dataset.channels)["linf"]
    epsilon = budgets[len(budgets) // 2]
    found = RobustnessAndExtractionResult(
        scale=setting.scale,
        differs=setting.differs,
        seeds=setting.seeds,
        budget=epsilon,
        verdict=(*page.verdict(worlds), *not_nasty([run.record for run in made])),
        lines=page.table(worlds, alone, epsilon),
        worlds=worlds,
        folder=out,
    )
    write_text(out / "table.md", markdown(found.lines) + "\n")
    write_records(out / "records.jsonl", [run.record for run in made])
    write_text(out / "result.json", found.to_json() + "\n")
    page.write(
        out, worlds, epsilon, [run.record for run in made],
        differs=setting.differs, verdict=found.verdict, lines=found.lines,
    )  # fmt: skip
    return found


def _copied(
    runs: Mapping[tuple[int, str], Run], name: str, way: str, data: Dataset, setting: Setting
) -> Iterator[CloneScore]:
    for seed in range(setting.seeds):
        clone = runs[seed, f"{name} by {way}"]
        compute = resolve(clone.network, device=setting.student_training.device, precision="fp32")
        same = count = 0
        said = (
            answers_to(compute.place(run.network), data.test, compute)
            for run in (clone, runs[seed, name])
        )
        for (_, ours), (_, theirs) in zip(*said, strict=True):
            same += int((ours.argmax(1) == theirs.argmax(1)).sum())
            count += len(ours)
        yield CloneScore(
            accuracy=clone.accuracy, hits=clone.record.hits, fidelity=proportion(same, count)
        )
