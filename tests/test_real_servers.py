"""Servers of other projects, as they are installed: each goes to an audit's page by one command.

`DENATURE_SERVERS` names a folder with a virtual environment for each of them, such as
`DENATURE_SERVERS/mlserver/bin/python`; without it these tests are skipped.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from denature.data import load
from tests.commands import told
from tests.served import serving
from tests.test_ways_in import SMALL, check_page

MODEL = """
import numpy as np

held = np.load("weights.npz")

def answer(images):
    rows = np.asarray(images, np.float64).reshape(len(images), -1) / 255 * 16
    scores = np.exp(rows @ held["coef"].T + held["intercept"])
    return scores / scores.sum(1, keepdims=True)
"""
"""A linear model of digits, from bytes to probabilities."""

MLSERVER = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from model import answer

class Digits(MLModel):
    async def predict(self, payload):
        shares = answer(NumpyCodec.decode_input(payload.inputs[0])).astype("float32")
        output = NumpyCodec.encode_output("scores", shares)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""

LITSERVE = """
import sys
import litserve
from model import answer

class Digits(litserve.LitAPI):
    def setup(self, device):
        pass
    def decode_request(self, request):
        return request["image"]
    def predict(self, image):
        return answer([image])[0].tolist()
    def encode_response(self, shares):
        return {"scores": shares}

if __name__ == "__main__":
    server = litserve.LitServer(Digits(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""

LITSERVE_SPEC = """
url = "<url>/predict"
[image]
format = "numbers"
layout = "flat"
size = 8
channels = 1
[request]
body = '{"image": "$image"}'
[reply]
scores = "$.scores[*]"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""

BENTOML = """
import bentoml
import numpy as np
from model import answer

@bentoml.service
class Digits:
    @bentoml.api
    def classify(self, images: np.ndarray) -> np.ndarray:
        return answer(images)
"""

BENTOML_SPEC = """
url = "<url>/classify"
[image]
format = "numbers"
layout = "CHW"
size = 8
channels = 1
[request]
body = '{"images": "$images"}'
batch = 64
[reply]
each = "$[*]"
scores = "$[*]"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the model."""
    monkeypatch.chdir(tmp_path)
    split = load("digits").train
    rows = split.images[split.rows].flatten(1).numpy() / 255 * 16
    model = LogisticRegression(max_iter=300).fit(rows, split.labels[split.rows].numpy())
    np.savez("weights.npz", coef=model.coef_, intercept=model.intercept_)
    Path("model.py").write_text(MODEL)
    return tmp_path


@contextmanager
def running(server: str, *words: str, ready: str) -> Iterator[None]:
    """A server of another project in its own environment, until it answers at `ready`."""
    if (folder := os.environ.get("DENATURE_SERVERS")) is None:
        pytest.skip("DENATURE_SERVERS names no environments of other servers")
    if not (programs := Path(folder) / server / "bin").is_dir():
        pytest.skip(f"{folder} has no environment for {server}")
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    environment |= {"PYTHONPATH": ".", "BENTOML_DO_NOT_TRACK": "true"}
    with open("server.log", "wb") as log:
        process = subprocess.Popen(
            [str(programs / words[0]), *words[1:]],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            assert process.poll() is None, Path("server.log").read_text()
            try:
                urllib.request.urlopen(ready, timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        else:
            raise AssertionError(Path("server.log").read_text())
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):  # its children, too
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(20)


def free_ports(count: int) -> list[int]:
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    return ports


@pytest.mark.slow
def test_mlserver_by_its_url(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port, *others = free_ports(3)
    settings = {"http_port": port, "grpc_port": others[0], "metrics_port": others[1],
                "parallel_workers": 0, "debug": False}  # fmt: skip
    model = {"name": "digits", "implementation": "served.Digits",
             "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}],
             "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}]}  # fmt: skip
    Path("settings.json").write_text(json.dumps(settings))
    Path("model-settings.json").write_text(json.dumps(model))
    Path("served.py").write_text(MLSERVER)
    url = f"http://127.0.0.1:{port}"
    with running("mlserver", "mlserver", "start", ".", ready=f"{url}/v2/models/digits/ready"):
        address = f"{url}/v2/models/digits"
        check_page(told(capsys, "audit", address, *SMALL))
        defended = ("--upstream", address, "--defense", "rounding@decimals=1")
        with serving(place, *defended) as gateway:
            check_rounded(gateway.address, theirs=f"127.0.0.1:{port}")


def check_rounded(ours: str, *, theirs: str) -> None:
    """Triton's client gets rounded shares from the gateway, of what the server behind answers."""
    from tritonclient.http import InferenceServerClient, InferInput

    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    wanted = InferInput("images", list(images.shape), "UINT8")
    wanted.set_data_from_numpy(images, binary_data=False)
    shares = []
    for address in (theirs, ours):
        client = InferenceServerClient(address)
        shares.append(client.infer("digits", [wanted]).as_numpy("scores"))
        client.close()
    assert (shares[0].round(1) != shares[0]).any()
    np.testing.assert_allclose(shares[1], shares[0].round(1), atol=1e-6)


@pytest.mark.slow
def test_litserve_by_a_description(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    Path("served.py").write_text(LITSERVE)
    Path("api.toml").write_text(LITSERVE_SPEC.replace("<url>", url))
    with running("litserve", "python", "served.py", str(port), ready=f"{url}/health"):
        check_page(told(capsys, "audit", "api.toml", *SMALL, "--test-images", "60"))


@pytest.mark.slow
def test_bentoml_by_a_description(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    Path("served.py").write_text(BENTOML)
    Path("api.toml").write_text(BENTOML_SPEC.replace("<url>", url))
    words = ("serve", "served:Digits", "--host", "127.0.0.1", "--port", str(port))
    with running("bentoml", "bentoml", *words, ready=f"{url}/readyz"):
        check_page(told(capsys, "audit", "api.toml", *SMALL))
