"""denature invert: images reconstructed from a network's weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from denature.cli.options import OutputFlags, OutputOptions, RunFolder, Trust
from denature.core.errors import ConfigError
from denature.datafree.config import Inversion
from denature.train.config import Device

INVERSION = Group("Inversion", sort_key=1)


def invert(
    network: RunFolder,
    *,
    judge: RunFolder | None = None,
    student: RunFolder | None = None,
    images: int = 100,
    out: Path = Path("inverted"),
    seed: int = 0,
    device: Device = "auto",
    trust: Trust = (),
    config: Annotated[Inversion, Parameter(name="*", group=INVERSION)] = Inversion(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Reconstruct images from a network's weights, without any data (DeepInversion).

    Args:
        network: The run whose weights the thief has; its network needs 2-D batch norms.
        judge: An independently trained run; the share of images that it assigns to the wanted class
            measures the attack.
        student: A run whose answers should disagree with the network's, for `--compete`.
        images: Number of images to make; their classes take turns.
        out: Stem of the files: .npz with the images, .svg and .png with a grid of the first ones.
        seed: Seed of the noise from which the images start.
        device: Device to compute on.
        trust: A module of your own that a run's record may import; repeat the option for several.
    """
    import numpy as np
    import torch

    from denature.core.compute import resolve
    from denature.core.files import atomic_path
    from denature.data.png import to_png
    from denature.datafree.deepinversion import agreement
    from denature.datafree.deepinversion import invert as make_images
    from denature.report import analysis_figures
    from denature.report.figures import write_figure
    from denature.report.words import percent
    from denature.train import load_run
    from denature.train.classes import alike

    if images < 1:
        raise ConfigError(f"images is {images}; it must be at least 1.")
    if student is not None and not config.compete:
        raise ConfigError("--student is only used where --compete is above 0; give both.")
    run = load_run(network, trust=trust)
    net = run.record.net
    others = {}
    display = output_options.display()
    for role, folder in (("judge", judge), ("student", student)):
        if folder is not None:
            others[folder] = alike(role, load_run(folder, trust=trust), run, progress=display)
    compute = resolve(run.network, device=device, precision="fp32")
    targets = torch.arange(images) % net.classes
    made = make_images(
        run.network,
        targets,
        config,
        channels=net.channels,
        image_size=net.image_size,
        compute=compute,
        seed=seed,
        student=None if student is None else others[student].network,
        progress=display,
    )
    arrays, grid = (out.with_name(f"{out.name}{suffix}") for suffix in (".npz", ".png"))
    with atomic_path(arrays) as path, open(path, "wb") as file:
        pixels = (made * 255).round().to(torch.uint8).numpy()
        np.savez_compressed(file, x_train=pixels, y_train=targets.numpy())
    shown = [to_png(image) for image in pixels[: 2 * min(10, net.classes)]]
    title = f"images from the weights of {network}"
    write_figure(out, lambda: analysis_figures.images(shown, run.classes, title=title))
    own = agreement(run.network, made, targets, compute)
    found = {"images": str(arrays), "count": images, "network": asdict(own)}
    summary = f"{images} images; the network assigns {percent(own)} % of them to the wanted class"
    if judge is not None:
        agreed = agreement(others[judge].network, made, targets, compute)
        found["judge"] = asdict(agreed)
        summary += f", {judge} {percent(agreed)} %"
    print(json.dumps(found) if output_options.json else f"{summary}. Look at {grid}")
