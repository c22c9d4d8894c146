"""Runs that are pulled from the hub: what is kept here, and what is refused."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.core.errors import RunError
from denature.core.record import read_record
from denature.train import Run, load_run
from denature.train.hub import is_run, pull
from tests.commands import refused
from tests.hub_server import Hub, Repository
from tests.sharing import NAME, command, done, killed_at, put

pytest.importorskip("huggingface_hub")

# As huggingface_hub 2.4 uploads a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning")


class Executed:
    """A pickle that would leave a file where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_is_never_opened(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    evil = pickle.dumps(Executed())
    put(hub, runs["normal"], weights_safetensors=evil)
    assert "is no safetensors file; nothing else is opened" in refused(capsys, "pull", NAME)
    put(hub, runs["normal"], weights_safetensors=b"", pytorch_model=evil)
    assert "has no weights.safetensors" in refused(capsys, "pull", NAME)
    assert not [request for request in hub.requests if "pytorch" in request]
    assert not Path("executed").exists()
    assert not Path("runs").exists()


def test_sizes_are_checked_before_anything_is_fetched(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, runs["normal"])
    hub.states = lambda name, size: 10**12 if name == "weights.safetensors" else size
    said = refused(capsys, "pull", NAME)
    assert "has 1,000,000,000,000 bytes; wanted are at most 21,594,272" in said
    hub.states = lambda name, size: 10**12
    assert "wanted are at most 33,554,432" in refused(capsys, "pull", NAME, "--revision", "main")
    got = [request for request in hub.requests if request.startswith("GET") and ".safe" in request]
    assert not got
    assert not Path("runs").exists()


def test_a_record_sets_no_bound_by_a_number_that_its_network_does_not_have(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    record = runs["normal"].record

    def said_of(name: str) -> str:
        lying = replace(record, net=replace(record.net, name=name, parameters=10**12))
        put(hub, runs["normal"], record_json=lying.to_json().encode())
        hub.states = lambda name, size: 10**11 if name == "weights.safetensors" else size
        return refused(capsys, "pull", NAME)

    said = said_of("mlp")
    assert (
        f"states 1,000,000,000,000 parameters for mlp, which has {record.net.parameters:,}" in said
    )
    # A module that is not imported has no outline, so a fixed bound holds.
    assert "has 100,000,000,000 bytes; wanted are at most 8,589,934,592" in said_of("own_nets:make")
    got = [request for request in hub.requests if request.startswith("GET") and ".safe" in request]
    assert not got


def test_what_was_changed_on_its_way_is_refused(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, runs["normal"])
    weights = hub.repositories["me/digits"].commits[0]["weights.safetensors"]
    other = runs["nasty"].folder
    assert other is not None
    for changed, words in (
        (weights[:-1] + bytes([weights[-1] ^ 1]), "not what was written"),
        (weights[:-100], "cannot be read as weights"),
        ((other / "weights.safetensors").read_bytes(), "not those that its record names"),
    ):
        put(hub, runs["normal"], weights_safetensors=changed)
        assert words in refused(capsys, "pull", NAME)
    for record, words in (
        (b"{}", "no schema number"),
        (b"[" * 10**5, "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ):
        put(hub, runs["normal"], record_json=record)
        assert words in refused(capsys, "pull", NAME)
    assert not Path("runs").exists()


def test_a_module_of_a_stranger_is_not_imported(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    record = runs["normal"].record
    Path("evil.py").write_text("raise SystemExit('executed')")
    named = replace(record, net=replace(record.net, name="evil:make"))
    put(hub, runs["normal"], record_json=named.to_json().encode())
    assert "pass --trust evil" in refused(capsys, "pull", NAME)
    assert "pass --trust evil" in refused(capsys, "eval", NAME, "--data", "digits")


def test_another_run_in_the_folder_stays(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, runs["normal"])
    done(capsys, "pull", NAME, "--out", "here")
    put(hub, runs["nasty"])
    assert "already holds another run" in refused(capsys, "pull", NAME, "--out", "here")
    assert read_record(Path("here")).kind == "normal"
    done(capsys, "pull", NAME, "--out", "here", "--overwrite")
    assert load_run("here").digest == runs["nasty"].digest


def test_a_repository_without_a_run_is_one_of_another_library(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["me/digits"] = Repository(False, [{"config.json": b"{}"}])
    assert not is_run("me/digits")
    assert "holds no run that denature pushed" in refused(capsys, "pull", NAME)
    pytest.importorskip("transformers")
    said = refused(capsys, "eval", NAME, "--data", "digits")
    assert "has no preprocessor_config.json, which says how images are normalised" in said


def test_a_run_owns_its_normalisation(
    hub: Hub, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, runs["normal"])
    words = ["eval", NAME, "--data", "digits", "--mean", "0.5", "--std", "0.5"]
    assert "leave out image_size, mean and std" in refused(capsys, *words)


def test_what_was_fetched_is_there_without_a_connection(
    hub: Hub, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    put(hub, runs["normal"])
    done(capsys, "pull", NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    done(capsys, "eval", NAME, "--data", "digits")
    done(capsys, "pull", NAME, "--out", "again")
    assert load_run("again").digest == runs["normal"].digest
    assert "the machine online?" in refused(capsys, "pull", "hf:me/other")
    assert not hub.requests


def test_a_killed_pull_leaves_no_run_and_the_next_one_goes_on(
    hub: Hub, runs: dict[str, Run]
) -> None:
    put(hub, runs["normal"])
    words = ["pull", NAME, "--out", str(Path("pulled").absolute())]
    hub.pace_s = 0.05
    killed_at(hub, "GET /me/digits/resolve/", words)  # the record, or on the way to the weights
    assert not Path("pulled").exists()
    killed_at(hub, f"GET /me/digits/resolve/{hub.repositories['me/digits'].sha()}/weights", words)
    assert not Path("pulled").exists()
    hub.pace_s = 0.0
    assert command(hub, words).wait() == 0
    assert load_run("pulled").digest == runs["normal"].digest
    fetched = [request for request in hub.requests if request.startswith("GET /me/")]
    assert len(fetched) == 1  # the record was there already


def test_a_pull_that_ends_while_it_writes_is_taken_up_again(
    hub: Hub, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hub, runs["normal"])

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("denature.core.record.write_record", stopped)
        with pytest.raises(KeyboardInterrupt):
            pull("me/digits", out="pulled")
    with pytest.raises(RunError, match="no finished run"):
        load_run("pulled")
    assert pull("me/digits", out="pulled").digest == runs["normal"].digest
    assert load_run("pulled").digest == runs["normal"].digest
