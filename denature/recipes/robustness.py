"""Attack networks and undefended controls on the same samples, and judge them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from denature.core.checks import Check
from denature.core.errors import ConfigError
from denature.core.progress import Progress
from denature.core.record import environment, today
from denature.data import DataConfig, Dataset
from denature.data.dataset import Split
from denature.data.png import to_png
from denature.extract.asking.limits import check_max_cost
from denature.extract.theft import LEDGER
from denature.extract.victims.base import Victim
from denature.recipes.attack_plan import announce, common_attacks, in_whole_steps
from denature.recipes.controls import each_once, undefended_runs
from denature.recipes.experiment import MeasuredResult, load_classes
from denature.recipes.given import check_paid, name_of
from denature.remote.config import RequestConfig
from denature.report.robustness import Change, RobustnessResult, Sample
from denature.robust.catalogue import check_names
from denature.robust.config import AttackConfig
from denature.robust.evaluation import choose, evaluate
from denature.robust.masking import look
from denature.robust.outcomes import EvaluationData
from denature.robust.summary import summary
from denature.robust.target import PROBE, Attacked, Target
from denature.robust.verdict import CONTROLS, PLAIN, Evaluation, judge
from denature.train import Order, Run
from denature.train.classes import ClassMatcher
from denature.train.config import Device
from denature.train.session import Session

if TYPE_CHECKING:
    from denature.recipes.blackboxes import Box, Terms


PICTURES = 5
"""Samples in the figure of the smallest changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessEvaluation:
    """Networks under the same attacks on the same samples, and what is compared with them.

    Raises:
        ConfigError: there are no targets or controls, or an attack is unknown.
    """

    targets: Sequence[Run | Victim]
    """The models under attack: runs, and victims that answer queries."""
    source: DataConfig
    """Data set of the test samples; each run was trained on it."""
    names: Sequence[str] = ()
    """Of each target as the user named it; an empty one is that of the run's folder."""
    attack_config: AttackConfig
    """Effort and configuration of the attacks."""
    folder: Path
    """Folder for all results; finished results in it are reused."""
    undefended: Sequence[Run] = ()
    """Normally trained runs of this data set, which differ in seeds alone; by default those among
    `targets`. If there are fewer than `controls`, more are trained: with the training of the first
    undefended run, or normally with that of the first target."""
    controls: int = CONTROLS
    """Number of undefended networks; with one the spread between seeds is unknown, and no network
    is judged more robust."""
    max_queries: int | None = None
    """Queries of each victim at most; those of earlier calls count."""
    prices: Sequence[float | None] = ()
    """US dollars a query of each target; none where no price is known."""
    max_cost: float | None = None
    """US dollars for the queries to all victims, those of earlier calls included; needs a price of
    each. With it `max_queries` need not be set."""
    pace: RequestConfig = field(default_factory=RequestConfig)
    """Rate and size of requests to victims."""
    scope: str = ""
    """Scope and permission of the test, for result and page."""
    device: Device = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError(
                "No target given; name at least one run, URL or package.module:function."
            )
        check_names(self.attack_config.attacks)
        if self.controls < 1:
            raise ConfigError(
                f"controls is {self.controls}; it must be at least 1, and 2 for a verdict."
            )
        check_paid(self.max_cost, {name_of(target): target for target in self.targets})
        for price in self.price_of.values():
            check_max_cost(self.max_cost, price)

    @property
    def price_of(self) -> Mapping[int, float | None]:
        """US dollars a query of each victim, by its `id`."""
        prices = self.prices or [None] * len(self.targets)
        pairs = zip(self.targets, prices, strict=True)
        return {id(target): price for target, price in pairs if not isinstance(target, Run)}

    @property
    def runs_folder(self) -> Path:
        return self.folder

    def data(self, progress: Progress) -> Dataset:
        return load_classes(self.source, "attacks here change classes", progress)

    def orders(self) -> Sequence[Order]:
        """None: which controls are missing is known when the targets' classes were compared."""
        return ()

    def samples(self, data: Dataset) -> Split:
        """The test samples that are attacked."""
        config = self.attack_config
        return choose(data.test, config.samples or config.preset.samples, config.seed)

    def terms(self, data: Dataset, session: Session) -> "Terms":
        """Limits and configuration of the attacks on victims."""
        from denature.recipes.blackboxes import Terms

        return Terms(
            max_queries=self.max_queries,
            prices=self.price_of,
            max_cost=self.max_cost,
            attack_config=in_whole_steps(self.attack_config, data),
            pace=self.pace,
            stopper=session.stopper,
            progress=session.progress,
        )

    def measure(self, runs: Mapping[Order, Run], data: Dataset, session: Session) -> MeasuredResult:
        """Attack all networks, check them for masked gradients, and judge each defense.

        Raises:
            ConfigError: a run of another data set or without classes; victims without a budget, or
                without an undefended run.
        """
        fitted = ClassMatcher(data, session.progress)
        originals = each_once(self.targets)
        records = [target.record for target in originals if isinstance(target, Run)]
        targets = [
            fitted("run", target) if isinstance(target, Run) else target for target in originals
        ]
        if not all(isinstance(target, Run) for target in targets):
            from denature.recipes.blackboxes import check_limits

            # Before controls are trained, which takes minutes.
            check_limits(self.terms(data, session), data, len(self.samples(data)))
        control_runs = undefended_runs(
            targets, self.undefended, self.controls, fitted, data, self.folder, self.device, session
        )
        added = [run for run in control_runs if run not in targets]
        models = [*targets, *added]
        named = {id(target): name for target, name in zip(self.targets, self.names, strict=False)}
        names = [named.get(id(target), "") for target in originals] + [""] * len(added)
        records += [run.record for run in added]
        with ExitStack() as stack:
            attacks = _Attacks(self, models, names, data, session, stack)
            evidence = attacks.evidence(control_runs)
            boxes = attacks.boxes.values()
            queries = {box.target.name: box.spent for box in boxes}
            dollars = {box.target.name: box.dollars for box in boxes if box.oracle.price}
        judged = _judged(models, control_runs, evidence, attacks.configs)
        result = _result(data, judged, evidence, queries)
        result = replace(result, dollars=dollars, scope=self.scope, date=today())
        return MeasuredResult(result, records)


class _Attacks:
    """All models as targets of attacks, each with its configuration."""

    def __init__(
        self,
        evaluation: RobustnessEvaluation,
        models: Sequence[Run | Victim],
        names: Sequence[str],
        data: Dataset,
        session: Session,
        stack: ExitStack,
    ) -> None:
        config, split = evaluation.attack_config, evaluation.samples(data)
        victims = [model for model in models if not isinstance(model, Run)]
        images = split.images[split.rows].float().div(255)
        self.models, self.data, self.session = models, data, session
        self.folder = evaluation.folder / "attacks"
        self.boxes: Mapping[int, Box] = {}
        if victims:
            from denature.recipes.blackboxes import opened

            terms = evaluation.terms(data, session)
            config = terms.attack_config
            ledger = evaluation.folder / LEDGER
            self.boxes = stack.enter_context(opened(victims, data, images, ledger, terms))
        probes = data.test.images[data.test.rows[:PROBE]].float().div(255)
        self.targets: list[Attacked] = [
            Target(model, probes, device=evaluation.device, name=name)
            if isinstance(model, Run)
            else self.boxes[id(model)].target
            for model, name in zip(models, names, strict=True)
        ]
        self.configs = [common_attacks(config, target, self.targets) for target in self.targets]
        planned = list(zip(self.targets, self.configs, strict=True))
        prices = {box.target: box.oracle.price for box in self.boxes.values()}
        announce(planned, prices, images, data, session.progress)

    def evidence(self, control_runs: Sequence[Run]) -> list[EvaluationData]:
        """Outcomes of all attacks; a control other than the target itself is the surrogate."""
        surrogates = [
            target
            for model, target in zip(self.models, self.targets, strict=True)
            if model in control_runs
        ]
        return [
            evaluate(
                target, next((other for other in surrogates if other is not target), None),
                self.data, config, self.folder, session=self.session,
            )
            for target, config in zip(self.targets, self.configs, strict=True)
        ]  # fmt: skip


def _judged(
    models: Sequence[Run | Victim],
    control_runs: Sequence[Run],
    evidence: Sequence[EvaluationData],
    configs: Sequence[AttackConfig],
) -> list[Evaluation]:
    """Each network with its checks, and the verdict on its defense against the controls."""
    baseline = [
        outcome for model, outcome in zip(models, evidence, strict=True) if model in control_runs
    ]
    checks = [look(outcome) for outcome in evidence]
    verdicts = {
        defense: judge([evidence[index] for index in indices], baseline, _common(checks, indices))
        for defense, indices in _defenses(models, control_runs).items()
    }
    return [
        Evaluation(
            robustness=summary(outcome, config, environment()),
            checks=tuple(network_checks),
            verdict=None if model in control_runs else verdicts.get(_defense(model)),
        )
        for model, outcome, config, network_checks in zip(
            models, evidence, configs, checks, strict=True
        )
    ]


def _result(
    data: Dataset,
    judged: Sequence[Evaluation],
    evidence: Sequence[EvaluationData],
    queries: Mapping[str, int],
) -> RobustnessResult:
    linf = evidence[0].budgets["linf"]
    plain = [
        tuple(float(outcome.robust(PLAIN, "linf", epsilon).mean()) for epsilon in linf)
        if set(PLAIN) <= set(outcome.everything)
        else ()
        for outcome in evidence
    ]
    return RobustnessResult(
        data=data.config.source,
        budgets=evidence[0].budgets,
        judged=tuple(judged),
        plain=tuple(plain),
        samples=tuple(_samples(evidence, data.classes)),
        queries=queries,
    )


def _samples(evidence: Sequence[EvaluationData], classes: Sequence[str]) -> list[Sample]:
    """Samples that all networks answer rightly, with their smallest changes in l2."""
    right = np.logical_and.reduce([outcome.right for outcome in evidence])
    first = evidence[0]
    return [
        Sample(
            png=to_png(first.images[place]),
            name=classes[first.labels[place]],
            changes=tuple(_smallest(outcome, int(place)) for outcome in evidence),
        )
        for place in np.flatnonzero(right)[:PICTURES]
    ]


def _smallest(evidence: EvaluationData, place: int) -> Change | None:
    """The smallest change of a sample that fooled a network; None where none did."""
    outcomes = evidence.tried.values()
    best = min(outcomes, key=lambda outcome: outcome.distances["l2"][place], default=None)
    if best is None or not np.isfinite(best.distances["l2"][place]):
        return None
    distance = float(best.distances["l2"][place])
    return Change(attack=best.name, distance=distance, png=to_png(best.found[place]))


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
