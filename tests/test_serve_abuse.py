"""A server under attack: real processes and sockets, and clients that mean it ill."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import socket
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
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from denature.core.errors import ConfigError
from denature.data.config import DataConfig
from denature.data.dataset import Dataset, Split
from denature.data.landmarks import PLACES
from denature.serve.batching import Batcher
from denature.serve.config import Exposure, ServedModel, ServerLimits, Serving
from denature.serve.connections import PROXIES, Connections, network_of
from denature.serve.fair import FairGate, FairQueue
from denature.serve.inflight import InFlight
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.protocol import ModelSignature, parse
from denature.serve.refusal import Refused
from denature.train import Normal, Run, Training, train
from tests.served import Served, serve, stop

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
INFER = "/v2/models/m/infer"
NESTED = b"[" + b",".join([b"[]"] * 4_000_000) + b"]"
"""12 MB of empty lists, which are 500 MB of Python objects."""


def post(path: str = INFER, *, length: int | None = None, **headers: str) -> bytes:
    """The head of a request, whose body is sent in chunks without a length."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", "Host: x", size]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def body_of(images: np.ndarray) -> bytes:
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8",
              "data": images.reshape(-1).tolist()}  # fmt: skip
    return json.dumps({"inputs": [tensor]}).encode()


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def connect(served: Served, *, source: str = "127.0.0.1") -> socket.socket:
    """A connection from an address of this machine."""
    return socket.create_connection(("127.0.0.1", served.port), 30, source_address=(source, 0))


def reply(wire: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next reply; 0 where the connection ended."""
    text = b""
    while b"\r\n\r\n" not in text:
        if not (part := wire.recv(1)):
            return 0, text
        text += part
    head = text.decode().lower().split("\r\n")
    length = next(int(line[16:]) for line in head if line.startswith("content-length: "))
    body = b""
    while len(body) < length and (part := wire.recv(length - len(body))):
        body += part
    return int(head[0].split()[1]), body


def has_ended(wire: socket.socket) -> bool:
    """Whether the server ends a connection within 30 seconds."""
    try:
        while wire.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def is_live(served: Served, source: str = "127.0.0.1") -> bool:
    with connect(served, source=source) as wire:
        wire.sendall(LIVE)
        return reply(wire)[0] == 200


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network for 3x32x32, whose bodies of 256 images are as large as those of CIFAR."""
    images = torch.from_numpy(pixels(20))
    split = Split(images, torch.arange(20) % 10, torch.arange(20))
    data = Dataset(config=DataConfig(source="random"), train=split, test=split, validation=None,
                   classes=tuple("0123456789"), digest="random", test_origin="none")  # fmt: skip
    learning = Training(epochs=1, device="cpu", precision="fp32")
    return train("mlp", data, Normal(), learning, out=tmp_path_factory.mktemp("runs") / "m")


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
    learning = Training(epochs=1, device="cpu", precision="fp32")
    return train("mlp", data, Normal(), learning, out=tmp_path_factory.mktemp("runs") / "f")


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


@pytest.fixture(scope="module")
def hasty(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that waits for nothing for long, and for few."""
    served = serve(
        tmp_path_factory.mktemp("hasty"), f"m={victim.folder}", "--head-s", "1",
        "--body-s", "1", "--unread-s", "1", "--max-connections", "100",
        "--max-peer-connections", "40",
    )  # fmt: skip
    yield served
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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_numbers_are_read_as_json_reads_them(data: st.DataObject) -> None:
    """In every form and spacing, and refused where json or the shape refuse them."""
    from denature.serve.numbers import read_numbers

    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "float32"])))
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=4, max_size=4)))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = draw.integers(0, 256, shape) if dtype.kind == "u" else draw.random(shape)
    nested = data.draw(st.booleans())
    text = json.dumps((values if nested else values.reshape(-1)).tolist(),
                      indent=data.draw(st.sampled_from([None, 1])))  # fmt: skip
    np.testing.assert_array_equal(
        read_numbers(text.encode(), shape, dtype), values.astype(dtype), strict=True
    )
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from("[],.-e 0")) + text[at + 1 :]
    try:
        wanted = np.asarray(json.loads(changed))
    except ValueError:
        return  # its syntax is checked before
    try:
        found = read_numbers(changed.encode(), shape, dtype)
    except Refused:
        return
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted.astype(dtype))


@pytest.mark.parametrize("text", ["[]", "[ ]", "[[1]]", "[1,2]", "1", "null", "[true]", '["1"]',
                                  "[[[[1]]],[[[1]]]]", "[-]", "[1.5.5]"])  # fmt: skip
def test_what_is_not_one_number_is_refused(text: str) -> None:
    from denature.serve.numbers import read_numbers

    with pytest.raises(Refused, match="a list of 1 numbers"):
        read_numbers(text.encode(), (1, 1, 1, 1), np.dtype("uint8"))
    assert read_numbers(b"[[[[ 7 ]]]]", (1, 1, 1, 1), np.dtype("uint8")).item() == 7


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


# Connections that never end


def test_half_a_head_ends(hasty: Served) -> None:
    with contextlib.ExitStack() as held:
        wires = [held.enter_context(connect(hasty)) for _ in range(4)]
        wires[1].sendall(b"GET /v2 HTT")
        wires[2].sendall(LIVE[:-2])
        wires[3].sendall(LIVE + LIVE[:9])
        assert all(has_ended(wire) for wire in wires)
    with connect(hasty) as wire, contextlib.suppress(ConnectionError):  # and a drip of bytes
        for _ in range(100):
            wire.sendall(b"x")
            time.sleep(0.1)
        pytest.fail("a drip keeps a connection open")


def test_an_endless_head_ends(hasty: Served) -> None:
    before = hasty.memory_mb()
    for start in (b"GET /", b"GET / HTTP/1.1\r\nHost: ", b"GET / HTTP/1.1\r\na: b\r\n"):
        with connect(hasty) as wire:
            try:
                wire.sendall(start)
                for _ in range(3000):
                    wire.sendall(b"a: b\r\n" * 2000 if start.endswith(b"b\r\n") else b"x" * 12_000)
                pytest.fail("an endless head is read")
            except ConnectionError:
                pass
    assert hasty.memory_mb() - before < 20
    with connect(hasty) as wire:  # complete, but too large
        wire.sendall(b"GET /v2 HTTP/1.1\r\nHost: " + b"x" * 40_000 + b"\r\n\r\n")
        assert reply(wire)[0] == 431


def test_a_body_that_does_not_come_ends(hasty: Served) -> None:
    with connect(hasty) as wire:
        wire.sendall(post(length=100) + b"x")
        assert reply(wire)[0] == 408
        assert has_ended(wire)


def test_a_body_in_crumbs_is_refused(hasty: Served) -> None:
    with connect(hasty) as wire:
        wire.sendall(post() + b"1\r\n \r\n" * 3000 + b"0\r\n\r\n")
        status, said = reply(wire)
        assert (status, "too many small chunks" in said.decode()) == (400, True)
    with connect(hasty) as wire:
        wire.sendall(post() + b"80\r\n" + b" " * 128 + b"\r\n" + b"1\r\n \r\n" * 200)
        wire.sendall((b"80\r\n" + b" " * 128 + b"\r\n") * 3000 + b"0\r\n\r\n")
        assert "is no JSON" in reply(wire)[1].decode()


def test_connections_that_wait_make_room(hasty: Served) -> None:
    """Far more than may be open, of one address and of many, half-open for ever."""
    wires = [connect(hasty, source=f"127.0.1.{1 + n // 60}") for n in range(300)]
    for wire in wires:
        with contextlib.suppress(ConnectionError):
            wire.sendall(b"G")
    assert is_live(hasty)
    assert is_live(hasty, "127.0.1.1")
    hasty_files = list(Path(f"/proc/{hasty.process.pid}/fd").iterdir())
    assert len(hasty_files) < 100 + 100
    for wire in wires:
        wire.close()


def test_a_limit_of_files_is_survived(victim: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, f"m={victim.folder}", files=200)
    try:
        wires = [connect(served, source=f"127.0.2.{1 + n % 9}") for n in range(600)]
        for _ in range(5):
            assert is_live(served)
        assert served.send("POST", INFER, body_of(pixels(1)))[0] == 200
        for wire in wires:
            wire.close()
    finally:
        stop(served)


def test_a_request_at_work_does_not_make_room(victim: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, f"m={victim.folder}", "--max-peer-connections", "2",
                   "--window-ms", "1000")  # fmt: skip
    try:
        body = body_of(pixels(1))
        with connect(served) as first, connect(served) as second:
            for wire in (first, second):
                wire.sendall(post(length=len(body)) + body)
            time.sleep(0.3)
            with connect(served) as third:
                assert reply(third)[0] == 503
            assert is_live(served, "127.0.0.2")
            assert (reply(first)[0], reply(second)[0]) == (200, 200)
    finally:
        stop(served)


def test_pipelined_requests_are_answered_in_order(hasty: Served) -> None:
    body = body_of(pixels(1))
    ask = post(length=len(body)) + body
    odd = b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(hasty) as wire:
        for _ in range(3):
            wire.sendall((LIVE + odd + ask) * 40 + LIVE)
            found = [reply(wire)[0] for _ in range(121)]
            assert found == [200, 404, 200] * 40 + [200]


@pytest.mark.parametrize(
    "ask",
    [
        b"GET /v2/models/m HTTP/1.1\r\nHost: x\r\n\r\n",
        pytest.param(post(length=2) + b"{}", marks=pytest.mark.slow),
    ],
)
def test_pipelined_requests_wait_for_their_replies_to_be_read(hasty: Served, ask: bytes) -> None:
    before, sent = hasty.memory_mb(), 0
    flood = ask * (1_000_000 // len(ask))
    with connect(hasty) as wire:
        wire.settimeout(0.3)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(100):
                sent += wire.send(flood)
        assert sent < 50_000_000
        assert hasty.memory_mb() - before < 15
        assert is_live(hasty)
        wire.settimeout(30)
        time.sleep(2)  # an answer that is not read
        assert has_ended(wire)


def test_a_stop_does_not_wait_for_what_does_not_come(victim: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, f"m={victim.folder}", "--window-ms", "500")
    body = body_of(pixels(1))
    wires = [connect(served) for _ in range(4)]
    wires[0].sendall(post(length=1000) + b"slow")
    wires[1].sendall(LIVE[:-2])
    with contextlib.suppress(TimeoutError):
        wires[2].settimeout(0.3)
        for _ in range(40):
            wires[2].sendall(b"GET /v2/models/m HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
    wires[3].sendall(post(length=len(body)) + body)
    time.sleep(0.2)
    started = time.monotonic()
    stop(served)
    assert time.monotonic() - started < 20  # 30 before
    assert reply(wires[0])[0] == 503
    assert reply(wires[3])[0] == 200  # what had arrived is answered
    for wire in wires:
        wire.close()


# Behind a proxy


def test_a_proxys_connections_are_bounded_in_all_only(victim: Run, tmp_path: Path) -> None:
    served = serve(tmp_path, f"m={victim.folder}", "--max-peer-connections", "2",
                   "--behind-proxy", "127.0.0.1")  # fmt: skip
    try:
        for source, live in (("127.0.0.1", 6), ("127.0.0.2", 2)):
            with contextlib.ExitStack() as held:
                wires = [held.enter_context(connect(served, source=source)) for _ in range(6)]
                assert is_live(served, "127.0.0.3")  # so all are accepted
                found = []
                for wire in wires:
                    with contextlib.suppress(ConnectionError):
                        wire.sendall(LIVE)
                        found.append(reply(wire)[0])
                assert found.count(200) == live
    finally:
        stop(served)


def test_what_counts_as_one_peer() -> None:
    async def peers(*hosts: str) -> list[str]:
        all_ = Connections(ServerLimits(), InFlight(1), ("10.0.0.0/8", "::1"))
        return [all_.peer_of(host) for host in hosts]

    found = asyncio.run(peers("10.1.2.3", "::1", "11.0.0.1", "2001:db8::1:2:3:4", "socket"))
    assert found == [PROXIES, PROXIES, "11.0.0.1", "2001:db8::/64", PROXIES]
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1"
    model = ServedModel(name="m", run="r", exposure=Exposure())
    with pytest.raises(ConfigError, match=r"behind_proxy is 'all'.*such as 10\.0\.0\.7"):
        Serving(models=(model,), behind_proxy=("all",))


# Turns


def test_callers_are_served_equally_whatever_they_send() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(60):
        queue.push("many", 1, "many")
    for _ in range(5):
        queue.push("large", 4, "large")
    served = {"many": 0, "large": 0}
    for _ in range(25):
        item = queue.pop()
        served[item] += 4 if item == "large" else 1
    assert served == {"many": 20, "large": 20}
    queue.push("late", 1, "late")  # is not owed what it missed
    assert [queue.pop() for _ in range(4)].count("late") == 1
    while queue:
        queue.pop()


def test_a_caller_that_returns_has_credit_and_no_more() -> None:
    queue: FairQueue[str] = FairQueue(credit=8)
    for _ in range(100):
        queue.push("greedy", 4, "greedy")
    assert [queue.pop() for _ in range(50)] == ["greedy"] * 50
    for _ in range(100):
        queue.push("polite", 4, "polite")
    first = [queue.pop() for _ in range(12)]
    assert first[:2] == ["polite"] * 2
    assert first.count("polite") == 7


def test_a_polite_caller_gets_its_share_beside_a_greedy_one() -> None:
    """48 requests of 256 images wait all the time; one more caller has one after another."""
    computed: list[int] = []

    def answer(images: list[np.ndarray]) -> np.ndarray:
        time.sleep(0.005)
        computed.append(sum(int(part[0, 0] == 1) * len(part) for part in images))
        return np.concatenate(images)

    limits = ServerLimits(max_waiting=48 * 256)
    line, done = Batcher(answer, limits), False

    async def greedy() -> None:
        while not done:
            with line.room(256, "greedy"):
                await line.ask(np.zeros((256, 1)), "greedy")

    async def polite() -> None:
        nonlocal done
        for _ in range(20):
            with line.room(256, "polite"):
                found = await line.ask(np.ones((256, 1)), "polite")
            assert found.tolist() == [[1]] * 256
            await asyncio.sleep(0)  # the way to its next request
        done = True

    async def both() -> None:
        crowd = [asyncio.create_task(greedy()) for _ in range(48)]
        await asyncio.sleep(0.05)
        computed.clear()
        await polite()
        await asyncio.gather(*crowd)

    asyncio.run(both())
    line.close()
    last = max(n for n, images in enumerate(computed) if images)
    share = sum(computed) / (256 * (last + 1))
    assert share > 0.45  # of one half


def test_a_greedy_key_does_not_use_up_the_room_of_others() -> None:
    line = Batcher(lambda images: np.concatenate(images), ServerLimits(max_images=4, max_waiting=4))
    with (
        line.room(4, "greedy"), line.room(4, "polite"),
        pytest.raises(Refused), line.room(1, "greedy"),
    ):  # fmt: skip
        pass
    with line.room(4, "greedy"):
        pass
    line.close()


def test_turns_at_a_gate_are_fair_and_are_not_lost() -> None:
    order: list[str] = []

    async def work(gate: FairGate, caller: str) -> None:
        async with gate.turn(caller, 1):
            order.append(caller)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        gate = FairGate(1)
        works = [asyncio.create_task(work(gate, "many")) for _ in range(10)]
        works += [asyncio.create_task(work(gate, "one")) for _ in range(2)]
        await asyncio.sleep(0)
        works[5].cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await asyncio.wait_for(work(gate, "after"), 10)

    asyncio.run(all_of_them())
    assert (order.count("many"), order.count("one"), order[-1]) == (9, 2, "after")
    assert set(order[:6]) == {"many", "one"}
    assert order[:6].count("one") == 2


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
