"""What a server shows without a key, to other machines, and of its keys."""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from denature.cli.app import main
from denature.serve.config import Exposure, ServedModel
from denature.serve.keys.sqlite import SqliteKeys
from denature.train import Run
from tests.guarded import Guarded, body, running
from tests.processes import Command
from tests.served import INFER

SHOWN = [("GET", "/"), ("GET", "/v2"), ("GET", "/v2/models/m"), ("GET", "/v2/models/none"),
         ("GET", "/v2/models/m/ready"), ("GET", "/v2/models/m/versions/1"),
         ("POST", "/v2/repository/index")]  # fmt: skip


def test_without_a_key_nothing_is_shown_but_health(guarded: Guarded) -> None:
    ask, before = guarded.served.send, len(guarded.served.entries())
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert ask("GET", path)[0] == 200
    for method, path in SHOWN:
        for headers in ({}, {"X-API-Key": "dn-secret-of-another-server"}):
            assert ask(method, path, None, headers)[0] == 401, path
        known = {"X-API-Key": guarded.key}
        assert ask(method, path, None, known)[0] == (404 if "none" in path else 200)
    assert ask("POST", INFER, body(), {"X-API-Key": "dn-secret-of-another-server"})[0] == 401
    refused = [entry for entry in guarded.served.entries()[before:] if entry["status"] == 401]
    assert len(refused) == 2 * len(SHOWN) + 1
    assert {entry["peer"] for entry in refused} == {"127.0.0.1"}
    assert {entry["error"] for entry in refused} >= {"There is no such key."}
    assert "dn-" not in guarded.served.log.read_text()
    guarded.check()


def test_tritons_client_shows_its_key_for_metadata_too(guarded: Guarded) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(guarded.served.address)
    headers = {"Authorization": f"Bearer {guarded.key}"}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m", headers=headers)
    assert client.get_server_metadata(headers=headers)["name"] == "denature"
    assert client.get_model_metadata("m", headers=headers)["name"] == "m"
    assert client.get_model_repository_index(headers=headers)[0]["name"] == "m"
    assert not client.is_model_ready("m")
    client.close()


def test_metrics_are_for_this_machine_or_a_token(victim: Run, guarded: Guarded) -> None:
    ask = guarded.served.send
    assert ask("GET", "/metrics")[0] == 200
    for proxied in ("X-Forwarded-For", "Forwarded", "Via"):
        assert ask("GET", "/metrics", None, {proxied: "203.0.113.9"})[0] == 403
    with running(victim, "--log", "off", env={"DENATURE_METRICS_TOKEN": "word"}) as served:
        assert served.send("GET", "/metrics")[0] == 401
        for word, status in (("other", 401), ("wörd", 401), ("word", 200)):
            headers = {"Authorization": f"Bearer {word}"}
            assert served.send("GET", "/metrics", None, headers)[0] == status


def test_the_file_of_the_keys_is_its_owners(tmp_path: Path, victim: Run) -> None:
    former = os.umask(0)
    try:
        assert main(["keys", str(tmp_path / "keys"), "--add", "alice"]) == 0
    finally:
        os.umask(former)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600
    with contextlib.closing(SqliteKeys(tmp_path / "keys")) as keys:
        keys.accounts()
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    (tmp_path / "keys").chmod(0o644)
    assert "chmod 600" in warnings_of(victim, "--keys", str(tmp_path / "keys"))


def test_no_keys_are_warned_of_in_every_form(victim: Run) -> None:
    assert "Without --keys every client" in warnings_of(victim)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kind", "label"], "--kind does not apply to"),
        (["--scale", "255", "--classes", "3"], "--classes and --scale do not apply to"),
        (["--net", "mlp"], "states what --net would say"),
        (["--image-size", "64"], "--image-size does not apply to"),
    ],
)
def test_an_option_that_says_nothing_about_a_model_is_refused(
    victim: Run, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """`--kind label` in place of `--show label` would show all probabilities."""
    assert main(["serve", f"m={victim.folder}", "--port", "0", *words]) == 1
    assert said in capsys.readouterr().err
    assert main(["serve", "--upstream", "http://127.0.0.1:9", *words]) == 1
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_more_top_values_than_classes_are_all(victim: Run) -> None:
    served = ServedModel.of(f"m={victim.folder}@top=20+defense=rounding@decimals=1", Exposure())
    assert served.resolved().exposure.top == 10


def warnings_of(victim: Run, *words: str) -> str:
    """The warnings of a server, which must be the same on standard error and in its JSON."""
    with Command(
        *("serve", f"m={victim.folder}", "--port", "0", "--json", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert told["warnings"] == errors.splitlines()
    return errors
