"""Commands that manage what lies on disk: denature runs, answers."""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Group, Parameter

from denature.answers.config import InferenceConfig
from denature.cli.options import (
    InferenceOptions,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFolder,
    RunOptions,
    Trust,
    data_config,
)
from denature.cli.tabular import TableFlags, TableOptions
from denature.cli.terminal import print
from denature.core.errors import ConfigError, RunError
from denature.core.stopping import parse_duration
from denature.data.config import ReaderConfig
from denature.train.config import Augment, Device, Precision

if TYPE_CHECKING:
    from denature.answers.store import StoreInfo

Flag = Parameter(negative="")
FILLING = Group("Filling a store", sort_key=1)


class Removal(NamedTuple):
    """A folder that pruning removes."""

    path: Path
    about: str
    run: Path | None = None
    """Folder of its run, which is locked meanwhile: a run may have gone on since it was listed."""
    unfinished: bool = False
    """Whether it is removed because its run is not finished."""


def runs(
    *places: Path,
    compare: Annotated[bool, Flag] = False,
    prune: tuple[str, ...] = (),
    yes: Annotated[bool, Flag] = False,
    table_options: TableFlags = TableOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """List and compare runs, or remove unfinished runs, snapshots, events or whole runs.

    Args:
        places: Folders of runs, or folders that hold runs; runs/ by default.
        compare: Show only the options that differ between the runs.
        prune: Kind of folders to remove: `unfinished` or `damaged` runs, `snapshots`, `events`, or
            `runs` as a whole; repeat the option for several.
        yes: Remove the folders; without this option the command only lists them.
    """
    from denature.train.listing import find, prunable

    found = find(places or (Path("runs"),))
    if prune:
        targets = [
            Removal(path, f"{kind} of {run.folder}", run.folder, kind == "unfinished")
            for kind in prune
            for run, path in prunable(found, kind)
        ]
        _prune(targets, yes, output_options)
        return
    if output_options.json:
        for run in found:
            print(json.dumps(run.plain()))
        return
    _print_runs(found, compare, table_options)


def _print_runs(found: Sequence[Any], compare: bool, table_options: TableOptions) -> None:
    from denature.cli.show import print_table
    from denature.report.words import marked, percent
    from denature.train.identity import what_varies

    if compare:
        varied = what_varies([run.plan for run in found])
        pairs = sorted(zip(found, varied, strict=True), key=lambda pair: _order(pair[1].values()))
        found, varied = [run for run, _ in pairs], [values for _, values in pairs]
        head, rows = list(varied[0]), [list(map(_short, values.values())) for values in varied]
    else:
        head = ["Kind", "Network", "Seed", "Source"]
        rows = [[run.kind, run.net, _short(run.seed), _near(run.source or "")] for run in found]
    lines = [["Run", "State", *head, "Accuracy %"]]
    for run, row in zip(found, rows, strict=True):
        accuracy = marked(percent(run.accuracy), run.chosen_on_test) if run.accuracy else ""
        lines.append([_near(str(run.folder)), run.state, *row, accuracy])
    if table_options.print([lines]):
        return
    print_table(lines)
    done = sum(run.state == "finished" for run in found)
    print(f"\n{len(found)} runs, {done} of them finished.")


def _order(values: Iterable[Any]) -> list[tuple[bool, float, str]]:
    """Key that sorts by settings: numbers by size, then texts."""
    return [
        (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, str(value))
        for value in values
    ]


def _near(path: str) -> str:
    """The path relative to the working directory, where that is shorter."""
    return min(path, os.path.relpath(path), key=len) if os.sep in path else path


def _short(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def answers(
    place: Path | None = None,
    *,
    verify: Annotated[bool, Flag] = False,
    prune: str | None = None,
    yes: Annotated[bool, Flag] = False,
    fill: Annotated[RunFolder | None, Parameter(group=FILLING)] = None,
    data: Annotated[str | None, Parameter(group=FILLING)] = None,
    augment: Annotated[Augment, Parameter(group=FILLING)] = "auto",
    epochs: Annotated[int | None, Parameter(group=FILLING)] = None,
    view_seed: Annotated[int, Parameter(group=FILLING)] = 0,
    device: Annotated[Device, Parameter(group=FILLING)] = "auto",
    precision: Annotated[Precision, Parameter(group=FILLING)] = "auto",
    time_limit: Annotated[str | None, Parameter(group=FILLING)] = None,
    trust: Trust = (),
    reading: ReadingOptions = ReaderConfig(),
    inference: InferenceOptions = InferenceConfig(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """List, verify or remove stored answers, or fill a store ahead of training.

    Args:
        place: A folder of stores; that of the cache by default.
        verify: Check every answer, and count those present and damaged.
        prune: Stores to remove: `all`, `damaged`, or those not used for a time such as 30d.
        yes: Remove the stores; without this option the command only lists them.
        fill: Folder of a run whose answers to all views of the training images of `--data` are
            stored.
        data: The data set to fill with: digits; a folder of Parquet shards or images; an .npz; or
            hf:owner/name.
        augment: Augmentation of the later training.
        epochs: Store only the views that this many epochs under `--view-seed` need.
        view_seed: View seed of the later training.
        device: Device to compute on.
        precision: Precision of inference; use that of the later training.
        time_limit: Stop with exit code 75 after this time, such as 9m; answers so far are kept.
        trust: A module of your own that the run's record may import; repeat the option for several.
    """
    from denature.answers.opening import answers_root
    from denature.answers.store import find_stores

    root = place or answers_root()
    if fill is not None:
        from denature.train import load_run
        from denature.train.answering import fill as fill_store

        if data is None:
            raise ConfigError("--fill needs --data: the data set whose views are to be answered.")
        with RunOptions(time_limit=time_limit).session(output_options, device) as session:
            fill_store(
                load_run(fill, trust=trust),
                data_config(data, reading),
                augment=augment,
                epochs=epochs,
                view_seed=view_seed,
                inference=inference,
                device=device,
                precision=precision,
                store="auto" if place is None else str(place),
                session=session,
            )
    elif data is not None:
        raise ConfigError("--data was given without --fill, the run whose answers are stored.")
    stores = find_stores(root)
    if prune is not None:
        chosen = [store for store in stores if _to_prune(store, prune)]
        _prune([Removal(store.folder, _about(store)) for store in chosen], yes, output_options)
        return
    _print_stores(root, stores, verify, output_options)


def _to_prune(store: "StoreInfo", selection: str) -> bool:
    if selection == "all":
        return True
    if selection == "damaged":
        return store.key is None
    return time.time() - store.used > parse_duration(selection)


def _about(store: "StoreInfo") -> str:
    if store.key is None:
        return "damaged"
    return f"{store.about.get('kind', '')} {store.key.net} on {store.about.get('data', '?')}"


def _print_stores(
    root: Path, stores: Sequence["StoreInfo"], verify: bool, output_options: OutputOptions
) -> None:
    from denature.cli.show import print_table

    lines = [["Store", "Answers of", "Kept as", "Views", "MB", "Present", "Damaged"]]
    plain = []
    display = output_options.display()
    for store in stores:
        entry: dict[str, Any] = {
            "folder": str(store.folder), "bytes": store.nbytes, "used": store.used,
            "key": None if store.key is None else asdict(store.key), "about": store.about,
        }  # fmt: skip
        present = damaged = storage = views = ""
        if store.key is not None:
            storage = f"{store.key.storage}, {store.key.form.get('precision', '')}"
            views = str(store.key.view_count)
            if verify or output_options.json:
                with display.task(f"verifying {store.folder.name}", 0, "answers"):
                    state = store.open().standing()
                entry |= asdict(state)
                present = f"{state.present / state.total:.1%}"
                damaged = str(state.damaged)
        plain.append(entry)
        megabytes = f"{store.nbytes / 1e6:.1f}"
        lines.append(
            [store.folder.name, _about(store), storage, views, megabytes, present, damaged]
        )
    if output_options.json:
        for entry in plain:
            print(json.dumps(entry))
        return
    if stores:
        print_table(lines if verify else [line[:-2] for line in lines])
        print()
    total = sum(store.nbytes for store in stores) / 1e6
    print(f"{len(stores)} stores in {root}, {total:,.1f} MB.")


def _prune(targets: Sequence[Removal], yes: bool, output_options: OutputOptions) -> None:
    """Remove folders, or list the folders that `--yes` would remove."""
    done = [target for target in targets if not yes or _removed(target)]
    if output_options.json:
        paths = [str(target.path) for target in done]
        print(json.dumps({"removed" if yes else "would_remove": paths}))
        return
    for target in done:
        print(f"{'removed' if yes else 'would remove'} {target.path} ({target.about})")
    if not yes:
        print(f"{len(targets)} to remove. Pass --yes to remove them.")


def _removed(target: Removal) -> bool:
    """Remove a folder; False where another process is at work in it, or has finished its run."""
    import shutil

    from denature.core.record import RECORD
    from denature.train.run import locked

    if target.path.is_symlink():  # what it points to is no part of a run
        target.path.unlink()
        return True
    if not target.path.exists():  # it may lie inside a folder that was removed just before
        return True
    try:
        with nullcontext() if target.run is None else locked(target.run):
            if target.unfinished and (target.path / RECORD).exists():
                raise RunError("it is finished now.")
            # The lock's own file goes with the lock: Windows removes no open file.
            for entry in target.path.iterdir():
                if entry.name.endswith(".lock"):
                    continue
                shutil.rmtree(
                    entry
                ) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(target.path)
    except (RunError, OSError) as error:
        print(f"left {target.path}: {error}", file=sys.stderr)
        return False
    return True
