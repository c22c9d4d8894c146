"""denature robustness and flatness: answers under small changes of images and of weights."""

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from denature.cli.models import ModelFlags
from denature.cli.options import (
    Data,
    FromFile,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFlags,
    RunFolder,
    RunOptions,
    Scope,
    Trust,
    data_config,
)
from denature.data.config import ReaderConfig
from denature.recipes.models import ModelOptions
from denature.remote.config import RequestConfig
from denature.robust.config import AttackConfig
from denature.train.config import Device

ATTACKS = Group("Attacks", sort_key=0)
PACE = Group("Requests", sort_key=2)


def robustness(
    *targets: str,
    data: Data,
    undefended: Annotated[tuple[RunFolder, ...], Parameter(consume_multiple=True), FromFile] = (),
    controls: Annotated[int, FromFile] = 3,
    max_queries: Annotated[int | None, FromFile] = None,
    price_per_1000: Annotated[float | None, FromFile] = None,
    max_cost: Annotated[float | None, FromFile] = None,
    model_options: ModelFlags = ModelOptions(),
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE), FromFile] = RequestConfig(),
    attack_config: Annotated[
        AttackConfig, Parameter(name="*", group=ATTACKS), FromFile
    ] = AttackConfig(),
    scope: Scope = "",
    out: Path | None = None,
    device: Device = "auto",
    trust: Trust = (),
    reading: ReadingOptions = ReaderConfig(),
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Evaluate adversarial robustness and detect gradient masking.

    The attacks are FGSM, PGD, PGD on the logits and with the temperature put back, transfer from an
    undefended network, random squares, Carlini-Wagner, DeepFool, few pixels and AutoAttack, all on
    the same test samples. Each network is compared with undefended ones of several seeds; the
    verdict is more robust, no evidence, mostly an illusion, or an illusion. A service that returns
    answers only is attacked by random squares, transfer and HopSkipJump, within a budget of
    queries. Attack only services that you are allowed to attack.

    Args:
        targets: Folders of runs; files of weights, with --net; hf:owner/name, timm:NAME or
            torchvision:NAME; .onnx and .pt2 files; package.module:function, from float32 images in
            [0, 1] to answers; URLs of Open Inference servers; .toml descriptions of other HTTP
            APIs.
        data: The data set on which the networks were trained.
        undefended: Folders of normally trained runs to compare with, which differ in their seeds
            alone; by default the normally trained runs among `targets`.
        controls: Number of undefended networks to compare with; missing ones are trained. With 1
            the spread between seeds is unknown, and no network is called more robust.
        max_queries: Queries that each server or function may be sent in total; all answers are
            kept, and no query is repeated.
        price_per_1000: US dollars per thousand queries; a .toml description may state it.
        max_cost: US dollars for the queries to all servers and functions together, at most; the
            limit that is reached first ends the queries, and with this one --max-queries may be
            left out.
        scope: Scope and permission of the test, such as a contract's number and what it covers; the
            result keeps it, and the page shows it first.
        out: Folder for attacks, tables and report, from which a stopped evaluation resumes; by
            default one under runs/.
        device: Device to compute on.
        trust: A module of your own that a run's record may import; repeat the option for several.
    """
    from denature.cli.show import show
    from denature.recipes.commands import robustness_of
    from denature.recipes.runner import run

    evaluation = robustness_of(
        targets,
        data_config(data, reading),
        undefended=undefended,
        controls=controls,
        max_queries=max_queries,
        price_per_1000=price_per_1000,
        max_cost=max_cost,
        config=attack_config,
        options=model_options,
        pace=pace,
        scope=scope,
        out=out,
        device=device,
        trust=trust,
    )
    with run_options.session(output_options, device) as session:
        show(run(evaluation, session), output_options)


def flatness(
    *runs: RunFolder,
    data: Data,
    samples: Annotated[int, FromFile] = 500,
    directions: Annotated[int, FromFile] = 10,
    seed: Annotated[int, FromFile] = 0,
    scope: Scope = "",
    out: Path | None = None,
    device: Device = "auto",
    trust: Trust = (),
    reading: ReadingOptions = ReaderConfig(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Measure the flatness of minima, and the sensitivity of answers to the image.

    On training images, with the loss that each network was trained with: accuracy and loss under
    random changes of the weights, the Hessian's largest eigenvalue, a map of the loss. On test
    images: the norm of the Jacobian of logits and probabilities. The table shows the networks side
    by side.

    Args:
        runs: Folders of runs.
        data: The data set on which the networks were trained.
        samples: Number of training samples, and of test samples, balanced over classes.
        directions: Number of random changes of the weights.
        seed: Seed of samples and directions.
        scope: Scope and permission of the test, such as a contract's number and what it covers; the
            result keeps it, and the page shows it first.
        out: Folder for table, figures and report; by default one under runs/.
        device: Device to compute on.
        trust: A module of your own that a run's record may import; repeat the option for several.
    """
    from denature.cli.show import show
    from denature.recipes.commands import flatness_of
    from denature.recipes.runner import run
    from denature.train.session import Session

    display = output_options.display()
    comparison = flatness_of(
        runs,
        data_config(data, reading),
        samples=samples,
        directions=directions,
        seed=seed,
        scope=scope,
        out=out,
        device=device,
        trust=trust,
        progress=display,
    )
    show(run(comparison, Session(progress=display)), output_options)
