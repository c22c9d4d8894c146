"""Which victim a name on the command line means."""

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from denature.answers.sources import Kind
from denature.core.errors import ConfigError
from denature.extract.config import RequestConfig
from denature.extract.victims.base import Victim
from denature.extract.victims.called import FunctionVictim
from denature.extract.victims.protocol import Address

REKOGNITION = "rekognition"


def find(
    target: str,
    *,
    model: str | None = None,
    output: str | None = None,
    kind: Kind | None = None,
    top: int = 0,
    key: str | None = None,
    endpoint_url: str | None = None,
    values: Sequence[str] = (),
    pace: RequestConfig | None = None,
    trust: Collection[str] = (),
) -> Victim:
    """The victim that a name means.

    That is `rekognition`, the URL of an Open Inference server, a run's folder, or
    `package.module:function`.

    Args:
        target: its name.
        model: of a server, which one; the only one by default.
        output: of a model, which one; the only one by default.
        kind: of its answers, where that is not said.
        top: ask for the largest so many values only; 0 for all.
        key: sent to a server as a bearer token.
        endpoint_url: of `rekognition`, who answers in its place.
        values: of `rekognition`, what is taken of each answer; the five places by default.
        pace: timeouts.
        trust: modules that a run's record may import.

    Raises:
        ConfigError: it means nothing, or an option that this kind of victim has not.
    """
    if target == REKOGNITION:
        _only(target, {"--model": model, "--output": output, "--top": top or None})
        from denature.extract.victims.rekognition import Rekognition

        return Rekognition(endpoint_url=endpoint_url, values=values, pace=pace)
    _only(target, {"--endpoint-url": endpoint_url, "--values": values or None})
    if re.match(r"https?://", target):
        from denature.extract.victims.openinference import OpenInference

        return OpenInference(
            target,
            model=model,
            output=output,
            kind=kind,
            top=top,
            key=key,
            pace=pace or RequestConfig(),
        )
    _only(target, {"--model": model, "--output": output, "--top": top or None, "a key": key})
    if Path(target).is_dir():
        from denature.extract.victims.local import local
        from denature.train.run import load_run

        return local(load_run(target, trust=trust), kind=kind)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", target):
        return _function(target, kind)
    raise ConfigError(
        f"The target {target!r} is no URL, no run's folder, no package.module:function and not "
        f"{REKOGNITION}."
    )


def short_name(target: str) -> str:
    """What a target is called in the name of a folder: a URL's model, or the last part."""
    return Address.of(target).model or target.rstrip("/").rpartition("/")[2] or target


def _only(target: str, foreign: Mapping[str, object]) -> None:
    """Options that mean nothing for this target must not have been given."""
    if extra := [name for name, value in foreign.items() if value is not None]:
        raise ConfigError(f"{', '.join(extra)} means nothing for {target}; leave it out.")


def _function(target: str, kind: Kind | None) -> FunctionVictim:
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The target {target!r} cannot be imported: {error}.") from None
    if not callable(function):
        raise ConfigError(f"The target {target!r} is no function.")
    return FunctionVictim(function, name=target, kind=kind)
