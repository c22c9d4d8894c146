"""A server under attack: bodies and pictures of real clients that mean it ill."""

import base64
import contextlib
import gzip
import io
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from denature.data.config import DataConfig
from denature.data.landmarks import PLACES
from denature.serve.config import Exposure
from denature.serve.inflight import InFlight
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.protocol import ModelSignature, parse
from denature.serve.refusal import Refused
from denature.train import Normal, Run, Training, train
from tests.served import INFER, Served, body_of, serve, stop
from tests.victims import colour_mlp, pixels
from tests.wires import LIVE, connect, has_ended, is_live, post, reply

NESTED = b"[" + b",".join([b"[]"] * 4_000_000) + b"]"
"""12 MB of empty lists, which are 500 MB of Python objects."""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return colour_mlp(tmp_path_factory)


@pytest.fixture(scope="module")
def face_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network of five landmarks that has learned nothing."""
    folder = tmp_path_factory.mktemp("faces")
    coded = io.BytesIO()
    Image.new("RGB", (32, 32)).save(coded, "png")
    cells = [{"bytes": coded.getvalue(), "path": None}] * 8
    columns = {"image": cells, "keypoints": pa.array([[0.5] * 136] * 8, pa.list_(pa.float32()))}
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), folder / f"{split}-0.parquet")
    data = DataConfig(source=str(folder), points=PLACES)
    training = Training(epochs=1, device="cpu", precision="fp32")
    return train("mlp", data, Normal(), training, out=tmp_path_factory.mktemp("runs") / "f")


@pytest.fixture(scope="module")
def keyed(
    victim: Run, face_run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, str]]:
    """A server with keys and one of them."""
    folder = tmp_path_factory.mktemp("keyed")
    with contextlib.closing(SqliteKeys(folder / "keys")) as keys:
        key = keys.add("good", budget=None, rate=None)
    served = serve(folder, f"m={victim.folder}", f"f={face_run.folder}",
                   "--keys", str(folder / "keys"))  # fmt: skip
    yield served, key
    stop(served)


# Before the key is checked


def test_without_a_key_nothing_of_a_body_is_read(keyed: tuple[Served, str]) -> None:
    """The replies come although no byte of the bodies was sent."""
    served, key = keyed
    unsigned = {"Authorization": "AWS4-HMAC-SHA256 Credential=dn-x/2020/x"}
    for more in ({}, {"X_API_Key": "dn-x"}, {"Authorization": "Bearer dn-x"}):
        with connect(served) as wire:
            wire.sendall(post(length=5_000_000, **more))
            assert reply(wire)[0] == 401
    with connect(served) as wire:
        wire.sendall(post("/", length=5_000_000, X_Amz_Target="RekognitionService.DetectFaces",
                          **unsigned))  # fmt: skip
        status, said = reply(wire)
        assert (status, json.loads(said)["__type"]) == (400, "AccessDeniedException")
    with connect(served) as wire:  # and the declared size comes before the body
        wire.sendall(post(length=1 << 40, X_API_Key=key))
        assert reply(wire)[0] == 413


def test_bodies_without_a_key_take_no_memory(keyed: tuple[Served, str]) -> None:
    served, _ = keyed
    bodies = [
        (INFER, gzip.compress(NESTED), {"Content-Encoding": "gzip", "X-API-Key": "dn-x"}),
        (INFER, NESTED, {"X-API-Key": "dn-x"}),
        ("/", picture(6000), {"X-Amz-Target": "RekognitionService.DetectFaces",
                              "Authorization": "AWS4-HMAC-SHA256 Credential=dn-x/2020/x"}),
    ]  # fmt: skip

    def send(number: int) -> int:
        path, body, headers = bodies[number % 3]
        return served.send("POST", path, body, headers)[0]

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send, range(16)))
        before = served.memory_mb()
        statuses = set(threads.map(send, range(64)))
    assert statuses == {400, 401}
    assert served.memory_mb() - before < 16  # where each of 64 would take 630 MB


def test_a_refused_body_leaves_its_connection_usable(keyed: tuple[Served, str]) -> None:
    served, _ = keyed
    with connect(served) as wire:
        for _ in range(3):
            wire.sendall(post(length=1_000_000) + b"x" * 1_000_000)
            assert reply(wire)[0] == 401
        wire.sendall(LIVE)
        assert reply(wire)[0] == 200
        wire.sendall(post(length=1 << 40))  # a rest that will not end
        assert reply(wire)[0] == 401
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                wire.sendall(b"x" * (1 << 20))
        assert has_ended(wire)


def test_health_is_told_while_64_clients_send_the_worst_bodies(keyed: tuple[Served, str]) -> None:
    """With an invalid key, and with a valid one."""
    served, key = keyed
    packed, done = gzip.compress(NESTED), threading.Event()

    def attack(number: int) -> set[int]:
        statuses, headers = set(), {"X-API-Key": key if number % 16 == 1 else "dn-x"}
        while not done.is_set():
            body, more = (NESTED, {}) if number == 0 else (packed, {"Content-Encoding": "gzip"})
            statuses.add(served.send("POST", INFER, body, {**headers, **more})[0])
        return statuses

    with ThreadPoolExecutor(64) as threads:
        attacks = [threads.submit(attack, number) for number in range(64)]
        assert all(is_live(served) for _ in range(20))
        done.set()
        statuses = set().union(*(each.result() for each in attacks))
    assert statuses <= {400, 401, 503}
    assert served.send("POST", INFER, body_of(pixels(2)), {"X-API-Key": key})[0] == 200


# Bodies of callers with a key


@pytest.mark.parametrize("packed", [False, True])
def test_nested_lists_are_refused_before_they_are_built(
    keyed: tuple[Served, str], packed: bool
) -> None:
    served, key = keyed
    tensor = b'{"inputs":[{"name":"images","shape":[1,3,32,32],"datatype":"UINT8","data":'
    headers = {"X-API-Key": key} | ({"Content-Encoding": "gzip"} if packed else {})
    served.send("POST", INFER, body_of(pixels(256)), {"X-API-Key": key})
    before = served.memory_mb()
    for body in (NESTED, tensor + NESTED + b"}]}", b"[" * 12_000_000,
                 b'{"inputs":' + b'{"a":' * 2_000_000, b'{"parameters":' + NESTED + b"}",
                 b'{"inputs":[' + b",".join([b"{}"] * 4_000_000) + b"]}"):  # fmt: skip
        sent = gzip.compress(body, 1) if packed else body
        status, _, said = served.send("POST", INFER, sent, headers)
        assert (status, list(json.loads(said))) == (400, ["error"])
    assert served.memory_mb() - before < 100


def signature() -> ModelSignature:
    return ModelSignature(name="m", shape=(3, 32, 32), classes=("a", "b"),
                          exposure=Exposure())  # fmt: skip


def test_a_hostile_body_takes_the_memory_of_its_text() -> None:
    tensor = b'{"inputs":[{"name":"images","shape":[1,3,32,32],"datatype":"UINT8","data":'
    for body in (NESTED, tensor + NESTED + b"}]}"):
        tracemalloc.start()
        with pytest.raises(Refused):
            parse(body, None, signature(), max_images=256)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 3 * len(body)


@pytest.mark.parametrize("data", ["[0]", "[[[[0]]]]", "[" + "0," * 999 + "0]"])
def test_a_declared_shape_takes_no_memory_without_its_numbers(data: str) -> None:
    large = ModelSignature(name="m", shape=(3, 224, 224), classes=("a", "b"), exposure=Exposure())
    tensor = {"name": "images", "shape": [256, 3, 224, 224], "datatype": "UINT8", "data": 0}
    body = json.dumps({"inputs": [tensor]}).replace('"data": 0', f'"data": {data}').encode()
    tracemalloc.start()
    with pytest.raises(Refused, match="must be a list of 38535168 numbers"):
        parse(body, None, large, max_images=256)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000


def test_images_of_any_floats_fit_the_limit_of_their_number(victim: Run, tmp_path: Path) -> None:
    """In JSON a float takes up to 24 characters."""
    served = serve(tmp_path, f"m={victim.folder}", "--max-images", "128")
    try:
        images = np.full((128, 3, 32, 32), -np.finfo(np.float64).tiny).tolist()
        tensor = {"name": "images", "shape": [128, 3, 32, 32], "datatype": "FP32", "data": images}
        sent = json.dumps({"inputs": [tensor]}).encode()
        status, _, said = served.send("POST", INFER, sent)
    finally:
        stop(served)
    assert status == 400
    assert "in [0, 1]" in json.loads(said)["error"]  # read, and refused for what it is


def picture(side: int) -> bytes:
    """A DetectFaces request with a small file of many pixels."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "png")
    return json.dumps({"Image": {"Bytes": base64.b64encode(buffer.getvalue()).decode()}}).encode()


def test_large_pictures_are_decoded_one_after_another_and_freed(keyed: tuple[Served, str]) -> None:
    served, key = keyed
    headers = {"X-Amz-Target": "RekognitionService.DetectFaces",
               "Authorization": f"AWS4-HMAC-SHA256 Credential={key}/2020/x"}  # fmt: skip
    body, done = picture(6000), threading.Event()
    assert served.send("POST", "/", picture(64), headers)[0] == 200
    before, most = served.memory_mb(), 0.0

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, served.memory_mb())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(6) as threads:
        statuses = set(threads.map(lambda _: served.send("POST", "/", body, headers)[0], range(6)))
    done.set()
    watcher.join()
    assert statuses == {200}
    assert most - before < 600
    assert served.memory_mb() - before < 60


def test_nothing_is_done_for_clients_that_have_gone(face_run: Run, tmp_path: Path) -> None:
    """Pictures that would take half a minute, whose clients leave; the server stops at once."""
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("a", budget=None, rate=None)
        served = serve(tmp_path, f"f={face_run.folder}", "--keys", str(tmp_path / "keys"))
        body = picture(6000)
        head = post("/", length=len(body), X_Amz_Target="RekognitionService.DetectFaces",
                    Authorization=f"AWS4-HMAC-SHA256 Credential={key}/2020/x")  # fmt: skip
        with contextlib.ExitStack() as held:
            for _ in range(100):
                held.enter_context(connect(served)).sendall(head + body)
            assert is_live(served)
        stop(served)
        assert keys.accounts()[0].used < 20


def test_bytes_in_flight_are_bounded(victim: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, f"m={victim.folder}", "--max-inflight-mb", "2")
    try:
        with contextlib.ExitStack() as held:
            wires = []
            sources = {"127.0.0.1": (600_000, 600_000), "127.0.0.2": (300_000,)}
            for source, sizes in sources.items():
                for size in sizes:
                    wires.append(held.enter_context(connect(served, source=source)))
                    wires[-1].sendall(post(length=700_000) + b" " * size)
                    time.sleep(0.3)  # until the server has read it
            status, said = reply(wires[1])  # one client gets half of all
            assert (status, json.loads(said)["error"][:24]) == (503, "The server holds too man")
            for wire, left in ((wires[0], 100_000), (wires[2], 400_000)):
                wire.sendall(b" " * left)
                assert reply(wire)[0] == 400  # read to the end
        assert served.send("POST", INFER, b" " * 1_100_000)[0] == 413  # could never be held
        assert served.send("POST", INFER, body_of(pixels(8)))[0] == 200
    finally:
        stop(served)


def test_a_caller_leaves_as_much_as_it_takes() -> None:
    whole = InFlight(100)
    with whole.share("a") as first, whole.share("a") as second, whole.share("b") as other:
        first.add(40)
        second.add(10)
        with pytest.raises(Refused, match="holds too many bytes") as refused:
            second.add(1)
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        other.add(25)
        with pytest.raises(Refused):
            other.add(1)
        first.add(-40)
        other.add(20)
    whole.take("c", 50)


def test_a_caller_gets_half_of_all_bytes_whatever_it_takes_at_once() -> None:
    whole = InFlight(100)
    with whole.share("a") as share:
        with pytest.raises(Refused):
            share.add(51)
        share.add(50)
        with whole.share("b") as other:
            other.add(25)


def test_nothing_is_charged_that_has_no_room(victim: Run, tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("a", budget=None, rate=None)
        served = serve(tmp_path, f"m={victim.folder}", "--keys", str(tmp_path / "keys"),
                       "--max-images", "8", "--max-waiting", "8", "--window-ms", "300")  # fmt: skip
        headers: dict[str, Any] = {"X-API-Key": key}
        body = body_of(pixels(4))
        try:
            with ThreadPoolExecutor(12) as threads:
                sent = [threads.submit(served.send, "POST", INFER, body, headers)
                        for _ in range(12)]  # fmt: skip
                statuses = [each.result()[0] for each in sent]
        finally:
            stop(served)
        assert set(statuses) == {200, 503}
        assert keys.accounts()[0].used == 4 * statuses.count(200)
