"""Run experiment folders, and leave in them what the official scripts leave.

A run writes `training.log`, `best_model.tar` and `last_model.tar` beside `params.json`, in the
official layout, so that each code reads the files of the other. The run of this package lies in
`run/`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from denature.core.errors import RunError
from denature.core.files import atomic_path, write_text
from denature.core.record import RECORD
from denature.core.untrusted import read_json
from denature.core.weights import read_weights, unwrapped
from denature.data import DataConfig, Dataset, load
from denature.nets.normalize import Normalized
from denature.recipes.data_root import data_at
from denature.recipes.upstream.folders import (
    BEST,
    DATA,
    LAST,
    LOG,
    OWN,
    PARAMS,
    STATISTICS,
    ExperimentFolder,
    Overrides,
    net_of,
)
from denature.train import Order, Run, import_run, load_run, make
from denature.train.learner import Learner
from denature.train.run import PLAN, STATE_FOLDER
from denature.train.session import Session


def run_all(
    folders: Sequence[ExperimentFolder],
    overrides: Overrides,
    *,
    overwrite: bool = False,
    session: Session | None = None,
) -> Iterator[tuple[ExperimentFolder, Run]]:
    """Run sorted folders one after the other; finished runs are loaded.

    Raises:
        DenatureError: see `denature.core.errors`.
        Stopped: a stop was requested; the same call resumes the work.
    """
    session = session or Session()
    made: dict[Path, Run] = {}
    for folder in folders:
        name = DATA[folder.params.dataset]
        data = load(
            DataConfig(source=data_at(overrides.data_root, name)), progress=session.progress
        )
        inputs = {
            role: _input(folder, role, checkpoint, made, data)
            for role, checkpoint in folder.needs.items()
        }
        asks = folder.objective.asks
        order = Order(
            net=folder.net,
            objective=folder.objective,
            training=folder.training,
            source=None if asks is None else inputs[asks],
            init=inputs.get("init"),
            statistics=STATISTICS[name],
            out=folder.path / OWN,
        )
        [run] = make(
            [order],
            data,
            overwrite=overwrite,
            watch=lambda order, learner: _leave(Path(str(order.out)).parent, learner),
            session=session,
        )
        made[folder.path] = run
        if not (folder.path / BEST).exists():  # a finished run keeps no optimizer moments
            _keep(folder.path / BEST, run.record.chosen_epoch or 0, run.network, {})
        yield folder, run


def _input(
    folder: ExperimentFolder, role: str, checkpoint: Path, made: Mapping[Path, Run], data: Dataset
) -> Run:
    """Load a teacher, adversary or start: a run of this package, or an official checkpoint."""
    own_run = checkpoint.parent / OWN
    if (own_run / STATE_FOLDER / PLAN).exists():
        raise RunError(
            f"{folder.path / PARAMS} names the {role} {checkpoint}, whose run was stopped before "
            f"its end. Run {checkpoint.parent} first; it resumes."
        )
    if checkpoint.name == BEST and (own_run / RECORD).exists():
        run = made.get(checkpoint.parent) or load_run(own_run)
        if not checkpoint.exists() or _is_of(checkpoint, run):
            return run
    if not checkpoint.exists():
        raise RunError(
            f"{folder.path / PARAMS} names the {role} {checkpoint}, which does not exist. Put it "
            f"there, or run {checkpoint.parent} first."
        )
    official = folder.params.model_name if role == "init" else folder.asked_net
    assert official is not None
    mean, std = STATISTICS[DATA[folder.params.dataset]]
    return import_run(
        net_of(official, folder.params),
        checkpoint,
        classes=len(data.classes),
        channels=data.channels,
        image_size=data.image_size,
        mean=mean,
        std=std,
    )


def _is_of(checkpoint: Path, run: Run) -> bool:
    """Whether a checkpoint holds the weights of this run, and not of another one."""
    own = _body(run.network).state_dict()
    stored = unwrapped(read_weights(checkpoint), own.keys())
    return stored.keys() == own.keys() and all(
        stored[name].layout == torch.strided
        and not stored[name].is_quantized
        and torch.equal(stored[name], own[name].cpu())
        for name in stored
    )


def _body(network: nn.Module) -> nn.Module:
    """The network without its normalisation, which official networks do not contain."""
    return network.body if isinstance(network, Normalized) else network


def _leave(folder: Path, learner: Learner) -> None:
    """Write the files of the official scripts after an epoch."""
    entry = learner.history[-1]
    for name in (LAST, BEST) if learner.chosen_epoch == entry.epoch else (LAST,):
        _keep(folder / name, entry.epoch, learner.network, learner.optimizer.state_dict())
    write_text(folder / LOG, "".join(f"{line}\n" for line in _log(folder, learner)))


def _keep(path: Path, epoch: int, network: nn.Module, moments: Mapping[str, Any]) -> None:
    """Write a checkpoint in the official layout."""
    weights = {name: value.cpu().clone() for name, value in _body(network).state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save({"epoch": epoch, "state_dict": weights, "optim_dict": moments}, temporary)


def _log(folder: Path, learner: Learner) -> Iterator[str]:
    """The lines of `training.log`, which is rewritten after each epoch.

    As in the official code, except for the loss on the test set, and for the two parts of a nasty
    teacher's loss, which are not measured here.
    """
    raw: dict[str, Any] = read_json(folder / PARAMS)
    yield from (f"{key}:{value}" for key, value in raw.items())
    best, best_epoch = -1.0, -1
    for entry in learner.history:
        yield f"Epoch {entry.epoch}/{learner.config.epochs}"
        yield f"Learning Rate {entry.lr}"
        yield f"- Train loss : {entry.loss:05.3f}"
        if entry.test_accuracy is None:
            continue
        percent = 100 * entry.test_accuracy
        yield f"- Eval metrics : acc: {percent:05.3f}"
        if percent > best:  # the earliest of equally good epochs is kept
            best, best_epoch = percent, entry.epoch
            yield "- New best model "
        yield f"- So far best epoch: {best_epoch}, best acc: {best:05.3f}"
