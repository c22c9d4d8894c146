"""From what users have to an audit's page, in one command."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset

from denature.api import audit
from denature.data import load
from denature.data.given import DataLike
from denature.train import Run
from tests.commands import told
from tests.served import serving
from tests.ways import function, onnx, program

PLAN = ["--defense", "label-only", "--thief", "naive", "--budget", "50", "--seeds", "1",
        "--epochs", "2", "--student", "mlp", "--workers", "1"]  # fmt: skip
"""An audit of one defense against one thief."""

SMALL = ["--data", "digits", *PLAN]


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The URL of an ASGI application behind uvicorn, in a thread of this process."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def library_folder(run: Run, path: Path) -> list[str]:
    """A classifier as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
        num_labels=10,
    )  # fmt: skip
    transformers.ResNetForImageClassification(config).save_pretrained(path / "model")
    steps = {"image_mean": [0.3], "image_std": [0.4], "size": {"height": 8, "width": 8}}
    (path / "model" / "preprocessor_config.json").write_text(json.dumps(steps))
    return ["model"]


@pytest.mark.slow
@pytest.mark.parametrize("way", [onnx, program, function, library_folder], ids=lambda w: w.__name__)
def test_a_file_or_a_function(
    trained: Run, place: Path, capsys: pytest.CaptureFixture[str], way: Callable[..., list[str]]
) -> None:
    check_page(told(capsys, "audit", *way(trained, place), *SMALL))


@pytest.mark.slow
def test_the_url_of_an_open_inference_server(
    trained: Run, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(place, f"m={trained.folder}") as served:
        check_page(told(capsys, "audit", f"http://{served.address}/v2/models/m", *SMALL))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t"])
def test_weights_of_a_library_of_networks(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the library itself saves them; pixels in colours."""
    library = pytest.importorskip(name.partition(":")[0])
    build = library.models.get_model if name.startswith("torchvision") else library.create_model
    torch.save(build(name.partition(":")[2], num_classes=10).state_dict(), "weights.pt")
    digits = load("digits")
    (x_train, y_train), (x_test, y_test) = (
        (part.images[part.rows].repeat(1, 3, 4, 4).numpy(), part.labels[part.rows].numpy())
        for part in (digits.train, digits.test)
    )
    np.savez("colours.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    words = ["weights.pt", "--net", name, *PLAN, "--data", "colours.npz", "--test-images", "60"]
    check_page(told(capsys, "audit", *words))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["loaders", "arrays"])
def test_a_module_and_data_from_python(trained: Run, place: Path, form: str) -> None:
    digits = load("digits")
    train, test = (
        (split.images[split.rows], split.labels[split.rows])
        for split in (digits.train, digits.test)
    )
    data: DataLike = (train, test)
    if form == "loaders":
        data = (DataLoader(TensorDataset(*train), 64), DataLoader(TensorDataset(*test), 64))
    outcome = audit(
        trained.network, data, defense="label-only", thief="naive", budget=50, seeds=1, epochs=2,
        student="mlp", out="runs/audit",
    )  # fmt: skip
    check_page({"report": str(outcome.report), "cells": outcome.result.cells})


def check_page(found: Mapping[str, Any], *, untrained: bool = False) -> None:
    """An audit's page says what the worst thief takes, without a defense and behind one."""
    page = Path(found["report"]).read_text()
    assert len(found["cells"]) == 2
    assert "the worst thief takes" in page or (untrained and "not measurable" in page)
    assert "label-only" in page


SKLEARN = """
url = "<url>/predict"
[image]
format = "numbers"
layout = "flat"
scale = 16
size = 8
channels = 1
[request]
body = '{"instances": "$images"}'
batch = 64
[reply]
each = "$.predictions[*]"
scores = "$.probabilities[*]"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""


@pytest.mark.slow
def test_scikit_learn_behind_fastapi(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fastapi = pytest.importorskip("fastapi")
    digits = load("digits")
    train, test = (
        (split.images[split.rows].flatten(1).numpy() / 255 * 16, split.labels[split.rows].numpy())
        for split in (digits.train, digits.test)
    )
    model = LogisticRegression(max_iter=300).fit(*train)
    asked = []

    def predict(body: dict[str, Any]) -> dict[str, Any]:
        shares = model.predict_proba(np.array(body["instances"]))
        asked.append(len(shares))
        rows = [{"class": int(row.argmax()), "probabilities": row.tolist()} for row in shares]
        return {"predictions": rows}

    app = fastapi.FastAPI()
    app.post("/predict")(predict)
    monkeypatch.chdir(tmp_path)
    with listening(app) as url:
        Path("api.toml").write_text(SKLEARN.replace("<url>", url))
        found = told(capsys, "audit", "api.toml", *SMALL)
    measured = found["victim"]["accuracy"]  # on the half of the test images that measures
    assert measured["low"] < model.score(*test) < measured["high"]
    assert sum(asked) == 50 + len(test[1])  # each image once, for all of the audit
    check_page(found)
