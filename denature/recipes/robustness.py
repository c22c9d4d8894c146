"""Networks attacked side by side with an undefended one, judged, and shown on one page."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress, format_seconds
from denature.core.record import Record, environment
from denature.core.schema import decode
from denature.core.stopping import Stopper
from denature.data import DataConfig, Dataset, load
from denature.extract.config import RequestConfig
from denature.extract.victims.base import Victim
from denature.report import robustness as page
from denature.report.words import markdown
from denature.robust.blackbox import BlackBox, whole_steps
from denature.robust.catalogue import ATTACKS, check_names, chosen
from denature.robust.config import AttackConfig
from denature.robust.estimate import cost, seconds_of
from denature.robust.evaluate import EvaluationData, choose, evaluate, format_budget, summary
from denature.robust.masking import Check, look
from denature.robust.target import PROBE, Attacked, Target
from denature.robust.verdict import CONTROLS, Evaluation, judge
from denature.train import CheckpointConfig, Normal, Order, Run, Training, make
from denature.train.classes import ClassMatcher
from denature.train.config import Device

if TYPE_CHECKING:
    from denature.recipes.blackboxes import Box

T = TypeVar("T")

LEDGER = "ledger.sqlite"
"""What black boxes were asked."""

UNDEFENDED_SEEDS = 2000
"""The undefended network starts from weights of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessResult:
    """All networks as they were named; the undefended one is the last, unless it was among them."""

    data: str
    judged: tuple[Evaluation, ...]
    queries: dict[str, int]
    """What each black box was asked, by its name."""
    lines: list[list[str]]
    """The table for people: header and lines."""
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def robustness(
    targets: Sequence[Run | Victim],
    data: str | DataConfig,
    asked: AttackConfig,
    out: Path,
    *,
    undefended: Sequence[Run] = (),
    controls: int = CONTROLS,
    budget: int | None = None,
    pace: RequestConfig | None = None,
    device: Device = "auto",
    keeping: CheckpointConfig | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> RobustnessResult:
    """Attack networks and say whether they are more robust than an undefended one.

    Args:
        targets: who is attacked: runs, and victims that only answer.
        data: whose test split is attacked; what each run was trained on.
        asked: how hard.
        out: folder for everything; what lies there is not done again.
        undefended: normally trained runs of such data, which differ in seeds alone; by default
            those among `targets`. What is missing to `controls` is trained as the first of them
            was, or as the first target was, but normally.
        controls: how many undefended networks there must be; of one the spread between seeds is
            unknown, and nothing is called more robust.
        budget: queries that each victim may be asked, those of earlier calls counted.
        pace: how fast victims are asked.
        device: where to compute.
        keeping: how often a training's state is written.
        stopper: asked whether to stop.
        progress: told how far it is.

    Raises:
        ConfigError: a run of other data, or one that knows no classes; victims without a budget,
            or without an undefended run.
        Stopped: the stopper wanted it; ask again to go on.
    """
    if not targets:
        raise ConfigError(
            "Nobody was named; give at least one run, URL or package.module:function."
        )
    check_names(asked.attacks)
    stopper = stopper or Stopper()
    dataset = load(data, progress=progress)
    if controls < 1:
        raise ConfigError(f"controls is {controls}; it must be at least 1, and 2 for a verdict.")
    fitted = ClassMatcher(dataset, progress)
    targets = _each_once(targets)
    records = [it.record for it in targets if isinstance(it, Run)]
    targets = [fitted("run", it) if isinstance(it, Run) else it for it in targets]
    if dataset.landmarks:
        raise ConfigError(
            f"{dataset.config.source} has landmarks; attacks here change classes. Take data with "
            "classes."
        )
    runs = [it for it in targets if isinstance(it, Run)]
    plain = _undefended(
        targets, undefended, controls, fitted, dataset, out, device, keeping, stopper, progress
    )
    others = [run for run in plain if run not in runs]
    everyone = [*targets, *others]
    records += [run.record for run in others]
    split = choose(dataset.test, asked.samples or asked.preset.samples, asked.seed)
    images = split.images[split.rows].float().div(255)
    victims = [it for it in targets if not isinstance(it, Run)]
    if victims:
        asked = _in_whole_steps(asked, dataset)
    with ExitStack() as stack:
        boxes: Mapping[int, Box] = {}
        if victims:
            from denature.recipes.blackboxes import Terms, opened

            terms = Terms(
                budget=budget,
                asked=asked,
                pace=pace or RequestConfig(),
                stopper=stopper,
                progress=progress,
            )
            boxes = stack.enter_context(opened(victims, dataset, images, out / LEDGER, terms))
        probes = dataset.test.images[dataset.test.rows[:PROBE]].float().div(255)
        faced: list[Attacked] = [
            Target(it, probes, device=device) if isinstance(it, Run) else boxes[id(it)].target
            for it in everyone
        ]
        known = [(target, _as_others(asked, target, faced)) for target in faced]
        _announce(known, images, dataset, progress)
        controlled = [target for it, target in zip(everyone, faced, strict=True) if it in plain]
        evidence = [
            evaluate(
                target, next((it for it in controlled if it is not target), None), dataset, its,
                out / "attacks", stopper=stopper, progress=progress,
            )
            for target, its in known
        ]  # fmt: skip
        queries = {box.target.name: box.spent for box in boxes.values()}
    found = list(zip(everyone, evidence, strict=True))
    compared = [its for it, its in found if it in plain]
    checks = [look(its) for its in evidence]
    verdicts = {
        recipe: judge([found[place][1] for place in places], compared, _common(checks, places))
        for recipe, places in _defenses(everyone, plain).items()
    }
    judged = [
        Evaluation(
            robustness=summary(its, settings, environment()),
            checks=tuple(signs),
            verdict=None if it in plain else verdicts.get(_defense(it)),
        )
        for (it, its), (_, settings), signs in zip(found, known, checks, strict=True)
    ]
    return _written(out, dataset, judged, evidence, records, queries)


def robustness_by_name(
    runs: Mapping[tuple[int, str], Run],
    names: Collection[str],
    data: DataConfig,
    asked: AttackConfig,
    out: Path,
    *,
    undefended: str,
    device: Device,
    keeping: CheckpointConfig | None,
    stopper: Stopper | None,
    progress: Progress,
) -> dict[str, tuple[Evaluation, ...]]:
    """The same for an experiment's networks: by name what came out at each seed.

    Args:
        runs: by seed and name.
        names: of those that are attacked, `undefended` among them; others only teach.
        data: whose test split is attacked.
        asked: how hard.
        out: folder for everything.
        undefended: the name of the networks that all are compared with.
        device: where to compute.
        keeping: how often a training's state is written.
        stopper: asked whether to stop.
        progress: told how far it is.
    """
    seeds = sorted({seed for seed, _ in runs})
    judged = robustness(
        [runs[seed, name] for name in names for seed in seeds],
        data,
        asked,
        out,
        undefended=[runs[seed, undefended] for seed in seeds],
        device=device,
        keeping=keeping,
        stopper=stopper,
        progress=progress,
    ).judged
    found = iter(judged)
    return {name: tuple(next(found) for _ in seeds) for name in names}


def _each_once(targets: Sequence[T]) -> list[T]:
    """Without runs of weights that were named before: a network is no second seed of itself."""
    found: dict[object, T] = {}
    for target in targets:
        found.setdefault(target.digest if isinstance(target, Run) else id(target), target)
    return list(found.values())


def _defense(target: Run | Victim) -> object:
    """Runs of one recipe are seeds of one defense; a victim stands for itself."""
    return target.recipe if isinstance(target, Run) else id(target)


def _defenses(everyone: Sequence[Run | Victim], plain: Sequence[Run]) -> dict[object, list[int]]:
    """The places of each defense."""
    places: dict[object, list[int]] = {}
    for place, target in enumerate(everyone):
        if target not in plain:
            places.setdefault(_defense(target), []).append(place)
    return places


def _common(checks: Sequence[Sequence[Check]], places: Sequence[int]) -> list[Check]:
    """The checks of one defense that are raised at more than half of its seeds."""
    raised = [check for place in places for check in checks[place] if check.raised]
    names = [check.name for check in raised]
    return [
        next(check for check in raised if check.name == name)
        for name in dict.fromkeys(names)
        if 2 * names.count(name) > len(places)
    ]


def _in_whole_steps(asked: AttackConfig, data: Dataset) -> AttackConfig:
    """Budgets in linf that images of bytes can be changed by, the same for all networks."""
    wanted = asked.budgets(channels=data.channels)["linf"]
    rounded = tuple(whole_steps(epsilon) for epsilon in wanted)
    if 0 in rounded:
        raise ConfigError(
            f"A budget in linf is {wanted[0]:g}, and images are sent as bytes: the least change is "
            f"1/255, {1 / 255:.4f}."
        )
    return replace(asked, linf=rounded)


def _as_others(asked: AttackConfig, target: Attacked, everyone: Sequence[Attacked]) -> AttackConfig:
    """The same attacks for all who show gradients, so that they can be compared."""
    if target.shows != "gradients":
        return asked
    names = [name for it in everyone for name in chosen(asked, it)]
    return replace(asked, attacks=tuple(it for it in ATTACKS if it in names))


def _announce(
    known: Sequence[tuple[Attacked, AttackConfig]],
    images: torch.Tensor,
    data: Dataset,
    progress: Progress,
) -> None:
    """Say what will be done, and how long that may take."""
    seconds, queries = 0.0, 0
    for target, asked in known:
        names = chosen(asked, target)
        if isinstance(target, BlackBox):
            queries += int(cost(names, asked, channels=data.channels).answers) * len(images)
        else:
            seconds += seconds_of(target, names, asked, images, len(images))
            if target.shows_probabilities:
                progress.say(
                    f"{target.name} puts out probabilities; their logarithms are attacked, since "
                    "a softmax of probabilities would hide every gradient."
                )
    target, asked = known[-1]  # mostly the undefended one, on whom all is tried
    budgets = asked.budgets(channels=data.channels)
    progress.say(
        f"Effort {asked.effort}: {len(images)} test samples of {len(known)} networks; "
        f"{', '.join(chosen(asked, target))}; "
        + ", ".join(f"{norm} {' '.join(map(format_budget, its))}" for norm, its in budgets.items())
        + f"; {format_seconds(seconds)} at most"
        + (f", and {queries:,} queries at most" if queries else "")
        + ", less where samples fall early."
    )


def _undefended(
    targets: Sequence[Run | Victim],
    named: Sequence[Run],
    controls: int,
    fitted: ClassMatcher,
    data: Dataset,
    out: Path,
    device: Device,
    keeping: CheckpointConfig | None,
    stopper: Stopper,
    progress: Progress,
) -> list[Run]:
    """Undefended networks of one recipe: those that are there, and as many more as are missing.

    Where all targets are undefended there is nothing to judge, and none is missing.

    Raises:
        ConfigError: none is there, and no run from whose record one could be trained; one of other
            data.
    """
    runs = [target for target in targets if isinstance(target, Run)]
    among = {run.digest: run for run in runs}
    found = [fitted("undefended run", run) for run in _each_once(named)]
    found = [among.get(run.digest, run) for run in found]
    if len({run.recipe for run in found if run.record.kind != "imported"}) > 1:
        raise ConfigError(
            f"The undefended runs {', '.join(str(run.folder) for run in found)} differ in more "
            "than their seeds; the spread between them would not be that of one training. Name "
            "runs of one training with --undefended."
        )
    found = found or [run for run in runs if run.record.is_plain]
    if not found and not runs:
        raise ConfigError(
            "No undefended network to compare with: name a normally trained run of such data with "
            "--undefended (`denature train NET --data DATA` makes one)."
        )
    like = found[0] if found else runs[0]
    if not named:
        found = [run for run in found if run.recipe == like.recipe]
    missing = controls - len(found)
    if all(target in found for target in targets):
        return found
    if missing > 0 and (not found or like.record.is_plain):
        progress.say(
            f"{len(found) or 'No'} undefended network was named; {missing} "
            f"{'more are' if found else 'are'} trained, for a gain must exceed the spread between "
            "their seeds."
        )
        orders = _more(like, missing, {run.record.seed for run in found}, device, out)
        found += make(orders, data, keeping=keeping, stopper=stopper, progress=progress)
    return found


def _more(
    like: Run, count: int, taken: Collection[int | None], device: Device, out: Path
) -> list[Order]:
    """Normal runs of the same network, trained as long as `like` was, from seeds of their own."""
    settings = {k: v for k, v in like.record.config.get("training", {}).items() if k != "device"}
    training = decode(Training, settings, where="the record") if settings else Training()
    first = training.seed + UNDEFENDED_SEEDS
    seeds = [seed for seed in range(first, first + count + len(taken)) if seed not in taken]
    return [
        Order(
            net=like.record.net.name,
            objective=Normal(),
            training=replace(training, seed=seed, view_seed=None, frozen=False, device=device),
            out=out / "undefended" / f"seed-{seed}",
        )
        for seed in seeds[:count]
    ]


def _written(
    out: Path,
    data: Dataset,
    judged: Sequence[Evaluation],
    evidence: Sequence[EvaluationData],
    records: Sequence[Record],
    queries: dict[str, int],
) -> RobustnessResult:
    shown = [
        page.RobustnessEntry(
            robustness=it.robustness,
            checks=it.checks,
            word=None if it.verdict is None else it.verdict.word,
            said=None if it.verdict is None else it.verdict.said,
            evidence=found,
        )
        for it, found in zip(judged, evidence, strict=True)
    ]
    lines = page.table(shown)
    found = RobustnessResult(
        data=data.config.source, judged=tuple(judged), queries=queries, lines=lines, folder=out
    )
    page.write(out, shown, records, classes=data.classes)
    write_text(out / "table.md", markdown(lines) + "\n")
    write_text(out / "robustness.json", found.to_json() + "\n")
    return found
