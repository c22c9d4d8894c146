"""denature steal, ledger and speed: the thief's side of a wire."""

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from denature.cli.options import (
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFolder,
    TrainingOptions,
    Trust,
    data_config,
    folder_of,
    key_of,
)
from denature.core.errors import ConfigError
from denature.core.stopping import Stopper, seconds_of
from denature.data.config import ReaderConfig
from denature.extract.config import ExtractionConfig, RequestConfig
from denature.train.config import Device, Precision, Training
from denature.train.objectives import Cloned

STEALING = Group("What is asked", sort_key=1)
PACE = Group("How it is asked", sort_key=2)


def steal(
    target: str,
    *,
    pool: str,
    budget: Annotated[tuple[int, ...], Parameter(name=("--budget", "--budgets"))],
    student: str,
    backbone: str | None = None,
    model: str | None = None,
    output: str | None = None,
    kind: Literal["logits", "probabilities", "label", "landmarks"] | None = None,
    top: int = 0,
    key_file: Path | None = None,
    endpoint_url: str | None = None,
    test: str | None = None,
    price_per_1000: float | None = None,
    out: Path | None = None,
    time_limit: str | None = None,
    trust: Trust = (),
    stealing: Annotated[ExtractionConfig, Parameter(name="*", group=STEALING)] = ExtractionConfig(),
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE)] = RequestConfig(),
    objective: Annotated[Cloned, Parameter(name="*", group=STEALING)] = Cloned(),
    reading: ReadingOptions = ReaderConfig(),
    training: TrainingOptions = Training(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Ask a model about images within a budget, and train clones on what it answers.

    All that is asked and answered lies in a ledger; nothing is asked twice, whatever is killed. Ask
    only services that you are allowed to ask.

    Args:
        target: The URL of an Open Inference server, or of one of its models; rekognition, for
            faces, with boto3's usual credentials; a run's folder, to be asked without a wire; or
            package.module:function, from float32 images in [0, 1] to answers.
        pool: Images to ask with, whose labels nobody looks at: as for `denature train --data`, or
            noise.
        budget: Queries, such as 1000,5000: a fresh clone is trained for each.
        student: The clone's network, a name from `denature nets`.
        backbone: A run of the same network for clones to start from in all but its last layer, or
            the network's own name, such as timm:resnet18, for its published weights.
        model: Which of the server's models; the only one by default.
        output: Which of the model's outputs; the only one by default.
        kind: What its answers are, where it does not say.
        top: Ask for the largest so many values only; 0 for all.
        key_file: A file with the key for the server; by default the environment's DENATURE_KEY.
        endpoint_url: Of rekognition, who answers in its place, such as `denature serve`. Which
            landmarks are taken, `--points` says.
        test: Labelled images to measure with; the pool's own by default.
        price_per_1000: US dollars for a thousand queries.
        out: Folder for ledger, clones and report; by default one under runs/.
        time_limit: Stop after this time, such as 9m, with exit code 75; what was answered is kept.
        trust: A module of your own that a run's record may import.
    """
    from denature.cli.show import print_table
    from denature.extract.stealing import steal as carry_out
    from denature.extract.victims.find import REKOGNITION, find, short_name
    from denature.report.theft import table, verdict, write
    from denature.train.run import load_run

    if price_per_1000 is not None and price_per_1000 < 0:
        raise ConfigError(f"price_per_1000 is {price_per_1000}; it must be at least 0.")
    key = key_of(key_file) if key_file is not None or re.match("https?:", target) else None
    victim = find(
        target,
        model=model,
        output=output,
        kind=kind,
        top=top,
        key=key,
        endpoint_url=endpoint_url,
        values=reading.points if target == REKOGNITION else (),
        pace=pace,
        trust=trust,
    )
    start = None
    if (place := folder_of(backbone)) is not None:
        start = load_run(place, trust=trust)
    folder = (
        out or Path("runs") / f"theft-of-{_slug(model or short_name(target))}-with-{_slug(pool)}"
    )
    stopper = Stopper(seconds=None if time_limit is None else seconds_of(time_limit))
    with stopper.on_signals():
        theft = carry_out(
            victim,
            net=student,
            backbone=backbone if start is None else start,
            pool=data_config(pool, reading),
            budgets=budget,
            out=folder,
            test=None if test is None else data_config(test, reading),
            stealing=stealing,
            pace=pace,
            objective=objective,
            training=training,
            price=None if price_per_1000 is None else price_per_1000 / 1000,
            stopper=stopper,
            progress=showing.display(),
        )
    page = write(theft, folder)
    if showing.json:
        print(json.dumps({**asdict(theft), "report": str(page)}))
        return
    print_table(table(theft))
    for sentence in verdict(theft):
        print(sentence)
    print(f"Look at {page}")


def speed(
    run: RunFolder,
    *,
    against: str | None = None,
    model: str | None = None,
    key_file: Path | None = None,
    endpoint_url: str | None = None,
    queries: int = 300,
    price_per_1000: float | None = None,
    paid: float | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    trust: Trust = (),
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE)] = RequestConfig(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Time a clone and the service that it copies, and say what as many images cost there.

    Random images are asked about, warm-up not counted. Asking the service costs queries.

    Args:
        run: The clone's folder.
        against: The service: a URL, rekognition, or whatever `denature steal` takes.
        model: Which of the server's models; the only one by default.
        key_file: A file with the key for the server; by default the environment's DENATURE_KEY.
        endpoint_url: Of rekognition, who answers in its place.
        queries: Queries to ask the service.
        price_per_1000: US dollars for a thousand queries; by default our table's, which has a
            date, for rekognition.
        paid: US dollars that the theft cost; by default what its result says.
        device: Where the clone computes.
        precision: In which precision.
        trust: A module of your own that the run's record may import.
    """
    from denature.cli.show import print_table
    from denature.extract.pricing import one_price, prices_of
    from denature.extract.speed import paid_for, time_run, time_victim
    from denature.extract.victims.find import find
    from denature.train.run import load_run

    loaded = load_run(run, trust=trust)
    prices = prices_of(against or "") if price_per_1000 is None else one_price(price_per_1000)
    paid = paid_for(loaded) if paid is None else paid
    display, asked = showing.display(), 0
    found = {"clone": time_run(loaded, device=device, precision=precision, progress=display)}
    if against is not None:
        victim = find(
            against,
            model=model,
            key=key_of(key_file) if re.match("https?:", against) else None,
            endpoint_url=endpoint_url,
            pace=pace,
            trust=trust,
        )
        found["service"], asked = time_victim(victim, queries=queries, pace=pace, progress=display)
    costs = {n: None if prices is None else prices.cost(n) for n in (1_000, 1_000_000)}
    after = None
    if prices is not None and paid is not None:
        after = prices.queries_for(paid)
    if showing.json:
        timings = {who: [asdict(it) for it in its] for who, its in found.items()}
        told = {"costs": costs, "paid": paid, "queries": asked, **timings}
        print(json.dumps({**told, "paid_after": after if after != math.inf else None}))
        return
    lines = [["Who", "Batch", "Images/s", "p50 ms", "p90 ms", "p99 ms", "Timed"]]
    for who, its in found.items():
        for it in its:
            waits = (f"{ms:,.2f}" for ms in (it.p50_ms, it.p90_ms, it.p99_ms))
            lines.append(
                [who, str(it.images), f"{it.images_per_second:,.0f}", *waits, str(it.count)]
            )
    print_table(lines)
    if asked:
        print(f"{asked:,} queries were asked for this.")
    if prices is not None:
        dated = f" ({prices.source}, {prices.as_of})" if prices.as_of else ""
        print(f"The service takes US $ {costs[1_000]:,.2f} for a thousand images, "
              f"US $ {costs[1_000_000]:,.2f} for a million of a month{dated}.")  # fmt: skip
    if after is not None and after != math.inf:
        print(
            f"The theft cost US $ {paid:,.2f}; the service takes as much for {after:,.0f} images."
        )


def _slug(text: str) -> str:
    """The last part of a name, fit for a folder."""
    words = re.findall(r"[A-Za-z0-9_.]+", text.rstrip("/").rpartition("/")[2])
    return "-".join(words) or "model"


def ledger(place: Path, *, showing: OutputFlags = OutputOptions()) -> None:
    """Say what a ledger holds: queries by target and purpose, answers, and what they cost.

    Args:
        place: A theft's folder, or its ledger.sqlite.
    """
    from denature.cli.show import print_table
    from denature.extract.ledger import read_tallies
    from denature.extract.theft import LEDGER
    from denature.extract.victims.base import printable

    tallies = read_tallies(place / LEDGER if place.is_dir() else place)
    if showing.json:
        for tally in tallies:
            print(json.dumps(asdict(tally)))
        return
    lines = [["Target", "For", "Queries", "Answered", "Unknown", "Requests", "US $", "Kind"]]
    for it in tallies:
        counts = (f"{n:,}" for n in (it.queries, it.answered, it.unknown, it.requests))
        lines.append(
            [
                printable(it.target),
                it.purpose,
                *counts,
                f"{it.money:,.2f}",
                it.kind or "not settled",
            ]
        )
    print_table(lines)
