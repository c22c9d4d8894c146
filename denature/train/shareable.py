"""The part of a record that may leave the machine."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from denature.core.errors import ConfigError, RunError
from denature.core.names import FOLDER, library_of
from denature.core.record import InputRecord, Record
from denature.train.identity import plan_of, what_changed
from denature.train.run import CLASS_NAMES

MACHINE = ("versions", "commit", "device")
"""Facts of the environment that are shared: those that decide numbers."""

NAMED = ("net", "source", "weights")
"""Settings that may be the path of a file, whose last part says what it was."""

PATH = re.compile(r"/|^[A-Za-z]:\\|^\\\\|^~")
"""What makes a text look like a path; a regular expression may have other backslashes."""


def shareable(record: Record) -> Record:
    """A record without paths, addresses of services, facts of the machine and test images.

    The network, the settings, what was measured, and names and digests of data and inputs stay, so
    its id is that of the record.

    Raises:
        ConfigError: the network is built from a folder of this machine.
    """
    net = record.net.name
    if net.startswith("hf:") and re.fullmatch(FOLDER, net.removeprefix("hf:")):
        raise ConfigError(
            f"The network {net} is built from a folder of this machine, which no other machine "
            "has; wanted is a network of the catalogue or a library, or hf:owner/name."
        )
    shared = replace(
        record,
        data=None
        if record.data is None
        else replace(record.data, source=public_name(record.data.source)),
        given=_public(record.given),
        config=_public(record.config),
        inputs={role: _public_input(given) for role, given in record.inputs.items()},
        examples=(),
        environment={key: record.environment[key] for key in MACHINE if key in record.environment},
    )
    if plan_of(shared) != plan_of(record):
        raise RunError(
            f"The settings of the {record.kind} run {record.id} name a path of this machine: "
            f"{what_changed(plan_of(record), plan_of(shared))}. Make the run without it."
        )
    return shared


def public_name(text: str) -> str:
    """A name of data, a network or a service without the folders and hosts in it."""
    if re.search(r"\w+://", text):
        return "a service"
    if PATH.search(text) is None or _is_of_library(text):
        return text
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]


def what_is_left_out(record: Record, shared: Record) -> str:
    """The differences of a record and its shareable part, for its owner."""
    before, after = (asdict(replace(each, examples=())) for each in (record, shared))
    images = f"; {len(record.examples)} test images are left out" if record.examples else ""
    return what_changed(before, after) + images


def _public_input(given: InputRecord) -> InputRecord:
    return replace(given, folder=None, net=public_name(given.net))


def _public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without paths; a text that may be one in another place is left out."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found[key] = _public(value)
        elif key in NAMED and isinstance(value, str):
            found[key] = public_name(value)
        elif key == CLASS_NAMES or not _has_path(value):
            found[key] = value
    return found


def _has_path(value: object) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, str) and PATH.search(each) is not None for each in values)


def _is_of_library(text: str) -> bool:
    """Whether a text is `hf:owner/name` or another name that every machine understands."""
    try:
        named = library_of(text)
    except ConfigError:
        return False
    return named is not None and re.fullmatch(FOLDER, named[1]) is None
