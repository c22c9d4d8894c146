"""A server in front of another one: keys, budgets and defenses for clients that stay the same."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denature.answers.answerer import Answers
from denature.answers.kinds import AnswerKind
from denature.defenses.catalogue import chain_of
from denature.extract.victims.base import VictimInfo, run_now
from denature.extract.victims.find import find
from denature.serve.config import Exposure
from denature.serve.keys.sqlite import SqliteKeys
from denature.serve.refusal import Refused
from denature.serve.upstream import Upstream, find_models
from denature.serve.upstream_config import UpstreamConfig
from denature.train import Normal, Run, Training, train
from tests.hostile import Answer, Hostile, Request, hostile, reply
from tests.other_server import SHOWN, TAKEN, other, scores
from tests.served import Served, serve, serving, stop

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)

INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = Training(epochs=1, precision="fp32", device="cpu")
    return train("mlp", "digits", Normal(), training, out=tmp_path_factory.mktemp("runs") / "m")


@pytest.fixture(scope="module")
def upstream(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with one run under several names."""
    run = victim.folder
    served = serve(tmp_path_factory.mktemp("upstream"), f"m={run}", f"raw={run}@show=logits",
                   f"hard={run}@show=label")  # fmt: skip
    yield served
    stop(served)


@pytest.fixture(scope="module")
def gateway(upstream: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = serve(tmp_path_factory.mktemp("gateway"), "--upstream", f"http://{upstream.address}")
    yield served
    stop(served)


def in_front_of(url: str, folder: Path, *words: str) -> contextlib.AbstractContextManager[Served]:
    return serving(folder, *words, "--upstream", url)


def body_of(images: np.ndarray = IMAGES, **changes: Any) -> bytes:
    datatype = "UINT8" if images.dtype == np.uint8 else "FP32"
    tensor = {"name": "images", "shape": list(images.shape), "datatype": datatype,
              "data": images.reshape(-1).tolist()}  # fmt: skip
    return json.dumps({"inputs": [tensor | changes.pop("tensor", {})], **changes}).encode()


def asked(
    served: Served, model: str = "m", body: bytes | None = None, *, key: str | None = None
) -> tuple[int, dict[str, str], Any]:
    headers = {} if key is None else {"X-API-Key": key}
    path = f"/v2/models/{model}/infer"
    status, more, text = served.send("POST", path, body or body_of(), headers)
    return status, more, json.loads(text)


def values_of(served: Served, model: str = "m", body: bytes | None = None) -> np.ndarray:
    status, _, answer = asked(served, model, body)
    assert status == 200, answer
    [output] = answer["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


def kind_at(url: str) -> AnswerKind | None:
    """What a thief takes the answers for, before it asks."""

    async def about() -> VictimInfo:
        async with find(url) as victim:
            return await victim.about()

    return run_now(about()).kind


# Clients that stay the same


@pytest.mark.parametrize("model", ["m", "raw", "hard"])
def test_answers_and_metadata_are_those_of_the_server_behind(
    upstream: Served, gateway: Served, model: str
) -> None:
    np.testing.assert_allclose(values_of(gateway, model), values_of(upstream, model), atol=1e-7)
    ours, theirs = (
        json.loads(served.send("GET", f"/v2/models/{model}")[2]) for served in (gateway, upstream)
    )
    assert ours == theirs


def test_floats_and_names_of_the_client_go_through(upstream: Served, gateway: Served) -> None:
    body = body_of((IMAGES / 255).astype(np.float32), id="mine")
    np.testing.assert_allclose(
        values_of(gateway, body=body), values_of(upstream, body=body), atol=1e-7
    )
    assert asked(gateway, body=body)[2]["id"] == "mine"


@pytest.mark.parametrize("binary", [False, True])
def test_tritons_client_goes_through(upstream: Served, gateway: Served, binary: bool) -> None:
    triton = pytest.importorskip("tritonclient.http")
    found = []
    for served in (upstream, gateway):
        client = triton.InferenceServerClient(served.address)
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        given = triton.InferInput("images", list(IMAGES.shape), "UINT8")
        given.set_data_from_numpy(IMAGES, binary_data=binary)
        wanted = triton.InferRequestedOutput("probabilities", binary_data=binary)
        largest = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
        found.append(client.infer("m", [given], outputs=[wanted]).as_numpy("probabilities"))
        top = client.infer("m", [given], outputs=[largest]).as_numpy("probabilities")
        assert top.shape == (3, 2)
        client.close()
    np.testing.assert_allclose(found[1], found[0], atol=1e-7)


CHAINS = {"a": "rounding@decimals=1", "b": "top-k@k=2", "c": "label-only"}


@pytest.fixture(scope="module")
def defended(upstream: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One model of the server behind under three names, behind a defense each."""
    models = [f"{name}=m@defense={chain}" for name, chain in CHAINS.items()]
    folder = tmp_path_factory.mktemp("defended")
    with in_front_of(f"http://{upstream.address}/v2/models/m", folder, *models) as ours:
        yield ours


@pytest.mark.parametrize("name", CHAINS)
def test_defenses_stand_before_what_the_server_behind_answers(
    upstream: Served, defended: Served, name: str
) -> None:
    described = json.loads(defended.send("GET", f"/v2/models/{name}")[2])
    _, _, answer = asked(defended, name)
    true = torch.from_numpy(values_of(upstream)).double()
    wanted = chain_of(CHAINS[name])(Answers("probabilities", true)).values.numpy()
    [output] = answer["outputs"]
    assert output["name"] == "probabilities"
    assert output["datatype"] == described["outputs"][0]["datatype"]
    whole = output["datatype"] == "INT64"
    assert kind_at(f"http://{defended.address}/v2/models/{name}") == (
        "label" if whole else "probabilities"
    )
    shown = np.array(output["data"]).reshape(output["shape"])
    if output["datatype"] == "BYTES":
        places = [sorted(int(text.split(":")[1]) for text in row) for row in shown]
        assert places == [np.flatnonzero(np.isfinite(row)).tolist() for row in wanted]
        return
    np.testing.assert_allclose(shown, wanted, atol=1e-6)


# Another server's own form


NORMALISED = np.random.default_rng(1).normal(size=(2, 4, 6, 3)).astype(np.float32) * 3
BODY = body_of(NORMALISED, tensor={"name": "x"})

SECRET = "sk-live-Zm9vYmFyLXNlY3JldC0wMTIzNDU2Nzg5"


@dataclass
class Changing:
    """A gateway before a server whose answers each test sets."""

    behind: Hostile
    ours: Served
    keys: Path
    key: str
    infer: Callable[[Request], Answer] = scores

    def ask(self, body: bytes = BODY) -> tuple[int, dict[str, str], Any]:
        return asked(self.ours, body=body, key=self.key)


@pytest.fixture(scope="module")
def behind_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changing]:
    found: list[Changing] = []
    folder = tmp_path_factory.mktemp("changing")
    with contextlib.closing(SqliteKeys(folder / "keys")) as store:
        key = store.add("alice", budget=100, rate=None)
    with (
        hostile(other(lambda request: (found[0].infer if found else scores)(request))) as behind,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DENATURE_UPSTREAM_KEY", SECRET)
        with in_front_of(behind.url, folder, "--keys", str(folder / "keys")) as ours:
            found.append(Changing(behind, ours, folder / "keys", key))
            yield found[0]


@pytest.fixture
def changing(behind_keys: Changing) -> Changing:
    behind_keys.infer = scores
    return behind_keys


def test_tensors_of_another_form_go_through_unchanged(changing: Changing) -> None:
    known = {"X-API-Key": changing.key}
    described = json.loads(changing.ours.send("GET", "/v2/models/m", None, known)[2])
    assert described["inputs"] == [TAKEN]
    status, _, answer = changing.ask()
    assert status == 200
    [output] = answer["outputs"]
    wanted = np.stack([NORMALISED.mean((1, 2, 3)), NORMALISED.max((1, 2, 3))], 1)
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), wanted, atol=1e-5)
    status, _, answer = changing.ask(body_of(NORMALISED[:, :3], tensor={"name": "x"}))
    wrong = "The shape is [2, 3, 6, 3]; m takes [-1, 4, 6, 3]"
    assert (status, answer["error"]) == (400, wrong)


def test_clients_without_a_key_do_not_use_up_the_server_behind(changing: Changing) -> None:
    """Its readiness is asked once a second, whatever the number of clients."""
    asked = len(changing.behind.requests)
    with ThreadPoolExecutor(16) as threads:
        for _ in range(4):
            told = list(
                threads.map(lambda _: changing.ours.send("GET", "/v2/health/ready")[0], range(32))
            )
            assert set(told) == {200}
    ready = [r for r in changing.behind.requests[asked:] if r.path.endswith("ready")]
    assert 1 <= len(ready) <= 10


def test_requests_wait_for_the_server_behind_side_by_side(changing: Changing) -> None:
    together = threading.Barrier(8, timeout=60)

    def slow(request: Request) -> Answer:
        together.wait()
        return scores(request)

    changing.infer = slow
    with ThreadPoolExecutor(8) as threads:
        statuses = [status for status, _, _ in threads.map(lambda _: changing.ask(), range(8))]
    assert statuses == [200] * 8


def test_the_server_behind_is_asked_within_the_stated_bounds(tmp_path: Path) -> None:
    """`--upstream-at-once` requests at one time, each answered within `--upstream-timeout-s`."""
    at_work, most, lock, hold = 0, 0, threading.Lock(), threading.Event()

    def slow(request: Request) -> Answer:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        hold.wait(0.3)
        with lock:
            at_work -= 1
        return scores(request)

    with hostile(other(slow)) as behind:
        words = ("--upstream-at-once", "2", "--upstream-timeout-s", "30")
        with in_front_of(behind.url, tmp_path, *words) as ours, ThreadPoolExecutor(6) as threads:
            most = 0
            told = threads.map(lambda _: asked(ours, body=BODY)[0], range(6))
            assert set(told) == {200}
            assert most == 2

        def never(request: Request) -> Answer:
            hold.wait(20)
            return scores(request)

        behind.answer = other(never)
        (tmp_path / "hasty").mkdir()
        with in_front_of(
            behind.url,
            tmp_path / "hasty",
            "--upstream-timeout-s",
            "0.5",
            "--upstream-kind",
            "logits",
        ) as ours:
            status, headers, _ = asked(ours, body=BODY)
            assert (status, headers["retry-after"]) == (503, "1")
        hold.set()


# Keys, budgets, and a server behind that fails


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str]:
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as store:
        return tmp_path / "keys", store.add("alice", budget=100, rate=None)


def used(keys: Path) -> int:
    with contextlib.closing(SqliteKeys(keys)) as store:
        [account] = store.accounts()
        return account.used


def test_a_dead_server_behind_is_503_and_charges_nothing(
    victim: Run, tmp_path: Path, keys: tuple[Path, str]
) -> None:
    place, key = keys
    behind = serve(tmp_path, f"m={victim.folder}")
    (tmp_path / "ours").mkdir()
    with in_front_of(f"http://{behind.address}", tmp_path / "ours", "--keys", str(place)) as ours:
        assert asked(ours)[0] == 401
        assert asked(ours, key=key)[0] == 200
        assert used(place) == 3
        stop(behind)
        for path in ("/v2/health/ready", "/v2/models/m/ready"):
            assert ours.send("GET", path, None, {"X-API-Key": key})[0] == 503
        assert ours.send("GET", "/v2/health/live")[0] == 200
        status, headers, answer = asked(ours, key=key)
        assert (status, headers["retry-after"]) == (503, "1")
        assert answer == {"error": "The model cannot answer now; retry later."}
        assert "cannot be reached" in ours.entries()[-1]["error"]
        again = serve(tmp_path, f"m={victim.folder}", port=behind.port)
        try:
            assert asked(ours, key=key)[0] == 200
        finally:
            stop(again)
        assert used(place) == 6


FAULTS: dict[str, tuple[Callable[[Request], Answer], int, str | None]] = {
    "too few scores": (
        lambda _: reply({"outputs": [SHOWN | {"shape": [2, 1], "data": [0, 0]}]}), 502, None),
    "no numbers": (
        lambda _: reply(b'{"outputs": [{"name": "predict", "datatype": "FP64", "shape": [2, 2],'
                        b' "data": [1, 2, 3, NaN]}]}'), 502, None),
    "other images": (
        lambda _: reply({"outputs": [SHOWN | {"shape": [9, 2], "data": [0] * 18}]}), 502, None),
    "no JSON": (lambda _: reply(b"<html>secret.internal</html>"), 502, None),
    "refused": (lambda _: reply({"error": "too dark"}, status="422 No"), 422, None),
    "busy": (lambda _: reply({}, status="429 Later", more="Retry-After: 7\r\n"), 503, "7"),
    "broken": (lambda _: reply({"error": "secret.internal"}, status="500 No"), 503, "1"),
    "another key": (lambda _: reply({"error": "secret.internal"}, status="401 No"), 502, None),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_behind_is_told_without_its_words_and_charged_only_if_it_was_computed(
    changing: Changing, fault: str
) -> None:
    changing.infer, wanted, retry = FAULTS[fault]
    before = used(changing.keys)
    status, headers, said = changing.ask()
    assert (status, headers.get("retry-after")) == (wanted, retry), said
    assert "secret.internal" not in said["error"]
    assert changing.behind.address not in said["error"]
    assert ("too dark" in said["error"]) == (fault == "refused")
    assert changing.ours.entries()[-1]["error"]
    # What the server behind computed stays charged: images could make all of its answers invalid.
    charged = 2 if fault in ("too few scores", "no numbers", "other images", "no JSON") else 0
    for _ in range(100):  # it is given back with the next transaction
        if used(changing.keys) == before + charged:
            break
        time.sleep(0.02)
    assert used(changing.keys) == before + charged


def test_the_key_of_the_server_behind_is_sent_and_shown_nowhere(changing: Changing) -> None:
    changing.infer = lambda request: reply(
        {"error": request.headers["authorization"]}, status="400 No"
    )
    status, _, said = changing.ask()
    assert status == 400
    sent = {request.headers["authorization"] for request in changing.behind.requests}
    assert sent == {f"Bearer {SECRET}"}
    assert SECRET[8:24] not in said["error"] + changing.ours.log.read_text()


def causes(upstream: Upstream, times: int) -> list[str]:
    """What the access log says of requests, all of which are refused."""

    async def ask() -> list[str]:
        found = []
        for _ in range(times):
            with pytest.raises(Refused) as refused:
                await upstream.ask(torch.from_numpy(NORMALISED))
            found.append(refused.value.cause)
        await upstream.close()
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize(("status", "told"), [("429 Spent", 503), ("403 No", 502)])
def test_the_console_says_once_that_the_gateways_own_key_is_refused(
    status: str, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    def spent(_: Request) -> Answer:
        return reply({"error": "the budget of 5 is spent"}, status=status)

    with hostile(other(spent)) as behind:
        config = UpstreamConfig(upstream=behind.url, upstream_kind="logits")
        [model] = find_models([], config, Exposure(), "none", key=None)
        causes(Upstream(model, config, key=None), 3)
    [line] = [record.getMessage() for record in caplog.records if record.name == "denature.serve"]
    assert f"answered {status[:3]}: the budget of 5 is spent. Clients here get {told}" in line
    assert "DENATURE_UPSTREAM_KEY" in line


def test_a_model_that_changes_behind_is_no_longer_asked(tmp_path: Path) -> None:
    shape = [[-1, 4, 6, 3]]

    def answer(request: Request) -> Answer:
        return other(scores, inputs=[TAKEN | {"shape": shape[-1]}])(request)

    with hostile(answer) as behind:
        config = UpstreamConfig(upstream=behind.url)
        [model] = find_models([], config, Exposure(), "none", key=None)
        shape.append([-1, 8, 8, 3])
        [cause] = causes(Upstream(model, config, key=None), 1)
    assert "has another input or output" in cause
