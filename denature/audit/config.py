"""Settings of an audit; this module imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from denature.core.schema import check_fields

AuditEffort: TypeAlias = Literal["quick", "standard", "full"]

LADDER = tuple(factor * 10**power for power in range(1, 7) for factor in (1, 2, 5))
"""Default budgets are taken from 10, 20, 50, 100, ..."""

MOST = 5000
"""Largest default budget."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPreset:
    """Defenses, thieves, budgets and seeds of one effort."""

    defenses: tuple[str, ...]
    """Chains, or names of in-training defenses."""
    thieves: tuple[str, ...]
    budgets: tuple[int, ...]
    """Steps below the largest default budget, on the ladder 10, 20, 50, ..."""
    seeds: int
    labelled: int
    """Labelled images of threat A, times the classes, drawn at random; 0 leaves threat A out."""
    photographs: tuple[int, ...] = ()
    """Budgets where images have colours, since their clones train for long; `budgets` if empty."""


UNDEFENDED = "none"
"""The empty chain, which every audit has."""

IN_TRAINING = "nasty"
"""The in-training defense that is trained from a run, and audited like any other model."""

ALWAYS = ("naive", "labels")
"""Thieves that are never screened out."""

STANDARD_DEFENSES = (
    *(UNDEFENDED, "rounding@decimals=1", "top-k@k=3", "label-only"),
    *("gaussian-noise@scale=0.2", "reverse-sigmoid@beta=0.21+gamma=0.2"),
    *("mad@epsilon=0.5", "gradient-redirection@epsilon=0.5"),
    *("modelguard-w", "modelguard-s", IN_TRAINING),
)

STANDARD_THIEVES = (
    *("naive", "labels", "tuned", "label-smoothing", "small-alpha", "skeptical"),
    *("repeated", "recovery-network", "recovery-table"),
    *("active-k-center", "active-both"),
    *("other-domain", "pretrained", "same-features", "semi-supervised"),
)

EFFORTS: Mapping[AuditEffort, AuditPreset] = {
    "quick": AuditPreset(
        defenses=(UNDEFENDED, "rounding@decimals=1", "label-only", IN_TRAINING),
        thieves=("naive", "labels", "tuned"),
        budgets=(2, 0),
        seeds=2,
        labelled=0,
    ),
    "standard": AuditPreset(
        defenses=STANDARD_DEFENSES,
        thieves=STANDARD_THIEVES,
        budgets=(2, 1, 0),
        photographs=(2, 0),
        seeds=3,
        labelled=5,
    ),
    "full": AuditPreset(
        defenses=(
            *STANDARD_DEFENSES,
            *("rounding@decimals=0", "top-k@k=1", "sparse-logits", "sparse-logits@ratio=0.2"),
            *("temperature@temperature=4", "temperature@temperature=20"),
            *("gaussian-noise@scale=0.5", "dirichlet-noise", "dirichlet-noise@concentration=2"),
            *("reverse-sigmoid@beta=1+gamma=0.2", "mad@epsilon=1+keep_top=true"),
            *("gradient-redirection@epsilon=1", "adaptive-misinformation"),
            *("adaptive-misinformation@tau=0.9", "modelguard-w@epsilon=0.5"),
            "modelguard-s@epsilon=0.5",
        ),
        thieves=(*STANDARD_THIEVES, "active-uncertainty", "augmented"),
        budgets=(4, 3, 2, 1, 0),
        seeds=5,
        labelled=5,
    ),
}


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    """What is audited, by whom, and how thoroughly."""

    effort: AuditEffort = "quick"
    """quick: 4 defenses with `none`, 3 thieves, 2 budgets, 2 seeds; standard: 11 defenses in a
    published setting, 15 thieves, 3 budgets (2 for images with colours), 3 seeds; full: 27
    defenses with `none`, 12 of them in two settings each, all thieves, 5 budgets, 5 seeds."""
    defense: tuple[str, ...] = ()
    """Defenses besides `none`: NAME, NAME@option=value, several after a +; or nasty. By default
    those of the effort."""
    thief: tuple[str, ...] = ()
    """Thieves; by default those of the effort."""
    budget: tuple[int, ...] = ()
    """Numbers of queries; by default 1-2-5 steps up to half of the pool, or 5,000."""
    labelled: int | None = None
    """Labelled images that the thief of threat A owns; 0 leaves this threat out. By default that of
    the effort."""
    seeds: int | None = None
    """Repetitions with other queries and initial weights; by default those of the effort."""
    student: str | None = None
    """Network of the clones; by default the model's own, or cnn for a model of unknown network."""
    test_images: int | None = None
    """Test images at most; by default all for a run, and 1,000 for any other model."""
    grid: bool = False
    """Measure every cell, without screening."""
    price_per_1000: float | None = None
    """US dollars for a thousand queries, for the cost of a clone."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            {
                "budget": (all(budget >= 2 for budget in self.budget), "at least 2 queries each"),
                "labelled": (
                    self.labelled is None or self.labelled == 0 or self.labelled >= 2,
                    "0, or at least 2, since one image trains no student",
                ),
                "seeds": (self.seeds is None or self.seeds >= 1, "at least 1"),
                "test_images": (
                    self.test_images is None or self.test_images >= 20,
                    "at least 20, since one half chooses the worst thief",
                ),
                "price_per_1000": (
                    self.price_per_1000 is None or self.price_per_1000 >= 0,
                    "at least 0",
                ),
            },
        )

    @property
    def preset(self) -> AuditPreset:
        return EFFORTS[self.effort]

    @property
    def defenses(self) -> tuple[str, ...]:
        """Names of all defenses, the undefended model first."""
        return tuple(dict.fromkeys((UNDEFENDED, *(self.defense or self.preset.defenses))))

    @property
    def thieves(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.thief or self.preset.thieves))

    def budgets(self, pool: int, *, channels: int = 1) -> tuple[int, ...]:
        """Ascending budgets for a pool of this size, of images with so many channels."""
        if self.budget:
            return tuple(sorted(set(self.budget)))
        rungs = [rung for rung in LADDER if rung <= min(MOST, pool // 2)] or [max(2, pool // 2)]
        steps = (channels > 1 and self.preset.photographs) or self.preset.budgets
        return tuple(dict.fromkeys(rungs[max(0, len(rungs) - 1 - step)] for step in steps))

    def owned(self, classes: int) -> int:
        """Labelled images of threat A."""
        return self.preset.labelled * classes if self.labelled is None else self.labelled
