"""Results, settings and replies that lie about their contents."""

import json
from pathlib import Path

from denature.core.errors import DenatureError
from denature.extract.theft import read_theft
from denature.recipes.nose.service_answers import _read as read_answers
from denature.recipes.upstream.folders import Overrides
from denature.recipes.upstream.folders import read as read_folder
from denature.remote.protocol import read_reply, read_signature
from denature.report.results import read_outcome
from tests.lies import LARGEST, Load, case, nested, written


@case
def result_of_many_values(folder: Path) -> Load:
    written(folder / "result.json", nested("[]"))
    return lambda: read_outcome(folder)


@case
def theft_of_many_values(folder: Path) -> Load:
    written(folder / "result.json", nested("[0]"))
    return lambda: read_theft(folder)


@case
def config_of_many_values(folder: Path) -> Load:
    path = written(folder / "a.toml", b"a = " + nested("{}")[: LARGEST - 9] + b"]")

    def read() -> None:
        from denature.cli.options import _read

        _read(path, "train")

    return read


@case
def parameters_of_many_values(folder: Path) -> Load:
    written(folder / "params.json", nested("[]"))
    return lambda: read_folder(folder, Overrides())


@case
def recorded_answers_of_many_values(folder: Path) -> Load:
    path = written(folder / "labels.json", nested("[]"))
    return lambda: read_answers(path)


SIGNATURE = {
    "name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 8, 8]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
}  # fmt: skip


@case
def reply_of_many_values(folder: Path) -> Load:
    body, signature = nested("[]"), read_signature(SIGNATURE, None)
    return lambda: refused(lambda: read_reply(body, None, signature, count=1))


@case
def reply_of_far_classes(folder: Path) -> Load:
    signature = read_signature(SIGNATURE | {"outputs": [
        {"name": "y", "datatype": "BYTES", "shape": [-1, 1]}]}, None)  # fmt: skip
    tensor = {"name": "y", "datatype": "BYTES", "shape": [256, 1], "data": ["0.5:999999"] * 256}
    body = json.dumps({"outputs": [tensor]}).encode()
    return lambda: refused(lambda: read_reply(body, None, signature, count=256))


def refused(read: Load) -> object:
    try:
        return read()
    except (ValueError, RecursionError) as error:  # as the client does
        raise DenatureError(str(error)) from None
