"""denature mark: pictures with the landmarks that models find in them."""

import json
import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from denature.cli.options import OutputFlags, OutputOptions, Trust
from denature.cli.terminal import print
from denature.remote.key import key_of


def mark(
    *images: Path,
    detector: tuple[str, ...],
    out: Path,
    animate: Annotated[bool, Parameter(negative="")] = False,
    key_file: Path | None = None,
    endpoint_url: str | None = None,
    trust: Trust = (),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Draw the landmarks that models find into pictures: a cross on the nose, points elsewhere.

    Args:
        images: Image files of any size, or folders of image files.
        detector: A model to query; repeat the option for several, each drawn in a colour of its
            own: the folder of a run trained on landmarks; the URL of a server, or of one of its
            models, as in http://localhost:8000/v2/models/NAME; a .toml description whose reply has
            kind = "landmarks"; or rekognition. Each picture is a query.
        out: Folder for the marked pictures.
        animate: Also make an animation of each picture from the snapshots of the runs, see
            `--keep-every` of `denature train`.
        key_file: A file with the key for servers; the environment variable DENATURE_KEY by default.
        endpoint_url: For rekognition: the address of a server to query instead of AWS.
        trust: A module of your own that a run's record may import; repeat the option for several.
    """
    from denature.extract.locating import picture_files
    from denature.extract.victims.find import REKOGNITION, find
    from denature.recipes.annotate import locate_all, write_animations, write_marked
    from denature.train.run import load_run

    files, display = picture_files(images), output_options.display()
    victims = {
        target: find(
            target,
            key=key_of(key_file) if re.match("https?:", target) else None,
            endpoint_url=endpoint_url if target == REKOGNITION else None,
            trust=trust,
        )
        for target in detector
    }
    located = locate_all(files, victims, progress=display)
    write_marked(located, out)
    if animate:
        folders = (target for target in victims if Path(target).is_dir())
        runs = {target: load_run(target, trust=trust) for target in folders}
        write_animations(located, runs, out, progress=display)
    if output_options.json:
        print(json.dumps(located.places_by_file()))
        return
    for name in located.names:
        print(out / f"{name}.{'gif' if animate else 'png'}")
