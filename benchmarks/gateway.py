"""What a gateway costs: throughput and latency through it, over the server behind it.

    python -m benchmarks.gateway [--json FILE] [--quick] [--mlserver PYTHON]

`denature serve --upstream` with a defense stands in front of `denature serve`, and of MLServer
where `--mlserver` names a Python that has it, with one `cnn` of 3x32x32. Gateway, server and client
share this machine's cores, so each computes with one thread. Requests take turns between the
gateway and the server itself.
"""

import argparse
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.bench import Bench
from benchmarks.wire import load, mlserver, serving, single, victim
from denature.core.compute import resolve

WANTED = {
    "gateway_over_server": "images/s through the gateway, binary, 32 images a request | the server"
    " itself | 0.7",
    "gateway_over_server/json": "the same in JSON | the server itself | 0.7",
    "gateway_over_mlserver": "images/s through the gateway, JSON, 32 images a request | MLServer"
    " itself | 0.7",
    "gateway_over_mlserver/1": "the same, one image a request | MLServer itself | 0.7",
}
"""What each ratio is of, and the least that is wanted of it."""

ADDED = "gateway_added_p50_ms"


@contextmanager
def gateway(address: str) -> Iterator[str]:
    """A gateway that rounds what the server answers."""
    words = ("--upstream", address, "--defense", "rounding@decimals=2", "--log", "off")
    with serving(*words) as ours:
        yield ours


def measure_latency(
    bench: Bench, key: str, ours: str, theirs: str, count: int, *, binary: bool = True
) -> None:
    """Milliseconds that a gateway adds to the median request of one image."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 * bench.repeats + 1):
        for kept, at in zip(taken, (ours, theirs), strict=True):
            found = single(at, count, binary=binary)
            if turn:
                kept.extend(found)
    a, b = map(statistics.median, taken)
    bench.say(key, a - b, f"ms a request: {a:.2f} - {b:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="two repeats of little work: a trial")
    parser.add_argument("--mlserver", help="a Python that has MLServer")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of all processes that this one starts
    bench = Bench(torch.device("cpu"), repeats=2 if options.quick else 10)
    images, count = (640, 20) if options.quick else (6_400, 100)
    with TemporaryDirectory() as name:
        folder = Path(name)
        run = victim(folder / "run")
        with (
            serving(f"cnn={run.folder}", "--log", "off") as theirs,
            gateway(theirs) as ours,
        ):
            for key, binary in (("gateway_over_server", True), ("gateway_over_server/json", False)):
                works = (
                    load(at, images, binary=binary, each=32, at_once=8) for at in (ours, theirs)
                )
                bench.compare(key, *works)
            measure_latency(bench, ADDED, ours, theirs, count)
        if options.mlserver:
            with mlserver(options.mlserver, run, folder) as theirs, gateway(theirs) as ours:
                for key, each in (("gateway_over_mlserver", 32), ("gateway_over_mlserver/1", 1)):
                    some = images // 10 if each == 1 else images // 4
                    works = (
                        load(at, some, binary=False, each=each, at_once=8) for at in (ours, theirs)
                    )
                    bench.compare(key, *works)
                key = f"{ADDED}/mlserver"
                measure_latency(bench, key, ours, theirs, count, binary=False)
        compute = resolve(run.network, device="cpu", precision="fp32")
    bench.finish(WANTED, options.json, device=compute.describe())


if __name__ == "__main__":
    main()
