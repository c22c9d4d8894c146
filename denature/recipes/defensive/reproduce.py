"""A student of each temperature beside an undefended and an adversarially trained network."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from denature.attacks.config import Ball
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.stats import Estimate
from denature.core.stopping import Stopper
from denature.data import load
from denature.recipes.defensive.settings import Setting
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place, orders
from denature.recipes.robustness import Judged, robustness
from denature.report.words import markdown, percent
from denature.robust.evaluate import spell
from denature.train import Adversarial, Keeping, Normal, Order, make

ATTACKS = ("fgsm", "pgd", "pgd-cooled", "pgd-margin", "transfer")
"""In the order of the table: what is tried first, and what sees through a temperature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What came out, and where it lies."""

    scale: str
    differs: str
    budget: float
    """In linf, at which the table stands."""
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The table for people: header and lines."""
    judged: tuple[Judged, ...]
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def reproduce(
    setting: Setting,
    data: str,
    out: Path,
    *,
    keeping: Keeping | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Found:
    """Make and attack all networks; what is finished in `out` is not done again.

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
    out = out / setting.scale
    dataset = load(data, progress=progress)
    wanted: dict[str, Order] = {
        "undefended": Order(
            net=setting.net, objective=Normal(), training=setting.training, out=out / "undefended"
        )
    }
    for heat in setting.temperatures:
        place = Place(net=setting.net, training=setting.training, out=out / f"T-{heat:g}")
        made = orders(Hardening(temperature=heat), place)
        wanted |= {f"T-{heat:g}-teacher": made["teacher"], f"T-{heat:g}": made["student"]}
    ball = Ball(epsilon=setting.epsilon)
    wanted["adversarial"] = Order(
        net=setting.net,
        objective=Adversarial(ball=ball, steps=setting.steps),
        training=setting.training,
        out=out / "adversarial",
    )
    ordered = list(wanted.values())
    made_runs = make(ordered, dataset, keeping=keeping, stopper=stopper, progress=progress)
    runs = dict(zip(wanted, made_runs, strict=True))
    shown = ["undefended", *(f"T-{heat:g}" for heat in setting.temperatures), "adversarial"]
    found = robustness(
        [runs[name] for name in shown],
        dataset.config,
        setting.asked,
        out,
        undefended=runs["undefended"],
        device=setting.training.device,
        stopper=stopper,
        progress=progress,
    )
    budgets = setting.asked.budgets(channels=dataset.channels)["linf"]
    epsilon = budgets[len(budgets) // 2]
    lines = table(dict(zip(shown, found.judged, strict=True)), epsilon)
    told = Found(
        scale=setting.scale,
        differs=setting.differs,
        budget=epsilon,
        verdict=tuple(verdict(found.judged[1:-1], found.judged[-1], setting.temperatures)),
        lines=lines,
        judged=found.judged,
        folder=out,
    )
    write_text(out / "temperatures.md", markdown(lines) + "\n")
    write_text(out / "result.json", told.to_json() + "\n")
    return told


def table(judged: dict[str, Judged], epsilon: float) -> list[list[str]]:
    """Header and lines: robust accuracy at one budget in linf, by attack."""
    key = spell(epsilon)
    lines = [["Network", "Logit gap", "Flat %", "Clean %", *ATTACKS, "worst", "Verdict"]]
    for name, it in judged.items():
        found = it.robustness
        by_name = {attack.name: attack for attack in found.attacks}

        def share(attack: str) -> str:
            told: Estimate | None = by_name[attack].robust.get(key)  # noqa: B023
            return "" if told is None else percent(told)

        worst = found.worst["linf"].get(key)
        lines.append(
            [
                name,
                f"{found.gap:.1f}",
                f"{100 * found.flat:.0f}",
                percent(found.clean),
                *(share(attack) for attack in ATTACKS),
                "" if worst is None else percent(worst),
                "" if it.verdict is None else it.verdict.word,
            ]
        )
    return lines


def verdict(
    students: Sequence[Judged], reference: Judged, temperatures: Sequence[float]
) -> list[str]:
    """From which temperature on gradients are masked, and whether anything was won."""
    masked = [
        (heat, it)
        for heat, it in zip(temperatures, students, strict=True)
        if any(check.raised for check in it.checks)
    ]
    said = []
    if masked:
        heat, first = masked[0]
        names = ", ".join(check.name for check in first.checks if check.raised)
        said.append(
            f"Signs of masked gradients begin at temperature {heat:g}, where the median gap of the "
            f"two largest logits is {first.robustness.gap:.1f}: {names}."
        )
    else:
        widest = max(it.robustness.gap for it in students)
        said.append(
            f"At no temperature was a sign of masked gradients raised; the median gap between the "
            f"two largest logits reaches {widest:.1f}; float32 keeps gradients up to about 100."
        )
    words = {
        word: [
            f"{heat:g}"
            for heat, it in zip(temperatures, students, strict=True)
            if it.verdict is not None and it.verdict.word == word
        ]
        for word in ("an illusion", "more robust", "no evidence")
    }
    for word, heats in words.items():
        if heats:
            said.append(f"Distilled at {', '.join(heats)}: {word}.")
    if reference.verdict is not None:
        said.append(f"Adversarially trained: {reference.verdict.word}. {reference.verdict.said}")
    return said
