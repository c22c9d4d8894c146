"""Robustness and extraction: attack and clone a normal, a nasty and two hardened networks."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.core.compute import resolve
from denature.core.errors import ConfigError, unknown
from denature.core.files import write_text
from denature.core.record import write_records
from denature.core.stats import proportion
from denature.data import Dataset, load
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place
from denature.recipes.hardening.orders import orders as hardening_orders
from denature.recipes.robustness import robustness_by_name
from denature.report import worlds as page
from denature.report.divergence import not_nasty
from denature.report.words import markdown
from denature.report.worlds import CLONED_BY, CloneScore, VictimResult
from denature.robust.config import AttackConfig
from denature.train import Adversarial, Distilled, Nasty, Normal, Order, Run, make
from denature.train.config import Device, Precision, Training
from denature.train.loop import answers_to
from denature.train.session import Session

NORMAL, ALONE = "normal", "alone"

TEACHER_SEEDS = 1000
"""Victims have seeds of their own: a clone must not start from its victim's weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The experiment at one scale."""

    scale: str
    differs: str
    """How data and training differ from a full-size experiment, in a sentence."""
    data: str
    victim: str
    """Network of the victims."""
    clone: str
    """Network of the clones."""
    teacher_training: Training
    """Training of victims."""
    student_training: Training
    """Training of clones."""
    nasty: Nasty
    distillation_temperature: float
    """Temperature of defensive distillation."""
    epsilon: float
    """Linf radius of adversarial training."""
    steps: int
    """PGD steps of adversarial training."""
    attack_config: AttackConfig
    seeds: int

    def on(self, device: Device, precision: Precision) -> "Setting":
        """Copy of this setting for another device and precision."""
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
        attack_config=AttackConfig(samples=100, linf=(0.05, 0.1, 0.2)),
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
        attack_config=AttackConfig(effort="quick", samples=200),
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
        attack_config=AttackConfig(effort="full"),
        seeds=3,
    ),
}


def setting(scale: str) -> Setting:
    """The setting of a scale.

    Raises:
        ConfigError: no setting has this name.
    """
    if scale not in SETTINGS:
        raise unknown("scale", scale, SETTINGS)
    return SETTINGS[scale]


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessAndExtractionResult:
    """Verdict, table and scores of the experiment, and the folder that holds them."""

    scale: str
    differs: str
    seeds: int
    budget: float
    """Linf perturbation budget of the robustness in the table."""
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The printed table: header and rows."""
    worlds: tuple[VictimResult, ...]
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def wanted(setting: Setting, out: Path) -> dict[tuple[int, str], Order]:
    """Orders of all networks, by seed and name.

    Raises:
        ConfigError: the setting has no seeds.
    """
    if setting.seeds < 1:
        raise ConfigError(f"seeds is {setting.seeds}; it must be at least 1.")
    orders: dict[tuple[int, str], Order] = {}
    for seed in range(setting.seeds):
        folder = out / setting.scale / f"seed-{seed}"
        targets = victims(setting, seed, folder)
        networks = targets | clones(setting, seed, targets, folder)
        orders |= {(seed, name): order for name, order in networks.items()}
    return orders


def victims(setting: Setting, seed: int, out: Path) -> dict[str, Order]:
    """Orders of the victims by name; the normal one first."""
    teacher_training = replace(setting.teacher_training, seed=TEACHER_SEEDS + seed)

    def order(name: str, objective: Normal | Nasty | Adversarial, source: Order | None) -> Order:
        return Order(
            net=setting.victim, objective=objective, training=teacher_training, source=source,
            out=out / name,
        )  # fmt: skip

    normal = order(NORMAL, Normal(), None)
    place = Place(net=setting.victim, training=teacher_training, out=out / "distilled")
    adversarial = Adversarial(ball=Ball(epsilon=setting.epsilon), steps=setting.steps)
    return {
        NORMAL: normal,
        "nasty": order("nasty", setting.nasty, normal),
        "distilled": hardening_orders(
            Hardening(temperature=setting.distillation_temperature), place
        )["student"],
        "adversarial": order("adversarial", adversarial, None),
    }


def clones(setting: Setting, seed: int, of: Mapping[str, Order], out: Path) -> dict[str, Order]:
    """Orders of a clone of each victim from each form of answers, and of the same network alone."""
    student_training = replace(setting.student_training, seed=seed)
    tau = setting.nasty.temperature
    objectives: Mapping[str, Distilled] = {
        "all answers": Distilled(temperature=tau),
        "probabilities": Distilled(temperature=1.0, alpha=1.0),
        "labels": Distilled(answers="labels"),
    }
    assert tuple(objectives) == CLONED_BY
    orders = {
        ALONE: Order(
            net=setting.clone,
            objective=Normal(),
            training=student_training,
            out=out / "clones" / ALONE,
        )
    }
    for name, victim in of.items():
        for answers, objective in objectives.items():
            orders[f"{name} by {answers}"] = Order(
                net=setting.clone,
                objective=objective,
                training=student_training,
                source=victim,
                out=out / "clones" / f"{name}-{answers.replace(' ', '-')}",
            )
    return orders


def reproduce(
    setting: Setting,
    data: str,
    out: Path,
    *,
    session: Session | None = None,
) -> RobustnessAndExtractionResult:
    """Train, attack and clone all networks; results that are finished in `out` are reused.

    Args:
        setting: the experiment at one scale.
        data: name or folder of the images.
        out: folder for all runs and results.
        session: saved states, stops, workers and progress.

    Raises:
        DenatureError: see `denature.core.errors`.
        Stopped: a stop was requested; the same call resumes the work.
    """
    session = session or Session()
    orders = wanted(setting, out)
    out = out / setting.scale
    dataset = load(data, progress=session.progress)
    trained = make(list(orders.values()), dataset, session=session)
    runs = dict(zip(orders, trained, strict=True))
    names = list(victims(setting, 0, out))
    judged = robustness_by_name(
        runs, names, dataset.config, setting.attack_config, out / "robustness", undefended=NORMAL,
        device=setting.teacher_training.device, session=session,
    )  # fmt: skip
    results = tuple(
        VictimResult(
            name=name,
            accuracy=tuple(runs[seed, name].accuracy for seed in range(setting.seeds)),
            judged=judged[name],
            copies={
                answers: tuple(_clone_scores(runs, name, answers, dataset, setting))
                for answers in CLONED_BY
            },
        )
        for name in names
    )
    alone = tuple(runs[seed, ALONE].accuracy for seed in range(setting.seeds))
    budgets = setting.attack_config.budgets(channels=dataset.channels)["linf"]
    epsilon = budgets[len(budgets) // 2]
    result = RobustnessAndExtractionResult(
        scale=setting.scale,
        differs=setting.differs,
        seeds=setting.seeds,
        budget=epsilon,
        verdict=(*page.verdict(results), *not_nasty([run.record for run in trained])),
        lines=page.table(results, alone, epsilon),
        worlds=results,
        folder=out,
    )
    write_text(out / "table.md", markdown(result.lines) + "\n")
    write_records(out / "records.jsonl", [run.record for run in trained])
    write_text(out / "result.json", result.to_json() + "\n")
    page.write(
        out, results, epsilon, [run.record for run in trained],
        differs=setting.differs, verdict=result.verdict, lines=result.lines,
    )  # fmt: skip
    return result


def _clone_scores(
    runs: Mapping[tuple[int, str], Run], name: str, answers: str, data: Dataset, setting: Setting
) -> Iterator[CloneScore]:
    """Accuracy and fidelity of the clones of one victim from one form of answers, by seed."""
    for seed in range(setting.seeds):
        clone = runs[seed, f"{name} by {answers}"]
        compute = resolve(clone.network, device=setting.student_training.device, precision="fp32")
        equal = count = 0
        predictions = (
            answers_to(compute.place(run.network), data.test, compute)
            for run in (clone, runs[seed, name])
        )
        for (_, of_clone), (_, of_victim) in zip(*predictions, strict=True):
            equal += int((of_clone.argmax(1) == of_victim.argmax(1)).sum())
            count += len(of_clone)
        yield CloneScore(
            accuracy=clone.accuracy, hits=clone.record.hits, fidelity=proportion(equal, count)
        )
