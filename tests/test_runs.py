"""A run's folder: complete or nothing, read without executing anything."""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from denature.core.errors import ConfigError, RunError, TrainingError
from denature.core.record import SCHEMA, find_records, read_record, write_records
from denature.core.stats import proportion
from denature.core.weights import digest, read_weights
from denature.data import load
from denature.nets import create
from denature.train import Normal, Run, Training, import_run, load_run, train
from denature.train.tracking import tensorboard
from tests.processes import Command, run_command

QUICK = Training(epochs=1, precision="fp32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("made") / "run"
    return train("mlp", load("digits"), Normal(), QUICK, out=out)


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A run in a folder of the test's own, which it may change."""
    return replace(made, folder=Path(shutil.copytree(folder_of(made), tmp_path / "run")))


def folder_of(run: Run) -> Path:
    assert run.folder is not None
    return run.folder


def change_record(run: Run, **changes: object) -> None:
    path = folder_of(run) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_run_comes_back_as_it_was(run: Run) -> None:
    again = load_run(folder_of(run))
    assert again.record == run.record
    assert digest(again.network) == run.record.net.digest
    assert not again.network.training


def test_a_record_says_what_was_done(run: Run) -> None:
    record = read_record(folder_of(run))
    assert record.schema == SCHEMA
    assert (record.kind, record.net.name, record.seed) == ("normal", "mlp", 0)
    assert record.data is not None
    assert re.fullmatch(r"[0-9a-f]{16}", record.data.digest)
    assert record.accuracy is not None
    assert record.accuracy.over == "images"
    assert {"denature", "torch", "numpy", "python"} <= record.environment["versions"].keys()
    assert record.environment["device"]
    assert len(record.history) == 1
    assert len({example.label for example in record.examples}) == len(record.examples) == 8


def test_a_run_leaves_tensorboard_events(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder_of(run) / "events"))
    events.Reload()
    [loss] = events.Scalars("loss/train")
    assert loss.step == 1
    assert loss.value == pytest.approx(run.record.history[0].loss, rel=1e-5)


def test_epochs_that_are_trained_again_replace_their_events(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for after, loss in (0, 1.0), (1, 2.0):  # within a second, where names of files could clash
        with tensorboard(tmp_path, after=after) as write:
            for step in range(after + 1, 4):
                write({"loss/train": loss}, step)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss/train")]
    assert found == [(1, 1.0), (2, 2.0), (3, 2.0)]


def test_events_of_an_epoch_are_on_the_disk_when_it_ends(tmp_path: Path) -> None:
    """A killed run goes on after the epochs that its state counts as done."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard(tmp_path, after=0) as write:
        write({"loss/train": 1.0}, 1)
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        assert [event.step for event in events.Scalars("loss/train")] == [1]


def test_another_run_is_not_written_over(run: Run) -> None:
    other = replace(QUICK, seed=1)
    with pytest.raises(RunError, match=r"another run: .*training.seed was 0, is 1.*--overwrite"):
        train("mlp", "digits", Normal(), other, out=folder_of(run))
    made = train("mlp", "digits", Normal(), other, out=folder_of(run), overwrite=True)
    assert load_run(folder_of(run)).record.net.digest == made.record.net.digest


def test_overwriting_never_removes_what_no_run_wrote(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="files that no run wrote"):
        train("mlp", "digits", Normal(), QUICK, out=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere is missing"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no record.json"):
        load_run(tmp_path)
    with pytest.raises(RunError, match="is no run and holds none"):
        find_records([tmp_path])


def test_a_record_of_a_newer_schema_is_refused(run: Run) -> None:
    change_record(run, schema=SCHEMA + 1)
    with pytest.raises(RunError, match=rf"schema {SCHEMA + 1}; .* up to {SCHEMA}.*Upgrade"):
        load_run(folder_of(run))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": "one"}'])
def test_a_damaged_record_is_refused(run: Run, text: str) -> None:
    (folder_of(run) / "record.json").write_text(text)
    with pytest.raises(RunError, match=r"record\.json"):
        load_run(folder_of(run))


def test_weights_cut_in_half_are_refused(run: Run) -> None:
    path = folder_of(run) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunError, match="cannot be read as weights"):
        load_run(folder_of(run))


def test_weights_of_another_run_are_noticed(run: Run) -> None:
    path = folder_of(run) / "weights.safetensors"
    tensors = load_file(path)
    tensors["body.fc1.weight"] += 1
    save_file(tensors, path)
    with pytest.raises(RunError, match="not those that its record names"):
        load_run(folder_of(run))


def test_weights_that_do_not_fit_are_named(run: Run) -> None:
    change_record(run, net={**json.loads(run.record.to_json())["net"], "classes": 11})
    with pytest.raises(RunError, match=r"do not fit.*fc3.weight is \(10, 512\) there"):
        load_run(folder_of(run))


def test_a_record_cannot_make_us_import_a_module(run: Run, tmp_path: Path) -> None:
    sign = tmp_path / "executed"
    (tmp_path / "trap.py").write_text(f"import pathlib; pathlib.Path({str(sign)!r}).touch()\n")
    net = json.loads(run.record.to_json())["net"]
    change_record(run, net={**net, "name": "trap:build"})
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(RunError, match="--trust trap"):
            load_run(folder_of(run))
        assert not sign.exists()
        with pytest.raises(ConfigError, match="cannot be imported"):
            load_run(folder_of(run), trust=["trap"])
        assert sign.exists()
    finally:
        sys.path.remove(str(tmp_path))


class Bomb:
    """Executes something when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch bomb-went-off",)


@pytest.mark.parametrize("name", ["bomb.pt", "bomb.pth", "bomb.bin"])
def test_a_foreign_pickle_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, name)
    with pytest.raises(RunError, match="could execute code; refused"):
        read_weights(Path(name))
    Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(RunError, match="could execute code; refused"):
        read_weights(Path(name))
    assert not Path("bomb-went-off").exists()


def test_a_run_stays_until_the_one_that_replaces_it_is_finished(run: Run) -> None:
    wild = Training(epochs=3, optimizer="sgd", lr=1e30, schedule="constant", precision="fp32")
    with pytest.raises(TrainingError, match=r"not finite at step \d+ of"):
        train("mlp", "digits", Normal(), wild, out=folder_of(run), overwrite=True)
    assert load_run(folder_of(run)).record == run.record
    other = replace(QUICK, seed=1)
    made = train("mlp", "digits", Normal(), other, out=folder_of(run), overwrite=True)
    assert load_run(folder_of(run)).record == made.record
    names = {entry.name for entry in folder_of(run).iterdir()}
    assert names == {"record.json", "weights.safetensors", "events"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weights.safetensors", "holds files that no run wrote, such as weights.safetensors"),
        ("events", "holds files that no run wrote, such as events"),
        ("record.json", r"record\.json is not a run's record"),
    ],
)
def test_files_that_only_look_like_a_runs_are_left_alone(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / name).write_text('{"my": "own"}')
    with pytest.raises(RunError, match=said):
        train("mlp", "digits", Normal(), QUICK, out=tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == '{"my": "own"}'


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.b.weight = self.a.weight
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.b(self.a(x.flatten(1))))
        return found


def test_a_module_with_tied_weights_is_kept_and_comes_back(tmp_path: Path) -> None:
    made = train(Tied(), "digits", Normal(), QUICK, out=tmp_path)
    with pytest.raises(RunError, match="--trust test_runs"):
        load_run(tmp_path)
    assert digest(load_run(tmp_path, network=Tied()).network) == made.record.net.digest


@pytest.mark.parametrize(
    "edit",
    [
        {"accuracy": {"value": float("nan"), "low": 0, "high": 1, "n": 9, "over": "images"}},
        {"accuracy": {"value": 7.5, "low": 0, "high": 9, "n": 9, "over": "images"}},
        {"schema": -3},
        {"config": {}},
        {"config": {"net": "mlp", "data": {}, "objective": {}, "training": "hi"}},
        {"kind": "nasty"},
        {"kind": "distilled"},
    ],
)
def test_a_record_edited_by_hand_is_refused_in_one_line(run: Run, edit: dict[str, Any]) -> None:
    change_record(run, **edit)
    with pytest.raises(RunError, match=r"record\.json"):
        load_run(folder_of(run))


def test_a_record_cannot_ask_for_all_memory(run: Run) -> None:
    net = json.loads(run.record.to_json())["net"]
    change_record(run, net={**net, "classes": 10**9})
    with pytest.raises(ConfigError, match="2 to 100,000 classes"):
        load_run(folder_of(run))


@pytest.mark.parametrize(
    ("value", "said"), [(torch.nan, "is not finite"), (None, "is torch.int64")]
)
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, value: float | None, said: str
) -> None:
    tensors = create("mlp", classes=10).state_dict()
    shape = tensors["body.fc3.bias"]
    tensors["body.fc3.bias"] = shape.long() if value is None else torch.full_like(shape, value)
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(RunError, match=f"body.fc3.bias {said}"):
        import_run("mlp", tmp_path / "w.pt", classes=10)


@pytest.mark.parametrize("form", ["safetensors", "plain", "nested", "parallel", "whole", "deep"])
def test_weights_from_elsewhere_become_a_run(tmp_path: Path, form: str) -> None:
    network = create("cnn", classes=10, channels=1, image_size=8, mean=(0.3,), std=(0.4,)).eval()
    body = network.body
    assert isinstance(body, torch.nn.Module)
    tensors = body.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    own: dict[str, Any] = {"mean": (0.3,), "std": (0.4,)}
    if form == "safetensors":
        save_file(tensors, path)
    elif form == "plain":
        torch.save(tensors, path)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": tensors}, path)
    elif form == "deep":
        torch.save({"model": {"model_state_dict": tensors}, "step": 5}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": value for name, value in tensors.items()}, path)
    else:
        torch.save(network.state_dict(), path)
        own = {}
    imported = import_run(
        "cnn", path, classes=10, channels=1, image_size=8, out=tmp_path / "run", **own
    )
    pixels = torch.rand(4, 1, 8, 8)
    assert torch.equal(imported.network(pixels), network(pixels))
    assert load_run(tmp_path / "run").record.kind == "imported"
    with pytest.raises(RunError, match="never measured"):
        _ = imported.accuracy


def test_an_interval_is_part_of_every_number(run: Run) -> None:
    accuracy = json.loads((folder_of(run) / "record.json").read_text())["accuracy"]
    assert set(accuracy) == {"value", "low", "high", "n", "over"}
    right = round(accuracy["value"] * accuracy["n"])
    assert accuracy == asdict(proportion(right, len(load("digits").test)))


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    """Kill -9 at spread moments: the folder then holds a run that loads, or no record."""
    complete = killed = 0
    load("digits")  # into the cache
    for number in range(4):
        out = tmp_path / f"run-{number}"
        words = ["train", "mlp", "--data", "digits", "--epochs", "5", "--out", str(out), "-q"]
        process = Command(*words)
        limit = time.monotonic() + 60
        while not (out / "state" / "events").exists() and time.monotonic() < limit:
            assert process.poll() in (None, 0)
            time.sleep(0.002)
        time.sleep(0.05 * number)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        if (out / "record.json").exists():
            load_run(out)
            complete += 1
        else:
            assert (out / "state").is_dir()
            with pytest.raises(RunError, match=r"holds no record\.json, so no finished run"):
                load_run(out)
    assert complete < 4
    assert killed > 0


def test_a_disk_that_is_full_is_one_line_and_no_run(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails half-way, for real."""
    out = tmp_path / "run"
    load("digits")  # the cache is written before the limit holds
    found = run_command(
        *("train", "mlp", "--data", "digits", "--epochs", "1", "--out", out, "-q"),
        limits={resource.RLIMIT_FSIZE: 200_000},
    )
    assert found.returncode == 1
    [line] = found.stderr.splitlines()
    assert "could not be written" in line
    assert not (out / "record.json").exists()
    assert not [p for p in out.iterdir() if p.name.endswith(".tmp")]


def test_records_are_found_below_a_folder(run: Run, tmp_path: Path) -> None:
    assert find_records([tmp_path]) == [run.record] == find_records([folder_of(run)])


def test_records_in_one_file_are_enough_for_a_report(run: Run, tmp_path: Path) -> None:
    write_records(tmp_path / "kept.jsonl", [run.record, run.record])
    assert find_records([tmp_path / "kept.jsonl"]) == [run.record] * 2
    with (tmp_path / "kept.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(RunError, match=r"kept\.jsonl, line 3 is damaged"):
        find_records([tmp_path / "kept.jsonl"])


@pytest.mark.parametrize("trust", [(), "my_nets", ("m", "y"), "my"])
def test_only_a_module_that_is_named_in_full_is_trusted(
    run: Run, tmp_path: Path, trust: str | tuple[str, ...]
) -> None:
    """A text is one name, and not its letters or parts."""
    record = json.loads((folder_of(run) / "record.json").read_text())
    record["net"]["name"] = "my:make"
    shutil.copytree(folder_of(run), tmp_path / "stranger")
    (tmp_path / "stranger" / "record.json").write_text(json.dumps(record))
    wanted = ModuleNotFoundError if trust == "my" else RunError
    with pytest.raises((RunError, ConfigError, ModuleNotFoundError)) as refused:
        load_run(tmp_path / "stranger", trust=trust)
    assert ("pass --trust my" in str(refused.value)) == (wanted is RunError)
