"""Runs that are pushed to the hub: what is sent, and what stays here."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.core.errors import ConfigError
from denature.core.record import InputRecord
from denature.data import Dataset
from denature.report.card import model_card
from denature.train import Run, evaluate_run, load_run
from denature.train import hub as hub_client
from denature.train.identity import plan_of
from denature.train.shareable import public_name, shareable
from tests.commands import refused
from tests.hub_server import TOKEN, Hub, Repository
from tests.sharing import NAME, command, done, files_of, killed_at

pytest.importorskip("huggingface_hub")

# As huggingface_hub 2.4 uploads a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning")


# What a push sends


def test_a_pulled_run_is_the_run_that_was_pushed(
    hub: Hub, runs: dict[str, Run], digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["nasty"]
    done(capsys, "push", str(run.folder), NAME)
    assert files_of(hub).keys() == {"README.md", "record.json", "weights.safetensors"}
    assert hub.repositories["me/digits"].private
    done(capsys, "pull", NAME)
    pulled = load_run("runs/digits")
    assert (pulled.record.id, pulled.digest) == (run.record.id, run.digest)
    assert evaluate_run(pulled, digits) == run.accuracy
    for model in ("runs/digits", NAME):
        found = json.loads(done(capsys, "eval", model, "--data", "digits", "--json"))
        assert found["accuracy"]["value"] == run.accuracy.value
    words = ["--data", "digits", "--defense", "none", "--estimate", "--out", "audit"]
    assert "queries" in done(capsys, "audit", "runs/digits", *words)


def test_a_push_changes_nothing_here_and_a_second_one_sends_nothing(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs["normal"].folder
    assert folder is not None

    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}

    before = state()
    done(capsys, "push", str(folder), NAME)
    assert state() == before
    hub.requests.clear()
    assert "holds this run already" in done(capsys, "push", str(folder), NAME)
    assert not [request for request in hub.requests if request.startswith(("POST", "PUT"))]
    assert len(hub.repositories["me/digits"].commits) == 2


def test_a_repository_is_replaced_or_published_only_when_that_is_said(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    normal, nasty = str(runs["normal"].folder), str(runs["nasty"].folder)
    done(capsys, "push", normal, NAME, "--public")
    assert not hub.repositories["me/digits"].private
    assert "exists and is public; pass --public" in refused(capsys, "push", nasty, NAME)
    said = refused(capsys, "push", nasty, NAME, "--public")
    assert "holds another run or files of its own" in said
    assert b"nasty" not in files_of(hub)["README.md"]
    done(capsys, "push", nasty, NAME, "--public", "--overwrite")
    assert b"nasty teacher" in files_of(hub)["README.md"]
    hub.repositories["me/mine"] = Repository(private=True)
    assert "leave out --public" in refused(capsys, "push", nasty, "hf:me/mine", "--public")
    hub.repositories["me/mine"].commits.append({"README.md": b"written by hand"})
    assert "such as README.md" in refused(capsys, "push", nasty, "hf:me/mine")


def test_nothing_of_the_former_content_stays_beside_a_run(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    former = {".gitattributes": b"* text", "model.safetensors": b"1", "old/model.bin": b"2"}
    hub.repositories["me/digits"] = Repository(private=True, commits=[{**former, "README.md": b""}])
    normal = str(runs["normal"].folder)
    assert "such as README.md" in refused(capsys, "push", normal, NAME)
    done(capsys, "push", normal, NAME, "--overwrite")
    assert files_of(hub).keys() == {"README.md", "record.json", "weights.safetensors"}
    [before, after] = hub.repositories["me/digits"].commits  # in one commit
    assert after[".gitattributes"] == before[".gitattributes"]


def test_a_dry_run_shows_all_and_asks_nothing(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["push", str(runs["nasty"].folder), NAME, "--dry-run"]
    shown = done(capsys, *words)
    assert re.search(r"1,205,016 bytes  weights\.safetensors", shown)
    assert "inputs.adversary.folder was" in shown
    assert "8 test images are left out" in shown
    found = json.loads(done(capsys, *words, "--json"))
    assert found["visibility"] == "private"
    assert not hub.requests
    done(capsys, *words[:-1])
    sent = files_of(hub)
    assert {name: len(content) for name, content in sent.items()} == found["files"]
    assert sent["README.md"].decode() == found["card"]
    assert json.loads(sent["record.json"]) == found["record"]


def test_nothing_of_the_machine_and_no_test_image_is_pushed(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["nasty"]
    assert run.record.examples
    assert "jane" in str(run.record.inputs["adversary"].folder)
    done(capsys, "push", str(run.folder), NAME)
    sent = b"".join(files_of(hub).values())
    for secret in ("jane", "private", TOKEN, os.uname().release, "iVBOR"):
        assert secret.encode() not in sent


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("digits", "digits"),
        ("hf:owner/name", "hf:owner/name"),
        ("/home/jane/faces.npz", "faces.npz"),
        ("../jane/faces/", "faces"),
        (r"C:\Users\jane\faces", "faces"),
        ("hf:/home/jane/model", "model"),
        ("https://jane:secret@inside:8000/v2/models/m", "a service"),
        ("rekognition DetectFaces at http://faces.inside.jane:8080", "a service"),
        ("rekognition DetectFaces at aws eu-west-1", "rekognition DetectFaces at aws eu-west-1"),
        ("cnn@width=64+dropout=0.2", "cnn@width=64+dropout=0.2"),
    ],
)
def test_names_lose_folders_and_hosts(text: str, shared: str) -> None:
    assert public_name(text) == shared


def test_a_record_that_is_shared_has_no_path_and_keeps_its_id(runs: dict[str, Run]) -> None:
    record = runs["nasty"].record
    assert record.data is not None
    reading = {"source": "/home/jane/faces.npz", "group": "/home/jane/(.*)_", "holdout": 0.2}
    victim = InputRecord(
        folder="/home/jane/theft", kind="label", net="http://inside.jane/v2", digest="0" * 16,
        recipe="1" * 16, accuracy=None, seed=None,
    )  # fmt: skip
    faces = replace(victim, net="rekognition DetectFaces at http://faces.jane:8080")
    full = replace(
        record,
        data=replace(record.data, source="/home/jane/faces.npz"),
        given={**record.given, "data": reading, "weights": "/home/jane/w.pt"},
        config={**record.config, "data": reading},
        inputs={**record.inputs, "victim": victim, "faces": faces},
    )
    shared = shareable(full)
    assert "jane" not in shared.to_json()
    assert "jane" not in model_card(shared, "me/digits")
    assert plan_of(shared) == plan_of(full)
    assert shared.given["data"] == {"source": "faces.npz", "holdout": 0.2}
    assert (shared.accuracy, shared.history) == (full.accuracy, full.history)
    assert shareable(shared) == shared


def test_a_network_from_a_folder_of_this_machine_is_not_pushed(runs: dict[str, Run]) -> None:
    record = runs["normal"].record
    with pytest.raises(ConfigError, match="built from a folder of this machine"):
        shareable(replace(record, net=replace(record.net, name="hf:/home/jane/model")))


@pytest.mark.parametrize("name", ["digits", "hf:digits", "hf:./digits", "timm:resnet18"])
def test_a_repository_has_an_owner_and_a_name(
    runs: dict[str, Run], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "wanted is hf:owner/name" in refused(capsys, "push", str(runs["normal"].folder), name)


def test_what_the_hub_says_of_a_license_is_told(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "push", str(runs["normal"].folder), NAME, "--license", "mine")
    assert '"license" must be one of' in said
    assert "online" not in said
    assert files_of(hub) == {}


def test_weights_of_another_run_are_not_pushed(
    hub: Hub, runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for run, name in (("normal", "record.json"), ("nasty", "weights.safetensors")):
        folder = runs[run].folder
        assert folder is not None
        (mixed / name).write_bytes((folder / name).read_bytes())
    assert "not those that its record names" in refused(capsys, "push", str(mixed), NAME)
    assert not hub.requests


# Tokens, kills and lost connections


def test_a_token_that_may_not_is_told_and_not_shown(
    hub: Hub, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wrong = "hf_zyxwvutsrqponmlkjihgfedcba987654"
    monkeypatch.setenv("HF_TOKEN", wrong)
    said = refused(capsys, "push", str(runs["normal"].folder), NAME)  # the hub repeats the token
    assert "hf auth login" in said
    assert wrong[3:11] not in said
    assert "[redacted]" in said
    hub.repositories["me/digits"] = Repository(private=True)
    assert "hf auth login" in refused(capsys, "pull", NAME)


def test_a_change_by_another_is_not_overwritten(
    hub: Hub, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    repository = Repository(private=True)
    hub.repositories["me/digits"] = repository
    holds = hub_client._holds

    def and_then_another_commits(*given: Any) -> bool:
        repository.commits.append({"README.md": b"of another"})
        return holds(*given)

    monkeypatch.setattr(hub_client, "_holds", and_then_another_commits)
    assert "412" in refused(capsys, "push", str(runs["normal"].folder), NAME)
    assert repository.commits[-1] == {"README.md": b"of another"}


def test_a_killed_push_leaves_nothing_half_and_the_next_one_goes_on(
    hub: Hub, runs: dict[str, Run]
) -> None:
    words = ["push", str(runs["normal"].folder), NAME]
    hub.pace_s = 0.05
    killed_at(hub, "PUT /lfs", words)
    assert files_of(hub) == {}
    hub.pace_s = 0.0
    assert command(hub, words).wait() == 0
    assert len(files_of(hub)) == 3
    assert len(hub.repositories["me/digits"].commits) == 2
