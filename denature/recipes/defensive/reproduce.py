"""A student of each temperature beside an undefended and an adversarially trained network."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.record import write_records
from denature.core.stopping import Stopper
from denature.data import load
from denature.recipes.defensive.settings import Setting
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place
from denature.recipes.hardening.orders import orders as ways
from denature.recipes.robustness import robustness_by_name
from denature.report import temperatures as page
from denature.report.temperatures import Finding
from denature.report.words import markdown
from denature.train import Adversarial, CheckpointConfig, Normal, Order, make

UNDEFENDED, REFERENCE = "undefended", "adversarial"


@dataclass(frozen=True, kw_only=True, slots=True)
class DefensiveDistillationResult:
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


def wanted(setting: Setting, out: Path) -> dict[tuple[int, str], Order]:
    """All networks by seed and name.

    Raises:
        ConfigError: no seeds.
    """
    if setting.seeds < 1:
        raise ConfigError(f"seeds is {setting.seeds}; it must be at least 1.")
    folder = out / setting.scale
    return {
        (seed, name): order
        for seed in range(setting.seeds)
        for name, order in _networks(setting, seed, folder / f"seed-{seed}").items()
    }


def _networks(setting: Setting, seed: int, out: Path) -> dict[str, Order]:
    """Those of one seed by their names; those that only teach are named as such."""
    training = replace(setting.training, seed=setting.training.seed + seed)
    ball = Ball(epsilon=setting.epsilon)
    found = {
        UNDEFENDED: Order(
            net=setting.net, objective=Normal(), training=training, out=out / UNDEFENDED
        )
    }
    for temperature in setting.temperatures:
        hardening = Hardening(temperature=temperature, same_start=setting.same_start)
        place = Place(
            net=setting.net, training=training, out=out / f"T-{temperature:g}", start=out / "start"
        )
        made = ways(hardening, place)
        found |= {
            f"T-{temperature:g}-teacher": made["teacher"],
            f"T-{temperature:g}": made["student"],
        }
    found[REFERENCE] = Order(
        net=setting.net,
        objective=Adversarial(ball=ball, steps=setting.steps),
        training=training,
        out=out / REFERENCE,
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
) -> DefensiveDistillationResult:
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
    orders = wanted(setting, out)
    out = out / setting.scale
    dataset = load(data, progress=progress)
    made = make(list(orders.values()), dataset, keeping=keeping, stopper=stopper, progress=progress)
    runs = dict(zip(orders, made, strict=True))
    names: Mapping[str, float | None] = {
        UNDEFENDED: None,
        **{f"T-{temperature:g}": temperature for temperature in setting.temperatures},
        REFERENCE: None,
    }
    judged = robustness_by_name(
        runs, names, dataset.config, setting.asked, out / "robustness", undefended=UNDEFENDED,
        device=setting.training.device, keeping=keeping, stopper=stopper, progress=progress,
    )  # fmt: skip
    findings = tuple(
        Finding(name=name, temperature=temperature, judged=judged[name])
        for name, temperature in names.items()
    )
    budgets = setting.asked.budgets(channels=dataset.channels)["linf"]
    epsilon = budgets[len(budgets) // 2]
    found = DefensiveDistillationResult(
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
    write_records(out / "records.jsonl", [run.record for run in made])
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
