"""How fast our PGD is, in ratios of things measured in turns in one run.

    python -m benchmarks.attacks [--json FILE] [--device cpu] [--quick]

PGD-20 on `cnn`, in linf, against twenty bare forward and backward passes to the same images, and
against Foolbox's PGD with as many steps. All in fp32 and in our memory layout. Images are random
bytes of the shape of CIFAR-10. Before anything is timed, ours and Foolbox's are compared by how
many images they fool.
"""

import argparse
from pathlib import Path

import foolbox
import torch
from foolbox.models.pytorch import PyTorchModel
from torch.nn import functional as F

from benchmarks.bench import Bench
from denature.attacks import Ball, pgd
from denature.core.compute import settle
from denature.core.memory import keep_freed_memory
from denature.nets import create

BATCH, STEPS = 128, 20

WANTED = {
    "pgd": "images/s, PGD-20 on `cnn` | 20 bare forward and backward passes | >= 0.9",
    "pgd_foolbox": "the same | Foolbox's PGD-20 | ",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, to see that it runs")
    given = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    network = create("cnn", classes=10, channels=3, image_size=32)
    compute = settle(network, device=given.device, precision="fp32")
    network = compute.place(network).eval().requires_grad_(False)
    bytes_ = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    images = compute.pixels(bytes_.to(compute.device))
    with torch.no_grad():
        labels = network(images).argmax(1)
    ball = Ball(epsilon=2 / 255)
    model = PyTorchModel(network, bounds=(0, 1), device=compute.device)
    theirs = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=2.5 * ball.epsilon / STEPS)

    def ours_once() -> int:
        pgd(network, images, labels, ball, steps=STEPS)
        return BATCH

    def foolbox_once() -> int:
        theirs(model, images, labels, epsilons=ball.epsilon)
        return BATCH

    def bare() -> int:
        at = images.clone()
        for _ in range(STEPS):
            at.requires_grad_()
            torch.autograd.grad(F.cross_entropy(network(at), labels, reduction="sum"), at)
            at = at.detach()
        return BATCH

    bench = Bench(compute.device, repeats=3 if given.quick else 15)
    mine = pgd(network, images, labels, ball, steps=STEPS)
    _, its, _ = theirs(model, images, labels, epsilons=ball.epsilon)
    for key, changed in (("fooled_by_ours", mine), ("fooled_by_foolbox", its)):
        share = float((network(changed).argmax(1) != labels).float().mean())
        bench.say(key, share, "of the images")
    bench.compare("pgd", ours_once, bare)
    bench.compare("pgd_foolbox", ours_once, foolbox_once)
    bench.finish(WANTED, given.json, device=compute.hardware, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
