"""How fast the engine is, in ratios of things measured in turns in one run.

    python -m benchmarks.engine [--json FILE] [--device cpu] [--quick] [--ratios]

The yardstick is a *plain loop*: fp32, contiguous tensors, crop, flip and normalisation of one
sample after the other with Pillow, the live teacher at each step, the loss read at each step, as
research code is usually written. A *bare step* is forward, backward and optimizer on one fixed
batch that is already in place, in our precision and layout. The *limit* of a training is its bare
step, and the teacher's answers to the same views where these are live. Images are random bytes of
the shape of CIFAR-10, so nothing has to be there. A ratio is that of two medians over repeats that
take turns, after one round that does not count. The plain loop works in a process of its own, since
training sets up the allocator of its process (`denature.core.memory`), from which the plain loop
would gain too; the bare step has that set-up.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.bench import Bench, Work
from benchmarks.plain_loop import BATCH, MEAN, STD, pillow_views, plain_loop, random_dataset
from denature.answers import Inference, InferenceConfig
from denature.answers.opening import live, store_key, with_store
from denature.answers.sources import AnswerSource
from denature.core.compute import Compute, resolve
from denature.core.memory import keep_freed_memory
from denature.data.dataset import Dataset
from denature.data.feed import Feed
from denature.data.views import views
from denature.nets import NETS, create
from denature.nets.normalize import normalized
from denature.train.config import Training
from denature.train.learner import Learner, make_optimizer
from denature.train.objectives import Distilled, Nasty, Normal, Objective

FAMILY = views("crop-flip", channels=3, image_size=32)

# What is measured against


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create(name, classes=10, mean=MEAN, std=STD)


def bare(net: str, compute: Compute, steps: int, optimizer: str = "auto") -> Work:
    """Forward, backward, optimizer on one batch."""
    model = compute.place(network(net))
    made = make_optimizer(model, config=_config(net, compute, optimizer))
    split = random_dataset(BATCH).train
    pixels = compute.pixels(split.images.to(compute.device))
    labels = split.labels.to(compute.device)

    def work() -> int:
        for _ in range(steps):
            with compute.autocast():
                logits = model(pixels)
            made.zero_grad(set_to_none=True)
            F.cross_entropy(logits.float(), labels).backward()
            made.step()
        return steps * BATCH

    return work


# What is measured


def _config(net: str, compute: Compute, optimizer: str = "auto") -> Training:
    return Training(batch_size=BATCH, epochs=1, lr=1e-3).resolved(
        schedule="one-cycle",
        optimizer=NETS[net].optimizer if optimizer == "auto" else optimizer,
        augment="crop-flip",
        device=compute.device.type,
        precision=compute.precision,
    )


def our_loop(
    nets: list[tuple[str, Objective]],
    dataset: Dataset,
    device: str,
    source: AnswerSource | None = None,
) -> Work:
    """An epoch of our loop: shuffled, cropped, flipped, answered, scheduled, counted, checked."""
    computes = [
        resolve(create(net, classes=10), device=device, precision="auto") for net, _ in nets
    ]
    feed = Feed(dataset.train, compute=computes[0], views=FAMILY)
    steps = len(dataset.train) // BATCH
    learners = [
        Learner(network(net), objective, _config(net, compute), compute, steps=steps)
        for (net, objective), compute in zip(nets, computes, strict=True)
    ]

    def work() -> int:
        for learner in learners:
            learner.done = 0
        batches = feed.epoch(1, view_seed=0, batch_size=BATCH)
        for batch, answers in source.answered(batches) if source else ((b, None) for b in batches):
            for learner in learners:
                learner.step(batch, answers)
        for learner in learners:
            learner.end_epoch(test=None, validation=None)
        return len(dataset.train)

    return work


def teacher_source(dataset: Dataset, device: str, store: Path | None) -> AnswerSource:
    """A resnet18 that answers, live, or from a store that is warm."""
    teacher = network("resnet18")
    compute = resolve(teacher, device=device, precision="auto")
    asked = live(
        Inference(teacher, compute, InferenceConfig(), shape=(3, 32, 32)), "exact", classes=10
    )
    if store is None:
        return asked
    feed = Feed(dataset.train, compute=compute, views=FAMILY)
    key = store_key(asked, feed, dataset, net="resnet18", digest="bench", storage="exact")
    source = with_store(asked, feed, key, where=str(store), about={})
    for _ in source.answered(feed.epoch(1, view_seed=0, batch_size=BATCH)):
        pass
    return source


def teacher_pass(dataset: Dataset, device: str) -> Work:
    """The teacher alone, asked about every view of an epoch."""
    source = teacher_source(dataset, device, None)
    compute = resolve(network("resnet18"), device=device, precision="auto")
    feed = Feed(dataset.train, compute=compute, views=FAMILY)
    prepared = list(feed.epoch(1, view_seed=0, batch_size=BATCH))

    def work() -> int:
        for _ in source.answered(iter(prepared)):
            pass
        return len(dataset.train)

    return work


def our_views(dataset: Dataset, device: str, times: int) -> Work:
    """Crop, flip and scale in the feed, normalise as the networks do."""
    feed = Feed(
        dataset.train,
        compute=resolve(network("cnn"), device=device, precision="auto"),
        views=FAMILY,
    )
    mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(STD, device=device).view(3, 1, 1)

    def work() -> int:
        for epoch in range(times):
            for batch in feed.epoch(epoch, view_seed=0, batch_size=BATCH):
                normalized(batch.pixels, mean, std)
        return times * len(dataset.train)

    return work


def in_a_row(*works: Work) -> Work:
    """All of them, counted once."""

    def work() -> int:
        seen = [one() for one in works]
        return seen[0]

    return work


# Plain figures, each in a process of its own


@contextmanager
def own_cache() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        before = os.environ.get("DENATURE_CACHE")
        os.environ["DENATURE_CACHE"] = str(Path(folder) / "cache")
        try:
            yield Path(folder)
        finally:
            os.environ.pop("DENATURE_CACHE")
            if before is not None:
                os.environ["DENATURE_CACHE"] = before


def denature(*words: str) -> list[str]:
    return [sys.executable, "-m", "denature", *words]


def process_seconds(command: list[str], repeats: int) -> float:
    """Median time of a command, a new process each."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def anonymous_peak(command: list[str]) -> float:
    """The most anonymous memory that a command holds, in MiB; Linux only."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        found = [int(line.split()[1]) for line in lines if line.startswith("RssAnon")]
        peak = max(peak, *found, 0)
        time.sleep(0.02)
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} failed")
    return peak / 1024


def measure_memory(bench: Bench, folder: Path, images: int) -> None:
    """`cnn` on the images of a CIFAR-10, alone and with a teacher whose answers are stored."""
    dataset = random_dataset(images).train
    x, y = dataset.images.numpy(), dataset.labels.numpy()
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:1000], y_test=y[:1000])
    data = [
        "--data",
        str(folder / "data.npz"),
        "--epochs",
        "1",
        "--device",
        bench.device.type,
        "-q",
    ]
    teacher = str(folder / "teacher")
    subprocess.run(denature("train", "mlp", *data, "--out", teacher), check=True)
    distill = ["distill", "cnn", *data, "--teacher", teacher, "--out"]
    subprocess.run(denature(*distill, str(folder / "first")), check=True)
    alone = anonymous_peak(denature("train", "cnn", *data, "--out", str(folder / "alone")))
    stored = anonymous_peak(
        denature(*distill, str(folder / "second"), "--seed", "1", "--view-seed", "0")
    )
    bench.say("memory_train_cnn", alone, "MiB anonymous")
    bench.say("memory_stored_teacher", stored - alone, "MiB more")


WANTED = {
    "distill_stored": "images/s, `cnn` from `resnet18`, store warm | plain loop | >= 15",
    "distill_live": "images/s, the same, live teacher | plain loop | >= 2",
    "nasty_stored": "images/s, nasty `resnet18`, adversary's answers stored | plain loop | >= 3",
    "views": "images/s, crop, flip, normalise | Pillow per sample | >= 20",
    "loop_over_bare": "images/s, whole loop, `cnn` | bare step | >= 0.95",
    "loop_over_bare/mlp": "the same, `mlp` | bare step | ",
    "loop_over_bare/resnetc20": "the same, `resnetc20` | bare step | ",
    "loop_over_bare/resnet18": "the same, `resnet18` | bare step | ",
    "ten_alphas": "ms an image, 10 alphas of `cnn` from live `resnet18` in one pass | "
    "one teacher pass and ten bare steps | <= 1.15",
    "ten_alphas_apart": "ms an image, ten runs with live teacher | the same in one pass | >= 4",
    "settled_over_fp32/cnn": "images/s, bare step of `cnn`, bf16 and channels last | "
    "fp32, contiguous | ",
    "settled_over_fp32/resnetc20": "the same, `resnetc20` | fp32, contiguous | ",
    "settled_over_fp32/resnet18": "the same, `resnet18` | fp32, contiguous | ",
    "settled_over_fp32/mlp": "the same, `mlp`, bf16 | fp32 | ",
    "folded_over_plain/cnn": "answers/s of `cnn`, folded | not folded | ",
    "folded_over_plain/resnet18": "answers/s of `resnet18`, folded | not folded | ",
    "compiled_over_folded/cnn": "answers/s of `cnn`, `--compile` | folded | ",
    "compiled_over_folded/resnet18": "answers/s of `resnet18`, `--compile` | folded | ",
}
"""What each ratio is of, and the least or most that is wanted of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="two repeats of little work: a trial")
    parser.add_argument("--ratios", action="store_true", help="leave out commands and compilation")
    options = parser.parse_args()
    device = torch.device(options.device)
    accelerated = device.type != "cpu"
    keep_freed_memory()  # as training does; the plain loop and the bare step gain from it too
    bench = Bench(device, repeats=2 if options.quick else 5)
    few = random_dataset(BATCH * (40 if accelerated else 1))
    some = random_dataset(BATCH * (200 if accelerated else 2 if options.quick else 8))
    many = random_dataset(len(some.train) * (1 if options.quick else 4))
    soft = Distilled()
    best = resolve(network("cnn"), device=options.device, precision="auto")

    with own_cache() as folder:
        # First, in a process that has done nothing yet, as training is.
        bench.compare("views", our_views(some, options.device, 120), pillow_views(some))
        sizes = {"cnn": many, "mlp": many, "resnetc20": some, "resnet18": few}
        for net, size in sizes.items():
            settled = resolve(network(net), device=options.device, precision="auto")
            steps = len(size.train) // BATCH
            suffix = "" if net == "cnn" else f"/{net}"
            bench.compare(
                f"loop_over_bare{suffix}",
                our_loop([(net, Normal())], size, options.device),
                bare(net, settled, steps),
            )
            bench.compare(
                f"settled_over_fp32/{net}",
                bare(net, settled, steps),
                bare(net, Compute(device, "fp32", channels_last=False), steps),
            )
        store = folder / "answers"
        stored, asked = (
            teacher_source(many, options.device, store),
            teacher_source(some, options.device, None),
        )
        with plain_loop(bench, "cnn", "distilled", len(few.train), device) as plain:
            limit = bare("cnn", best, len(many.train) // BATCH)
            ours = our_loop([("cnn", soft)], many, options.device, stored)
            bench.compare("distill_stored", ours, plain, limit=limit)
            steps = len(some.train) // BATCH
            limit = in_a_row(teacher_pass(some, options.device), bare("cnn", best, steps))
            ours = our_loop([("cnn", soft)], some, options.device, asked)
            bench.compare("distill_live", ours, plain, limit=limit)
        with plain_loop(bench, "resnet18", "nasty", len(few.train), device) as plain:
            source = teacher_source(few, options.device, store)
            ours = our_loop([("resnet18", Nasty())], few, options.device, source)
            compute = resolve(network("resnet18"), device=options.device, precision="auto")
            limit = bare("resnet18", compute, len(few.train) // BATCH)
            bench.compare("nasty_stored", ours, plain, limit=limit)
        alphas: list[tuple[str, Objective]] = [
            ("cnn", Distilled(alpha=alpha / 10)) for alpha in range(10)
        ]
        together = our_loop(alphas, few, options.device, asked)
        steps = len(few.train) // BATCH
        floor = in_a_row(teacher_pass(few, options.device), bare("cnn", best, 10 * steps))
        bench.compare("ten_alphas", together, floor, unit="ms/image")
        apart = in_a_row(*[our_loop([one], few, options.device, asked) for one in alphas])
        bench.compare("ten_alphas_apart", apart, together, unit="ms/image")
        measure_inference(
            bench, few, options.device, compiled=not (options.quick or options.ratios)
        )
        if not options.ratios:
            measure_commands(bench, folder, quick=options.quick)

    precision = {
        net: resolve(network(net), device=options.device, precision="auto").precision
        for net in NETS
    }
    bench.finish(WANTED, options.json, device=best.describe(), precision=precision)


def measure_commands(bench: Bench, folder: Path, *, quick: bool) -> None:
    """Times and memory of commands, in processes of their own."""
    bench.say("help", process_seconds(denature("--help"), bench.repeats), "s")
    demo = denature("demo", "--out", str(folder / "demo"), "--seeds", "1" if quick else "3", "-q")
    bench.say("demo", process_seconds(demo, 1), "s")
    bench.say("demo_again", process_seconds(demo, bench.repeats), "s")
    measure_memory(bench, folder, 2_000 if quick else 50_000)


def measure_inference(bench: Bench, dataset: Dataset, device: str, *, compiled: bool) -> None:
    """What folding and compiling give to a network that answers, compile time told apart."""
    for name in ("cnn", "resnet18"):
        folded = asks(name, InferenceConfig(), dataset, device)
        plain = asks(name, InferenceConfig(fold=False), dataset, device)
        bench.compare(f"folded_over_plain/{name}", folded, plain)
        if compiled:
            work = asks(name, InferenceConfig(compile=True), dataset, device)
            started = time.perf_counter()
            work()
            bench.say(f"compile_seconds/{name}", time.perf_counter() - started, "s")
            bench.compare(f"compiled_over_folded/{name}", work, folded)


def asks(name: str, asking: InferenceConfig, dataset: Dataset, device: str) -> Work:
    model = network(name)
    compute = resolve(model, device=device, precision="auto")
    pixels = compute.pixels(dataset.train.images.to(compute.device))
    inference = Inference(model, compute, asking, shape=(3, 32, 32))

    def work() -> int:
        inference(pixels)
        return len(pixels)

    return work


if __name__ == "__main__":
    main()
