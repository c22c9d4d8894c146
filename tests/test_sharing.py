"""Runs on the hub: what is pushed, what is kept here, and what a pull refuses."""

import json
import os
import pickle
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.cli.app import main
from denature.core.errors import ConfigError, RunError
from denature.core.record import InputRecord, Record, find_records, read_record
from denature.data import Dataset
from denature.report.card import model_card
from denature.train import Nasty, Normal, Run, Training, evaluate_run, load_run, train
from denature.train import hub as hub_client
from denature.train.hub import is_run, pull
from denature.train.identity import plan_of
from denature.train.shareable import public_name, shareable
from tests.hub_server import TOKEN, Hub, Repository, hub_server
from tests.processes import Command

hub_library = pytest.importorskip("huggingface_hub")

# As huggingface_hub 2.4 uploads a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning")

QUICK = Training(epochs=1, batch_size=64, device="cpu", precision="fp32")
NAME = "hf:me/digits"
RESULTS = Path(__file__).parents[1] / "results"


class Executed:
    """A pickle that would leave a file where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    place = tmp_path_factory.mktemp("jane") / "private"
    normal = train("mlp", "digits", Normal(), QUICK, out=place / "normal")
    nasty = train("mlp", "digits", Nasty(), QUICK, source=normal, out=place / "nasty")
    return {"normal": normal, "nasty": nasty}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
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


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "-q"]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def files_of(hub: Hub, name: str = "me/digits") -> dict[str, bytes]:
    files = dict(hub.repositories[name].commits[-1])
    del files[".gitattributes"]
    return files


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


# The card


def card(record: Record, **options: Any) -> Any:
    """A card as huggingface_hub reads it."""
    return hub_library.ModelCard(model_card(shareable(record), "me/digits", **options))


def test_a_card_says_what_the_record_says(runs: dict[str, Run]) -> None:
    run = runs["nasty"]
    found = card(run.record, license="apache-2.0")
    assert found.data.library_name == "denature"
    assert found.data.pipeline_tag == "image-classification"
    assert found.data.license == "apache-2.0"
    [result] = found.data.eval_results
    assert result.metric_value == pytest.approx(run.accuracy.value, abs=1e-6)
    value, low, high = (f"{100 * x:.1f}" for x in (run.accuracy.value, run.accuracy.low,
                                                   run.accuracy.high))  # fmt: skip
    assert f"accuracy {value} [{low}, {high}] %, 95 % interval, n = 359 test images" in found.text
    assert "nasty teacher (Ma et al., ICLR 2021)" in found.text
    assert "do not distil from them" in found.text
    assert "this teacher is not nasty: tau^2 KL from its adversary" in found.text
    assert "1,438 training" in found.text
    assert run.record.id in found.text


def test_a_card_states_no_license_that_was_not_given(runs: dict[str, Run]) -> None:
    found = card(runs["normal"].record)
    assert found.data.license is None
    assert "None is stated" in found.text
    assert "nasty" not in found.text


def test_a_card_shows_texts_as_texts(runs: dict[str, Run]) -> None:
    record = runs["normal"].record
    assert record.data is not None
    classes = ("<script>", "a|b", "![x](http://evil)", *record.data.classes[3:])
    found = card(replace(record, data=replace(record.data, classes=classes, source="x: [y\n---")))
    assert "\\<script>" in found.text
    assert "a\\|b" in found.text
    assert "![x](http" not in found.text
    assert found.data.eval_results[0].dataset_name == "x: [y\n---"


def test_a_card_of_landmarks_and_of_imported_weights(runs: dict[str, Run]) -> None:
    record = runs["normal"].record
    assert record.data is not None
    placed = replace(
        record, data=replace(record.data, landmarks=True), accuracy=None, error=record.accuracy
    )
    assert card(placed).data.pipeline_tag == "keypoint-detection"
    assert "% of the side" in card(placed).text
    own = replace(
        record, kind="imported", data=None, config={}, accuracy=None, hits=None,
        net=replace(record.net, name="own_nets:make"),
    )  # fmt: skip
    text = card(own).text
    assert "never measured" in text
    assert "--trust own_nets" in text
    assert "Learned from" not in text


def test_every_kind_of_run_has_a_card_and_shares_no_folder() -> None:
    """Of results that were published before, whose records name the folders of their inputs."""
    places = [
        RESULTS / name / "cpu" / "records.jsonl" for name in ("nose", "defensive-distillation")
    ]
    kinds = {record.kind: record for record in find_records([RESULTS / "demo.jsonl", *places])}
    assert kinds.keys() >= {"normal", "nasty", "distilled", "cloned", "hardened", "adversarial"}
    for kind, record in kinds.items():
        shared = shareable(record)
        assert plan_of(shared) == plan_of(record)
        assert "runs/" not in shared.to_json()
        found = card(record)
        assert f"Kind of run | {kind}" in found.text
        assert ("This is a clone" in found.text) == (kind == "cloned")


# What a pull refuses


def put(hub: Hub, run: Run, **files: bytes) -> None:
    """A repository with a run, and files in the place of its own."""
    assert run.folder is not None
    own = {"record.json": (run.folder / "record.json").read_bytes(),
           "weights.safetensors": (run.folder / "weights.safetensors").read_bytes()}  # fmt: skip
    given = {name.replace("_", "."): content for name, content in files.items()}
    kept = {name: content for name, content in {**own, **given}.items() if content}
    hub.repositories["me/digits"] = Repository(private=False, commits=[kept])


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
