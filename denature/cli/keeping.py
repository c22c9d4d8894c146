"""Commands that look after what was kept: denature runs, answers."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from denature.answers.config import Asking
from denature.cli.options import (
    AskingOptions,
    ReadingOptions,
    RunFolder,
    Showing,
    ShowingOptions,
    Surviving,
    Trust,
    data_config,
)
from denature.core.errors import ConfigError
from denature.core.stopping import seconds_of
from denature.data.config import Reading
from denature.train.config import Augment, Device, Precision

if TYPE_CHECKING:
    from denature.answers.store import Found

Flag = Parameter(negative="")
FILLING = Group("Filling ahead", sort_key=1)


def runs(
    *places: Path,
    compare: Annotated[bool, Flag] = False,
    prune: tuple[str, ...] = (),
    yes: Annotated[bool, Flag] = False,
    showing: ShowingOptions = Showing(),
) -> None:
    """List runs, compare them, or remove what nobody needs of them.

    Args:
        places: Folders of runs, or folders that hold some; runs/ by default.
        compare: Show only what is not the same in all of them.
        prune: What to remove: `unfinished` runs, `snapshots`, `events`, or `runs` as a whole.
        yes: Remove it; without, only say what would be removed.
    """
    from denature.train.listing import find, prunable

    found = find(places or (Path("runs"),))
    if prune:
        targets = [(what, it) for what in prune for it in prunable(found, what)]
        _prune([(path, f"{what} of {it.folder}") for what, (it, path) in targets], yes, showing)
        return
    if showing.json:
        for run in found:
            print(json.dumps(run.plain()))
        return
    _print_runs(found, compare)


def _print_runs(found: Sequence[Any], compare: bool) -> None:
    from denature.cli.show import print_table
    from denature.report.words import marked, percent
    from denature.train.identity import what_varies

    if compare:
        varied = what_varies([run.plan for run in found])
        head, rows = list(varied[0]), [list(map(_short, values.values())) for values in varied]
    else:
        head = ["Kind", "Network", "Seed", "Asked"]
        rows = [[run.kind, run.net, _short(run.seed), _near(run.asked or "")] for run in found]
    lines = [["Run", "State", *head, "Accuracy %"]]
    for run, row in zip(found, rows, strict=True):
        accuracy = marked(percent(run.accuracy), run.chosen_on_test) if run.accuracy else ""
        lines.append([_near(str(run.folder)), run.state, *row, accuracy])
    print_table(lines)
    done = sum(run.state == "finished" for run in found)
    print(f"\n{len(found)} runs, {done} of them finished.")


def _near(path: str) -> str:
    """A path from here, where that is shorter."""
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
    reading: ReadingOptions = Reading(),
    asking: AskingOptions = Asking(),
    showing: ShowingOptions = Showing(),
) -> None:
    """List stored answers, verify them, remove them, or ask ahead of time.

    Args:
        place: A folder of stores; that of the cache by default.
        verify: Look at every answer.
        prune: Remove stores: `all`, `damaged`, or those not used for a time such as 30d.
        yes: Remove them; without, only say which would be removed.
        fill: A run to ask about all views of the training images of `--data`.
        data: What to ask it about.
        augment: How training will view them.
        epochs: Ask only what so many epochs under `--view-seed` will ask.
        view_seed: The view seed of that training.
        device: Where to compute.
        precision: In which precision; that of the later training.
        time_limit: Stop after this time, such as 9m, with exit code 75; what was asked is kept.
        trust: A module of your own that the run's record may import.
    """
    from denature.answers.opening import answers_root
    from denature.answers.store import find_stores

    root = place or answers_root()
    if fill is not None:
        from denature.train import load_run
        from denature.train.answering import fill as ask_ahead

        if data is None:
            raise ConfigError("--fill needs --data: what to ask the run about.")
        stopper = Surviving(time_limit=time_limit).stopper()
        with stopper.on_signals():
            ask_ahead(
                load_run(fill, trust=trust),
                data_config(data, reading),
                augment=augment,
                epochs=epochs,
                view_seed=view_seed,
                asking=asking,
                device=device,
                precision=precision,
                store="auto" if place is None else str(place),
                stopper=stopper,
                progress=showing.display(),
            )
    elif data is not None:
        raise ConfigError("--data was given without --fill, the run to ask about it.")
    stores = find_stores(root)
    if prune is not None:
        chosen = [store for store in stores if _to_prune(store, prune)]
        _prune([(store.folder, _about(store)) for store in chosen], yes, showing)
        return
    _print_stores(root, stores, verify, showing)


def _to_prune(store: "Found", what: str) -> bool:
    if what == "all":
        return True
    if what == "damaged":
        return store.key is None
    return time.time() - store.used > seconds_of(what)


def _about(store: "Found") -> str:
    if store.key is None:
        return "damaged"
    return f"{store.about.get('kind', '')} {store.key.net} on {store.about.get('data', '?')}"


def _print_stores(root: Path, stores: Sequence["Found"], verify: bool, showing: Showing) -> None:
    from denature.cli.show import print_table

    lines = [["Store", "Answers of", "Kept as", "Views", "MB", "Present", "Damaged"]]
    plain = []
    display = showing.display()
    for store in stores:
        entry: dict[str, Any] = {
            "folder": str(store.folder), "bytes": store.nbytes, "used": store.used,
            "key": None if store.key is None else asdict(store.key), "about": store.about,
        }  # fmt: skip
        present = damaged = storage = views = ""
        if store.key is not None:
            storage = f"{store.key.storage}, {store.key.form.get('precision', '')}"
            views = str(store.key.view_count)
            if verify or showing.json:
                with display.task(f"verifying {store.folder.name}", 0, "answers"):
                    standing = store.open().standing()
                entry |= asdict(standing)
                present = f"{standing.present / standing.total:.1%}"
                damaged = str(standing.damaged)
        plain.append(entry)
        megabytes = f"{store.nbytes / 1e6:.1f}"
        lines.append(
            [store.folder.name, _about(store), storage, views, megabytes, present, damaged]
        )
    if showing.json:
        for entry in plain:
            print(json.dumps(entry))
        return
    if stores:
        print_table(lines if verify else [line[:-2] for line in lines])
        print()
    total = sum(store.nbytes for store in stores) / 1e6
    print(f"{len(stores)} stores in {root}, {total:,.1f} MB.")


def _prune(targets: Sequence[tuple[Path, str]], yes: bool, showing: Showing) -> None:
    """Remove folders, or say which would be removed."""
    import shutil

    for path, about in targets:
        if yes and path.exists():  # it may lie in one that is gone already
            shutil.rmtree(path)
        if not showing.json:
            print(f"{'removed' if yes else 'would remove'} {path} ({about})")
    if showing.json:
        print(json.dumps({"removed" if yes else "would_remove": [str(p) for p, _ in targets]}))
    elif not yes:
        print(f"{len(targets)} to remove. Pass --yes to do it.")
