"""How much our thieves copy, beside those of a library.

    python -m benchmarks.audit [--json FILE] [--art PYTHON] [--seeds N] [--budgets N,N] [--quick]

Fidelity on the test images of digits, and seconds of one processor, of clones that learn from
probabilities and from labels alone, beside ART's KnockoffNets and CopycatCNN. Each seed is another
victim, the demo's normal teacher, with other queries; ART's thief queries the same images, trains
the same network with Adam at 1e-3, a batch of 64 and 30 epochs, and differs in the rest. `--art`
names a Python that has ART beside this package's dependencies (see `benchmarks/audit_art.py`);
without it, its columns are left out.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.bench import Bench
from denature.answers.kinds import AnswerKind
from denature.answers.transfer import Transfer
from denature.core.memory import keep_freed_memory
from denature.core.seeds import generator
from denature.core.stats import Estimate, Score, paired_difference, pooled, proportion
from denature.data import Dataset, load
from denature.data.dataset import Split
from denature.extract.config import thief_training
from denature.recipes.demo import TEACHER, TEACHER_SEEDS
from denature.train import Cloned, Normal, Order, Run, Training, make

NET = "cnn"
"""Network of victims and clones."""

ART = {"epochs": 30, "batch_size": 64}

KINDS: Mapping[AnswerKind, str] = {"probabilities": "KnockoffNets", "label": "CopycatCNN"}
"""Kinds of answers, each with the class of ART that takes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Theft:
    """One clone: of the victim of its seed, by the answers to these images of the pool."""

    seed: int
    budget: int
    kind: AnswerKind
    victim: str
    """Folder of its run."""
    rows: tuple[int, ...]
    net: str = NET


@dataclass(frozen=True, kw_only=True, slots=True)
class Stolen:
    """What a clone says of the test images, and what it took."""

    classes: np.ndarray
    """int64, test images."""
    seconds: float
    """Of the processor, with the queries."""


def victims(data: Dataset, seeds: int, folder: Path) -> list[Run]:
    """The demo's normal teachers."""
    fixed = replace(TEACHER, device="cpu", precision="fp32", evaluate_every=0)
    orders = [
        Order(
            net=NET,
            objective=Normal(),
            training=replace(fixed, seed=TEACHER_SEEDS + seed),
            out=folder / f"victim-{seed}",
        )
        for seed in range(seeds)
    ]
    return make(orders, data)


def thefts(data: Dataset, runs: Sequence[Run], budgets: Sequence[int]) -> list[Theft]:
    """Each seed, budget and kind; the images of a smaller budget are among those of a larger."""
    listed = []
    for (seed, run), budget, kind in product(enumerate(runs), budgets, KINDS):
        order = generator(seed, "queries").permutation(len(data.train))
        rows = tuple(order[:budget].tolist())
        listed.append(Theft(seed=seed, budget=budget, kind=kind, victim=str(run.folder), rows=rows))
    return listed


def probabilities(run: Run, images: torch.Tensor) -> torch.Tensor:
    """A run's answers to uint8 images."""
    with torch.inference_mode():
        answers: torch.Tensor = run.network.eval()(images.float() / 255).softmax(-1)
    return answers.clone()


def clone_of(
    kind: AnswerKind,
    answers: torch.Tensor,
    images: torch.Tensor,
    net: str,
    data: Dataset,
    training: Training,
) -> Run:
    """A network that learns a victim's probabilities of these images, or their classes alone."""
    labels = answers.argmax(-1)
    split = Split(images, labels, torch.arange(len(images)))
    digest = f"{training.seed}-{len(images)}"
    own = replace(data, train=split, validation=None, digest=digest)
    source = Transfer(kind, labels if kind == "label" else answers, victim="the victim")
    [run] = make([Order(net=net, objective=Cloned(), training=training, source=source)], own)
    return run


def steal(theft: Theft, data: Dataset, victim: Run) -> Stolen:
    """Query a victim, and train a clone as an audit does."""
    started = time.process_time()
    images = data.train.images[data.train.rows[list(theft.rows)]]
    answers = probabilities(victim, images)
    training = replace(
        thief_training(len(images), net=theft.net),
        seed=theft.seed,
        device="cpu",
        precision="fp32",
    )
    run = clone_of(theft.kind, answers, images, theft.net, data, training)
    seconds = time.process_time() - started
    test = data.test.images[data.test.rows]
    return Stolen(classes=probabilities(run, test).argmax(-1).numpy(), seconds=seconds)


def steal_with_art(
    python: str, planned: Sequence[Theft], data: Dataset, folder: Path
) -> list[Stolen]:
    """The same thefts by ART, in a process of the interpreter that has it."""
    for name, split in (("pool", data.train), ("test", data.test)):
        np.save(folder / f"{name}.npy", split.images[split.rows].numpy())
    plan = {"thefts": [asdict(theft) for theft in planned], **ART}
    (folder / "thefts.json").write_text(json.dumps(plan))
    root = Path(__file__).parents[1]
    subprocess.run(
        [python, "-m", "benchmarks.audit_art", str(folder)],
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    with np.load(folder / "art.npz") as found:
        pairs = zip(found["classes"], found["seconds"].tolist(), strict=True)
        return [Stolen(classes=classes, seconds=seconds) for classes, seconds in pairs]


def compare(
    bench: Bench,
    planned: Sequence[Theft],
    ours: Sequence[Stolen],
    theirs: Sequence[Stolen] | None,
    truth: Mapping[int, np.ndarray],
) -> None:
    """Fidelity and time of each budget and kind, as figures of the benchmark.

    Args:
        bench: keeps the figures.
        planned: the thefts.
        ours: what became of each here.
        theirs: what became of each with ART.
        truth: by seed, the victim's classes of the test images.
    """
    for budget, kind in dict.fromkeys((theft.budget, theft.kind) for theft in planned):
        own, other = (
            {
                theft.seed: (_score(found, truth[theft.seed]), found.seconds)
                for theft, found in zip(planned, side or (), strict=bool(side))
                if (theft.budget, theft.kind) == (budget, kind)
            }
            for side in (ours, theirs)
        )
        figure: dict[str, Any] = {"seeds": len(own), **_summary("ours", own)}
        if other:
            difference = paired_difference(
                {seed: score for seed, (score, _) in own.items()},
                {seed: score for seed, (score, _) in other.items()},
            )
            assert difference is not None
            figure |= {**_summary("art", other), "difference": _spelt(difference)}
        bench.figures[f"fidelity/{budget}/{kind}"] = figure
        print(_line(budget, kind, figure), flush=True)


def _score(found: Stolen, truth: np.ndarray) -> Score:
    hits: np.ndarray = found.classes == truth
    return Score(proportion(int(hits.sum()), len(hits)), "test", hits)


def _summary(side: str, found: Mapping[int, tuple[Score, float]]) -> dict[str, Any]:
    fidelity = pooled([score.accuracy for score, _ in found.values()])
    seconds = float(np.median([seconds for _, seconds in found.values()]))
    each = [round(score.accuracy.value, 5) for score, _ in found.values()]
    return {side: _spelt(fidelity), f"{side}_each": each, f"{side}_seconds": round(seconds, 2)}


def _spelt(estimate: Estimate) -> list[float]:
    return [round(value, 5) for value in (estimate.value, estimate.low, estimate.high)]


def fidelity_table(figures: Mapping[str, Any]) -> str:
    """The fidelities of a JSON file as Markdown."""
    head = (
        "| queries | answers | ART's thief | fidelity, % | ART's, % | difference, points | "
        "CPU s | ART's CPU s | seeds |"
    )
    lines = [head, "| --- " * 9 + "|"]
    for key, figure in figures.items():
        if key.startswith("fidelity/"):
            _, budget, kind = key.split("/")
            lines.append(_line(int(budget), kind, figure))
    return "\n".join(lines)


def _line(budget: int, kind: str, figure: Mapping[str, Any]) -> str:
    def percent(name: str, sign: str = "") -> str:
        if name not in figure:
            return ""
        value, low, high = (f"{100 * number:{sign}.1f}" for number in figure[name])
        return f"{value} [{low}, {high}]"

    cells = [
        f"{budget:,}", kind, KINDS[kind], percent("ours"), percent("art"),  # type: ignore[index]
        percent("difference", "+"), f"{figure['ours_seconds']:.2f}",
        f"{figure['art_seconds']:.2f}" if "art_seconds" in figure else "", str(figure["seeds"]),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def fidelity_beside_art(
    bench: Bench, python: str | None, *, seeds: int, budgets: Sequence[int]
) -> None:
    """The first part: our naive and label-only thieves beside ART's."""
    data = load("digits")
    with TemporaryDirectory() as name:
        folder = Path(name)
        runs = victims(data, seeds, folder)
        planned = thefts(data, runs, budgets)
        ours = [steal(theft, data, runs[theft.seed]) for theft in planned]
        if python is None:
            print("--art names no Python that has ART: its thieves are left out.", flush=True)
        theirs = None if python is None else steal_with_art(python, planned, data, folder)
        test = data.test.images[data.test.rows]
        truth = {seed: probabilities(run, test).argmax(-1).numpy() for seed, run in enumerate(runs)}
        compare(bench, planned, ours, theirs, truth)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--art", help="a Python that has adversarial-robustness-toolbox")
    parser.add_argument("--seeds", type=int, default=20, help="victims, each with other queries")
    parser.add_argument("--budgets", default="200,800", help="numbers of queries")
    parser.add_argument("--quick", action="store_true", help="two seeds, 200 queries: a trial")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    seeds = 2 if given.quick else given.seeds
    budgets = [200] if given.quick else [int(number) for number in given.budgets.split(",")]
    bench = Bench(torch.device("cpu"), repeats=seeds)
    fidelity_beside_art(bench, given.art, seeds=seeds, budgets=budgets)
    print("\n" + fidelity_table(bench.figures))
    bench.finish({}, given.json, device="cpu", threads=1)


if __name__ == "__main__":
    main()
