"""denature audit: what the worst thief gets of a model at each budget, behind each defense."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from denature.audit.config import AuditConfig
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
from denature.cli.terminal import print
from denature.core.errors import ConfigError, GateFailed
from denature.core.threads import default_workers
from denature.data.config import ReaderConfig
from denature.recipes.models import ModelOptions
from denature.remote.config import RequestConfig
from denature.train.config import Device

if TYPE_CHECKING:
    from denature.audit.result import AuditResult

PLAN = Group("Plan", sort_key=0)
PACE = Group("Requests", sort_key=2)


def audit(
    model: str,
    /,
    *,
    data: Data,
    pool: Annotated[str | None, FromFile] = None,
    other_pool: Annotated[str | None, FromFile] = None,
    backbone: Annotated[str | None, FromFile] = None,
    encoder: Annotated[RunFolder | None, FromFile] = None,
    config: Annotated[AuditConfig, Parameter(name="*", group=PLAN), FromFile] = AuditConfig(),
    epochs: Annotated[int, FromFile] = 30,
    seed: Annotated[int, FromFile] = 0,
    estimate: Annotated[bool, Parameter(negative="")] = False,
    fail_above: Annotated[float | None, FromFile] = None,
    model_options: ModelFlags = ModelOptions(),
    max_queries: Annotated[int | None, FromFile] = None,
    max_cost: Annotated[float | None, FromFile] = None,
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE), FromFile] = RequestConfig(),
    scope: Scope = "",
    out: Path | None = None,
    device: Device = "auto",
    trust: Trust = (),
    reading: ReadingOptions = ReaderConfig(),
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Audit a model: which thief clones it with how many queries, and what each defense leaves.

    Every thief queries the model behind every defense, and trains clones on what is shown. The
    report counts the worst thief at each budget: how much of the model's advantage over a thief
    without queries it recovers, the number of queries to half of it (the figure for a limit on
    queries), and what each defense costs honest users. Audit only models that you are allowed to
    query.

    Args:
        model: The folder of a run; a file of weights, with --net; hf:owner/name, timm:NAME or
            torchvision:NAME; a file that torch.export or ONNX wrote; package.module:function, from
            float32 images in [0, 1] to answers; the URL of an Open Inference server; a .toml
            description of another HTTP API, see `denature rest`.
        data: Labelled data of the model's classes; the test split measures.
        pool: Images that the thief queries with; the training images of --data by default, without
            their labels.
        other_pool: Images of another domain, for the thief that has no others.
        backbone: A pretrained network that a thief may start from: the folder of a run, or
            timm:NAME or torchvision:NAME.
        encoder: The folder of a public run whose layers except the last are known to be the
            model's, for the thief that solves for the last layer.
        epochs: Epochs of the clones at least, where a strategy names no other; few images are
            repeated for 500 steps.
        seed: Seed of clones, queries and defenses.
        estimate: Print the plan with cells, queries, attempts, dollars and time, at most, and stop.
            A model that is no run, and does not state that it answers with labels, is asked four
            images, which count.
        fail_above: Exit with 3 where the worst thief recovers more than this share of the advantage
            behind the best defense, and write junit.xml; for continuous integration.
        max_queries: Images that the model is asked about, at most; answers are kept, and no image
            is asked twice.
        max_cost: US dollars for these queries, at most, with --price-per-1000; the limit that is
            reached first ends the audit.
        scope: Scope and permission of the test, such as a contract's number and what it covers; the
            result keeps it, and the page shows it first.
        out: Folder for cells, tables and report, from which a stopped audit resumes; by default one
            under runs/.
        device: Device to compute on.
        trust: A module of your own that a run's record may import, or a .pt2 file that may be
            loaded although this can execute code; repeat the option for several.
    """
    from denature.audit.line import line
    from denature.cli.show import show
    from denature.recipes.commands import audit_of
    from denature.recipes.runner import run

    if fail_above is not None and not 0 <= fail_above <= 1:
        raise ConfigError(f"--fail-above is {fail_above}; it is a share in [0, 1].")
    experiment = audit_of(
        model,
        data_config(data, reading),
        pool=pool,
        other_pool=other_pool,
        backbone=backbone,
        encoder=encoder,
        config=config,
        epochs=epochs,
        seed=seed,
        options=model_options,
        max_queries=max_queries,
        max_cost=max_cost,
        pace=pace,
        scope=scope,
        out=out,
        device=device,
        trust=trust,
    )
    with run_options.session(output_options, device, default_workers=default_workers()) as session:
        if estimate:
            for sentence in experiment.estimate(session):
                print(sentence)
            return
        experiment.announce(session)
        outcome = run(experiment, session)
    if output_options.json:
        print(line(outcome.result, seconds=outcome.seconds or 0.0, report=outcome.report))
    else:
        show(outcome, output_options)
    if fail_above is not None:
        _gate(outcome.result, fail_above, outcome.folder)


def _gate(result: "AuditResult", share: float, folder: Path) -> None:
    """Write the JUnit file.

    Raises:
        GateFailed: no defense keeps the worst thief at or below the share.
    """
    from denature.audit.gate import JUNIT, best_defense, junit
    from denature.core.files import write_text

    write_text(folder / JUNIT, junit(result, share))
    best = best_defense(result)
    if best is None:
        print(
            "The gate holds, and shows nothing: no recovered advantage is measurable here; the "
            "verdict says why.",
            file=sys.stderr,
        )
    elif best[1] > share:
        raise GateFailed(
            f"The worst thief recovers {100 * best[1]:.1f} % of the model's advantage behind the "
            f"best defense, {best[0]}; --fail-above allows {100 * share:g} %. {folder / JUNIT} "
            "lists every defense. Add a stronger one by --defense, or limit a client's queries."
        )
