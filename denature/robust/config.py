"""Effort, attacks and budgets of a robustness evaluation; imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from denature.core.errors import ConfigError
from denature.core.schema import check_fields

AttackEffort: TypeAlias = Literal["quick", "standard", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackPreset:
    """Samples, steps and attacks of one effort level."""

    samples: int
    """Test images, balanced over classes."""
    steps: int
    """PGD steps."""
    queries: int
    """Queries per image of the attack without gradients."""
    iterations: int
    """Iterations of the attacks that minimise the change."""
    attacks: tuple[str, ...]
    """Names of `denature.robust.catalogue.ATTACKS`."""
    ensembles: int
    """Budgets at which AutoAttack is run, from the middle one on; AutoAttack takes longest."""


GRADIENT = ("fgsm", "pgd", "pgd-unbounded", "pgd-margin", "pgd-rescaled", "transfer")

EFFORTS: Mapping[AttackEffort, AttackPreset] = {
    "quick": AttackPreset(
        samples=50,
        steps=10,
        queries=200,
        iterations=50,
        attacks=(*GRADIENT, "square"),
        ensembles=0,
    ),
    "standard": AttackPreset(
        samples=100,
        steps=40,
        queries=500,
        iterations=100,
        attacks=(
            *GRADIENT, "square", "pgd-l2", "deepfool", "carlini-wagner", "few-pixels", "autoattack",
        ),
        ensembles=1,
    ),
    "full": AttackPreset(
        samples=1000,
        steps=100,
        queries=5000,
        iterations=1000,
        attacks=(
            *GRADIENT, "square", "pgd-l2", "deepfool", "carlini-wagner", "few-pixels",
            "decision", "autoattack",
        ),
        ensembles=9,
    ),
}  # fmt: skip

BUDGETS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "grey": {"linf": (0.05, 0.1, 0.2, 0.3), "l2": (0.5, 1.0, 1.5, 2.0), "l0": (1, 2, 4, 8)},
    "colour": {
        "linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255),
        "l2": (0.125, 0.25, 0.5, 1.0),
        "l0": (1, 2, 4, 8),
    },
}
"""Usual budgets for digits and for photographs (RobustBench: 8/255 and 0.5 on CIFAR-10)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackConfig:
    """Configuration of a robustness evaluation."""

    effort: AttackEffort = "standard"
    """quick, in seconds; standard, in minutes; full, in hours for large networks."""
    attacks: tuple[str, ...] = ()
    """Names of the attacks; those of the effort by default."""
    linf: tuple[float, ...] = ()
    """Budgets: the largest change of a value in [0, 1], also as fractions: 8/255; usual ones by
    default."""
    l2: tuple[float, ...] = ()
    """Budgets: the Euclidean length of the change."""
    l0: tuple[float, ...] = ()
    """Budgets: pixels that may change."""
    samples: int | None = None
    """Test images; the number of the effort by default."""
    seed: int = 0
    """Seed of random starts and of the choice of samples."""
    batch_size: int = 50
    """Images attacked at once; an interrupted run repeats at most one batch."""

    def __post_init__(self) -> None:
        for name in ("attacks", "linf", "l2", "l0"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_fields(
            self,
            {
                "samples": (self.samples is None or self.samples >= 10, "at least 10"),
                "batch_size": (self.batch_size >= 1, "at least 1"),
                "seed": (self.seed >= 0, "at least 0"),
            },
        )
        highest = {"linf": 1.0, "l2": float("inf"), "l0": float("inf")}
        for name, most in highest.items():
            wrong = [budget for budget in getattr(self, name) if not 0 < budget <= most]
            if wrong:
                raise ConfigError(
                    f"A budget in {name} is {wrong[0]}; it must be above 0"
                    + (" and at most 1: values lie in [0, 1], so 8 of 255 is 8/255."
                       if name == "linf" else ".")
                )  # fmt: skip

    def budgets(self, *, channels: int) -> dict[str, tuple[float, ...]]:
        """Budgets of each norm, in rising order."""
        usual = BUDGETS["colour" if channels == 3 else "grey"]
        return {n: tuple(sorted(set(getattr(self, n)))) or usual[n] for n in usual}

    def middle(self, norm: str, *, channels: int) -> float:
        """The middle budget of a norm, at which tables compare networks."""
        budgets = self.budgets(channels=channels)[norm]
        return budgets[len(budgets) // 2]

    @property
    def preset(self) -> AttackPreset:
        return EFFORTS[self.effort]


def format_budget(epsilon: float) -> str:
    """A budget as a key of results."""
    return f"{epsilon:g}"


def budget_text(epsilon: float) -> str:
    """A budget for readers: `8/255` for steps of a pixel that are no short decimal number."""
    steps = round(255 * epsilon)
    if 0 < epsilon < 1 and epsilon != round(epsilon, 3) and abs(255 * epsilon - steps) < 1e-4:
        return f"{steps}/255"
    return f"{epsilon:g}"
