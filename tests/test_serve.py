"""A served model: the protocol in bytes, budgets, and a real server with real clients."""

import asyncio
import contextlib
import gzip
import http.client
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.answers.config import InferenceConfig
from denature.answers.inference import Inference
from denature.answers.network import answers_from
from denature.cli.app import main
from denature.core.compute import Compute
from denature.core.errors import ConfigError, RunError
from denature.nets import NETS, create
from denature.serve.batching import Batcher
from denature.serve.config import Exposure, ServedModel, ServerLimits, Serving
from denature.serve.exposure import expose
from denature.serve.keys import open_keys
from denature.serve.keys.base import Key, Keys
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.protocol import InferenceRequest, ModelSignature, parse, render
from denature.serve.refusal import Refused
from denature.train import Normal, Run, Training, import_run, load_run, train
from tests.processes import Command
from tests.served import Served, redis_in, serve, stop

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 4), dtype=np.uint8)


def signature(**exposure: Any) -> ModelSignature:
    return ModelSignature(name="m", shape=(2, 4, 4), classes=("cat", "dog", "owl"),
                     exposure=Exposure(**exposure))  # fmt: skip


def request(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "images", "shape": [3, 2, 4, 4], "datatype": "UINT8",
              "data": IMAGES.reshape(-1).tolist()}  # fmt: skip
    tensor |= changes.pop("tensor", {})
    return {"inputs": [{k: v for k, v in tensor.items() if v is not None}], **changes}


def binary(header: dict[str, Any], tail: bytes) -> tuple[bytes, str]:
    head = json.dumps(header).encode()
    return head + tail, str(len(head))


# The protocol, between bytes and arrays


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("form", ["flat", "nested", "binary"])
def test_an_image_is_the_same_in_every_form(form: str, datatype: str) -> None:
    images = IMAGES if datatype == "UINT8" else (IMAGES / 255).astype(np.float32)
    tensor: dict[str, Any] = {"datatype": datatype}
    length, tail = None, b""
    if form == "binary":
        tail = images.tobytes()
        tensor |= {"data": None, "parameters": {"binary_data_size": len(tail)}}
        body, length = binary(request(tensor=tensor), tail)
    else:
        tensor["data"] = (images.reshape(-1) if form == "flat" else images).tolist()
        body = json.dumps(request(tensor=tensor)).encode()
    asked = parse(body, length, signature(), max_images=3)
    np.testing.assert_array_equal(asked.images, images, strict=True)
    assert (asked.id, asked.binary, asked.top) == (None, False, 0)


def test_what_a_request_wants_is_read() -> None:
    body = request(id="7", parameters={"binary_data_output": True})
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.id, asked.binary, asked.top) == ("7", True, 0)
    output = {"name": "probabilities", "parameters": {"binary_data": False, "classification": 2}}
    body["outputs"] = [output]
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.binary, asked.top) == (False, 2)
    # A model that shows its two largest shows no more, whatever is asked.
    output["parameters"] = {"classification": 9}
    asked = parse(json.dumps(body).encode(), None, signature(top=2), max_images=3)
    assert asked.top == 2


def test_null_is_as_good_as_nothing_wherever_a_field_may_be_left_out() -> None:
    output: dict[str, Any] = {"name": "probabilities", "parameters": None}
    body = request(id=None, parameters=None, outputs=[output])
    body["inputs"][0]["parameters"] = None
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.id, asked.binary, asked.top) == (None, False, 0)
    body["outputs"] = None
    parse(json.dumps(body).encode(), None, signature(), max_images=3)
    output["parameters"] = {"binary_data": None, "classification": None}
    body |= {"outputs": [output], "parameters": {"binary_data_output": True}}
    body["inputs"][0]["parameters"] = {"binary_data_size": None}
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.binary, asked.top) == (True, 0)


def test_data_may_be_null_where_bytes_follow() -> None:
    tensor = {"data": None, "parameters": {"binary_data_size": IMAGES.nbytes}}
    head = request(tensor=tensor)
    head["inputs"][0]["data"] = None
    body, length = binary(head, IMAGES.tobytes())
    asked = parse(body, length, signature(), max_images=3)
    np.testing.assert_array_equal(asked.images, IMAGES)


SIZE = IMAGES.size
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"inputs": []}, "a list of one tensor"),
    ({"inputs": [1]}, "A JSON object was expected"),
    ({"id": 7}, "The id must be a string"),
    ({"id": "x" * 257}, "at most 256 characters"),
    ({"parameters": []}, "JSON object was expected as parameters"),
    ({"parameters": {"binary_data_output": 1}}, "must be true or false"),
    ({"outputs": [{"name": "logits"}]}, "shows the output 'probabilities' and no other"),
    ({"outputs": 1}, "outputs must be a list of one"),
    ({"outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]}, "classificat"),
    ({"outputs": [{"name": "probabilities", "parameters": {"classification": True}}]}, "classif"),
    ({"tensor": {"name": "x"}}, "must be called 'images'"),
    ({"tensor": {"datatype": "FP64"}}, "datatype must be one of UINT8, FP32"),
    ({"tensor": {"datatype": ["UINT8"]}}, "datatype must be one of"),
    ({"tensor": {"shape": [3, 2, 4]}}, "four whole numbers"),
    ({"tensor": {"shape": [3.0, 2, 4, 4]}}, "four whole numbers"),
    ({"tensor": {"shape": [True, 2, 4, 4]}}, "four whole numbers"),
    ({"tensor": {"shape": [-3, 2, 4, 4]}}, "m takes"),
    ({"tensor": {"shape": [0, 2, 4, 4], "data": []}}, "m takes"),
    ({"tensor": {"shape": [3, 1, 4, 8]}}, r"m takes \[-1, 2, 4, 4\]"),
    ({"tensor": {"shape": [10**30, 2, 4, 4]}}, "four whole numbers|at most 3 are accepted|no JSON"),
    ({"tensor": {"shape": [4, 2, 4, 4]}}, "at most 3 are accepted"),
    ({"tensor": {"data": [0] * (SIZE - 1)}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": ["0"] * SIZE}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [True] * SIZE}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [0.5] * SIZE}}, "whole ones"),
    ({"tensor": {"data": [[0] * SIZE]}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [0] * (SIZE - 1) + [[0]]}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [0] * (SIZE - 1) + [256]}}, "0 to 255"),
    ({"tensor": {"data": [0] * (SIZE - 1) + [-1]}}, "0 to 255"),
    ({"tensor": {"data": "0"}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": None}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"datatype": "FP32", "data": [1.5] * SIZE}}, r"ones in \[0, 1\]"),
    ({"tensor": {"datatype": "FP32", "data": [1e300] * SIZE}}, r"ones in \[0, 1\]"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        parse(json.dumps(request(**changes)).encode(), None, signature(), max_images=3)
    assert refused.value.status == 400


@pytest.mark.parametrize("length", ["x", "-1", "", "9" * 30, "100000", "1.0"])
def test_a_wrong_length_of_the_header_is_refused(length: str) -> None:
    with pytest.raises(Refused, match=r"^Inference-Header-Content-Length (is|must be)"):
        parse(json.dumps(request()).encode(), length, signature(), max_images=3)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, -1, True, "96", 1 << 70])
def test_bytes_that_do_not_fit_their_tensor_are_refused(size: Any) -> None:
    tensor = {"data": None, "parameters": {"binary_data_size": size}}
    body, length = binary(request(tensor=tensor), IMAGES.tobytes())
    with pytest.raises(Refused, match=r"bytes of UINT8 are wanted|no JSON"):
        parse(body, length, signature(), max_images=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001, 1.001])
def test_floats_that_are_no_pixels_are_refused(value: float) -> None:
    images = np.full(IMAGES.shape, 0.5, np.float32)
    images[1, 1, 1, 1] = value
    tensor = {"data": None, "datatype": "FP32", "parameters": {"binary_data_size": 4 * SIZE}}
    body, length = binary(request(tensor=tensor), images.tobytes())
    with pytest.raises(Refused, match=r"\[0, 1\]"):
        parse(body, length, signature(), max_images=3)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b'"' * 3]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match=r"The body is no JSON|A JSON object was expected") as refused:
        parse(body, None, signature(), max_images=3)
    assert refused.value.status == 400


def read_or_refused(body: bytes, length: str | None) -> None:
    """Anything else that it raised would be an error of the server."""
    try:
        asked = parse(body, length, signature(), max_images=3)
    except Refused:
        return
    assert asked.images.shape == IMAGES.shape


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(
    place=st.sampled_from(["inputs", "outputs", "parameters", "id", "name", "shape", "datatype",
                           "data", "own"]),
    value=ANYTHING,
)  # fmt: skip
def test_anything_anywhere_is_read_or_refused(place: str, value: Any) -> None:
    if place in ("inputs", "outputs", "parameters", "id"):
        body = request(**{place: value})
    else:
        body = request(tensor={"parameters" if place == "own" else place: value})
    try:
        text = json.dumps(body).encode()
    except (ValueError, UnicodeError):
        return
    read_or_refused(text, None)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_body_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    tensor = {"data": None, "parameters": {"binary_data_size": SIZE}}
    body, length = binary(request(tensor=tensor), IMAGES.tobytes())
    changed = bytearray(body)
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)))
    read_or_refused(bytes(changed[:cut]), data.draw(st.sampled_from([length, None, str(cut)])))


# What is shown

LOGITS = np.log(np.array([[0.2, 0.7, 0.1], [0.25, 0.25, 0.5]], np.float32))


def shown(logits: np.ndarray, exposure: Exposure) -> np.ndarray:
    """What a server shows of a network's logits."""
    answers = answers_from(torch.from_numpy(logits), exposure.kind, dtype=torch.float64)
    return expose(answers.values.numpy(), exposure)


def test_an_answer_shows_what_was_set() -> None:
    soft = shown(LOGITS, Exposure())
    np.testing.assert_allclose(soft, np.exp(LOGITS), rtol=1e-6)
    assert soft.dtype == np.float32
    assert shown(LOGITS, Exposure(show="logits")) is not LOGITS
    np.testing.assert_array_equal(shown(LOGITS, Exposure(show="logits")), LOGITS)
    assert shown(LOGITS, Exposure(show="label")).tolist() == [1, 2]
    assert shown(LOGITS, Exposure(show="label")).dtype == np.int64
    assert shown(LOGITS[:1], Exposure(decimals=0)).tolist() == [[0, 1, 0]]
    large = shown(np.array([[1000.0, 0.0]], np.float32), Exposure())
    assert large.tolist() == [[1.0, 0.0]]


def test_decimals_are_those_of_the_exact_probabilities() -> None:
    """Rounding in float32 would move one in ten values of eight decimals."""
    logits = np.random.default_rng(0).normal(size=(500, 10)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    for decimals in (0, 2, 8):
        found = shown(logits, Exposure(decimals=decimals))
        np.testing.assert_array_equal(found, exact.round(decimals).astype(np.float32))


def test_of_equal_values_the_first_classes_are_shown() -> None:
    """Rounding comes before the choice of the largest, as on the wire."""
    logits = np.log(np.array([[0.331, 0.332, 0.337]], np.float32))
    few = shown(logits, Exposure(top=2, decimals=1))
    np.testing.assert_array_equal(few, np.array([[0.3, 0.3, np.nan]], np.float32))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_largest_are_told_with_their_places_and_classes(as_bytes: bool) -> None:
    asked = InferenceRequest(images=IMAGES[:2], id="a", binary=as_bytes, top=2)
    body, length = render(shown(LOGITS, Exposure(decimals=2)), asked, signature(decimals=2))
    wanted = ["0.7:1:dog", "0.2:0:cat", "0.5:2:owl", "0.25:0:cat"]
    head = json.loads(body if length is None else body[: int(length)])
    [output] = head.pop("outputs")
    assert head == {"model_name": "m", "model_version": "1", "id": "a"}
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    if not as_bytes:
        assert output["data"] == wanted
        return
    assert length is not None
    tail = body[int(length) :]
    assert output["parameters"] == {"binary_data_size": len(tail)}
    assert tail == b"".join(len(w).to_bytes(4, "little") + w.encode() for w in wanted)


def test_models_are_named_and_told_what_to_show(tmp_path: Path) -> None:
    usual = Exposure(decimals=3)
    # As runs of networks with options are named by default.
    run = tmp_path / "normal-cnn@dropout=0-1234"
    run.mkdir()
    for text, name in ((str(run), "normal-cnn-dropout-0-1234"), (f"x={run}", "x")):
        for more, wanted in (("", usual), ("@show=label", Exposure(show="label"))):
            placed = ServedModel.of(text + more, usual if not more else Exposure())
            assert placed == ServedModel(name=name, run=str(run), exposure=wanted)
    assert ServedModel.of("runs/a", usual) == ServedModel(name="a", run="runs/a", exposure=usual)
    changed = ServedModel.of("b=runs/a/@show=logits+decimals=1", usual)
    assert (changed.name, changed.run) == ("b", "runs/a/")
    assert changed.exposure == Exposure(show="logits", decimals=1)
    for text, said in (
        ("=runs/a", "cannot be read"),
        ("a b=runs/a", "cannot be read"),
        ("a=runs/a@show=all", "no show 'all'"),
        ("a=runs/a@top=x", "must be a whole number"),
        ("a=runs/a@rounded=1", "no option 'rounded'"),
        ("a=runs/a@show=label+top=2", "neither top values nor decimals"),
    ):
        with pytest.raises(ConfigError, match=said):
            ServedModel.of(text, Exposure())
    with pytest.raises(ConfigError, match="Two models are called a"):
        Serving(models=(changed.of("a", usual), changed.of("x/a", usual)))
    with pytest.raises(ConfigError, match="No model was named"):
        Serving(models=())


# Who may ask


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_in(tmp_path_factory.mktemp("redis")) as started:
        yield started.url


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where keys lie."""
    if request.param == "sqlite":
        return str(tmp_path / "keys")
    url: str = request.getfixturevalue("redis_url")
    redis.Redis.from_url(url).flushall()
    return url


def keys_in(place: str) -> "contextlib.closing[Keys]":
    return contextlib.closing(open_keys(place, make=True))


def test_a_budget_is_exact_however_many_spend_it(place: str) -> None:
    """Sixteen threads with connections of their own, as so many servers."""
    with keys_in(place) as keys:
        key = keys.add("thief", budget=1000, rate=None)

    def spend(number: int) -> int:
        spent = 0
        with keys_in(place) as keys:
            for images in [1 + number % 3] * 60:
                with contextlib.suppress(Refused):
                    keys.spend(key, images)
                    spent += images
        return spent

    with ThreadPoolExecutor(16) as threads:
        spent = sum(threads.map(spend, range(16)))
    with keys_in(place) as keys:
        [account] = keys.accounts()
    assert account.used == spent
    assert 997 < spent <= 1000


def test_a_rate_lets_through_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("denature.serve.keys.sqlite.monotonic", lambda: now[0])
    keys = SqliteKeys(tmp_path / "keys")
    key = keys.add("slow", budget=None, rate=10)
    passed = 0
    for _ in range(600):  # a minute in steps of 0.1 s
        now[0] += 0.1
        with contextlib.suppress(Refused):
            for _ in range(3):
                keys.spend(key, 1)
                passed += 1
    assert 600 <= passed <= 615
    with pytest.raises(Refused, match="The rate of 10 images/s is used up for") as refused:
        [keys.spend(key, 1) for _ in range(20)]
    assert refused.value.status == 429
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after < 2
    keys.close()


def test_accounts_are_the_same_wherever_they_lie(place: str) -> None:
    with keys_in(place) as keys:
        first = keys.add("alice", budget=10, rate=None)
        second = keys.add("bob", budget=None, rate=2.5)
        with pytest.raises(ConfigError, match="a key called 'alice' already"):
            keys.add("alice", budget=None, rate=None)
        for bad in ({"budget": -1, "rate": None}, {"budget": None, "rate": 0.0},
                    {"budget": 1, "rate": None, "burst": 5}):  # fmt: skip
            with pytest.raises(ConfigError, match="must be"):
                keys.add("carol", **bad)
        assert keys.spend(first, 4) == "alice"
        with pytest.raises(
            Refused, match="The budget of 10 images allows 6 more; 7 were requested"
        ):
            keys.spend(first, 7)
        with pytest.raises(Refused, match=r"images/s allows 2 at once; 3 were requested") as large:
            keys.spend(second, 3)  # would never pass, so it is not told to come again
        assert (large.value.status, large.value.retry_after) == (413, None)
        assert keys.spend(second, 2) == "bob"
        with pytest.raises(Refused, match=r"The rate of 2\.5 images/s is used up for") as refused:
            keys.spend(second, 1)
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 1
        keys.change("bob", budget=None, rate=2.5, burst=5)
        assert keys.spend(second, 5) == "bob"
        with pytest.raises(Refused, match="is used up for") as refused:
            keys.spend(second, 5)
        assert refused.value.retry_after is not None
        assert 1.5 < refused.value.retry_after <= 2
        for wrong in ("dn-nobody", ""):
            with pytest.raises(Refused, match="There is no such key"):
                keys.spend(wrong, 1)
        keys.change("bob", budget=8, rate=None)
        assert keys.spend(second, 1) == "bob"
        assert keys.accounts() == [
            Key(name="alice", used=4, budget=10, rate=None),
            Key(name="bob", used=8, budget=8, rate=None),
        ]
        keys.remove("alice")
        with pytest.raises(Refused, match="There is no such key"):
            keys.spend(first, 1)
        for act in (keys.remove, lambda name: keys.change(name, budget=1, rate=None)):
            with pytest.raises(ConfigError, match="no key called 'alice'"):
                act("alice")


def test_no_redis_is_told_without_its_password() -> None:
    with pytest.raises(ConfigError, match="redis://…@localhost:9") as error:
        open_keys("redis://:secret@localhost:9")
    assert "secret" not in str(error.value)


def test_a_redis_that_goes_away_lets_nobody_in(tmp_path: Path) -> None:
    with redis_in(tmp_path) as (process, url), keys_in(url) as keys:
        key = keys.add("alice", budget=10, rate=None)
        process.kill()
        process.wait()
        with pytest.raises(Refused, match="cannot be looked up") as refused:
            keys.spend(key, 1)
        assert refused.value.status == 503
        with pytest.raises(ConfigError, match="Redis does not answer"):
            keys.accounts()


def test_keys_are_kept_as_digests_and_can_be_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "keys")
    assert main(["keys", place]) == 1
    assert "There are no keys in" in capsys.readouterr().err
    assert main(["keys", place, "--add", "alice", "--budget", "5"]) == 0
    told = capsys.readouterr()
    key = told.out.strip()
    assert "the key of alice, shown this once" in told.err
    assert re.fullmatch(r"dn-[\w-]{43}", key)
    assert not any(key.encode() in path.read_bytes() for path in tmp_path.iterdir())
    keys = open_keys(place)
    assert keys.spend(key, 5) == "alice"
    with pytest.raises(Refused, match="The budget of 5 images allows 0 more; 1 were requested"):
        keys.spend(key, 1)
    assert main(["keys", place, "--change", "alice", "--budget", "7", "--rate", "2.5",
                 "--burst", "4"]) == 0  # fmt: skip
    assert re.search(r"alice +5 +7 +2.5 +4", capsys.readouterr().out)
    assert keys.spend(key, 1) == "alice"
    assert main(["keys", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "alice", "used": 6, "budget": 7, "rate": 2.5, "burst": 4,
    }  # fmt: skip
    assert main(["keys", place, "--remove", "alice"]) == 0
    with pytest.raises(Refused, match="There is no such key") as refused:
        keys.spend(key, 1)
    assert refused.value.status == 401
    keys.close()
    for words, said in (
        (["--remove", "bob"], "no key called 'bob'"),
        (["--add", "x", "--budget", "-1"], "budget is -1"),
        (["--add", "x", "--rate", "0"], "rate is 0"),
        (["--add", ""], "1 to 64 printable"),
        (["--budget", "3"], "name it by --add"),
        (["--add", "x", "--remove", "x"], "Take one of"),
    ):
        assert main(["keys", place, *words]) == 1
        assert said in capsys.readouterr().err
    (tmp_path / "other").write_text("no database at all, but long enough to look at")
    assert main(["keys", str(tmp_path / "other")]) == 1
    assert "cannot be used for keys" in capsys.readouterr().err


# Requests together


def batcher(limits: ServerLimits) -> tuple[Batcher, list[int]]:
    sizes: list[int] = []

    def answer(images: list[np.ndarray]) -> np.ndarray:
        time.sleep(0.02)
        sizes.append(sum(map(len, images)))
        return np.concatenate(images).astype(np.float32)

    return Batcher(answer, limits), sizes


async def answered(line: Batcher, images: np.ndarray, caller: str = "") -> np.ndarray:
    with line.room(len(images), caller):
        return await line.ask(images, caller)


def test_requests_that_wait_are_computed_together() -> None:
    line, sizes = batcher(ServerLimits(max_batch=10))

    async def ask() -> list[np.ndarray]:
        parts = [np.full((1 + n % 3, 1), n) for n in range(20)]
        return list(await asyncio.gather(*(answered(line, part) for part in parts)))

    for number, answer in enumerate(asyncio.run(ask())):
        assert answer.tolist() == [[number]] * (1 + number % 3)
    line.close()
    assert sum(sizes) == sum(1 + n % 3 for n in range(20))
    assert len(sizes) <= 5
    assert max(sizes) <= 10


def test_too_many_that_wait_are_sent_away() -> None:
    line, _ = batcher(ServerLimits(max_images=4, max_waiting=4))

    async def ask() -> list[Any]:
        waiting = [answered(line, np.zeros((2, 1))) for _ in range(3)]
        other = answered(line, np.zeros((1, 1)), "another")
        return list(await asyncio.gather(other, *waiting, return_exceptions=True))

    *given, refused = asyncio.run(ask())
    line.close()
    assert [len(found) for found in given] == [1, 2, 2]
    assert isinstance(refused, Refused)
    assert refused.status == 503


def test_a_request_that_fails_does_so_alone() -> None:
    batches: list[int] = []

    def answer(images: list[np.ndarray]) -> np.ndarray:
        batches.append(len(images))
        if any(part.min() < 0 for part in images):
            raise ValueError("negative")
        return np.concatenate(images)

    line = Batcher(answer, ServerLimits())

    async def ask() -> list[Any]:
        waiting = [line.ask(np.array([value])) for value in (1, 2, -1, 3)]
        together = await asyncio.gather(*waiting, return_exceptions=True)
        return [*together, await line.ask(np.array([4]))]

    *before, failed, after, last = asyncio.run(ask())
    line.close()
    assert [found.tolist() for found in (*before, after, last)] == [[1], [2], [3], [4]]
    assert isinstance(failed, ValueError)
    assert batches == [4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 63, 64, 65, 130])
def test_few_images_and_many_get_the_same_answers(count: int) -> None:
    compute = Compute(torch.device("cpu"), "fp32", channels_last=True)
    network = create("cnn@width=4", classes=3, image_size=8).eval()
    inference = Inference(network, compute, InferenceConfig(), shape=(3, 8, 8))
    sizes: list[int] = []
    inference.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    pixels = torch.rand(count, 3, 8, 8)
    torch.testing.assert_close(inference.low_latency(pixels), inference(pixels), atol=1e-5, rtol=0)
    assert set(sizes) <= {64, 8, 1}
    assert sum(sizes) - 64 * -(-count // 64) <= count + 7  # soon is the first of the two


# A real server


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    learning = Training(epochs=2, batch_size=64, device="cpu", precision="fp32")
    return train("mlp", "digits", Normal(), learning, out=tmp_path_factory.mktemp("runs") / "mlp")


@pytest.fixture(scope="module")
def server(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = victim.folder
    served = serve(
        tmp_path_factory.mktemp("served"), f"{run}", f"soft={run}@show=logits",
        f"hard={run}@show=label", f"few={run}@top=3+decimals=2", "--max-images", "64",
    )  # fmt: skip
    yield served
    stop(served)


def digits(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


def body_of(images: np.ndarray) -> bytes:
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8",
              "data": images.reshape(-1).tolist()}  # fmt: skip
    return json.dumps({"inputs": [tensor]}).encode()


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


def predicted(run: Run, images: np.ndarray) -> np.ndarray:
    assert run.folder is not None
    network = load_run(run.folder).network.eval()
    with torch.no_grad():
        logits: np.ndarray = network(torch.from_numpy(images).float() / 255).numpy()
    return logits


def test_metadata_and_errors_have_the_protocols_form(server: Served) -> None:
    def told(path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
        status, _, answer = server.send(method, path, body)
        return status, json.loads(answer)

    assert told("/v2")[1]["name"] == "denature"
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
    assert told["models"] == {"m": {"show": "label", "top": 0, "decimals": -1}}


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
def test_a_budget_holds_against_64_clients_and_two_workers(victim: Run, tmp_path: Path) -> None:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        key = keys.add("thief", budget=1000, rate=None)
    served = serve(tmp_path, f"m={victim.folder}", "--keys", str(tmp_path / "keys"),
                   "--workers", "2")  # fmt: skip
    try:
        assert served.send("POST", "/v2/models/m/infer", body_of(digits(1)))[0] == 401

        def client(number: int) -> int:
            body, answered = body_of(digits(1 + number % 4)), 0
            headers = {"Authorization": f"Bearer {key}"} if number % 2 else {"X-API-Key": key}
            for _ in range(20):
                status, told, _ = served.send("POST", "/v2/models/m/infer", body, headers)
                assert status in (200, 429)
                assert status == 200 or int(told["retry-after"]) >= 1
                answered += (1 + number % 4) * (status == 200)
            return answered

        with ThreadPoolExecutor(64) as threads:
            answered = sum(threads.map(client, range(64)))
    finally:
        stop(served)
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        [account] = keys.accounts()
    assert 996 < account.used <= 1000
    assert answered == account.used
    told = [entry for entry in served.entries() if entry["status"] == 200]
    assert sum(entry["images"] for entry in told) == answered
    assert {entry["key"] for entry in told} == {"thief"}


@pytest.mark.slow
def test_servers_that_share_a_redis_share_its_budgets(
    victim: Run, tmp_path: Path, redis_url: str
) -> None:
    redis.Redis.from_url(redis_url).flushall()
    with keys_in(redis_url) as keys:
        key = keys.add("many", budget=100, rate=None)
    places = [tmp_path / "a", tmp_path / "b"]
    servers = []
    for place in places:
        place.mkdir()
        servers.append(serve(place, f"m={victim.folder}", "--keys", redis_url))
    body, headers = body_of(digits(3)), {"Authorization": f"Bearer {key}"}

    def client(number: int) -> int:
        sent = (servers[number % 2].send("POST", "/v2/models/m/infer", body, headers)
                for _ in range(6))  # fmt: skip
        return sum(status == 200 for status, *_ in sent)

    try:
        with ThreadPoolExecutor(16) as threads:
            answered = sum(threads.map(client, range(16)))
    finally:
        for served in servers:
            stop(served)
    assert answered == 33
    with keys_in(redis_url) as keys:
        assert keys.accounts()[0].used == 99


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


# For other servers


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_an_exported_network_answers_as_the_run_does(
    victim: Run, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"victim.{form}"
    assert main(["export", str(victim.folder), "--format", form, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["bytes"]) == (str(out), out.stat().st_size)
    assert told["apart"] < 1e-4
    assert list(tmp_path.iterdir()) == [out]
    images = (digits(3) / 255).astype(np.float32)
    if form == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        [found] = onnxruntime.InferenceSession(str(out)).run(["logits"], {"images": images})
    else:
        found = torch.export.load(out).module()(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(found, predicted(victim, digits(3)), atol=1e-5)


def test_what_answers_otherwise_is_not_left(
    victim: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denature.serve import export as exporting

    wrong = replace(victim, network=torch.nn.Sequential(victim.network, torch.nn.Softmax(1)))
    monkeypatch.setattr(exporting, "_program",
                        lambda network, example: torch.export.export(victim.network, (example,),
                        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)))  # fmt: skip
    with pytest.raises(RunError, match="answers differently, by"):
        exporting.export(wrong, tmp_path / "wrong.pt2", "pt2")
    assert not list(tmp_path.iterdir())


DEEPER = {"resnetc32", "resnetc44", "resnetc56", "resnetc110", "resnet34"}
"""Of the same blocks as a shallower one."""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
@pytest.mark.parametrize("name", sorted(set(NETS) - DEEPER))
def test_networks_of_every_kind_can_be_exported(name: str, form: str, tmp_path: Path) -> None:
    from denature.serve.export import export

    torch.manual_seed(0)
    network = create(name, classes=3, image_size=8)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    run = import_run(name, tmp_path / "weights.pt", classes=3, image_size=8)
    assert export(run, tmp_path / "network", form) < 1e-4  # type: ignore[arg-type]
