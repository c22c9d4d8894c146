"""A served model: a real server with real clients."""

import contextlib
import gzip
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denature.cli.app import main
from denature.core.errors import RunError
from denature.serve.keys.sqlite import SqliteKeys
from denature.train import Run, load_run
from tests.processes import Command
from tests.served import Served, body_of, serve, serving, stop
from tests.victims import digits, predicted


@pytest.fixture(scope="module")
def server(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = victim.folder
    with serving(
        tmp_path_factory.mktemp("served"), f"{run}", f"soft={run}@show=logits",
        f"hard={run}@show=label", f"few={run}@top=3+decimals=2", "--max-images", "64",
    ) as served:  # fmt: skip
        yield served


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritons_own_client_works(
    server: Served, victim: Run, binary_in: bool, binary_out: bool
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(server.address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.is_model_ready("mlp", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "classification"]
    images = digits(5)
    given = triton.InferInput("images", list(images.shape), "UINT8")
    given.set_data_from_numpy(images, binary_data=binary_in)

    def ask(model: str, name: str, **more: Any) -> Any:
        wanted = triton.InferRequestedOutput(name, binary_data=binary_out, **more)
        return client.infer(model, [given], outputs=[wanted], request_id="7")

    with_torch = predicted(victim, images)
    found = ask("soft", "logits")
    assert found.get_response()["id"] == "7"
    np.testing.assert_allclose(found.as_numpy("logits"), with_torch, atol=1e-5)
    assert ask("hard", "label").as_numpy("label").tolist() == with_torch.argmax(1).tolist()
    soft = ask("mlp", "probabilities").as_numpy("probabilities")
    np.testing.assert_allclose(soft.sum(1), 1, atol=1e-5)
    largest = ask("mlp", "probabilities", class_count=2).as_numpy("probabilities")
    assert largest.shape == (5, 2)
    value, place, name = as_text(largest[0, 0]).split(":")
    assert (int(place), name) == (soft[0].argmax(), str(soft[0].argmax()))
    assert float(value) == pytest.approx(float(soft[0].max()))
    few = ask("few", "probabilities").as_numpy("probabilities")
    assert few.shape == (5, 3)
    assert re.fullmatch(r"\d\.\d{1,2}:\d:\d", as_text(few[0, 0]))
    floats = triton.InferInput("images", list(images.shape), "FP32")
    floats.set_data_from_numpy((images / 255).astype(np.float32), binary_data=binary_in)
    again = client.infer("soft", [floats], request_compression_algorithm="gzip")
    np.testing.assert_allclose(again.as_numpy("logits"), with_torch, atol=1e-5)
    with pytest.raises(triton.InferenceServerException, match="no model called 'none'") as refused:
        client.infer("none", [given])
    assert refused.value.status() == "404"
    client.close()


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_metadata_and_errors_have_the_protocols_form(server: Served) -> None:
    def told(path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
        status, _, answer = server.send(method, path, body)
        return status, json.loads(answer)

    assert told("/v2")[1]["name"] == told("/")[1]["name"] == "denature"
    assert told("/v2/health/live") == (200, {"live": True})
    status, model = told("/v2/models/few/versions/1")
    assert status == 200
    assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]
    assert model["outputs"] == [{"name": "probabilities", "datatype": "BYTES", "shape": [-1, 3]}]
    assert {it["name"] for it in told("/v2/repository/index", "POST")[1]} == {
        "mlp", "soft", "hard", "few",
    }  # fmt: skip
    for path, method, status in (
        ("/v2/models/none", "GET", 404),
        ("/v2/models/mlp/versions/2/ready", "GET", 404),
        ("/elsewhere", "GET", 404),
        ("/v2/models/mlp/infer", "GET", 405),
        ("/v2/models/mlp/infer", "POST", 400),
    ):
        found, answer = told(path, method)
        assert found == status, path
        assert list(answer) == ["error"]


def test_bodies_are_bounded_packed_or_not(server: Served) -> None:
    path = "/v2/models/mlp/infer"
    bomb = gzip.compress(b" " * 50_000_000)
    for body, headers, status in (
        (b" " * 2_000_000, {}, 413),
        (bomb, {"Content-Encoding": "gzip"}, 413),
        (bomb[:-9], {"Content-Encoding": "gzip"}, 413),
        (gzip.compress(b"{}")[:-3], {"Content-Encoding": "gzip"}, 400),
        (b"{}", {"Content-Encoding": "gzip"}, 400),
        (b"{}", {"Content-Encoding": "br"}, 415),
        (gzip.compress(body_of(digits(1))), {"Content-Encoding": "gzip"}, 200),
    ):
        found, _, answer = server.send("POST", path, body, headers)
        assert found == status, (headers, answer)
    assert server.send("POST", path, body_of(digits(65)))[0] == 400


def test_what_is_told_of_requests_has_nothing_of_their_images(server: Served) -> None:
    before = len(server.entries())
    assert server.send("POST", "/v2/models/mlp/infer", body_of(digits(2)))[0] == 200
    entry = server.entries()[before]
    assert set(entry) == {"time", "peer", "model", "key", "id", "images", "status", "ms"}
    assert (entry["model"], entry["images"], entry["status"]) == ("mlp", 2, 200)
    status, headers, body = server.send("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert re.search(rb'denature_images_total{model="mlp"} \d', body)


def test_health_is_told_under_load(server: Served) -> None:
    body, done = body_of(digits(64)), threading.Event()

    def load() -> None:
        while not done.is_set():
            server.send("POST", "/v2/models/mlp/infer", body)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        taken = []
        for _ in range(30):
            started = time.perf_counter()
            assert server.send("GET", "/v2/health/ready")[0] == 200
            taken.append(time.perf_counter() - started)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert sorted(taken)[15] < 0.5


def test_a_script_is_told_where_and_what(victim: Run) -> None:
    words = ("--port", "0", "--show", "label", "--log", "off", "--json")
    with Command("serve", f"m={victim.folder}", *words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.terminate()
        process.communicate(timeout=60)
    assert told["url"].startswith("http://127.0.0.1:")
    assert told["models"] == {"m": {"show": "label", "top": 0, "decimals": None}}


def test_a_server_that_is_interrupted_ends_as_it_should(victim: Run, tmp_path: Path) -> None:
    """Ctrl-C is how a server is stopped: no error, and no word of runs that go on."""
    words = ("serve", f"m={victim.folder}", "--port", "0", "--device", "cpu", "--log", "off")
    with Command(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (0, 1)
    assert said.startswith("Without --keys")


def test_what_was_accepted_is_answered_before_the_end(victim: Run, tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys, ThreadPoolExecutor(1) as thread:
        headers = {"Authorization": f"Bearer {keys.add('a', budget=None, rate=None)}"}
        served = serve(tmp_path, f"m={victim.folder}", "--window-ms", "700",
                       "--keys", str(tmp_path / "keys"))  # fmt: skip
        body = body_of(digits(3))
        waiting = thread.submit(served.send, "POST", "/v2/models/m/infer", body, headers)
        while not keys.accounts()[0].used:  # charged when it was accepted
            assert not waiting.done() or waiting.result()[0] == 200
            time.sleep(0.01)
        stop(served)
        assert waiting.result()[0] == 200
    assert [entry["status"] for entry in served.entries()] == [200]


def test_faults_come_out_before_anything_is_served(
    victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, said in (
            ([str(tmp_path / "nothing")], "is missing"),
            ([str(victim.folder), "--port", port], "The server cannot listen at"),
            (
                [str(victim.folder), "--keys", str(tmp_path / "k"), "--port", "0"],
                "There are no key",
            ),
            ([str(victim.folder), "--workers", "0"], "workers is 0"),
            ([], "No model was named"),
        ):
            assert main(["serve", *words]) == 1
            assert said in capsys.readouterr().err
    with pytest.raises(RunError):
        load_run(tmp_path / "nothing")


@pytest.mark.slow
def test_ten_thousand_malformed_requests_leave_the_server_as_it_was(
    victim: Run, tmp_path: Path
) -> None:
    """Over real sockets: never a 5xx, never a crash, no growth of memory."""
    served = serve(tmp_path, f"m={victim.folder}")
    draw = np.random.default_rng(0)
    good = body_of(digits(2))
    pieces = [b"{", b"}", b"[", b"]", b'"shape"', b"-1", b"1e999", b"null", b"\xff\xfe", b'"data":',
              b"9" * 400, b"[" * 2000, b'"UINT8"', b"NaN", b"\\u0000"]  # fmt: skip
    lengths = ["0", "-5", "5", "x", str(len(good)), "99999999999", str(len(good) // 2), "\u00b2"]
    statuses: dict[int, int] = {}

    def mutated() -> bytes:
        body = bytearray(good)
        for _ in range(draw.integers(1, 5)):
            if not body:
                break
            at = int(draw.integers(0, len(body)))
            kind = draw.integers(0, 4)
            if kind == 0:
                body[at] = int(draw.integers(0, 256))
            elif kind == 1:
                body[at:at] = pieces[draw.integers(0, len(pieces))]
            elif kind == 2:
                del body[at : at + int(draw.integers(1, 200))]
            else:
                body = body[: at + 1]
        return bytes(body)

    connection = http.client.HTTPConnection(served.address, timeout=60)
    try:
        middle = 0.0
        for number in range(10_000):
            headers = {}
            if draw.random() < 0.3:
                headers["Inference-Header-Content-Length"] = lengths[
                    draw.integers(0, len(lengths) - 1)
                ]
            if draw.random() < 0.1:
                headers["Content-Encoding"] = ("gzip", "deflate", "x")[draw.integers(0, 3)]
            name = "m" if draw.random() < 0.9 else "m" * int(draw.integers(1, 300))
            connection.request("POST", f"/v2/models/{name}/infer", mutated(), headers)
            response = connection.getresponse()
            answer = response.read()
            statuses[response.status] = statuses.get(response.status, 0) + 1
            assert response.status < 500, answer
            if response.status != 200:
                assert list(json.loads(answer)) == ["error"]
            if response.getheader("connection") == "close":
                connection.close()
            if number == 3000:
                middle = served.memory_mb()
        # And what is no HTTP at all, or ends too early.
        post = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: "
        for junk in (b"\x00" * 100, b"GET", b"POST /v2 HTTP/9.9\r\n\r\n", post + b"100\r\n\r\n{",
                     post + b"-1\r\n\r\n"):  # fmt: skip
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", served.port)) as wire:
                    wire.sendall(junk)
        assert served.send("POST", "/v2/models/m/infer", good)[0] == 200
        assert served.process.poll() is None
        assert served.memory_mb() - middle < 20
    finally:
        connection.close()
        stop(served)
    assert statuses[400] > 5000
    assert all(entry["status"] < 500 for entry in served.entries())
