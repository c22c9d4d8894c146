"""Connections to a server: those that never end, too many of them, and those of a proxy."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from denature.core.errors import ConfigError
from denature.serve.config import Exposure, ServedModel, ServerLimits, Serving
from denature.serve.connections import PROXIES, Connections, network_of
from denature.serve.inflight import InFlight
from denature.train import Run
from tests.served import INFER, Served, body_of, serve, stop
from tests.victims import colour_mlp, pixels
from tests.wires import LIVE, connect, has_ended, is_live, post, reply


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return colour_mlp(tmp_path_factory)


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


@pytest.mark.parametrize("cut", ["size", "end of a chunk", "last chunk"])
def test_a_body_is_read_however_its_framing_is_cut(hasty: Served, cut: str) -> None:
    """A read of framing alone gives the application nothing to take."""
    body = body_of(pixels(1))
    size = b"%x\r\n" % len(body)
    pieces = {
        "size": [size, body + b"\r\n0\r\n\r\n"],
        "end of a chunk": [size + body, b"\r\n", b"0\r\n\r\n"],
        "last chunk": [size + body + b"\r\n", b"0\r\n", b"\r\n"],
    }[cut]
    with connect(hasty) as wire:
        wire.sendall(post())
        for piece in pieces:
            time.sleep(0.1)
            wire.sendall(piece)
        assert reply(wire)[0] == 200


def test_fields_behind_a_body_are_no_headers_and_bounded(hasty: Served) -> None:
    body = body_of(pixels(1))
    chunks = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    with connect(hasty) as wire:
        wire.sendall(post() + chunks + b"Inference-Header-Content-Length: 7\r\n\r\n")
        assert reply(wire)[0] == 200
    with connect(hasty) as wire:
        wire.sendall(post() + chunks)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                wire.sendall(b"a: b\r\n" * 2000)
        assert has_ended(wire)


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
