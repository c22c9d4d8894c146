"""Attack networks and undefended controls on the same samples, judge them, and write one page."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import Progress, format_seconds
from denature.core.record import Record, environment
from denature.core.schema import decode
from denature.data import DataConfig, Dataset, load
from denature.extract.config import RequestConfig
from denature.extract.victims.base import Victim
from denature.report import robustness as page
from denature.report.kinds import is_plain
from denature.report.words import markdown
from denature.robust.blackbox import BlackBox, whole_steps
from denature.robust.catalogue import ATTACKS, check_names, chosen
from denature.robust.config import AttackConfig
from denature.robust.estimate import cost, seconds_of
from denature.robust.evaluate import EvaluationData, choose, evaluate, format_budget, summary
from denature.robust.masking import Check, look
from denature.robust.target import PROBE, Attacked, Target
from denature.robust.verdict import CONTROLS, Evaluation, judge
from denature.train import Normal, Order, Run, Training, make
from denature.train.classes import ClassMatcher
from denature.train.config import Device
from denature.train.session import Session

if TYPE_CHECKING:
    from denature.recipes.blackboxes import Box

T = TypeVar("T")

LEDGER = "ledger.sqlite"
"""Ledger of the queries to black boxes."""

UNDEFENDED_SEEDS = 2000
"""Undefended networks have seeds of their own: they start from other weights than the targets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessResult:
    """Evaluations in the order of the targets; undefended networks outside of them come last."""

    data: str
    judged: tuple[Evaluation, ...]
    queries: dict[str, int]
    """Number of queries to each black box, by its name."""
    lines: list[list[str]]
    """The printed table: header and rows."""
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def robustness(
    targets: Sequence[Run | Victim],
    data: str | DataConfig,
    attack_config: AttackConfig,
    out: Path,
    *,
    undefended: Sequence[Run] = (),
    controls: int = CONTROLS,
    budget: int | None = None,
    pace: RequestConfig | None = None,
    device: Device = "auto",
    session: Session | None = None,
) -> RobustnessResult:
    """Attack networks and judge whether they are more robust than undefended ones.

    Args:
        targets: the models under attack: runs, and victims that answer queries.
        data: data set of the test samples; each run was trained on it.
        attack_config: effort and configuration of the attacks.
        out: folder for all results; finished results in it are reused.
        undefended: normally trained runs of this data set, which differ in seeds alone; by default
            those among `targets`. If there are fewer than `controls`, more are trained: with the
            training of the first undefended run, or normally with that of the first target.
        controls: number of undefended networks; with one the spread between seeds is unknown, and
            no network is judged more robust.
        budget: query budget of each victim; queries of earlier calls count.
        pace: rate and size of requests to victims.
        device: where to compute.
        session: saved states, stops, workers and progress.

    Raises:
        ConfigError: a run of another data set or without classes; victims without a budget, or
            without an undefended run.
        Stopped: a stop was requested; the same call resumes the work.
    """
    session = session or Session()
    if not targets:
        raise ConfigError("No target given; name at least one run, URL or package.module:function.")
    check_names(attack_config.attacks)
    dataset = load(data, progress=session.progress)
    if controls < 1:
        raise ConfigError(f"controls is {controls}; it must be at least 1, and 2 for a verdict.")
    fitted = ClassMatcher(dataset, session.progress)
    targets = _each_once(targets)
    records = [target.record for target in targets if isinstance(target, Run)]
    targets = [fitted("run", target) if isinstance(target, Run) else target for target in targets]
    if dataset.landmarks:
        raise ConfigError(
            f"{dataset.config.source} has landmarks; attacks here change classes. Take data with "
            "classes."
        )
    runs = [target for target in targets if isinstance(target, Run)]
    control_runs = _undefended(targets, undefended, controls, fitted, dataset, out, device, session)
    added = [run for run in control_runs if run not in runs]
    models = [*targets, *added]
    records += [run.record for run in added]
    split = choose(
        dataset.test, attack_config.samples or attack_config.preset.samples, attack_config.seed
    )
    images = split.images[split.rows].float().div(255)
    victims = [target for target in targets if not isinstance(target, Run)]
    if victims:
        attack_config = _in_whole_steps(attack_config, dataset)
    with ExitStack() as stack:
        boxes: Mapping[int, Box] = {}
        if victims:
            from denature.recipes.blackboxes import Terms, opened

            terms = Terms(
                budget=budget,
                attack_config=attack_config,
                pace=pace or RequestConfig(),
                stopper=session.stopper,
                progress=session.progress,
            )
            boxes = stack.enter_context(opened(victims, dataset, images, out / LEDGER, terms))
        probes = dataset.test.images[dataset.test.rows[:PROBE]].float().div(255)
        attacked: list[Attacked] = [
            Target(model, probes, device=device)
            if isinstance(model, Run)
            else boxes[id(model)].target
            for model in models
        ]
        planned = [
            (target, _common_attacks(attack_config, target, attacked)) for target in attacked
        ]
        _announce(planned, images, dataset, session.progress)
        surrogates = [
            target for model, target in zip(models, attacked, strict=True) if model in control_runs
        ]
        evidence = [
            evaluate(
                target, next((other for other in surrogates if other is not target), None), dataset,
                config, out / "attacks", session=session,
            )
            for target, config in planned
        ]  # fmt: skip
        queries = {box.target.name: box.spent for box in boxes.values()}
    baseline = [
        evaluation
        for model, evaluation in zip(models, evidence, strict=True)
        if model in control_runs
    ]
    checks = [look(evaluation) for evaluation in evidence]
    verdicts = {
        defense: judge([evidence[index] for index in indices], baseline, _common(checks, indices))
        for defense, indices in _defenses(models, control_runs).items()
    }
    judged = [
        Evaluation(
            robustness=summary(evaluation, config, environment()),
            checks=tuple(network_checks),
            verdict=None if model in control_runs else verdicts.get(_defense(model)),
        )
        for model, evaluation, (_, config), network_checks in zip(
            models, evidence, planned, checks, strict=True
        )
    ]
    return _written(out, dataset, judged, evidence, records, queries)


def robustness_by_name(
    runs: Mapping[tuple[int, str], Run],
    names: Collection[str],
    data: DataConfig,
    attack_config: AttackConfig,
    out: Path,
    *,
    undefended: str,
    device: Device,
    session: Session,
) -> dict[str, tuple[Evaluation, ...]]:
    """Judge the networks of an experiment: evaluations of all seeds, by name.

    Args:
        runs: the runs by seed and name.
        names: names of the attacked networks, `undefended` among them; other runs only teach.
        data: data set of the test samples.
        attack_config: effort and configuration of the attacks.
        out: folder for all results.
        undefended: name of the undefended networks, the baseline of all others.
        device: where to compute.
        session: saved states, stops, workers and progress.
    """
    seeds = sorted({seed for seed, _ in runs})
    judged = robustness(
        [runs[seed, name] for name in names for seed in seeds],
        data,
        attack_config,
        out,
        undefended=[runs[seed, undefended] for seed in seeds],
        device=device,
        session=session,
    ).judged
    remaining = iter(judged)
    return {name: tuple(next(remaining) for _ in seeds) for name in names}


def _each_once(targets: Sequence[T]) -> list[T]:
    """Targets without runs of equal weights: a network is no second seed of itself."""
    distinct: dict[object, T] = {}
    for target in targets:
        distinct.setdefault(target.digest if isinstance(target, Run) else id(target), target)
    return list(distinct.values())


def _defense(target: Run | Victim) -> object:
    """Key of a defense: runs of one recipe are its seeds; a victim is a defense of its own."""
    return target.recipe if isinstance(target, Run) else id(target)


def _defenses(
    models: Sequence[Run | Victim], control_runs: Sequence[Run]
) -> dict[object, list[int]]:
    """Indices in `models` of the networks of each defense, without undefended ones."""
    indices: dict[object, list[int]] = {}
    for index, model in enumerate(models):
        if model not in control_runs:
            indices.setdefault(_defense(model), []).append(index)
    return indices


def _common(checks: Sequence[Sequence[Check]], indices: Sequence[int]) -> list[Check]:
    """The checks of one defense that are raised at more than half of its seeds."""
    raised = [check for index in indices for check in checks[index] if check.raised]
    names = [check.name for check in raised]
    return [
        next(check for check in raised if check.name == name)
        for name in dict.fromkeys(names)
        if 2 * names.count(name) > len(indices)
    ]


def _in_whole_steps(config: AttackConfig, data: Dataset) -> AttackConfig:
    """Round linf budgets to whole steps of byte images, the same for all networks."""
    epsilons = config.budgets(channels=data.channels)["linf"]
    rounded = tuple(whole_steps(epsilon) for epsilon in epsilons)
    if 0 in rounded:
        raise ConfigError(
            f"A linf budget is {epsilons[0]:g}, but images are sent as bytes: the least change is "
            f"1/255, {1 / 255:.4f}. Raise --linf."
        )
    return replace(config, linf=rounded)


def _common_attacks(
    config: AttackConfig, target: Attacked, targets: Sequence[Attacked]
) -> AttackConfig:
    """The same attacks for all targets with gradients, so that their results are comparable."""
    if target.shows != "gradients":
        return config
    names = [name for each in targets for name in chosen(config, each)]
    return replace(config, attacks=tuple(name for name in ATTACKS if name in names))


def _announce(
    planned: Sequence[tuple[Attacked, AttackConfig]],
    images: torch.Tensor,
    data: Dataset,
    progress: Progress,
) -> None:
    """Report the attacks, and the time and queries that they take at most."""
    seconds, queries = 0.0, 0
    for target, config in planned:
        names = chosen(config, target)
        if isinstance(target, BlackBox):
            queries += int(cost(names, config, channels=data.channels).answers) * len(images)
        else:
            seconds += seconds_of(target, names, config, images, len(images))
            if target.shows_probabilities:
                progress.say(
                    f"{target.name} outputs probabilities; their logarithms are attacked, since a "
                    "softmax of probabilities would mask every gradient."
                )
    target, config = planned[-1]  # mostly an undefended network, which all attacks apply to
    budgets = config.budgets(channels=data.channels)
    progress.say(
        f"Effort {config.effort}: {len(images)} test samples of {len(planned)} networks; "
        f"{', '.join(chosen(config, target))}; "
        + ", ".join(
            f"{norm} {' '.join(map(format_budget, epsilons))}" for norm, epsilons in budgets.items()
        )
        + f"; {format_seconds(seconds)} at most"
        + (f", and {queries:,} queries at most" if queries else "")
        + ", less where attacks succeed early."
    )


def _undefended(
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
    plain = [fitted("undefended run", run) for run in _each_once(named)]
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
            f"{len(plain)} undefended networks were given; {missing} "
            f"{'more are' if plain else 'are'} trained, since a gain must exceed the spread "
            "between their seeds."
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


def _written(
    out: Path,
    data: Dataset,
    judged: Sequence[Evaluation],
    evidence: Sequence[EvaluationData],
    records: Sequence[Record],
    queries: dict[str, int],
) -> RobustnessResult:
    entries = [
        page.RobustnessEntry(
            robustness=evaluation.robustness,
            checks=evaluation.checks,
            word=None if evaluation.verdict is None else evaluation.verdict.word,
            said=None if evaluation.verdict is None else evaluation.verdict.said,
            evidence=attack_data,
        )
        for evaluation, attack_data in zip(judged, evidence, strict=True)
    ]
    lines = page.table(entries)
    result = RobustnessResult(
        data=data.config.source, judged=tuple(judged), queries=queries, lines=lines, folder=out
    )
    page.write(out, entries, records, classes=data.classes)
    write_text(out / "table.md", markdown(lines) + "\n")
    write_text(out / "robustness.json", result.to_json() + "\n")
    return result
