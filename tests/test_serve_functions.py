"""Functions and files behind the wire: what they show, and what they may do wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from denature.answers.program import open_program
from denature.answers.scaling import PixelScale
from denature.core.errors import RunError
from denature.data import load
from denature.serve.config import Exposure, ServedModel
from denature.serve.export import export
from denature.serve.functions import find_function
from denature.train import Normal, Run, Training, train
from tests.commands import refused, told
from tests.served import Served, serving

FUNCTIONS = """
import numpy as np

def brightness(images):
    assert images.dtype == np.float32 and images.max() <= 1
    share = images.mean((1, 2, 3))
    return np.stack([share, 1 - share], 1)

def percents(images):
    return 100 * brightness(images)

def numbers(images):
    return images.reshape(len(images), -1)[:, :3] - 1.0

def labels(images):
    return (images.mean((1, 2, 3)) > 0.5).astype(np.int64)

def nothing(images):
    return np.full((len(images), 3), np.nan, np.float32)

def none(images):
    raise RuntimeError("out of order")

calls = 0

def moody(images):
    global calls
    calls += 1
    if calls == 1:
        return np.eye(3, dtype=np.float32)[[0] * len(images)]
    if calls == 2:
        return nothing(images)
    if calls == 3:
        return np.zeros((len(images), 4), np.float32)
    raise RuntimeError("out of order")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    quick = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), quick, out=tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions.py").write_text(FUNCTIONS)
    return folder


@pytest.fixture(scope="module")
def server(trained: Run, folder: Path) -> Iterator[Served]:
    for form in ("onnx", "pt2"):
        export(trained, folder / f"net.{form}", form)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        words = ["net.onnx", "soft=net.pt2@show=probabilities+decimals=3",
                 "bright=functions:brightness", "functions:labels",
                 "top=functions:brightness@defense=label-only",
                 "moody=functions:moody"]  # fmt: skip
        with serving(folder, *words, "--trust", "net.pt2", "--image-size", "8", "--channels",
                     "1") as served:  # fmt: skip
            yield served


def asked(server: Served, model: str, images: np.ndarray) -> tuple[int, Any]:
    tensor = {"name": "images", "shape": images.shape, "data": images.ravel().tolist(),
              "datatype": "UINT8" if images.dtype == np.uint8 else "FP32"}  # fmt: skip
    body = json.dumps({"inputs": [tensor]}).encode()
    status, _, content = server.send("POST", f"/v2/models/{model}/infer", body)
    return status, json.loads(content)


def values(server: Served, model: str, images: np.ndarray) -> np.ndarray:
    status, found = asked(server, model, images)
    assert status == 200, found
    [output] = found["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


def test_a_file_answers_as_the_network_that_was_exported(server: Served, trained: Run) -> None:
    test = load("digits").test
    images = test.images[test.rows][:20]
    with torch.no_grad():
        logits = trained.network(images.float() / 255)
    found = values(server, "net.onnx", images.numpy())
    np.testing.assert_allclose(found, logits, atol=1e-3)
    np.testing.assert_allclose(
        values(server, "net.onnx", (images.float() / 255).numpy()), logits, atol=1e-3
    )
    soft = values(server, "soft", images.numpy())
    np.testing.assert_allclose(soft, logits.softmax(1), atol=2e-3)
    np.testing.assert_array_equal(soft, soft.round(3))


def test_weights_beside_an_onnx_file_are_a_part_of_the_model(trained: Run, tmp_path: Path) -> None:
    """torch writes large tensors there, and answers of one model must not stand for another's."""
    export(trained, tmp_path / "whole.onnx", "onnx")
    found = []
    for share in (1.0, 0.5):
        place = tmp_path / str(share) / "model.onnx"
        place.parent.mkdir()
        onnx.save_model(
            onnx.load(tmp_path / "whole.onnx"), place, save_as_external_data=True,
            location="weights.bin", size_threshold=256,
        )  # fmt: skip
        weights = np.fromfile(place.with_name("weights.bin"), np.float32)
        (weights * np.float32(share)).tofile(place.with_name("weights.bin"))
        found.append(open_program(place))
    images = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    first, second = (program.ask(images) for program in found)
    assert not np.allclose(first, second)
    assert found[0].name != found[1].name
    assert open_program(tmp_path / "1.0" / "model.onnx").name == found[0].name
    moved = onnx.load(tmp_path / "1.0" / "model.onnx", load_external_data=False)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.replace("weights.bin", "../0.5/weights.bin")
    (tmp_path / "1.0" / "moved.onnx").write_bytes(moved.SerializeToString())
    with pytest.raises(RunError, match="outside of its folder; refused"):
        open_program(tmp_path / "1.0" / "moved.onnx")
    (tmp_path / "1.0" / "weights.bin").unlink()
    with pytest.raises(RunError, match=r"weights.bin cannot be read"):
        open_program(tmp_path / "1.0" / "model.onnx")


def test_a_function_answers_with_what_its_values_are(server: Served) -> None:
    images = np.stack([np.full((1, 8, 8), value, np.uint8) for value in (0, 51, 255)])
    found = values(server, "bright", images)
    np.testing.assert_allclose(found[:, 0], [0, 0.2, 1], atol=1e-6)
    assert values(server, "functions-labels", images).tolist() == [0, 0, 1]
    assert values(server, "top", images).tolist() == [1, 1, 0]
    _, _, about = server.send("GET", "/v2/models/functions-labels")
    assert json.loads(about)["outputs"] == [{"name": "label", "datatype": "INT64", "shape": [-1]}]


def test_a_function_that_goes_wrong_fails_its_request_alone(server: Served) -> None:
    images = np.zeros((2, 1, 8, 8), np.uint8)
    for said in ("not finite", "in the shape (2, 4), not (2, 3)", "RuntimeError: out of order"):
        status, found = asked(server, "moody", images)
        assert (status, found) == (500, {"error": "The model gave no valid answer."})
        assert said in server.entries()[-1]["error"]
    assert values(server, "bright", images).shape == (2, 2)


def test_what_is_no_model_is_refused_at_the_start(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    small = ["--image-size", "8", "--channels", "1"]
    for words, said in (
        (["functions:nothing"], "0 of their 24 numbers are finite"),
        (["functions:none"], "failed on random images of the shape (8, 1, 8, 8): RuntimeError: "),
        (["functions:absent"], "'functions:absent' cannot be imported"),
        (["functions:labels", "--kind", "logits"], "answers with label, not with logits"),
        (["net.pt2"], "pass --trust net.pt2"),
        (["http://127.0.0.1:1/v2"], "are served with --upstream URL"),
        (
            ["functions:brightness@defense=mad"],
            "another network (untrained), so it stands before runs only",
        ),
        (["functions:brightness@show=logits"], "gives probabilities, but show=logits asks"),
    ):
        assert said in refused(capsys, "serve", *words, *small, "--port", "0")


@pytest.mark.parametrize(
    ("name", "kind"), [("brightness", "probabilities"), ("percents", "logits")]
)
def test_the_kind_of_a_function_follows_from_its_numbers_which_are_not_divided(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(folder)
    found = find_function(
        ServedModel.of(f"functions:{name}", Exposure(), "none"), channels=1, image_size=8,
        classes=None, kind=None, pixels=PixelScale(), trust=(),
    )  # fmt: skip
    assert found.function is not None
    assert found.function.kind == kind


def test_a_served_function_is_measured_by_its_numbers(
    trained: Run, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers from 0 to 255 reach a function that takes them, over the wire and without."""
    (folder / "wide.py").write_text(f"""
import torch
from denature.train import load_run

network = load_run({str(trained.folder)!r}).network

def logits(images):
    with torch.no_grad():
        return network(torch.from_numpy(images) / 255).numpy()
""")
    monkeypatch.chdir(folder)
    few = ["--data", "digits", "--test-images", "100"]
    direct = told(capsys, "eval", "wide:logits", "--scale", "255", *few)
    words = ["wide:logits", "--scale", "255", "--image-size", "8", "--channels", "1"]
    with serving(folder, *words) as served:
        over = told(capsys, "eval", f"http://{served.address}", *few)
    assert over["accuracy"] == direct["accuracy"]
    assert over["accuracy"]["value"] > 0.7
