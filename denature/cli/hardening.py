"""denature harden: defensive distillation and the trainings that it is compared with."""

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from denature.cli.options import (
    Data,
    FolderFlags,
    FolderOptions,
    FromFile,
    Net,
    OutputFlags,
    OutputOptions,
    ReadingOptions,
    RunFlags,
    RunOptions,
    TrainingOptions,
    data_config,
)
from denature.cli.terminal import print
from denature.data.config import ReaderConfig
from denature.recipes.hardening.config import Hardening
from denature.train.config import Training

HARDENING = Group("Hardening", sort_key=1)


def harden(
    net: Net,
    *,
    data: Data,
    hardening: Annotated[Hardening, Parameter(name="*", group=HARDENING), FromFile] = Hardening(),
    reading: ReadingOptions = ReaderConfig(),
    training: TrainingOptions = Training(),
    folder_options: FolderFlags = FolderOptions(),
    run_options: RunFlags = RunOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Train with defensive distillation, label smoothing or adversarial training.

    Defensive distillation trains a teacher at a high temperature and a student on its soft answers,
    which is deployed at temperature 1. Much of its apparent robustness was gradient masking
    (Carlini and Wagner 2017): see docs/hardening.md and `denature robustness`.

    Args:
        net: A name from `denature nets`, or package.module:factory for a module of your own.
        data: digits; a folder of Parquet shards or images; an .npz; or hf:owner/name.
    """
    from denature.cli.show import print_table
    from denature.recipes.hardening.orders import Place, orders
    from denature.report.words import score
    from denature.train import make

    out = folder_options.out or Path("runs") / f"{hardening.method}-{net}"
    wanted = orders(hardening, Place(net=net, training=training, out=out))
    with run_options.session(output_options, training.device) as session:
        runs = make(
            list(wanted.values()),
            data_config(data, reading),
            overwrite=folder_options.overwrite,
            session=session,
        )
    if output_options.json:
        for run in runs:
            print(run.record.to_json())
        return
    lines = [["Run", "Network", "Measured", "Folder"]]
    for name, run in zip(wanted, runs, strict=True):
        lines.append([name, run.record.net.name, score(run.record), str(run.folder)])
    print_table(lines)
    print(f"{hardening.method}: {runs[-1].folder} is the hardened network.")
