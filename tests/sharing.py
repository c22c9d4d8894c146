"""A hub with runs on it, and commands that push to it and pull from it."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from denature.cli.app import main
from denature.train import Nasty, Normal, Run, Training, train
from tests.hub_server import TOKEN, Hub, Repository, hub_server
from tests.processes import Command

NAME = "hf:me/digits"


def shared_runs(factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A normal network, and a nasty one of it."""
    training = Training(epochs=1, batch_size=64, device="cpu", precision="fp32")
    place = factory.mktemp("jane") / "private"
    normal = train("mlp", "digits", Normal(), training, out=place / "normal")
    nasty = train("mlp", "digits", Nasty(), training, source=normal, out=place / "nasty")
    return {"normal": normal, "nasty": nasty}


def own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, with a token and a cache for this process and those that it starts."""
    with hub_server() as server:
        constants = "huggingface_hub.constants"
        monkeypatch.setattr(f"{constants}.ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)  # the stand-in has LFS alone
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield server


def done(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main([*words, "-q"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def files_of(hub: Hub, name: str = "me/digits") -> dict[str, bytes]:
    files = dict(hub.repositories[name].commits[-1])
    del files[".gitattributes"]
    return files


def put(hub: Hub, run: Run, **files: bytes) -> None:
    """A repository with a run, and files in the place of its own."""
    assert run.folder is not None
    own = {"record.json": (run.folder / "record.json").read_bytes(),
           "weights.safetensors": (run.folder / "weights.safetensors").read_bytes()}  # fmt: skip
    given = {name.replace("_", "."): content for name, content in files.items()}
    kept = {name: content for name, content in {**own, **given}.items() if content}
    hub.repositories["me/digits"] = Repository(private=False, commits=[kept])


def command(hub: Hub, words: list[str]) -> Command:
    """A command in a process of its own, which finds the hub as a user's does."""
    hub_env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(Path("home").absolute()), "HF_TOKEN": TOKEN,
               "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    return Command(*words, "-q", env={**os.environ, **hub_env})


def killed_at(hub: Hub, moment: str, words: list[str]) -> None:
    """Kill a command a moment after the hub got a request."""
    process = command(hub, words)
    while not any(moment in request for request in hub.requests):
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    hub.requests.clear()
