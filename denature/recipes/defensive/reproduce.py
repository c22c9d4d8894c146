"""A student of each temperature beside an undefended and an adversarially trained network."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.stopping import Stopper
from denature.data import load
from denature.recipes.defensive.settings import Setting
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place, orders
from denature.recipes.robustness import robustness
from denature.report import temperatures as page
from denature.report.temperatures import Finding
from denature.report.words import markdown
from denature.train import Adversarial, Keeping, Normal, Order, make

UNDEFENDED, REFERENCE = "undefended", "adversarial"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What came out, and where it lies."""

    scale: str
    differs: str
    seeds: int
    budget: float
    """In linf, at which the table stands."""
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The table for people: header and lines."""
    findings: tuple[Finding, ...]
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def ordered(setting: Setting, seed: int, out: Path) -> dict[str, Order]:
    """All networks of one seed by their names; those that only teach are named as such."""
    training = replace(setting.training, seed=setting.training.seed + seed)
    ball = Ball(epsilon=setting.epsilon)
    wanted = {
        UNDEFENDED: Order(
            net=setting.net, objective=Normal(), training=training, out=out / UNDEFENDED
        )
    }
    for heat in setting.temperatures:
        hardening = Hardening(temperature=heat, same_start=setting.same_start)
        place = Place(
            net=setting.net, training=training, out=out / f"T-{heat:g}", start=out / "start"
        )
        made = orders(hardening, place)
        wanted |= {f"T-{heat:g}-teacher": made["teacher"], f"T-{heat:g}": made["student"]}
    wanted[REFERENCE] = Order(
        net=setting.net,
        objective=Adversarial(ball=ball, steps=setting.steps),
        training=training,
        out=out / REFERENCE,
    )
    return wanted


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
    if setting.seeds < 1:
        raise ConfigError(f"seeds is {setting.seeds}; it must be at least 1.")
    out = out / setting.scale
    dataset = load(data, progress=progress)
    wanted: dict[str, Order] = {}
    for seed in range(setting.seeds):
        its = ordered(setting, seed, out / f"seed-{seed}")
        wanted |= {f"{name} {seed}": order for name, order in its.items()}
    made = make(list(wanted.values()), dataset, keeping=keeping, stopper=stopper, progress=progress)
    runs = dict(zip(wanted, made, strict=True))
    names: Mapping[str, float | None] = {
        UNDEFENDED: None, **{f"T-{heat:g}": heat for heat in setting.temperatures}, REFERENCE: None,
    }  # fmt: skip
    judged = [
        robustness(
            [runs[f"{name} {seed}"] for name in names],
            dataset.config,
            setting.asked,
            out / f"seed-{seed}",
            undefended=runs[f"{UNDEFENDED} {seed}"],
            device=setting.training.device,
            stopper=stopper,
            progress=progress,
        ).judged
        for seed in range(setting.seeds)
    ]
    findings = tuple(
        Finding(name=name, temperature=heat, judged=its)
        for (name, heat), its in zip(names.items(), zip(*judged, strict=True), strict=True)
    )
    budgets = setting.asked.budgets(channels=dataset.channels)["linf"]
    epsilon = budgets[len(budgets) // 2]
    found = Found(
        scale=setting.scale,
        differs=setting.differs,
        seeds=setting.seeds,
        budget=epsilon,
        verdict=tuple(page.verdict(findings)),
        lines=page.table(findings, epsilon),
        findings=findings,
        folder=out,
    )
    write_text(out / "table.md", markdown(found.lines) + "\n")
    write_text(out / "result.json", found.to_json() + "\n")
    page.write(
        out,
        findings,
        epsilon,
        [run.record for run in made],
        differs=setting.differs,
        verdict=found.verdict,
        lines=found.lines,
    )
    return found
