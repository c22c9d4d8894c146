"""denature reproduce nose: a face service's nose detector, copied."""

from dataclasses import replace
from pathlib import Path

from denature.cli.options import (
    OutputFlags,
    OutputOptions,
    RunFlags,
    RunFolder,
    RunOptions,
    Trust,
    folder_of,
)
from denature.core.errors import ConfigError, needs
from denature.train.config import Device, Precision


def nose(
    *,
    scale: str = "cpu",
    data: str | None = None,
    group: str | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    backbone: tuple[str, ...] = (),
    trials: int | None = None,
    price_per_1000: float | None = None,
    out: Path = Path("runs/nose"),
    device: Device = "auto",
    precision: Precision = "auto",
    trust: Trust = (),
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Clone a face service's nose detector from its answers, exact and rounded.

    A victim is trained on landmarks placed by people and served as Rekognition; a thief queries the
    local server through boto3 with pictures of other persons. With `--images` and `--labels` no
    service is queried: the clones learn from the recorded answers of an earlier harvest.

    Args:
        scale: smoke, on cartoons, runs in about a minute as a check; cpu, for two cores; paper, for
            a GPU.
        data: Faces with 68 landmarks: a folder of Parquet shards, or hf:owner/name.
        group: A regular expression with one group: pictures whose paths give the same match show
            one person. By default (.*)_ as in PERSON_NUMBER.jpg.
        images: Folder of the pictures that an earlier harvest sent to a service.
        labels: JSON file of the service's answers: {"path or key": a response with FaceDetails}.
        backbone: Start of further clones, frozen and fine-tuned: a run's folder, trained on any
            labels, or a library's network, such as timm:resnet18. Repeat the option for several.
        trials: Clones of each kind, and of each precision; set by the scale by default.
        price_per_1000: US dollars per thousand queries; the package's price for Rekognition by
            default.
        out: Folder for runs, ledger, table, figures and report.
        device: Device to compute on.
        precision: Precision of training and inference.
        trust: A module of your own that a run's record may import; repeat the option for several.
    """
    from denature.cli.show import print_table

    with needs("serve,steal,rekognition", "The copy of a face service's nose detector"):
        from denature.recipes.nose import Faces, reproduce, setting
    from denature.train.run import Run, load_run

    chosen = setting(scale).on(device, precision)
    if trials is not None:
        if trials < 1:
            raise ConfigError(f"trials is {trials}; it must be at least 1.")
        chosen = replace(chosen, trials=trials)
    starts: dict[str, Run | str] = {}
    for name in backbone:
        folder: RunFolder | None = folder_of(name)
        starts[name] = name if folder is None else load_run(folder, trust=trust)
    with run_options.session(output_options, device) as session:
        result = reproduce(
            chosen,
            Faces(data=data, group=group, images=images, labels=labels),
            out,
            backbones=starts,
            price_per_1000=price_per_1000,
            session=session,
        )
    if output_options.json:
        print(result.to_json())
        return
    print_table(result.lines)
    for sentence in result.verdict:
        print(sentence)
    print(f"Look at {result.folder / 'report.html'}")
