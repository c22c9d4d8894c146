"""How fast our PGD is, in ratios of things measured in turns in one run.

    python -m benchmarks.attacks [--json FILE] [--device cpu] [--quick]

PGD-20 on `cnn`, in linf, against twenty bare forward and backward passes to the same images, and
against the PGD of Foolbox, and of ART and torchattacks where they are installed (`pip install
--no-deps adversarial-robustness-toolbox torchattacks`), with as many steps. All in fp32 and in our
memory layout. Images are random bytes of the shape of CIFAR-10. Before anything is timed, all are
compared by how many images they fool.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench import Bench
from denature.attacks import Ball, pgd
from denature.core.compute import resolve
from denature.core.memory import keep_freed_memory
from denature.nets import create

BATCH, STEPS = 128, 20

WANTED = {
    "pgd": "images/s, PGD-20 on `cnn` | 20 bare forward and backward passes | >= 0.9",
    "pgd_foolbox": "the same | Foolbox's PGD-20 | ",
    "pgd_art": "the same | ART's PGD-20 | ",
    "pgd_torchattacks": "the same | torchattacks' PGD-20 | ",
}


def libraries(
    network: nn.Module, images: Tensor, labels: Tensor, ball: Ball
) -> dict[str, Callable[[], Tensor]]:
    """PGD of those that are installed, on these images."""
    import foolbox
    from foolbox.models.pytorch import PyTorchModel

    size = 2.5 * ball.epsilon / STEPS
    model = PyTorchModel(network, bounds=(0, 1), device=images.device)
    theirs = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=size)

    def of_foolbox() -> Tensor:
        _, changed, _ = theirs(model, images, labels, epsilons=ball.epsilon)
        return torch.as_tensor(changed)

    found: dict[str, Callable[[], Tensor]] = {"foolbox": of_foolbox}
    try:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        # It speaks NumPy at its border, which is counted, as whoever uses it pays it too.
        shape = tuple(images.shape[1:])
        device = "gpu" if images.is_cuda else "cpu"
        classifier = PyTorchClassifier(
            network, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type=device
        )
        art = ProjectedGradientDescent(
            classifier, eps=ball.epsilon, eps_step=size, max_iter=STEPS, batch_size=len(images),
            num_random_init=1, verbose=False,
        )  # fmt: skip
        plain = images.cpu().numpy(), labels.cpu().numpy()
        found["art"] = lambda: torch.from_numpy(art.generate(*plain)).to(images)
    except ImportError:
        print("ART is not installed: left out.")
    try:
        import torchattacks

        attack = torchattacks.PGD(network, eps=ball.epsilon, alpha=size, steps=STEPS)
        found["torchattacks"] = lambda: torch.as_tensor(attack(images, labels))
    except ImportError:
        print("torchattacks is not installed: left out.")
    return found


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
    compute = resolve(network, device=given.device, precision="fp32")
    network = compute.place(network).eval().requires_grad_(False)
    bytes_ = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    images = compute.pixels(bytes_.to(compute.device))
    with torch.no_grad():
        labels = network(images).argmax(1)
    ball = Ball(epsilon=2 / 255)
    theirs = libraries(network, images, labels, ball)

    def ours_once() -> int:
        pgd(network, images, labels, ball, steps=STEPS)
        return BATCH

    def once(attack: Callable[[], Tensor]) -> int:
        attack()
        return BATCH

    def bare() -> int:
        at = images.clone()
        for _ in range(STEPS):
            at.requires_grad_()
            torch.autograd.grad(F.cross_entropy(network(at), labels, reduction="sum"), at)
            at = at.detach()
        return BATCH

    bench = Bench(compute.device, repeats=3 if given.quick else 15)
    ours = pgd(network, images, labels, ball, steps=STEPS)
    changed = {"ours": ours, **{name: attack() for name, attack in theirs.items()}}
    for name, its in changed.items():
        assert float((its - images).abs().max()) <= ball.epsilon + 1e-5, name
        share = float((network(its).argmax(1) != labels).float().mean())
        bench.say(f"fooled_by_{name}", share, "of the images")
    bench.compare("pgd", ours_once, bare)
    for name, attack in theirs.items():
        bench.compare(f"pgd_{name}", ours_once, partial(once, attack))
    bench.finish(WANTED, given.json, device=compute.hardware, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
