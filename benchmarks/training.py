"""What the training loop costs above the bare step, and what precision and layout give.

    python benchmarks/training.py [--json FILE] [--device cpu] [--quick]

Every figure is a ratio of two things measured in turns in one run: the median over the repeats. A
bare step is forward, backward and optimizer on one fixed batch that is already in place. Images are
random bytes of the shape of CIFAR-10, so nothing has to be there.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from denature.core.compute import Compute, settle
from denature.data.dataset import Split
from denature.data.feed import Feed
from denature.data.views import views
from denature.nets import NETS, create
from denature.train.config import Training
from denature.train.learner import Learner, make_optimizer
from denature.train.objectives import Normal

BATCH = 128


def per_second(work: Callable[[], int], device: torch.device) -> float:
    """How many images a second `work` gets through; it returns how many it saw."""
    _wait(device)
    started = time.perf_counter()
    seen = work()
    _wait(device)
    return seen / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(
    ours: Callable[[], int], theirs: Callable[[], int], *, repeats: int, device: torch.device
) -> dict[str, object]:
    """Medians of two kinds of work that take turns, after one round that does not count."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for kept, work in zip(speeds, (ours, theirs), strict=True):
            speed = per_second(work, device)
            if turn:
                kept.append(speed)
    a, b = map(statistics.median, speeds)
    return {
        "ratio": round(a / b, 3),
        "median_ours": round(a, 1),
        "median_theirs": round(b, 1),
        "unit": "images/s",
        "repeats": repeats,
    }


def random_split(images: int) -> Split:
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    return Split(pixels, torch.randint(0, 10, (images,)), torch.arange(images))


def bare(net: str, compute: Compute, steps: int) -> Callable[[], int]:
    """Forward, backward, optimizer on one batch."""
    network = compute.place(create(net, classes=10))
    config = _config(net, compute)
    optimizer = make_optimizer(network, config)
    split = random_split(BATCH)
    pixels = compute.pixels(split.images.to(compute.device))
    labels = split.labels.to(compute.device)

    def work() -> int:
        for _ in range(steps):
            with compute.autocast():
                logits = network(pixels)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
        return steps * BATCH

    return work


def whole_loop(net: str, compute: Compute, steps: int) -> Callable[[], int]:
    """The same steps by our loop: shuffled, cropped, flipped, scheduled, counted, checked."""
    feed = Feed(
        random_split(steps * BATCH),
        compute=compute,
        views=views("crop-flip", channels=3, image_size=32),
    )
    learner = Learner(
        create(net, classes=10), Normal(), _config(net, compute), compute, steps=steps
    )

    def work() -> int:
        learner.done = 0
        for batch in feed.epoch(1, view_seed=0, batch_size=BATCH):
            learner.step(batch, None)
        learner.end_epoch(test=None, validation=None)
        return steps * BATCH

    return work


def _config(net: str, compute: Compute) -> Training:
    return Training(batch_size=BATCH, epochs=1, lr=1e-3).settled(
        optimizer=NETS[net].optimizer,
        augment="crop-flip",
        device=compute.device.type,
        precision=compute.precision,
    )


def help_seconds(repeats: int) -> float:
    """Median time of `denature --help`, a new process each."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        command = [sys.executable, "-m", "denature", "--help"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="two repeats of two steps: a trial")
    options = parser.parse_args()
    repeats, scale = (2, 0.2) if options.quick else (9, 1.0)
    device = torch.device(options.device)

    figures: dict[str, dict[str, object]] = {}
    for net, steps in {"cnn": 12, "mlp": 80, "resnetc20": 3, "resnet18": 1}.items():
        count = max(1, int(steps * scale))
        best = settle(create(net, classes=10), device=options.device, precision="auto")
        plain = Compute(device, "fp32", channels_last=False)
        pairs = {
            f"loop_over_bare/{net}": (whole_loop(net, best, count), bare(net, best, count)),
            f"settled_over_fp32/{net}": (bare(net, best, count), bare(net, plain, count)),
        }
        for key, (ours, theirs) in pairs.items():
            figures[key] = in_turns(ours, theirs, repeats=repeats, device=device)
            found = figures[key]
            print(
                f"{key:30} {found['ratio']:>7} = {found['median_ours']:>10,} / "
                f"{found['median_theirs']:>10,} images/s, median of {repeats}",
                flush=True,
            )
    seconds = round(help_seconds(repeats), 3)
    print(f"{'denature --help':30} {seconds} s")
    machine = {
        "device": best.describe(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "precision": {
            net: settle(create(net, classes=10), device=options.device, precision="auto").precision
            for net in NETS
        },
    }
    if options.json:
        found_all = {"machine": machine, "help_seconds": seconds, **figures}
        options.json.write_text(json.dumps(found_all, indent=1) + "\n")


if __name__ == "__main__":
    main()
