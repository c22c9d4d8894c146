"""From what users have to an audit's page, in one command."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from denature.data import load
from tests.commands import told

SMALL = ["--data", "digits", "--defense", "label-only", "--thief", "naive", "--budget", "50",
         "--seeds", "1", "--epochs", "2", "--student", "mlp", "--workers", "1"]  # fmt: skip
"""An audit of one defense against one thief."""


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
    page = Path(found["report"]).read_text()
    assert "api.toml" in page
