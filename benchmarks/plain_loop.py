"""The plain loop of the engine's benchmark: training as research code is usually written.

It works in a process of its own, as Python leaves it: training sets up the allocator of its
process (`denature.core.memory`), from which the plain loop would gain too.
"""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from benchmarks.bench import Bench, Work
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.losses import distillation, self_undermining
from denature.nets import create

BATCH = 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def random_dataset(images: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (images,), generator=generator)
    split = Split(pixels, labels, torch.arange(images))
    return Dataset(
        config=DataConfig(source="random"),
        train=split,
        test=split,
        validation=None,
        classes=tuple("0123456789"),
        digest=f"random {images}",
        test_origin="none",
    )


def pillow_view(image: np.ndarray, random: np.random.Generator) -> torch.Tensor:
    """Crop, flip and normalise one sample."""
    picture = ImageOps.expand(Image.fromarray(image), border=4)
    left, top = (int(x) for x in random.integers(0, 9, 2))
    picture = picture.crop((left, top, left + 32, top + 32))
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (tensor - mean) / std


@contextmanager
def plain_loop(
    bench: Bench, student: str, objective: str, images: int, device: torch.device
) -> Iterator[Work]:
    """Steps as research code takes them, in a process as Python leaves it; its parts are told."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve_plain_loop, args=(theirs, student, objective, images, device), daemon=True
    )
    process.start()
    parts: dict[str, float] = {}

    def work() -> int:
        nonlocal parts
        ours.send("go")
        seen: int
        seen, parts = ours.recv()
        return seen

    try:
        yield work
    finally:
        process.terminate()
        process.join()
        for part, seconds in parts.items():
            share = seconds / sum(parts.values())
            bench.say(f"plain_{objective}/{part}", share, "of the plain loop's time")


def _serve_plain_loop(
    pipe: Any, student: str, objective: str, images: int, device: torch.device
) -> None:
    parts = dict.fromkeys(("views", "student", "teacher", "update"), 0.0)
    work = _plain_loop(student, objective, random_dataset(images), device, parts)
    while pipe.recv():
        pipe.send((work(), parts))


def _plain_loop(
    student: str,
    objective: str,
    dataset: Dataset,
    device: torch.device,
    parts: dict[str, float],
) -> Work:
    body = create(student, classes=10).body
    asked = create("resnet18", classes=10).body
    assert isinstance(body, nn.Module)
    assert isinstance(asked, nn.Module)
    body, asked = body.to(device).train(), asked.to(device).eval()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    pictures = dataset.train.images.permute(0, 2, 3, 1).numpy()
    random = np.random.default_rng(0)

    def took(part: str, since: float) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        parts[part] += now - since
        return now

    def work() -> int:
        total = 0.0
        for start in range(0, len(pictures), BATCH):
            clock = time.perf_counter()
            samples = pictures[start : start + BATCH]
            pixels = torch.stack([pillow_view(image, random) for image in samples]).to(device)
            labels = dataset.train.labels[start : start + BATCH].to(device)
            clock = took("views", clock)
            logits = body(pixels)
            clock = took("student", clock)
            with torch.no_grad():
                answers = asked(pixels)
            clock = took("teacher", clock)
            if objective == "nasty":
                losses = self_undermining(logits, answers, labels, temperature=4, omega=0.04)
            else:
                losses = distillation(logits, answers, labels, temperature=4, alpha=0.9)
            loss = losses.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            took("update", clock)
        return len(pictures)

    return work


def pillow_views(dataset: Dataset) -> Work:
    pictures = dataset.train.images.permute(0, 2, 3, 1).numpy()
    random = np.random.default_rng(0)

    def work() -> int:
        for start in range(0, len(pictures), BATCH):
            torch.stack([pillow_view(image, random) for image in pictures[start : start + BATCH]])
        return len(pictures)

    return work
