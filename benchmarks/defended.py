"""What a defense adds to a request of one image, against the same model without it.

    python -m benchmarks.defended [--json FILE] [--quick] [--defense CHAIN ...] [--surrogate NET]

One server process shows one network many times: without a defense, without one once more (the
control: its difference is the noise of the figures), and behind each chain. Requests take turns
between the models, one image each over a connection that stays open, in another order each turn.
The server computes with one thread (`--threads 1`), so that the client and the event loop have a
core of their own: with two threads on two cores a request without a defense takes up to 1.4 times
as long. *Alone* is a stream of answers in this process, on one thread and without a server; *pass*
is the network's own answer to the image. `--surrogate` names the network that defenses look at,
which is the victim's own by default.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
import torch

from benchmarks.bench import Bench
from benchmarks.wire import SIGNATURE, pool_of, serving, victim
from denature.answers.network import answers_from
from denature.core.compute import resolve
from denature.defenses.catalogue import DEFENSES
from denature.remote.protocol import request
from denature.serve.config import DefenseConfig, Exposure, ServedModel
from denature.serve.networks import DefenderNetworks
from denature.serve.opening import placed
from denature.train import Run

CHAINS = (
    "label-only",
    "rounding@decimals=1",
    "gaussian-noise",
    "reverse-sigmoid",
    "adaptive-misinformation",
    "mad",
    "gradient-redirection",
    "modelguard-w",
    "modelguard-s",
)
"""What is measured by default, as far as the catalogue has it."""

WARMUP = 50

WANTED = "at most 1 ms added; goal 0.3"


def models_of(run: Run, chains: list[str]) -> dict[str, ServedModel]:
    """The served models by the keys of their figures."""
    texts = {"bare": "none", "control": "none"} | {chain: chain for chain in chains}
    return {
        key: ServedModel.of(f"m{number}={run.folder}@defense={chain}", Exposure()).resolved()
        for number, (key, chain) in enumerate(texts.items())
    }


def round_trips(
    address: str, models: Mapping[str, ServedModel], turns: int
) -> dict[str, list[float]]:
    """Milliseconds of requests of one image to each model, in turns."""
    pixels = pool_of(1, 0).images([0])
    sent = {
        key: (
            f"{address}/v2/models/{model.name}/infer",
            *request(pixels, replace(SIGNATURE, output=model.exposure.kind), id="1", binary=True),
        )
        for key, model in models.items()
    }
    taken: dict[str, list[float]] = {key: [] for key in models}
    order = random.Random(0)
    with requests.Session() as session:
        for _ in range(turns + WARMUP):
            for key in order.sample(list(models), len(models)):
                url, body, headers = sent[key]
                started = time.perf_counter()
                answer = session.post(url, data=body, headers=headers)
                answer.content  # noqa: B018
                taken[key].append(1000 * (time.perf_counter() - started))
                assert answer.status_code == 200, answer.text
    return {key: times[WARMUP:] for key, times in taken.items()}


def streams(
    run: Run, surrogate: Run, models: Mapping[str, ServedModel]
) -> dict[str, Callable[[], object]]:
    """One answer of one image through each chain, in this process, and the network's pass."""
    networks = DefenderNetworks(config_of(surrogate), trust=())
    compute = resolve(run.network, device="cpu", precision="fp32")
    network = compute.place(run.network).eval()
    pixels = compute.pixels(torch.from_numpy(pool_of(1, 0).images([0])))
    shape = (*pixels.shape[1:],)

    @torch.no_grad()
    def forward() -> torch.Tensor:
        logits: torch.Tensor = network(pixels)
        return logits

    logits = forward()

    def of(model: ServedModel) -> Callable[[], object]:
        assert model.taken is not None
        looked_at = placed(networks.of(model.chain, run), model.chain, compute, shape)
        stream = model.chain.start(looked_at)
        answers = answers_from(logits, model.taken, dtype=torch.float64)
        return lambda: stream(answers, pixels)

    return {"pass": forward} | {key: of(model) for key, model in models.items()}


def config_of(surrogate: Run) -> DefenseConfig:
    """One run stands for all networks of the defender: what it answers does not matter here."""
    return DefenseConfig(surrogate=str(surrogate.folder), misinformation=str(surrogate.folder))


def alone(works: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Milliseconds of each work, in turns, on one thread."""
    torch.set_num_threads(1)
    taken: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(turns + WARMUP):
        for key, work in works.items():
            started = time.perf_counter()
            work()
            taken[key].append(1000 * (time.perf_counter() - started))
    return {key: times[WARMUP:] for key, times in taken.items()}


def measure(bench: Bench, run: Run, surrogate: Run, chains: list[str], turns: int) -> None:
    models = models_of(run, chains)
    words = [f"{model.name}={run.folder}@defense={model.defense}" for model in models.values()]
    folders = ("--surrogate", str(surrogate.folder), "--misinformation", str(surrogate.folder))
    with serving(*words, *folders, "--log", "off", "--threads", "1") as address:
        served = round_trips(address, models, turns)
    here = alone(streams(run, surrogate, models), turns)
    bench.say("pass alone", statistics.median(here["pass"]), "ms an answer, p50")
    bare = statistics.median(served["bare"])
    for key in list(models)[1:]:
        p50 = statistics.median(served[key])
        bench.figures[key] = {
            "ratio": round(p50 / bare, 3), "median_ours": round(p50, 4),
            "median_theirs": round(bare, 4), "unit": "ms/request", "repeats": turns,
        }  # fmt: skip
        # Of each turn, so that a slow spell of the machine is in both.
        added = statistics.median(a - b for a, b in zip(served[key], served["bare"], strict=True))
        bench.say(f"{key} added", added, "ms a request, p50")
        bench.say(f"{key} alone", statistics.median(here[key]), "ms an answer, p50")


def added_table(figures: Mapping[str, Any]) -> str:
    """What each defense adds, as Markdown, in the order of the figures."""
    lines = ["| defense | ms added | request, ratio |", "| --- | --- | --- |"]
    for key, found in figures.items():
        if "ratio" in found and key != "control":
            added = figures[f"{key} added"]["value"]
            lines.append(f"| `{key}` | {added:.2f} | {found['ratio']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests: a trial")
    parser.add_argument("--defense", nargs="+", metavar="CHAIN", help="chains to measure")
    parser.add_argument("--surrogate", metavar="NET", default="cnn", help="default: the victim's")
    options = parser.parse_args()
    bench = Bench(torch.device("cpu"), repeats=1)
    chains = options.defense or [c for c in CHAINS if c.partition("@")[0] in DEFENSES]
    with TemporaryDirectory() as name:
        run = victim(Path(name) / "run")
        surrogate = victim(Path(name) / "surrogate", options.surrogate)
        measure(bench, run, surrogate, chains, 200 if options.quick else 2000)
        compute = resolve(run.network, device="cpu", precision="fp32")
    wanted = {key: f"p50 of one image, {key} | bare | {WANTED}" for key in ("control", *chains)}
    bench.finish(wanted, options.json, device=compute.describe())
    print("\n" + added_table(bench.figures))


if __name__ == "__main__":
    main()
