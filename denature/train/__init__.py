"""The training loop, its orders and runs, and the objectives of each kind of network."""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.train.config import CheckpointConfig, Training
    from denature.train.importing import import_published, import_run
    from denature.train.loop import evaluate, fit
    from denature.train.objectives import (
        Adversarial,
        Cloned,
        Distilled,
        FixMatch,
        Hardened,
        Misinformed,
        Nasty,
        Normal,
        Skeptical,
    )
    from denature.train.order import Order
    from denature.train.run import Run, load_run
    from denature.train.runs import evaluate_run, make, make_all, train
    from denature.train.session import Session
    from denature.train.shorthand import distilled, nasty, normal

__getattr__ = attach(
    __name__,
    {
        "normal": "shorthand",
        "nasty": "shorthand",
        "distilled": "shorthand",
        "train": "runs",
        "make": "runs",
        "make_all": "runs",
        "Order": "order",
        "evaluate_run": "runs",
        "Run": "run",
        "load_run": "run",
        "import_run": "importing",
        "import_published": "importing",
        "evaluate": "loop",
        "fit": "loop",
        "Session": "session",
        "Training": "config",
        "CheckpointConfig": "config",
        "Normal": "objectives",
        "Nasty": "objectives",
        "Distilled": "objectives",
        "Cloned": "objectives",
        "Hardened": "objectives",
        "Adversarial": "objectives",
        "Skeptical": "objectives",
        "Misinformed": "objectives",
        "FixMatch": "objectives",
    },
)

__all__ = [
    "normal",
    "nasty",
    "distilled",
    "train",
    "make",
    "make_all",
    "Order",
    "evaluate_run",
    "Run",
    "load_run",
    "import_run",
    "import_published",
    "evaluate",
    "fit",
    "Session",
    "Training",
    "CheckpointConfig",
    "Normal",
    "Nasty",
    "Distilled",
    "Cloned",
    "Hardened",
    "Adversarial",
    "Skeptical",
    "Misinformed",
    "FixMatch",
]
