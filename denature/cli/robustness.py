"""denature robustness and flatness: do answers hold when images or weights are changed a little?"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from denature.cli.options import (
    Data,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFlags,
    RunFolder,
    RunOptions,
    Trust,
    data_config,
    key_of,
)
from denature.data.config import ReaderConfig
from denature.extract.config import RequestConfig
from denature.robust.config import AttackConfig
from denature.train.config import Device

if TYPE_CHECKING:
    from denature.extract.victims.base import Victim
    from denature.train.run import Run

ATTACKS = Group("Attacks", sort_key=1)
PACE = Group("How servers are asked", sort_key=2)


def is_url(target: str) -> bool:
    return re.match(r"https?://", target) is not None


def robustness(
    *targets: str,
    data: Data,
    undefended: Annotated[tuple[RunFolder, ...], Parameter(consume_multiple=True)] = (),
    controls: int = 3,
    budget: int | None = None,
    model: str | None = None,
    output: str | None = None,
    kind: Literal["logits", "probabilities", "label"] | None = None,
    key_file: Path | None = None,
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE)] = RequestConfig(),
    asked: Annotated[AttackConfig, Parameter(name="*", group=ATTACKS)] = AttackConfig(),
    out: Path | None = None,
    device: Device = "auto",
    trust: Trust = (),
    reading: ReadingOptions = ReaderConfig(),
    surviving: RunFlags = RunOptions(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Attack networks with small changes of images, and say whether what looks robust is.

    FGSM, PGD, the same on the logits and with the temperature put back, transfer from an undefended
    network, random squares, Carlini-Wagner, DeepFool, few pixels and AutoAttack, on the same test
    samples. Each network is compared with undefended ones of several seeds: more robust, no
    evidence, mostly an illusion, or an illusion. A service that only answers is attacked by random
    squares, transfer and HopSkipJump, within a budget; attack only services that you are allowed to
    attack.

    Args:
        targets: The folders of runs; the URLs of Open Inference servers; package.module:function,
            from float32 images in [0, 1] to answers.
        data: What they were trained on.
        undefended: Normally trained runs to compare with, which differ in seeds alone; by default
            those among `targets`.
        controls: How many undefended networks there must be; what is missing is trained for this.
            With 1 the spread between seeds is unknown, and nothing is called more robust.
        budget: Queries that each server or function may be asked; all answers are kept, and none
            is asked for twice.
        model: Which of a server's models; the only one by default.
        output: Which of the model's outputs; the only one by default.
        kind: What a server's or a function's answers are, where it does not say.
        key_file: A file with the key for servers; by default the environment's DENATURE_KEY.
        out: Folder for everything; what lies there is not done again. By default one under runs/.
        device: Where to compute.
        trust: A module of your own that a run's record may import.
    """
    from denature.cli.show import print_table
    from denature.extract.victims.find import find, short_name
    from denature.recipes.robustness import robustness as attack
    from denature.train.run import load_run

    key = key_of(key_file) if any(map(is_url, targets)) else None

    def who(target: str) -> "Run | Victim":
        if ":" not in target or Path(target).is_dir():
            return load_run(Path(target), trust=trust)
        its_key = key if is_url(target) else None
        return find(
            target, model=model, output=output, kind=kind, key=its_key, pace=pace, trust=trust
        )

    loaded = [who(target) for target in targets]
    plain = [load_run(run, trust=trust) for run in undefended]
    names = "-".join(re.sub(r"[^\w.=@+]+", "-", short_name(it)) for it in targets[:2])
    folder = out or Path("runs") / f"robustness-of-{names}"
    stopper = surviving.stopper()
    with stopper.on_signals():
        found = attack(
            loaded,
            data_config(data, reading),
            asked,
            folder,
            undefended=plain,
            controls=controls,
            budget=budget,
            pace=pace,
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
    for name, spent in found.queries.items():
        print(f"{name}: {spent:,} queries.")
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
    reading: ReadingOptions = ReaderConfig(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Look around networks' weights: are their minima flat, and do answers follow the image less?

    On training images, by the loss that each network was trained with: accuracy and loss under
    random changes of the weights, the Hessian's largest eigenvalue, a map of the loss. On test
    images: how much answers move with the image. Side by side.

    Args:
        runs: The folders of runs.
        data: What they were trained on.
        samples: Training samples, and as many test samples, of each class its share.
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
        trust=trust,
        device=device,
        progress=showing.display(),
    )
    if showing.json:
        print(found.to_json())
        return
    print_table(found.lines)
    print(f"Look at {folder / 'report.html'}")
