"""Undefended networks as controls of a robustness evaluation: given ones, or newly trained."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from denature.core.errors import ConfigError
from denature.core.schema import decode
from denature.core.text import counted
from denature.data import Dataset
from denature.extract.victims.base import Victim
from denature.report.kinds import is_plain
from denature.train import Normal, Order, Run, Training, make
from denature.train.classes import ClassMatcher
from denature.train.config import Device
from denature.train.session import Session

T = TypeVar("T")

UNDEFENDED_SEEDS = 2000
"""Undefended networks have seeds of their own: they start from other weights than the targets."""


def each_once(targets: Sequence[T]) -> list[T]:
    """Targets without runs of equal weights: a network is no second seed of itself."""
    distinct: dict[object, T] = {}
    for target in targets:
        distinct.setdefault(target.digest if isinstance(target, Run) else id(target), target)
    return list(distinct.values())


def undefended_runs(
    targets: Sequence[Run | Victim],
    named: Sequence[Run],
    controls: int,
    fitted: ClassMatcher,
    data: Dataset,
    out: Path,
    device: Device,
    session: Session,
) -> list[Run]:
    """Undefended networks of one recipe: the given ones, and newly trained ones up to `controls`.

    Where all targets are undefended there is nothing to judge, and no network is trained.

    Raises:
        ConfigError: no undefended network is given, and no run whose training could be repeated
            normally; or a network of another data set.
    """
    runs = [target for target in targets if isinstance(target, Run)]
    among = {run.digest: run for run in runs}
    plain = [fitted("undefended run", run) for run in each_once(named)]
    plain = [among.get(run.digest, run) for run in plain]
    if len({run.recipe for run in plain if run.record.kind != "imported"}) > 1:
        raise ConfigError(
            f"The undefended runs {', '.join(str(run.folder) for run in plain)} differ in more "
            "than their seeds; their spread is not that of one training. Name runs of one "
            "training with --undefended."
        )
    plain = plain or [run for run in runs if is_plain(run.record)]
    if not plain and not runs:
        raise ConfigError(
            "No undefended network to compare with: name a normally trained run of such data with "
            "--undefended (`denature train NET --data DATA` makes one)."
        )
    model = plain[0] if plain else runs[0]
    if not named:
        plain = [run for run in plain if run.recipe == model.recipe]
    missing = controls - len(plain)
    if all(target in plain for target in targets):
        return plain
    if missing > 0 and (not plain or is_plain(model.record)):
        session.progress.say(
            f"{counted(len(plain), 'undefended network')} given, {missing} "
            f"{'more ' * bool(plain)}to train, since a gain must exceed the spread between seeds."
        )
        orders = _more(model, missing, {run.record.seed for run in plain}, device, out)
        plain += make(orders, data, session=session)
    return plain


def _more(
    model: Run, count: int, taken: Collection[int | None], device: Device, out: Path
) -> list[Order]:
    """Orders of normal runs with the network and training of `model`, and with unused seeds."""
    settings = {k: v for k, v in model.record.config.get("training", {}).items() if k != "device"}
    training = decode(Training, settings, where="the record") if settings else Training()
    first = training.seed + UNDEFENDED_SEEDS
    seeds = [seed for seed in range(first, first + count + len(taken)) if seed not in taken]
    return [
        Order(
            net=model.record.net.name,
            objective=Normal(),
            training=replace(training, seed=seed, view_seed=None, frozen=False, device=device),
            out=out / "undefended" / f"seed-{seed}",
        )
        for seed in seeds[:count]
    ]
