"""Train and attack a distilled student of each temperature, with two reference networks.

The references are an undefended and an adversarially trained network.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.attacks.config import Ball
from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.record import write_records
from denature.data import load
from denature.recipes.defensive.settings import Setting
from denature.recipes.hardening.config import Hardening
from denature.recipes.hardening.orders import Place
from denature.recipes.hardening.orders import orders as hardening_orders
from denature.recipes.robustness import robustness_by_name
from denature.report import temperatures as page
from denature.report.temperatures import Finding
from denature.report.words import markdown
from denature.train import Adversarial, Normal, Order, make
from denature.train.session import Session

UNDEFENDED, REFERENCE = "undefended", "adversarial"


@dataclass(frozen=True, kw_only=True, slots=True)
class DefensiveDistillationResult:
    """Verdict, table and findings of the experiment, and the folder that holds them."""

    scale: str
    differs: str
    seeds: int
    budget: float
    """Linf perturbation budget of the table."""
    verdict: tuple[str, ...]
    lines: list[list[str]]
    """The printed table: header and rows."""
    findings: tuple[Finding, ...]
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
    folder = out / setting.scale
    return {
        (seed, name): order
        for seed in range(setting.seeds)
        for name, order in _networks(setting, seed, folder / f"seed-{seed}").items()
    }


def _networks(setting: Setting, seed: int, out: Path) -> dict[str, Order]:
    """Orders of one seed by name; a teacher is named `T-<temperature>-teacher`."""
    training = replace(setting.training, seed=setting.training.seed + seed)
    ball = Ball(epsilon=setting.epsilon)
    orders = {
        UNDEFENDED: Order(
            net=setting.net, objective=Normal(), training=training, out=out / UNDEFENDED
        )
    }
    for temperature in setting.temperatures:
        hardening = Hardening(temperature=temperature, same_start=setting.same_start)
        place = Place(
            net=setting.net, training=training, out=out / f"T-{temperature:g}", start=out / "start"
        )
        graph = hardening_orders(hardening, place)
        orders |= {
            f"T-{temperature:g}-teacher": graph["teacher"],
            f"T-{temperature:g}": graph["student"],
        }
    orders[REFERENCE] = Order(
        net=setting.net,
        objective=Adversarial(ball=ball, steps=setting.steps),
        training=training,
        out=out / REFERENCE,
    )
    return orders


def reproduce(
    setting: Setting,
    data: str,
    out: Path,
    *,
    session: Session | None = None,
) -> DefensiveDistillationResult:
    """Train and attack all networks; results that are finished in `out` are reused.

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
    names: Mapping[str, float | None] = {
        UNDEFENDED: None,
        **{f"T-{temperature:g}": temperature for temperature in setting.temperatures},
        REFERENCE: None,
    }
    judged = robustness_by_name(
        runs, names, dataset.config, setting.attack_config, out / "robustness",
        undefended=UNDEFENDED,
        device=setting.training.device, session=session,
    )  # fmt: skip
    findings = tuple(
        Finding(name=name, temperature=temperature, judged=judged[name])
        for name, temperature in names.items()
    )
    budgets = setting.attack_config.budgets(channels=dataset.channels)["linf"]
    epsilon = budgets[len(budgets) // 2]
    result = DefensiveDistillationResult(
        scale=setting.scale,
        differs=setting.differs,
        seeds=setting.seeds,
        budget=epsilon,
        verdict=tuple(page.verdict(findings)),
        lines=page.table(findings, epsilon),
        findings=findings,
        folder=out,
    )
    write_text(out / "table.md", markdown(result.lines) + "\n")
    write_records(out / "records.jsonl", [run.record for run in trained])
    write_text(out / "result.json", result.to_json() + "\n")
    page.write(
        out,
        findings,
        epsilon,
        [run.record for run in trained],
        differs=setting.differs,
        verdict=result.verdict,
        lines=result.lines,
    )
    return result
