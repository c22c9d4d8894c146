"""Whether training computes with the right number of threads, in ratios of one run.

    python -m benchmarks.threads [--json FILE] [--quick]

Images per second of training steps with the number of threads that a run takes, beside those with
one thread and with one for each core, in turns; alone, and beside a process that keeps a core
busy. The choice is right where it is at least 0.95 of the better one.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from denature.core.threads import computing, usable_cores

# isort: split
# After denature, which sets OpenMP up, as a command does.
import torch
from torch.nn import functional as F

from benchmarks.bench import Bench, Work
from denature.core.compute import resolve
from denature.core.memory import keep_freed_memory
from denature.nets import create
from denature.train.config import Training
from denature.train.learner import make_optimizer

BATCH = 128

NETWORKS = (("mlp", 1, 8), ("cnn", 1, 8), ("cnn", 3, 32), ("resnetc20", 3, 32))
"""Names, channels and image sizes."""

BUSY = (0, 1)
"""Busy neighbours."""


def key_of(name: str, channels: int, size: int, busy: int) -> str:
    return f"{name} {channels}x{size}x{size}" + (", beside a busy process" if busy else "")


OTHERS = ("1 thread", "all threads")
"""What a choice is held against, unless it is the choice."""

WANTED = {
    f"{key_of(*network, busy)}, {other}": f"images/s of {key_of(*network, busy)}, threads of a run "
    f"| {other} | >= 0.95"
    for busy in BUSY
    for network in NETWORKS
    for other in OTHERS
}
"""What each ratio is of, and the least that is wanted of it."""


def steps(name: str, channels: int, size: int, *, threads: int, count: int) -> Work:
    """Training steps of a network with a number of threads."""
    network = create(name, classes=10, channels=channels, image_size=size)
    compute = resolve(network, device="cpu", precision="auto")
    compute.place(network)
    training = Training().resolved(
        optimizer="adam", augment="none", schedule="constant", device="cpu", precision="auto"
    )
    optimizer = make_optimizer(network, config=training)
    shape = (BATCH, channels, size, size)
    pixels = compute.pixels(torch.randint(0, 256, shape, dtype=torch.uint8))
    labels = torch.randint(0, 10, (BATCH,))

    def work() -> int:
        torch.set_num_threads(threads)
        for _ in range(count):
            with compute.autocast():
                loss = F.cross_entropy(network(pixels), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return BATCH * count

    return work


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that keep a core busy each."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it works")
    options = parser.parse_args()
    keep_freed_memory()
    whole = torch.get_num_threads()
    bench = Bench(torch.device("cpu"), repeats=1 if options.quick else 9)
    taken: dict[str, int] = {}
    for busy in BUSY:
        with neighbours(busy):
            for name, channels, size in NETWORKS:
                key = key_of(name, channels, size, busy)
                torch.set_num_threads(whole)  # works leave their own number
                with computing() as chosen:
                    taken[key] = chosen
                number = 2 if options.quick else 300 if size == 8 else 10
                works = {
                    threads: steps(name, channels, size, threads=threads, count=number)
                    for threads in {chosen, 1, whole}
                }
                for other, threads in zip(OTHERS, (1, whole), strict=True):
                    if threads != chosen:
                        bench.compare(f"{key}, {other}", works[chosen], works[threads])
    bench.finish(
        WANTED, options.json, threads=whole, usable_cores=usable_cores(), threads_of_runs=taken
    )


if __name__ == "__main__":
    main()
