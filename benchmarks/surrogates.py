"""What redirection takes from a naive thief, by the network of the defender's surrogate.

    python -m benchmarks.surrogates [--data DATA] [--queries N] [--seeds N] [--json FILE] ...

The victim is a `cnn`, the surrogates are students of its true answers, trained as an audit trains
them, and the thief's clone is a `cnn`. Each seed is another thief with other queries, and other
surrogates. A row is the difference of the clones' accuracy behind one surrogate and without a
defense, or behind the surrogate that is as large as the model, paired by seed and test image.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.audit import clone_of, probabilities
from benchmarks.bench import Bench
from denature.answers.answerer import Answers
from denature.audit.defending import SURROGATE_EPOCHS, SURROGATE_IMAGES
from denature.audit.race import difference
from denature.core.seeds import generator
from denature.core.stats import Estimate
from denature.data import Dataset, load
from denature.defenses.catalogue import chain_of
from denature.extract.config import thief_training
from denature.report.words import points
from denature.train import Normal, Order, Run, Training, make

NET = "cnn"
"""Network of the victim, of the clones and of the first surrogate."""

SURROGATES = (NET, "cnn@width=16", "mlp")

PART = 256
"""Images that a network answers at once."""


def answers_of(run: Run, images: Tensor) -> Tensor:
    return torch.cat([probabilities(run, part) for part in images.split(PART)])


def networks(
    images: Tensor, victim: Run, data: Dataset, seed: int
) -> Iterator[tuple[str, nn.Module]]:
    """The defender's students by the name of their network."""
    true = answers_of(victim, images)
    training = Training(epochs=SURROGATE_EPOCHS, seed=1000 + seed, device="cpu")
    for net in SURROGATES:
        yield net, clone_of("probabilities", true, images, net, data, training).network


def shown(chain: str, surrogate: nn.Module, images: Tensor, answers: Tensor) -> Tensor:
    """The answers behind a defense with this surrogate."""
    stream = chain_of(chain).start({"surrogate": surrogate.eval()})
    parts = zip(images.split(PART), answers.double().split(PART), strict=True)
    return torch.cat([
        stream(Answers("probabilities", true), part.float() / 255).values for part, true in parts
    ]).float()  # fmt: skip


def measure(bench: Bench, data: Dataset, victim: Run, chain: str, queries: int, seeds: int) -> None:
    test, labels = data.test.images[data.test.rows], data.test.labels[data.test.rows]
    hits: dict[str, list[np.ndarray]] = {}
    for seed in range(seeds):
        surrogates, thief = (
            data.train.images[data.train.rows[generator(seed, use).permutation(len(data.train))]]
            for use in ("surrogate", "queries")
        )
        images = thief[:queries]
        true = answers_of(victim, images)
        behind = {"none": true} | {
            net: shown(chain, surrogate, images, true)
            for net, surrogate in networks(surrogates[:SURROGATE_IMAGES], victim, data, seed)
        }
        own = replace(thief_training(queries, net=NET), seed=seed, device="cpu")
        for name, answers in behind.items():
            clone = clone_of("probabilities", answers, images, NET, data, own)
            right = answers_of(clone, test).argmax(-1) == labels
            hits.setdefault(name, []).append(right.numpy())
    for name, found in hits.items():
        each = [round(float(np.mean(hit)), 4) for hit in found]
        bench.figures[name] = {"accuracy": round(float(np.mean(found)), 4), "each": each}
        for other in ("none", NET):
            if name not in (other, "none"):
                apart = difference(np.stack(found), np.stack(hits[other]))
                bench.figures[name][f"less {other}"] = asdict(apart)
                print(f"{name} against {other}: {points(apart)}", flush=True)


def surrogates_table(by_data: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracies behind each surrogate as Markdown, from JSON files by the name of the data."""
    heads = ["surrogate", *(head for data in by_data for head in (f"{data}, %", "points"))]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name in ("none", *SURROGATES):
        cells = ["no defense" if name == "none" else f"`{name}`"]
        for figures in by_data.values():
            found = figures[name]
            less = found.get("less none")
            cells += [
                f"{100 * found['accuracy']:.1f}",
                points(Estimate(**less)) if less else "",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=30, help="of the victim")
    parser.add_argument("--defense", default="gradient-redirection@epsilon=1")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    data = load(chosen.data)
    bench = Bench(torch.device("cpu"), repeats=chosen.seeds)
    with TemporaryDirectory() as folder:
        training = Training(epochs=chosen.epochs, device="cpu")
        order = Order(net=NET, objective=Normal(), training=training, out=Path(folder) / "victim")
        [victim] = make([order], data)
        measure(bench, data, victim, chosen.defense, chosen.queries, chosen.seeds)
    bench.finish(
        {}, chosen.json, data=Path(chosen.data).name, queries=chosen.queries, defense=chosen.defense
    )


if __name__ == "__main__":
    main()
