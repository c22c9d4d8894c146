"""The result of an audit, as JSON holds it and a page is drawn from it."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from denature.core.frames import Rows, Tabular, measured, percent
from denature.core.stats import Estimate
from denature.extract.config import Threat

CellOutcome: TypeAlias = Literal["raced", "screened out", "not applicable"]

Against: TypeAlias = Literal["accuracy", "fidelity"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A value with its 95 % interval, which may lie outside of [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """Queries at which a share of the advantage is reached; None lies beyond the largest budget."""

    value: float | None
    low: float | None
    high: float | None


CHANCE, ONE_CLASS = "chance", "always one class"
"""Names of baselines that look at no image; the second where classes are not equally frequent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What a thief has without a query, to which every clone is compared."""

    threat: Threat
    name: str
    """`chance`, `always one class`, or the training on the owned images that did best."""
    accuracy: Estimate
    fidelity: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class DefensePrice:
    """What a defense costs honest users, on the reported half of the test images."""

    defense: str
    """Spelling of the chain, `none`, or the name of an in-training defense such as `nasty`."""
    about: str
    """Settings and source, in a sentence."""
    top1_kept: Estimate
    """Share of images whose shown class is the undefended model's."""
    accuracy: Estimate
    exact: Estimate
    """Share of images whose answer is shown without any change."""
    l1: float | None
    """Mean L1 distance to the true probabilities, 0 to 2; None for labels."""
    ece: float | None
    """Expected calibration error of the shown probabilities, 15 bins of equal width."""
    log_loss: float | None
    """Mean negative log-probability of the true class, in nats, clipped at 1e-12."""
    latency_ms: float
    """Added time for one image alone, median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One thief against one defense at one budget."""

    defense: str
    thief: str
    threat: Threat
    budget: int
    outcome: CellOutcome
    note: str = ""
    """Why it is not applicable or was screened out, and what the thief chose."""
    seeds: int = 0
    queries: int = 0
    """Queries of one seed."""
    accuracy: Estimate | None = None
    """On the reported half of the test images."""
    fidelity: Estimate | None = None
    """Agreement with the undefended victim on the same images."""
    recovered: Interval | None = None
    """Recovered advantage in accuracy; None where it is not measurable."""
    recovered_fidelity: Interval | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """The worst thief against one defense at one budget, chosen on the other half of the images."""

    defense: str
    threat: Threat
    budget: int
    thief: str
    accuracy: Estimate
    fidelity: Estimate
    recovered: Interval | None
    recovered_fidelity: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveSummary:
    """One curve of recovered advantage against queries: its area and where it crosses shares."""

    defense: str
    threat: Threat
    area: Interval | None
    """Mean recovered advantage over the logarithm of the budget; None where not measurable."""
    to_half: Crossing
    to_ninety: Crossing
    least: int = 0
    """Smallest budget of the curve, below which crossings are interpolated from nothing; 0 in
    results of an earlier version, and where nothing is measurable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A conclusion, with the condition under which it is raised."""

    name: str
    raised_if: str
    why: str
    do: str
    tags: tuple[str, ...]
    severity: Literal["high", "medium", "low", "info"]


CHECK_MODEL = (
    "Check the labels of the data, the order of the model's classes, and what it takes for pixels "
    "(--mean, --std, --scale)."
)
"""Advice for a model that is right no more often than chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditedModel:
    """The model under audit."""

    name: str
    """As it was named on the command line."""
    kind: str
    """Kind of its answers."""
    classes: tuple[str, ...]
    accuracy: Estimate
    """On the reported half of the test images, before any defense."""
    digest: str
    served: bool = False
    """Whether a service answered, whose own defenses, if any, are part of the model."""
    nan_answers: int = 0
    """Answers with NaN beside scores, of a model that has no way to hide scores."""
    not_summing: int = 0
    """Answers of probabilities that show all their scores, which do not sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPlan:
    """What an audit does; two audits with one plan measure the same."""

    effort: str
    data: str
    pool: str
    other_pool: str | None
    test: int
    """Test images; one half chooses the worst thief, the other one is reported."""
    labelled: int
    """Labelled images that the thief owns under threat A; 0 leaves threat A out."""
    budgets: tuple[int, ...]
    seeds: int
    defenses: tuple[str, ...]
    thieves: tuple[str, ...]
    net: str
    """Network of the clones."""
    epochs: int
    """At least; clones of few images have more, see `denature.extract.config.thief_training`."""
    grid: bool
    price_per_1000: float | None


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class AuditResult(Tabular):
    """A finished audit."""

    result_type: ClassVar[str] = "audit"

    model: AuditedModel
    plan: AuditPlan
    baselines: tuple[Baseline, ...]
    defenses: tuple[DefensePrice, ...]
    cells: tuple[Cell, ...]
    worst: tuple[Worst, ...]
    curves: tuple[CurveSummary, ...]
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...]
    """Defenses and thieves that could not be audited here, each with its reason."""
    queries: int
    """Images about which the model was asked."""
    seconds: float
    """Time of the command that wrote this; earlier ones may have measured most of the cells."""
    environment: dict[str, object]
    scope: str = ""
    """Scope and permission of the test, as stated by the caller."""
    date: str = ""
    """Day on which the audit ended, in UTC; empty in results of an earlier version."""

    @property
    def summary(self) -> str:
        model, plan = self.model, self.plan
        return (
            f"{model.name}, accuracy {percent(model.accuracy)}, {len(self.defenses)} defenses, "
            f"{len(plan.thieves)} thieves, up to {max(plan.budgets):,} queries"
        )

    def rows(self) -> Rows:
        """The worst thief against each defense at each budget."""
        return [
            {
                "defense": worst.defense,
                "threat": worst.threat,
                "budget": worst.budget,
                "thief": worst.thief,
                **measured("recovered", worst.recovered),
                **measured("accuracy", worst.accuracy),
                **measured("fidelity", worst.fidelity),
            }
            for worst in self.worst
        ]
