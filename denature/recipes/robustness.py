"""Runs attacked side by side with an undefended network, judged, and shown on one page."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from denature.core.errors import ConfigError
from denature.core.files import write_text
from denature.core.progress import SILENT, Progress
from denature.core.record import Record, environment
from denature.core.schema import decode
from denature.core.stopping import Stopper
from denature.data import DataConfig, Dataset, load
from denature.report import robustness as page
from denature.report.words import markdown
from denature.robust.config import Asked
from denature.robust.evaluate import Evidence, evaluate, summary
from denature.robust.masking import look
from denature.robust.target import PROBE, Target
from denature.robust.verdict import Judged, judge
from denature.train import Keeping, Normal, Order, Run, Training, make
from denature.train.config import Device
from denature.train.job import check_shape

UNDEFENDED_SEEDS = 2000
"""The undefended network starts from weights of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """All networks as they were named; the undefended one is the last, unless it was among them."""

    data: str
    judged: tuple[Judged, ...]
    lines: list[list[str]]
    """The table for people: header and lines."""
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, allow_nan=False)


def robustness(
    runs: Sequence[Run],
    data: str | DataConfig,
    asked: Asked,
    out: Path,
    *,
    undefended: Run | None = None,
    device: Device = "auto",
    keeping: Keeping | None = None,
    stopper: Stopper | None = None,
    progress: Progress = SILENT,
) -> Found:
    """Attack runs and say whether they are more robust than an undefended network.

    Args:
        runs: whose networks are attacked.
        data: whose test split is attacked; what each run was trained on.
        asked: how hard.
        out: folder for everything; what lies there is not done again.
        undefended: a normally trained run of such data; by default the first such among `runs`, or
            one that is trained as the first of them was, but normally.
        device: where to compute.
        keeping: how often a training's state is written.
        stopper: asked whether to stop.
        progress: told how far it is.

    Raises:
        ConfigError: a run of other data, or one that knows no classes.
        Stopped: the stopper wanted it; ask again to go on.
    """
    if not runs:
        raise ConfigError("No run was named; give at least one.")
    stopper = stopper or Stopper()
    dataset = load(data, progress=progress)
    for run in runs:
        check_shape("run", run, dataset)
    plain = undefended or next((run for run in runs if _is_plain(run.record)), None)
    if plain is None:
        plain = _trained(runs[0], dataset, out, device, keeping, stopper, progress)
    check_shape("undefended run", plain, dataset)
    everyone = [*runs, *([] if plain in runs else [plain])]
    rows = dataset.test.rows[:PROBE]
    images = dataset.test.images[rows].float().div(255)
    targets = {id(run): Target(run, images, device=device) for run in everyone}
    for target in targets.values():
        if target.shows_probabilities:
            progress.say(
                f"{target.name} puts out probabilities; their logarithms are attacked, since a "
                "softmax of probabilities would hide every gradient."
            )
    evidence = {
        id(run): evaluate(
            targets[id(run)],
            targets[id(plain)],
            dataset,
            asked,
            out / "attacks",
            stopper=stopper,
            progress=progress,
        )
        for run in everyone
    }
    judged = []
    for run in everyone:
        found, checks = evidence[id(run)], look(evidence[id(run)])
        verdict = None if run is plain else judge(found, evidence[id(plain)], checks)
        told = summary(found, asked, environment())
        judged.append(Judged(robustness=told, checks=tuple(checks), verdict=verdict))
    return _written(out, dataset, judged, [evidence[id(run)] for run in everyone], everyone)


def _is_plain(record: Record) -> bool:
    """Whether a run was trained on true labels as they are, and nothing else."""
    objective = record.config.get("objective", {})
    return (
        record.kind == "normal"
        and objective.get("temperature", 1.0) == 1
        and objective.get("smoothing", 0.0) == 0
    )


def _trained(
    like: Run,
    data: Dataset,
    out: Path,
    device: Device,
    keeping: Keeping | None,
    stopper: Stopper,
    progress: Progress,
) -> Run:
    """A normal run of the same network, trained as long as `like` was."""
    settings = {k: v for k, v in like.record.config.get("training", {}).items() if k != "device"}
    training = decode(Training, settings, where="the record") if settings else Training()
    training = replace(
        training,
        seed=training.seed + UNDEFENDED_SEEDS,
        view_seed=None,
        frozen=False,
        device=device,
    )
    progress.say("No undefended network was named; one is trained to compare with.")
    order = Order(
        net=like.record.net.name, objective=Normal(), training=training, out=out / "undefended"
    )
    [run] = make([order], data, keeping=keeping, stopper=stopper, progress=progress)
    return run


def _written(
    out: Path,
    data: Dataset,
    judged: Sequence[Judged],
    evidence: Sequence[Evidence],
    runs: Sequence[Run],
) -> Found:
    shown = [
        page.Shown(
            robustness=it.robustness,
            checks=it.checks,
            word=None if it.verdict is None else it.verdict.word,
            said=None if it.verdict is None else it.verdict.said,
            evidence=found,
        )
        for it, found in zip(judged, evidence, strict=True)
    ]
    lines = page.table(shown)
    found = Found(data=data.config.source, judged=tuple(judged), lines=lines, folder=out)
    page.write(out, shown, [run.record for run in runs], classes=data.classes)
    write_text(out / "table.md", markdown(lines) + "\n")
    write_text(out / "robustness.json", found.to_json() + "\n")
    return found
