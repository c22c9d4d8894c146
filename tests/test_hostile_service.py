"""A thief against a service that repeats its key, drips, or answers with something else."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.core.stopping import Stopper
from denature.core.text import printable
from denature.extract.asking.ledger import Ledger
from denature.extract.asking.oracle import Oracle
from denature.extract.asking.pool import NoisePool
from denature.extract.theft import LEDGER
from denature.extract.victims.base import Victim, run_now
from denature.extract.victims.find import find
from denature.extract.victims.rekognition import Rekognition
from denature.remote.config import RequestConfig
from denature.remote.errors import AskFailed
from tests.encoded_keys import ENCODINGS
from tests.hostile import Answer, Hostile, Request, hostile, reply

KEY = "sk-live-Zm9vYmFyLXNlY3JldC0wMTIzNDU2Nzg5YWJjZGVm"
TOKEN = "FwoGZXIvYXdzEJr//////////wEaDCq8aVq7n0aX2bYkSyKvAQ"
PIXELS = np.zeros((1, 3, 8, 8), np.uint8)


def described(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}
    output = {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}
    return {"name": "m", "inputs": [tensor], "outputs": [output], **changes}


def of_protocol(infer: Callable[[Request], Answer], **changes: Any) -> Callable[[Request], Answer]:
    """An Open Inference server with one model; `changes` are those of its metadata."""

    def answer(request: Request) -> Answer:
        if request.path == "/v2/repository/index":
            return reply([{"name": changes.get("name", "m")}])
        if request.path.endswith("/infer"):
            return infer(request)
        return reply({"name": "s"} if request.path == "/v2" else described(**changes))

    return answer


def shares(text: str, secret: str, row: int = 8) -> bool:
    return any(secret[n : n + row] in text for n in range(len(secret) - row + 1))


def stolen(
    server: Hostile, out: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Exit code of a theft, and all that it said and kept."""
    code = main(
        ["steal", server.url, "--pool", "digits", "--budget", "20", "--student", "mlp",
         "--test-images", "2", "--epochs", "1", "--device", "cpu", "--attempts", "1",
         "--out", str(out), *words]
    )  # fmt: skip
    told = "".join(capsys.readouterr())
    kept = [path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file()]
    return code, "\n".join([told, *kept, *map(str, out.rglob("*"))])


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DENATURE_KEY", KEY)
    return KEY


@pytest.mark.parametrize(
    ("form", "before"), [*((form, 255) for form in sorted(ENCODINGS)), ("plain", 0), ("plain", 290)]
)
def test_a_key_in_an_error_is_neither_shown_nor_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, form: str, before: int
) -> None:
    written = ENCODINGS[form][0](key)

    def infer(request: Request) -> Answer:
        assert request.headers["authorization"] == f"Bearer {key}"
        return reply({"error": "щ" * before + written + "\x1b[2J"}, status="400 Bad")

    with hostile(of_protocol(infer)) as server:
        code, all_of_it = stolen(server, tmp_path, capsys)
    assert code == 1
    assert "answered 400" in all_of_it
    for secret in (key, written):
        assert not shares(all_of_it, secret, row=8 + 3 * (len(written) // len(key)))
    assert "\x1b[2J" not in all_of_it


ECHOES: dict[str, Callable[[Request], Answer]] = {
    "raw": lambda _: reply(f"<b>{KEY}</b>".encode(), status="500 No", kind="text/html"),
    "long": lambda _: reply((KEY * 9000).encode(), status="500 No"),
    "status line": lambda _: f"HTTP/1.1 {KEY}\r\n\r\n".encode(),
    "header": lambda _: f"HTTP/1.1 200 OK\r\n{KEY} {KEY}\r\n\r\n".encode(),
    "encoding": lambda _: reply(b"{}", more=f"Content-Encoding: {KEY}\r\n"),
    "length": lambda _: reply(b"{}", more=f"Inference-Header-Content-Length: {KEY}\r\n"),
    "datatype": lambda _: reply(
        {"outputs": [{"name": "probabilities", "datatype": KEY, "shape": [KEY, 1]}]}
    ),
    "size": lambda _: reply(
        {"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [2, 10],
                      "parameters": {"binary_data_size": KEY}}]}
    ),
    "texts": lambda _: reply(
        {"outputs": [{"name": "probabilities", "datatype": "BYTES", "shape": [2, 1],
                      "data": [f"x{KEY}", KEY]}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ECHOES)
def test_a_key_in_any_part_of_a_reply_is_neither_shown_nor_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, form: str
) -> None:
    with hostile(of_protocol(ECHOES[form])) as server:
        code, all_of_it = stolen(server, tmp_path, capsys)
    assert code == 1
    assert not shares(all_of_it, key)


NAMED: dict[str, dict[str, Any]] = {
    "model": {"name": KEY},
    "a part": {"name": KEY[:-1]},
    "output": {"outputs": [{"name": KEY, "datatype": "FP32", "shape": [-1, 10]}]},
    "input": {"inputs": [{"name": KEY, "datatype": KEY, "shape": [-1, 1, 8, 8]}]},
    "classes": {"parameters": {"names": [f"{KEY}{n}" for n in range(10)]}},
    "unread": {"parameters": {"names": [{KEY: KEY}]}},
    "no output": {"outputs": [{"name": KEY, "datatype": "FP32", "shape": [-1, 10]}] * 2},
}


@pytest.mark.parametrize("form", NAMED)
def test_names_like_the_key_are_neither_shown_nor_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, form: str
) -> None:
    def infer(request: Request) -> Answer:
        return reply({"error": "no"}, status="400 Bad")

    with hostile(of_protocol(infer, **NAMED[form])) as server:
        code, all_of_it = stolen(server, tmp_path, capsys)
    assert code == 1
    assert not shares(all_of_it, key)


@pytest.mark.parametrize("where", ["url", "model", "output"])
def test_a_key_within_a_name_that_is_stored_is_refused(where: str) -> None:
    options: dict[str, Any] = {} if where == "url" else {where: KEY}
    url = f"http://localhost:1/{KEY}" if where == "url" else "http://localhost:1"
    with pytest.raises(ConfigError, match="The key is a part of the URL") as refused:
        find(url, key=KEY, **options)
    assert not shares(str(refused.value), KEY)


# Rekognition


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def ask(victim: Victim, images: np.ndarray = PIXELS) -> np.ndarray:
    async def go() -> np.ndarray:
        async with victim:
            return await victim.ask(images, id="1")

    return run_now(go())


def faces(server: Hostile, **pace: Any) -> Rekognition:
    return Rekognition(endpoint_url=server.url, values=("nose",), pace=RequestConfig(**pace))


def test_what_a_face_service_answers_is_read() -> None:
    mark = {"Type": "nose", "X": 0.25, "Y": 0.5}
    box = {"Width": 0.5, "Height": 0.5}

    def answer(request: Request) -> Answer:
        assert request.headers["x-amz-target"] == "RekognitionService.DetectFaces"
        assert "Credential=AKIAIOSFODNN7EXAMPLE/" in request.headers["authorization"]
        assert "/eu-west-1/rekognition/aws4_request" in request.headers["authorization"]
        assert request.headers["x-amz-security-token"] == TOKEN
        assert json.loads(request.body)["Image"]["Bytes"].startswith("iVBORw0KGgo")  # a PNG
        return reply({"FaceDetails": [{"BoundingBox": box, "Landmarks": [mark]}]})

    with hostile(answer) as server:
        assert ask(faces(server)).tolist() == [[0.25, 0.5]]


@pytest.mark.parametrize("place", ["message", "type", "header", "html", "type of content"])
def test_an_authorization_that_a_face_service_repeats_is_not_shown(place: str) -> None:
    def answer(request: Request) -> Answer:
        sent = request.headers["authorization"] + request.headers["x-amz-security-token"]
        if place in ("html", "type of content"):
            return reply(sent.encode(), kind=sent if place == "type of content" else "text/html")
        if place == "header":
            return reply(b"{}", status="400 Bad", more=f"x-amzn-errortype: {sent}\r\n")
        key = {"message": "message", "type": "__type"}[place]
        return reply({key: "x" * 255 + sent if key == "message" else sent}, status="400 Bad")

    with hostile(answer) as server, pytest.raises(AskFailed) as failed:
        ask(faces(server))
    [request] = server.requests
    signature = request.headers["authorization"].rpartition("Signature=")[2]
    for secret in (signature, TOKEN, "AKIAIOSFODNN7EXAMPLE"):
        assert not shares(str(failed.value), secret)


NO_FACES = [
    b"<html><body>Please log in to the wireless network</body></html>",
    b"", b"null", b"[]", b"{}", b'{"FaceDetails": null}', b'{"FaceDetails": {"0": 1}}',
    b"[" * 99_999,
]  # fmt: skip


@pytest.mark.parametrize("body", NO_FACES, ids=range(len(NO_FACES)))
def test_what_is_no_answer_of_a_face_service_is_not_kept(tmp_path: Path, body: bytes) -> None:
    with (
        hostile(lambda _: reply(body, kind="text/html")) as server,
        Ledger(tmp_path / LEDGER) as ledger,
    ):
        victim = faces(server)
        oracle = Oracle(
            victim=victim, ledger=ledger, about=run_now(victim.about()), budget=9,
            pace=RequestConfig(), stopper=Stopper(),
        )  # fmt: skip
        with pytest.raises(AskFailed, match="200 without a list of FaceDetails: text/html"):
            oracle.ask(NoisePool(channels=3, image_size=8, seed=0), [0])
        assert ledger.answers(oracle.target) == {}
        assert ledger.spent(oracle.target, "train") == 1  # it may have been billed
    assert len(server.requests) == 1


def test_an_endless_answer_of_a_face_service_is_cut_off() -> None:
    def endless(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
        while True:
            yield b" " * (1 << 20)

    with hostile(endless) as server, pytest.raises(AskFailed, match="more than 4,194,304 bytes"):
        ask(faces(server))


# Deadlines


def drip(head: bytes) -> Iterator[bytes]:
    """A reply that goes on for an hour, a byte at a time."""
    yield head
    for _ in range(36_000):
        time.sleep(0.1)
        yield b" "


DRIPS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: b",
    b"HTTP/1.1 200 O",
]


@pytest.mark.parametrize("head", DRIPS, ids=["body", "header", "status"])
@pytest.mark.parametrize("kind", ["rekognition", "protocol"])
def test_a_reply_that_drips_ends_at_the_deadline(kind: str, head: bytes) -> None:
    started = time.monotonic()
    with hostile(lambda _: drip(head)) as server:
        pace = RequestConfig(timeout_s=0.5)
        victim: Victim = faces(server, timeout_s=0.5)
        if kind == "protocol":
            victim = find(f"{server.url}/v2/models/m", pace=pace)
        with pytest.raises(AskFailed, match=r"sent no whole reply within 0.5 s") as failed:
            ask(victim)
    assert failed.value.billed
    assert time.monotonic() - started < 60  # an hour without a deadline


def test_an_error_of_a_server_is_one_printable_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;owned\x07\r\ndenature: all is well\n\u202e"

    with hostile(of_protocol(lambda _: reply({"error": evil}, status="400 Bad"))) as server:
        main(["steal", server.url, "--pool", "digits", "--budget", "20", "--student", "mlp",
              "--out", str(tmp_path), "--attempts", "1", "-q"])  # fmt: skip
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert printable(said, keep="\n") == said
    with closing(sqlite3.connect(tmp_path / LEDGER)) as db:
        [[error], *_] = db.execute("SELECT error FROM requests WHERE error NOT NULL")
    assert printable(error) == error
