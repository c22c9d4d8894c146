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
    surviving: RunFlags = RunOptions(),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Copy a face service's nose detector through its answers, rounded ones too, and draw it.

    A victim is trained on people's landmarks and served as Rekognition; a thief asks it through
    boto3 about other persons' pictures. With `--images` and `--labels` nobody is asked: the clones
    learn what a service answered before.

    Args:
        scale: smoke, on cartoons, to see in a minute that it runs; cpu, for two cores; paper, for
            a GPU.
        data: Faces with 68 landmarks: a folder of Parquet shards, or hf:owner/name.
        group: A regular expression with one group: pictures in whose path it finds the same show
            one person. By default (.*)_ as in PERSON_NUMBER.jpg.
        images: A folder of pictures about which a service was asked before.
        labels: What it answered, as JSON: {"path or key": a response with FaceDetails}.
        backbone: What further clones start from, frozen and fine-tuned; once for each: a run's
            folder, whatever it learned, or a library's network, such as timm:resnet18.
        trials: Clones of each kind, and of each precision; as the scale says by default.
        price_per_1000: US dollars for a thousand queries; by default our table's of Rekognition.
        out: Folder for everything.
        device: Where to compute.
        precision: In which precision.
        trust: A module of your own that a run's record may import.
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
    stopper = surviving.stopper()
    with stopper.on_signals():
        found = reproduce(
            chosen,
            Faces(data=data, group=group, images=images, labels=labels),
            out,
            backbones=starts,
            price_per_1000=price_per_1000,
            keeping=surviving.keeping(),
            stopper=stopper,
            progress=showing.display(),
        )
    if showing.json:
        print(found.to_json())
        return
    print_table(found.lines)
    for sentence in found.verdict:
        print(sentence)
    print(f"Look at {found.folder / 'report.html'}")
