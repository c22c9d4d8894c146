"""What defenses cost the naive thief, and what the thieves that know them win back.

    python -m benchmarks.thieves [--json FILE] [--seeds N] [--folder DIR]

A `cnn` on digits is the victim. Each row is a difference of two accuracies of clones, paired by
seed and test image, with its interval over both: the naive thief behind a defense against the same
thief without it, and a thief against the naive one behind a defense that it was made for. The
defenses have strong settings, since one that costs nothing there costs nothing at weaker ones;
thieves meet settings that keep the predicted class of most images. Cells lie in the folder, so that
the same command goes on after a stop.
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from denature.audit.cells import CellName
from denature.audit.config import AuditConfig
from denature.audit.measurements import Measurements
from denature.audit.race import difference
from denature.core.record import environment
from denature.core.stats import Estimate
from denature.data import load
from denature.data.config import DataConfig
from denature.data.dataset import Dataset
from denature.recipes.audit import Audit
from denature.train import Normal, Order, Run, Training, make, make_all
from denature.train.session import Session
from denature.train.workers import ProcessPool

COSTS = (
    *("rounding@decimals=0", "top-k@k=1", "label-only", "temperature@temperature=4"),
    *("sparse-logits", "gaussian-noise@scale=0.5", "dirichlet-noise@concentration=2"),
    *(
        "reverse-sigmoid@beta=1+gamma=0.2",
        "adaptive-misinformation@tau=0.9",
        "mad@epsilon=0.5",
        "mad@epsilon=1",
    ),
    *("mad@epsilon=1+keep_top=true", "gradient-redirection@epsilon=1", "modelguard-w"),
    *("modelguard-s@epsilon=0.5", "modelguard-s", "nasty"),
)
"""Defenses in front of the naive thief."""


class Pair(NamedTuple):
    """A thief, and a defense or situation that it was made for."""

    thief: str
    defense: str
    budget: int = 200


PAIRS = (
    Pair("labels", "modelguard-w"),
    Pair("tuned", "mad@epsilon=0.5"),
    Pair("tuned", "modelguard-w"),
    Pair("tuned", "nasty"),
    Pair("label-smoothing", "mad@epsilon=0.5"),
    Pair("small-alpha", "mad@epsilon=0.5"),
    Pair("skeptical", "nasty"),
    Pair("skeptical", "mad@epsilon=0.5"),
    Pair("augmented", "gaussian-noise@scale=0.5", 400),
    Pair("augmented", "dirichlet-noise@concentration=2", 400),
    Pair("repeated", "gaussian-noise@scale=0.5", 400),
    Pair("repeated", "dirichlet-noise@concentration=2", 400),
    Pair("recovery-network", "mad@epsilon=0.5"),
    Pair("recovery-network", "gradient-redirection@epsilon=1"),
    Pair("recovery-network", "reverse-sigmoid@beta=1+gamma=0.2"),
    Pair("recovery-network", "modelguard-w"),
    Pair("recovery-table", "mad@epsilon=0.5"),
    Pair("recovery-table", "gradient-redirection@epsilon=1"),
    Pair("recovery-table", "reverse-sigmoid@beta=1+gamma=0.2"),
    Pair("recovery-table", "modelguard-w"),
    Pair("active-uncertainty", "none"),
    Pair("active-k-center", "none"),
    Pair("active-both", "none"),
    Pair("pretrained", "none", 50),
    Pair("semi-supervised", "label-only", 50),
    Pair("same-features", "none", 100),
    Pair("same-features", "rounding@decimals=1", 100),
    Pair("same-features", "label-only", 100),
)
"""Each thief, where it should be ahead of the naive one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Difference of two accuracies, as shares of the test images."""

    defense: str
    thief: str
    against: str
    budget: int
    accuracy: float
    of_other: float
    difference: Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A victim with its audits."""

    victim: Run
    public: Run
    """Its layers except the last are the victim's, or a thief starts from them."""
    seeds: int
    folder: Path
    session: Session

    def measured(self, defense: str, thief: str, budget: int) -> Measurements:
        audit = Audit(
            model=self.victim,
            name="the victim",
            config=AuditConfig(
                defense=(defense,), thief=("naive", thief), budget=(budget,), seeds=self.seeds,
                labelled=0, grid=True,
            ),
            source=DataConfig(source="digits"),
            folder=self.folder,
            backbone=self.public,
            encoder=self.public,
            training=Training(device="cpu"),
            device="cpu",
        )  # fmt: skip
        data = audit.data(self.session.progress)
        orders = list(audit.orders())
        [made] = make_all([(orders, data)], session=self.session)
        runs = dict(zip(orders, made, strict=True))
        with audit.opened(runs, data, self.session) as opened:
            return opened.auditor.measure()

    def row(self, found: Measurements, ours: CellName, other: CellName, against: str) -> Row:
        hits = [found.hits(found.raced[cell]) for cell in (ours, other)]
        row = Row(
            defense=ours.defense,
            thief=ours.thief,
            against=against,
            budget=ours.budget,
            accuracy=float(hits[0].mean()),
            of_other=float(hits[1].mean()),
            difference=difference(hits[0], hits[1]),
        )
        gained = row.difference
        print(
            f"{row.thief:18} {row.defense:36} {row.budget:>4} {100 * row.accuracy:5.1f} against "
            f"{100 * row.of_other:5.1f} of {against}: {100 * gained.value:+5.1f} "
            f"[{100 * gained.low:+.1f}, {100 * gained.high:+.1f}]",
            flush=True,
        )
        return row

    def cost(self, defense: str) -> Row:
        found = self.measured(defense, "naive", 200)
        cells = [CellName(name, "naive", "B", 200) for name in (defense, "none")]
        return self.row(found, cells[0], cells[1], "no defense")

    def gain(self, pair: Pair) -> Row:
        found = self.measured(pair.defense, pair.thief, pair.budget)
        cells = [CellName(pair.defense, thief, "B", pair.budget) for thief in (pair.thief, "naive")]
        return self.row(found, cells[0], cells[1], "naive")


def parity(digits: Dataset) -> Dataset:
    """The same images, told even from odd: what a public network may have learned."""
    splits = {name: getattr(digits, name) for name in ("train", "test")}
    labelled = {name: replace(split, labels=split.labels % 2) for name, split in splits.items()}
    return replace(digits, **labelled, classes=("even", "odd"), digest="parity of digits")


def prepared(folder: Path, session: Session) -> tuple[Run, Run, Run]:
    """A public network, a victim of its own, and a victim with the public one's layers."""
    digits, training = load("digits"), Training(device="cpu")
    here = replace(session, workers=None)
    public = make(
        [Order(net="cnn", objective=Normal(), training=replace(training, seed=77), under=folder)],
        parity(digits), session=here,
    )[0]  # fmt: skip
    frozen = replace(training, frozen=True, epochs=60)
    own, headed = make(
        [
            Order(net="cnn", objective=Normal(), training=training, under=folder),
            Order(net="cnn", objective=Normal(), training=frozen, backbone=public, under=folder),
        ],
        digits,
        session=here,
    )
    return public, own, headed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--folder", default="runs/thieves")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    folder = Path(chosen.folder)
    workers = ProcessPool(chosen.workers)
    try:
        session = Session(workers=workers)
        public, own, headed = prepared(folder / "runs", session)
        settings = {"public": public, "seeds": chosen.seeds, "session": session}
        bench = Bench(victim=own, folder=folder / "own", **settings)
        known = Bench(victim=headed, folder=folder / "headed", **settings)
        costs = [bench.cost(defense) for defense in COSTS]
        gains = [(known if pair.thief == "same-features" else bench).gain(pair) for pair in PAIRS]
    finally:
        workers.close()
    victims = (("own", own), ("headed", headed))
    result: dict[str, Any] = {
        "commit": environment()["commit"],
        "seeds": chosen.seeds,
        "victims": {
            name: run.record.accuracy and run.record.accuracy.value for name, run in victims
        },
        "costs": [asdict(row) for row in costs],
        "gains": [asdict(row) for row in gains],
    }
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
