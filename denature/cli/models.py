"""Models that the command line names: runs, files, functions and services."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from denature.answers.kinds import ClassAnswerKind
from denature.cli.options import key_of
from denature.core.errors import ConfigError
from denature.remote.config import RequestConfig

if TYPE_CHECKING:
    from denature.extract.victims.base import Victim
    from denature.train.run import Run


def open_models(
    names: Sequence[str],
    *,
    model: str | None,
    output: str | None,
    kind: ClassAnswerKind | None,
    key_file: Path | None,
    pace: RequestConfig,
    trust: tuple[str, ...],
) -> "list[Run | Victim]":
    """Runs by their folders, and other models as `denature.extract.victims.find.find` opens them.

    Args:
        names: folders of runs; files, functions and URLs.
        model: name of the service's model.
        output: name of the model's output.
        kind: kind of its answers.
        key_file: file with the key, which URLs alone receive; see `key_of`.
        pace: rate and retries of requests.
        trust: modules and files that may execute code.

    Raises:
        ConfigError: all are runs, and `kind` or `output` describes a service.
    """
    from denature.extract.victims.find import find
    from denature.train.run import load_run

    services = [name for name in names if not _is_run(name)]
    given = {"output": output, "kind": kind}
    unused = [f"--{name}" for name, value in given.items() if value is not None]
    if unused and not services:
        raise ConfigError(
            f"{names[0]} is a run, which states its own answers; {' and '.join(unused)} "
            f"describe{'s' * (len(unused) == 1)} a service, a function or a file. Leave it out."
        )
    key = key_of(key_file) if any(map(_is_url, services)) else None
    return [
        find(
            name,
            model=model,
            output=output,
            kind=kind,
            key=key if _is_url(name) else None,
            pace=pace,
            trust=trust,
        )
        if name in services
        else load_run(Path(name), trust=trust)
        for name in names
    ]


def price_of(name: str, given: float | None) -> float | None:
    """Dollars for 1,000 queries: as given, or as the description of an HTTP API says."""
    from denature.extract.victims.find import REST

    if given is not None or Path(name).suffix != REST:
        return given
    from denature.extract.victims.rest.spec import read_spec

    return read_spec(Path(name)).price_per_1000


def _is_url(name: str) -> bool:
    return re.match(r"https?://", name) is not None


def _is_run(name: str) -> bool:
    """Whether a name is that of a folder, which need not exist."""
    return Path(name).is_dir() or not (":" in name or Path(name).suffix)
