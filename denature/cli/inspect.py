"""Commands that evaluate and describe runs, data sets and networks, and import weights."""

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from denature.cli.models import ModelFlags, NetworkFlags
from denature.cli.options import (
    Data,
    FolderFlags,
    FolderOptions,
    FromFile,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFolder,
    Scope,
    Trust,
    data_config,
)
from denature.cli.tabular import TableFlags, TableOptions
from denature.cli.terminal import print
from denature.core.errors import ConfigError
from denature.core.schema import encode
from denature.core.text import counted
from denature.data.config import ReaderConfig
from denature.recipes.models import ModelOptions, NetworkOptions, open_run
from denature.remote.config import RequestConfig
from denature.train.config import Device, Precision
from denature.train.session import Session

PACE = Group("Requests", sort_key=3)


def evaluate(
    model: str,
    /,
    *,
    data: Data,
    model_options: ModelFlags = ModelOptions(),
    test_images: Annotated[int | None, FromFile] = None,
    price_per_1000: Annotated[float | None, FromFile] = None,
    max_cost: Annotated[float | None, FromFile] = None,
    pace: Annotated[RequestConfig, Parameter(name="*", group=PACE), FromFile] = RequestConfig(),
    scope: Scope = "",
    out: Path | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    trust: Trust = (),
    reading: ReadingOptions = ReaderConfig(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Measure a model on the test split of a data set: its accuracy, or its error on landmarks.

    A service or a function is queried, and its answers are kept, so no image is queried twice.

    Args:
        model: As for `denature audit`: a run's folder, a file of weights with --net, a model of a
            library, an .onnx or .pt2 file, a function, a URL or a .toml description.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
        test_images: Test images at most; by default all for a network, and 1,000 for others.
        price_per_1000: US dollars per thousand queries; a .toml description may state it.
        max_cost: US dollars for the queries of a service or a function, at most; fewer images are
            measured where it ends them.
        scope: Scope and permission of the test, such as a contract's number and what it covers;
            stands beside the result.
        out: Folder for the answers of a service, a function or a file; by default one under runs/.
        device: Device to compute on.
        precision: Precision of inference.
        trust: A module of your own that the run's record may import, or a .pt2 file that may be
            loaded although this can execute code; repeat the option for several.
    """
    from denature.core.record import today
    from denature.core.stopping import Stopper
    from denature.recipes.commands import evaluation_of
    from denature.report.words import format_score, marked, terms
    from denature.train import Run

    session = Session(stopper=Stopper(), progress=output_options.display())
    evaluation = evaluation_of(
        model,
        data_config(data, reading),
        options=model_options,
        test_images=test_images,
        price_per_1000=price_per_1000,
        max_cost=max_cost,
        pace=pace,
        out=out,
        device=device,
        precision=precision,
        trust=trust,
        progress=session.progress,
    )
    run = evaluation.model if isinstance(evaluation.model, Run) else None
    # A run is measured in one step, which an interrupt ends; answers are kept as they arrive.
    with session.stopper.on_signals() if run is None else nullcontext():
        measured = evaluation.measure(session)
    dataset = evaluation.dataset
    if output_options.json:
        metric = "error" if dataset.landmarks else "accuracy"
        found: dict[str, object] = {
            metric: asdict(measured),
            "data": dataset.digest,
            "split": dataset.test_origin,
        }
        found |= {"scope": scope, "run": None if run is None else encode(run.record)}
        print(json.dumps(found))
        return
    score = format_score(measured, landmarks=dataset.landmarks)
    score = marked(score, evaluation.chosen_on_test)
    # Training may have measured in another precision, with another number or two in the end.
    how = f", in {precision}" if run is not None and precision != "auto" else ""
    print(f"{model}: {score} on {measured.n:,} images ({dataset.test_origin}){how}")
    if scope or run is None:
        print(terms(scope, today()))


def predict(
    model: str,
    /,
    *images: Path,
    network: NetworkFlags = NetworkOptions(),
    top: int = 3,
    device: Device = "auto",
    precision: Precision = "fp32",
    resize: Annotated[bool, Parameter(negative="")] = False,
    trust: Trust = (),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Print the most probable classes of image files, with their probabilities.

    Args:
        model: A run's folder, a file of weights with --net, or hf:owner/name, timm:NAME or
            torchvision:NAME.
        images: Image files.
        top: Number of classes to print for each image.
        device: Device to compute on.
        precision: Precision of inference.
        resize: Crop and resize images to the network's input size.
        trust: A module of your own that the run's record may import; repeat the option for several.
    """
    from denature.train.predict import predict as predict_images

    if top < 1:
        raise ConfigError(f"--top is {top}; it must be at least 1.")
    run = open_run(model, network, images=network.images, trust=trust)
    predictions = predict_images(
        run, images, resize=resize, trust=trust, device=device, precision=precision
    )
    for prediction in predictions:
        if output_options.json:
            print(json.dumps(asdict(prediction)))
            continue
        best = ", ".join(f"{name} {p:.1%}" for name, p in prediction.strongest(top))
        print(f"{prediction.image}: {best}")


def import_weights(
    net: str,
    *,
    weights: Path,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int = 32,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    entry: str | None = None,
    folder_options: FolderFlags = FolderOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Make a run from your own weights, without executing anything in the file.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        weights: A safetensors file, or a checkpoint that loads with weights_only=True.
        classes: Number of classes; by default it follows from the shapes of the weights.
        channels: 1 or 3; by default it follows from the shapes of the weights, or is 3.
        image_size: Side of the images in pixels.
        mean: Mean of each channel with which training images were normalised; in [0, 1].
        std: Standard deviation of each channel with which training images were normalised.
        entry: Name of the weights to take from a checkpoint that holds several, such as state_dict
            and state_dict_ema.
    """
    from denature.train import import_run

    folder = folder_options.out or Path("runs") / f"imported-{net}-{weights.stem}"
    run = import_run(
        net,
        weights,
        classes=classes,
        channels=channels,
        image_size=image_size,
        mean=mean or None,
        std=std or None,
        entry=entry,
        out=folder,
        overwrite=folder_options.overwrite,
    )
    if output_options.json:
        print(run.record.to_json())
        return
    parameters = run.record.net.parameters
    print(f"{net}, {parameters:,} parameters. Run: {folder}. Measure it with `denature eval`.")


def report(
    *runs: RunFolder,
    out: Path | None = None,
    title: str | None = None,
    records: Path | None = None,
    figures: Path | None = None,
    markdown: Annotated[bool, Parameter(negative="")] = False,
    table_options: TableFlags = TableOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Write one HTML report of any runs, or draw the report of an experiment again.

    Args:
        runs: Folders of runs, folders that hold runs, or .jsonl files of records; or one folder
            with the result of an experiment, a theft or an evaluation.
        out: The HTML file to write; report.html by default, of a result in its own folder.
        title: Heading of the report of runs; by default by what they learned from.
        records: Also write all records to this .jsonl file, which is enough for a report.
        figures: Also write each figure to this folder, as .svg and .png.
        markdown: Print the tables as Markdown.
    """
    from denature.cli.show import print_table
    from denature.core.record import find_records, write_records
    from denature.report import page as pages
    from denature.report.links import RESULT
    from denature.report.results import read_outcome
    from denature.report.runs import page as page_of_runs
    from denature.report.summary import summarise
    from denature.report.tables import markdown as as_markdown

    outcome = read_outcome(runs[0]) if len(runs) == 1 and (runs[0] / RESULT).is_file() else None
    page = page_of_runs(find_records(runs), title=title) if outcome is None else outcome.page
    if outcome is not None and out is None:
        path = pages.write(page, outcome.folder, anew=True)
    else:
        page = replace(page, links=())  # which lead from the folder of the result
        path = pages.write_html(page, out or Path("report.html"))
    if figures is not None:
        pages.draw(page, figures)
    if records is not None:
        write_records(records, page.records)
    if output_options.json:
        summary = {"report": str(path), "runs": len(page.records)}
        found = asdict(summarise(page.records)) if outcome is None else {"folder": str(runs[0])}
        print(json.dumps({**summary, **found}))
        return
    if table_options.print([table.lines for table in page.tables]):
        return
    for table in page.tables:
        print(as_markdown(table.lines)) if markdown else print_table(table.lines)
        print()
    print(f"{counted(len(page.records), 'run')}. Look at {path}")


def data(
    source: str,
    *,
    reading: ReadingOptions = ReaderConfig(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Describe a data set, and decode it into the cache.

    Args:
        source: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
    """
    from denature.data import load

    dataset = load(data_config(source, reading), progress=output_options.display())
    found = dataset.describe()
    if output_options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            value = [f"{reason} {count:,}" for reason, count in value.items()]
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:12} {shown}")


def nets(
    *,
    classes: int = 10,
    channels: int = 3,
    image_size: int = 32,
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """List the catalogue of networks with their parameter counts.

    Args:
        classes: Number of classes for which parameters are counted.
        channels: 1 or 3.
        image_size: Side of the images in pixels.
    """
    import torch

    from denature.cli.show import print_table
    from denature.nets import NETS, create, parameter_count

    with torch.device("meta"):  # counts parameters without allocating weights
        counts = {
            name: parameter_count(
                create(name, classes=classes, channels=channels, image_size=image_size)
            )
            for name, net in NETS.items()
            if image_size >= net.minimum
        }
    if output_options.json:
        print(json.dumps(counts))
        return
    lines = [["Network", "Description", "Parameters"]]
    lines += [[name, NETS[name].about, f"{count:,}"] for name, count in counts.items()]
    print_table(lines)
