"""How hard a network is attacked; imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from denature.core.errors import ConfigError
from denature.core.schema import check_fields

Effort: TypeAlias = Literal["quick", "standard", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EffortPreset:
    """What an effort takes."""

    samples: int
    """Test images, of each class its share."""
    steps: int
    """Of PGD."""
    queries: int
    """Of the attack without gradients, for an image."""
    iterations: int
    """Of attacks that look for the smallest change."""
    attacks: tuple[str, ...]
    """Names of `denature.robust.catalogue.ATTACKS`."""
    ensembles: int
    """Budgets at which AutoAttack is run, from the middle one on; it takes longest."""


GRADIENT = ("fgsm", "pgd", "pgd-unbounded", "pgd-margin", "pgd-rescaled", "transfer")

EFFORTS: Mapping[Effort, EffortPreset] = {
    "quick": EffortPreset(
        samples=50,
        steps=10,
        queries=200,
        iterations=50,
        attacks=(*GRADIENT, "square"),
        ensembles=0,
    ),
    "standard": EffortPreset(
        samples=100,
        steps=40,
        queries=500,
        iterations=100,
        attacks=(
            *GRADIENT, "square", "pgd-l2", "deepfool", "carlini-wagner", "few-pixels", "autoattack",
        ),
        ensembles=1,
    ),
    "full": EffortPreset(
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
"""What is usual for digits and for photographs (RobustBench: 8/255 and 0.5 on CIFAR-10)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackConfig:
    """What is wanted of an evaluation."""

    effort: Effort = "standard"
    """quick, in seconds; standard, in minutes; full, in hours for large networks."""
    attacks: tuple[str, ...] = ()
    """Which attacks, by name; as the effort says by default."""
    linf: tuple[float, ...] = ()
    """Budgets: the most that a value of [0, 1] may change; usual ones by default."""
    l2: tuple[float, ...] = ()
    """Budgets: the Euclidean length of the change."""
    l0: tuple[float, ...] = ()
    """Budgets: pixels that may change."""
    samples: int | None = None
    """Test images; as the effort says by default."""
    seed: int = 0
    """Rules random starts and which samples are taken."""
    batch: int = 50
    """Images that are attacked at once; what a kill can cost."""

    def __post_init__(self) -> None:
        for name in ("attacks", "linf", "l2", "l0"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_fields(
            self,
            {
                "samples": (self.samples is None or self.samples >= 10, "at least 10"),
                "batch": (self.batch >= 1, "at least 1"),
                "seed": (self.seed >= 0, "at least 0"),
            },
        )
        highest = {"linf": 1.0, "l2": float("inf"), "l0": float("inf")}
        for name, most in highest.items():
            wrong = [it for it in getattr(self, name) if not 0 < it <= most]
            if wrong:
                raise ConfigError(
                    f"A budget in {name} is {wrong[0]}; it must be above 0"
                    + (" and at most 1: values lie in [0, 1], so 8 of 255 is 0.0314."
                       if name == "linf" else ".")
                )  # fmt: skip

    def budgets(self, *, channels: int) -> dict[str, tuple[float, ...]]:
        """In each norm, rising."""
        usual = BUDGETS["colour" if channels == 3 else "grey"]
        return {n: tuple(sorted(set(getattr(self, n)))) or usual[n] for n in usual}

    @property
    def preset(self) -> EffortPreset:
        return EFFORTS[self.effort]
