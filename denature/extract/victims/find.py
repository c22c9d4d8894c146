"""Selection of a victim by a name on the command line."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from denature.answers.function import load_function
from denature.answers.kinds import AnswerKind
from denature.answers.program import SUFFIXES, open_program
from denature.answers.scaling import PixelScale
from denature.core.errors import ConfigError
from denature.core.names import is_attribute
from denature.extract.victims.base import Victim
from denature.extract.victims.called import FunctionVictim
from denature.remote.config import RequestConfig
from denature.remote.protocol import Address

REKOGNITION = "rekognition"

REST = ".toml"
"""Suffix of the description of an HTTP API."""


def find(
    target: str,
    *,
    model: str | None = None,
    output: str | None = None,
    kind: AnswerKind | None = None,
    top: int = 0,
    key: str | None = None,
    endpoint_url: str | None = None,
    values: Sequence[str] = (),
    pixels: PixelScale | None = None,
    pace: RequestConfig | None = None,
    trust: Collection[str] = (),
) -> Victim:
    """The victim of a given name.

    A name is `rekognition`, the URL of an Open Inference server, the .toml description of another
    HTTP API, a run's folder, an .onnx or .pt2 file, or `package.module:function`.

    Args:
        target: the name.
        model: model of a server; its only model by default.
        output: output of a model; its only output by default.
        kind: kind of the answers, where the victim does not state it.
        top: request this many of the largest values only; 0 for all.
        key: bearer token for a server.
        endpoint_url: for `rekognition`, address of a service that replaces AWS.
        values: for `rekognition`, values taken from each answer; the five landmarks by default.
        pixels: numbers that a server, a function or a file takes in place of pixels in [0, 1].
        pace: timeouts.
        trust: modules that a run's record may import, and .pt2 files that may be loaded.

    Raises:
        ConfigError: no victim has this name, or an option does not apply to it.
    """
    pixels = pixels or PixelScale()
    scaled = {f"--{name}": text for name, text in pixels.options.items()}
    if target == REKOGNITION:
        _only(target, {"--model": model, "--output": output, "--top": top or None, **scaled})
        from denature.extract.victims.rekognition import Rekognition

        return Rekognition(endpoint_url=endpoint_url, values=values, pace=pace)
    _only(target, {"--endpoint-url": endpoint_url, "values": values or None})
    if re.match(r"https?://", target):
        from denature.extract.victims.openinference import OpenInference

        return OpenInference(
            target,
            model=model,
            output=output,
            kind=kind,
            top=top,
            key=key,
            pixels=pixels,
            pace=pace or RequestConfig(),
        )
    _only(target, {"--model": model, "--output": output, "--top": top or None, "a key": key})
    if Path(target).is_dir():
        _only(target, scaled)
        from denature.extract.victims.local import local
        from denature.train.run import load_run

        return local(load_run(target, trust=trust), kind=kind)
    if Path(target).suffix == REST:
        _only(target, {"--kind": kind, **scaled})
        from denature.extract.victims.rest.spec import read_spec
        from denature.extract.victims.rest.victim import RestVictim

        return RestVictim(read_spec(Path(target)), pace=pace or RequestConfig())
    if Path(target).suffix in SUFFIXES:
        program = open_program(Path(target), trust=trust)
        return FunctionVictim(
            program.ask,
            name=program.name,
            kind=kind,
            channels=program.channels,
            image_size=program.image_size,
            pixels=pixels,
        )
    if is_attribute(target):
        return FunctionVictim(load_function(target), name=target, kind=kind, pixels=pixels)
    raise ConfigError(
        f"The target {target!r} is no URL, no .toml description of an HTTP API, no run's folder, "
        f"no .onnx or .pt2 file, no package.module:function and not {REKOGNITION}.{_meant(target)}"
    )


def _meant(target: str) -> str:
    """What a target that lacks its mark may stand for."""
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", target):
        return f" Is it http://{target}?"
    if re.fullmatch(r"[A-Za-z_][\w/]*\.py", target):
        module = target.removesuffix(".py").replace("/", ".")
        return f" A function in that file is {module}:NAME."
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        return f" A function is named with a colon: {':'.join(target.rsplit('.', 1))}."
    return ""


def folder_name(target: str) -> str:
    """Short form of a target, or of a data set, as a part of a folder's name.

    It is a URL's model, a file's stem where the file describes an API, or the last part.
    """
    if Path(target).suffix == REST:
        short = Path(target).stem
    else:
        short = Address.of(target).model or target.rstrip("/").rpartition("/")[2] or target
    return re.sub(r"[^\w.=@+]+", "-", short).strip("-") or "model"


def _only(target: str, foreign: Mapping[str, object]) -> None:
    """Reject options that do not apply to this target."""
    if extra := [name for name, value in foreign.items() if value is not None]:
        raise ConfigError(f"{', '.join(extra)} does not apply to {target}; leave it out.")
