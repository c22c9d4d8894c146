"""denature steal, ledger and speed: the thief's side of a wire."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from denature.cli.models import MODEL, ModelFlags
from denature.cli.options import (
    FromFile,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFlags,
    RunOptions,
    Scope,
    TrainingOptions,
    Trust,
    data_config,
)
from denature.cli.terminal import print
from denature.core.errors import ConfigError
from denature.data.config import ReaderConfig
from denature.extract.config import ExtractionConfig
from denature.recipes.models import (
    ImageShape,
    ModelOptions,
    NetworkOptions,
    check_options,
    is_network,
    open_run,
    open_victim,
    options_for,
    options_of,
    price_of,
)
from denature.remote.config import RequestConfig
from denature.train.config import Device, Precision, Training
from denature.train.objectives import Cloned

if TYPE_CHECKING:
    from denature.extract.planning import PlannedTheft
    from denature.extract.victims.base import Victim

STEALING = Group("Queries and clones", sort_key=1)
PACE = Group("Requests", sort_key=2)


def steal(
    target: str,
    *,
    pool: Annotated[str, FromFile],
    budget: Annotated[tuple[int, ...], FromFile],
    student: Annotated[str, FromFile],
    backbone: Annotated[str | None, FromFile] = None,
    model_options: ModelFlags = ModelOptions(),
    top: Annotated[int, FromFile] = 0,
    endpoint_url: str | None = None,
    test: Annotated[str | None, FromFile] = None,
    price_per_1000: Annotated[float | None, FromFile] = None,
    max_cost: Annotated[float | None, FromFile] = None,
    estimate: Annotated[bool, Parameter(negative="")] = False,
    probe: Annotated[bool, Parameter(negative="")] = False,
    scope: Scope = "",
    out: Path | None = None,
    trust: Trust = (),
    stealing: Annotated[
        ExtractionConfig, Parameter(name="*", group=STEALING), FromFile
    ] = ExtractionConfig(),
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE), FromFile] = RequestConfig(),
    objective: Annotated[Cloned, Parameter(name="*", group=STEALING), FromFile] = Cloned(),
    decimals: Annotated[int | None, Parameter(group=STEALING), FromFile] = None,
    reading: ReadingOptions = ReaderConfig(),
    training: TrainingOptions = Training(),
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Query a served model within a budget, and train clones on its answers.

    A ledger keeps every query and answer, so no image is queried twice, even after a kill. Query
    only services that you are allowed to query.

    Args:
        target: The URL of an Open Inference server, or of one of its models; a .toml description of
            another HTTP API, see `denature rest`; rekognition, for faces, with boto3's usual
            credentials; or, queried without a wire, a run's folder, a file of weights with --net,
            hf:owner/name, timm:NAME or torchvision:NAME, an .onnx or .pt2 file, or
            package.module:function, from float32 images in [0, 1] to answers.
        pool: Images to query with, whose labels are never read: as for `denature train --data`, or
            noise.
        budget: Numbers of queries, such as 1000,5000; a fresh clone is trained for each. The
            largest is the hard limit in all, with the queries that measure fidelity.
        student: The clone's network, a name from `denature nets`.
        backbone: A run of the same network, from which clones take all layers but the last; or the
            network's own name, such as timm:resnet18, for its published weights.
        top: Request only the K largest values of each answer; 0 requests all.
        endpoint_url: For rekognition: the address of a server to query instead of AWS, such as
            `denature serve`. `--points` names the landmarks to take.
        test: Labelled images to measure with; the pool's own test split by default.
        decimals: Decimals to which answers are rounded before training, as a rounding service would
            return them: -1 rounds to tens. Labels are not rounded.
        price_per_1000: US dollars per thousand queries.
        max_cost: US dollars in all, at most; the limit that is reached first ends the queries.
        estimate: Print queries, attempts, dollars and time, at most, and stop. No query is sent.
        probe: With --estimate: send the first request of the theft to time the victim. Its queries
            count, and its answers are kept.
        scope: Scope and permission of the test, such as a contract's number and what it covers; the
            result keeps it, and the page shows it first.
        out: Folder for ledger, clones and report; by default one under runs/.
        trust: A module of your own that a run's record may import, or a .pt2 file that may be
            loaded although this can execute code; repeat the option for several.
    """
    from denature.cli.show import show
    from denature.recipes.commands import finish, theft_of

    if probe and not estimate:
        raise ConfigError("--probe times a victim for --estimate; pass both, or neither.")
    with run_options.session(output_options, training.device) as session:
        planned = theft_of(
            target,
            data_config(pool, reading),
            student=student,
            budget=budget,
            test=None if test is None else data_config(test, reading),
            backbone=backbone,
            config=stealing,
            objective=objective,
            decimals=decimals,
            training=training,
            options=model_options,
            top=top,
            endpoint_url=endpoint_url,
            price_per_1000=price_per_1000,
            max_cost=max_cost,
            pace=pace,
            scope=scope,
            out=out,
            trust=trust,
            session=session,
        )
        if estimate:
            _print_estimate(planned, probe=probe, as_json=output_options.json)
            return
        outcome = finish(planned)
    show(outcome, output_options)


def _print_estimate(planned: "PlannedTheft", *, probe: bool, as_json: bool) -> None:
    from denature.recipes.theft import estimate_theft

    found = estimate_theft(planned, probe=probe)
    for line in [json.dumps(found.to_dict())] if as_json else found.lines():
        print(line)


def speed(
    model: str,
    /,
    *,
    against: str | None = None,
    model_options: ModelFlags = ModelOptions(),
    image_size: Annotated[int | None, Parameter(group=MODEL)] = None,
    channels: Annotated[int, Parameter(group=MODEL)] = 3,
    endpoint_url: str | None = None,
    queries: int = 300,
    price_per_1000: float | None = None,
    paid: float | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    trust: Trust = (),
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE)] = RequestConfig(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Time a clone or any other model, and the service that it copies, and compute its price.

    All answer random images; warm-up is not counted. A network is timed in this process, in batches
    of 1 and of 256. A service, a function or a file is timed by the answers that it gives: one by
    one, then as --per-request and --concurrency say. Timing a service costs queries.

    Args:
        model: As for `denature audit`: a run's folder, a file of weights with --net, a model of a
            library, an .onnx or .pt2 file, a function, a URL or a .toml description.
        against: The service: a URL, rekognition, or any other target of `denature steal`.
        image_size: Pixels a side of the images, where the model does not state them; by default 32
            for a file of weights, and 128 for others.
        channels: Channels of these images.
        endpoint_url: For rekognition: the address of a server to query instead of AWS.
        queries: Number of queries that a service, a function or a file is timed with.
        price_per_1000: US dollars per thousand queries; for rekognition the package's dated price
            table by default.
        paid: US dollars that the theft cost; read from the theft's result by default.
        device: Device that a network computes on.
        precision: Precision of a network's inference.
        trust: A module of your own that the run's record may import, or a .pt2 file that may be
            loaded although this can execute code; repeat the option for several.
    """
    from denature.cli.show import print_table
    from denature.extract.asking.pricing import one_price, prices_of
    from denature.extract.speed import LARGE, measure_speed
    from denature.extract.victims.find import REKOGNITION
    from denature.report.speed import price_sentences, timing_table

    service = against or model
    price_per_1000 = price_of(service, price_per_1000)
    names = [model] if against is None else [model, against]
    check_options({name: {*options_of(name)} for name in names}, model_options)

    def images() -> ImageShape:
        return ImageShape(channels, image_size or NetworkOptions().image_size)

    def opened(name: str) -> "Victim":
        return open_victim(
            name,
            options_for(name, model_options),
            images=images,
            endpoint_url=endpoint_url,
            pace=pace,
            trust=trust,
        )

    in_process = is_network(model) and model != REKOGNITION
    result = measure_speed(
        open_run(model, options_for(model, model_options), images=images, trust=trust)
        if in_process
        else opened(model),
        None if against is None else opened(against),
        channels=channels,
        image_size=image_size or LARGE,
        queries=queries,
        prices=prices_of(service) if price_per_1000 is None else one_price(price_per_1000),
        paid=paid,
        pace=pace,
        device=device,
        precision=precision,
        progress=output_options.display(),
    )
    if output_options.json:
        costs = {images: result.cost(images) for images in (1_000, 1_000_000)}
        summary = {"costs": costs, "paid": result.paid, "queries": result.queries}
        rows = {"clone": result.clone, "service": result.service}
        timings = {name: [asdict(row) for row in timed] for name, timed in rows.items() if timed}
        print(json.dumps({**summary, **timings, "paid_after": result.paid_after}))
        return
    print_table(timing_table(result))
    for sentence in price_sentences(result):
        print(sentence)


def ledger(place: Path, *, output_options: OutputFlags = OutputOptions()) -> None:
    """List the queries in a ledger by target and purpose, with their answers and cost.

    Args:
        place: A theft's folder, or its ledger.sqlite.
    """
    from denature.cli.show import print_table
    from denature.extract.asking.ledger import read_tallies
    from denature.extract.theft import LEDGER

    tallies = read_tallies(place / LEDGER if place.is_dir() else place)
    if output_options.json:
        for tally in tallies:
            print(json.dumps(asdict(tally)))
        return
    lines = [["Target", "For", "Queries", "Answered", "Unknown", "Requests", "US $", "Kind"]]
    for tally in tallies:
        counts = (f"{n:,}" for n in (tally.queries, tally.answered, tally.unknown, tally.requests))
        lines.append(
            [
                tally.target,
                tally.purpose,
                *counts,
                "not known" if tally.money is None else f"{tally.money:,.2f}",
                tally.kind or "not settled",
            ]
        )
    print_table(lines)
