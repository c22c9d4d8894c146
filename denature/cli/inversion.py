"""denature invert: images reconstructed from a network's weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from denature.cli.options import FromFile, OutputFlags, OutputOptions, RunFolder, Trust
from denature.cli.terminal import print
from denature.datafree.config import Inversion
from denature.train.config import Device

INVERSION = Group("Inversion", sort_key=1)


def invert(
    network: RunFolder,
    *,
    judge: RunFolder | None = None,
    student: Annotated[RunFolder | None, Parameter(name="--student-run")] = None,
    images: Annotated[int, FromFile] = 100,
    out: Path = Path("inverted"),
    seed: Annotated[int, FromFile] = 0,
    device: Device = "auto",
    trust: Trust = (),
    config: Annotated[Inversion, Parameter(name="*", group=INVERSION), FromFile] = Inversion(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Reconstruct images from a network's weights, without any data (DeepInversion).

    Args:
        network: The run whose weights the thief has; its network needs 2-D batch norms.
        judge: An independently trained run; the share of images that it assigns to the wanted class
            measures the attack.
        student: A run whose answers should disagree with the network's, for `--compete-weight`.
        images: Number of images to make; their classes take turns.
        out: Stem of the files: .npz with the images, .svg and .png with a grid of the first ones.
        seed: Seed of the noise from which the images start.
        device: Device to compute on.
        trust: A module of your own that a run's record may import; repeat the option for several.
    """
    from denature.recipes.inversion import invert_run
    from denature.report.words import percent
    from denature.train import load_run

    others = {
        role: load_run(folder, trust=trust)
        for role, folder in (("judge", judge), ("student", student))
        if folder is not None
    }
    result = invert_run(
        load_run(network, trust=trust),
        config,
        images=images,
        out=out,
        judge=others.get("judge"),
        student=others.get("student"),
        seed=seed,
        device=device,
        progress=output_options.display(),
    )
    if output_options.json:
        shares = {"network": asdict(result.network)}
        if result.judge is not None:
            shares["judge"] = asdict(result.judge)
        print(json.dumps({"images": str(result.images), "count": result.count, **shares}))
        return
    agreed = "" if result.judge is None else f", {judge} {percent(result.judge)} %"
    print(
        f"{result.count} images; the network assigns {percent(result.network)} % of them to the "
        f"wanted class{agreed}. Look at {result.figure}"
    )
