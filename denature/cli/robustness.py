"""denature robustness and flatness: do answers hold when images or weights are changed a little?"""

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from denature.cli.options import (
    Data,
    ReadingOptions,
    RunFolder,
    Showing,
    ShowingOptions,
    Surviving,
    SurvivingOptions,
    Trust,
    data_config,
)
from denature.data.config import Reading
from denature.robust.config import Asked
from denature.train.config import Device

ATTACKS = Group("Attacks", sort_key=1)


def robustness(
    *runs: RunFolder,
    data: Data,
    undefended: RunFolder | None = None,
    asked: Annotated[Asked, Parameter(name="*", group=ATTACKS)] = Asked(),
    out: Path | None = None,
    device: Device = "auto",
    trust: Trust = (),
    reading: ReadingOptions = Reading(),
    surviving: SurvivingOptions = Surviving(),
    showing: ShowingOptions = Showing(),
) -> None:
    """Attack networks with small changes of images, and say whether what looks robust is.

    FGSM, PGD, the same on the logits and with the temperature put back, transfer from an undefended
    network, random squares, Carlini-Wagner, DeepFool, few pixels and AutoAttack, on the same test
    samples. Each network is compared with the undefended one: more robust, no evidence, or an
    illusion.

    Args:
        runs: The folders of runs.
        data: What they were trained on.
        undefended: A normally trained run to compare with; by default the first of `runs` that is
            one, or one that is trained for this.
        out: Folder for everything; what lies there is not done again. By default one under runs/.
        device: Where to compute.
        trust: A module of your own that a run's record may import.
    """
    from denature.cli.show import print_table
    from denature.recipes.robustness import robustness as attack
    from denature.train.run import load_run

    loaded = [load_run(run, trust=trust) for run in runs]
    plain = None if undefended is None else load_run(undefended, trust=trust)
    names = "-".join(run.resolve().name for run in runs[:2])
    folder = out or Path("runs") / f"robustness-of-{names}"
    stopper = surviving.stopper()
    with stopper.on_signals():
        found = attack(
            loaded,
            data_config(data, reading),
            asked,
            folder,
            undefended=plain,
            device=device,
            keeping=surviving.keeping(),
            stopper=stopper,
            progress=showing.display(),
        )
    if showing.json:
        print(found.to_json())
        return
    print_table(found.lines)
    for it in found.judged:
        for check in it.checks:
            if check.raised:
                print(f"{it.robustness.run}: {check.name}: {check.found}")
        if it.verdict is not None:
            print(f"{it.robustness.run}: {it.verdict.word}. {it.verdict.said}")
    print(f"Look at {folder / 'report.html'}")


def flatness(
    *runs: RunFolder,
    data: Data,
    samples: int = 500,
    directions: int = 10,
    seed: int = 0,
    out: Path | None = None,
    device: Device = "auto",
    trust: Trust = (),
    reading: ReadingOptions = Reading(),
    showing: ShowingOptions = Showing(),
) -> None:
    """Look around networks' weights: are their minima flat, and do answers follow the image less?

    Accuracy and loss under random changes of the weights, the Hessian's largest eigenvalue, a map
    of the loss, and how much answers move with the image, side by side.

    Args:
        runs: The folders of runs.
        data: What they were trained on.
        samples: Test samples, of each class its share.
        directions: Random changes of the weights.
        seed: Rules samples and directions.
        out: Folder for table, figures and page; by default one under runs/.
        device: Where to compute.
        trust: A module of your own that a run's record may import.
    """
    from denature.cli.show import print_table
    from denature.recipes.flatness import flatness as look_around
    from denature.train.run import load_run

    loaded = [load_run(run, trust=trust) for run in runs]
    names = "-".join(run.resolve().name for run in runs[:2])
    folder = out or Path("runs") / f"flatness-of-{names}"
    found = look_around(
        loaded,
        data_config(data, reading),
        folder,
        samples=samples,
        directions=directions,
        seed=seed,
        device=device,
        progress=showing.display(),
    )
    if showing.json:
        print(found.to_json())
        return
    print_table(found.lines)
    print(f"Look at {folder / 'report.html'}")
