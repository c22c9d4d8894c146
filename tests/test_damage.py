"""Bits that change on disk: a resumed job checks what it reads, and the last good state is kept."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from denature.answers.transfer import Transfer
from denature.answers.transfer_file import load_transfer, save_transfer
from denature.attacks import Ball
from denature.audit.cells import CellStore, MeasuredCell
from denature.core.errors import RunError, Stopped
from denature.core.sealed import Damaged, read_tensors, sealed, unsealed, write_tensors
from denature.core.stopping import Stopper
from denature.data import Dataset, load
from denature.datafree.config import Dafl
from denature.robust.config import AttackConfig
from denature.robust.evaluation import evaluate
from denature.robust.outcomes import NORMS, AttackOutcome
from denature.robust.target import Target
from denature.train import CheckpointConfig, Distilled, Normal, Run, Training, train
from denature.train.objectives import Adversarial, Objective, Skeptical
from denature.train.run import snapshots
from denature.train.session import Session
from denature.train.state import FORMER, STATE, read_state, write_state
from tests.heard import Heard

QUICK = Training(epochs=1, batch_size=32, fraction=0.3, lr=0.01, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> Run:
    return train("cnn", data, Normal(), QUICK)


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def flip_mantissa(path: Path, tensor: str) -> None:
    """Change the highest bit of the mantissa of a tensor's first value, as no header would show."""
    content, values = path.read_bytes(), load_file(path)[tensor].clone()
    flip(path, content.index(values.numpy().tobytes()) + 2, bit=6)
    changed = load_file(path)[tensor] != values
    assert int(changed.sum()) == 1


OBJECTIVES: dict[str, tuple[Objective, str]] = {
    "normal": (Normal(), "network/"),
    "moments": (Normal(), "optimizer/"),
    "distilled": (Distilled(), "network/"),
    "skeptical": (Skeptical(delay=0), "heads/"),
    "hardened": (Adversarial(ball=Ball(epsilon=0.1), steps=1), "network/"),
    "dafl": (Dafl(), "network/"),
    "dafl's generator": (Dafl(), "dreamt/generator/"),
}


class Resumed:
    """A run that stops after some steps; each step's state is saved."""

    def __init__(self, data: Dataset, teacher: Run, objective: Objective, out: Path) -> None:
        self.data, self.teacher, self.objective, self.out = data, teacher, objective, out
        self.said = Heard()
        self.state = out / "state" / STATE
        self.former = out / "state" / FORMER

    def go(self, steps: int | None = None, *, out: Path | None = None) -> Run:
        left = [0] * (steps or 10**6)
        session = Session(
            checkpointing=CheckpointConfig(save_every_s=0 if steps else 60, store="off"),
            stopper=Stopper(wish=lambda: not (left and left.pop() == 0)),
            progress=self.said,
        )
        source = self.teacher if self.objective.asks else None
        return train("cnn", self.data, self.objective, QUICK, source=source,
                     out=out or self.out, session=session)  # fmt: skip

    def stop(self, steps: int) -> None:
        with pytest.raises(Stopped):
            self.go(steps)


def read_steps(*states: Path) -> list[int]:
    """The steps that states have done."""
    return [read_state(state)[1]["done"] for state in states]


@pytest.mark.parametrize("case", OBJECTIVES)
def test_a_run_with_a_damaged_state_goes_on_from_the_one_before(
    case: str, data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    objective, prefix = OBJECTIVES[case]
    run = Resumed(data, teacher, objective, tmp_path / "run")
    run.stop(5)
    tensors, _ = read_state(run.state)
    name = next(name for name in tensors if (name.startswith(prefix) and "weight" in name)
                or (name.startswith("optimizer/0.exp_avg") and prefix == "optimizer/"))  # fmt: skip
    last, former = read_steps(run.state, run.former)
    assert last == former + 1
    flip_mantissa(run.state, name)
    finished = run.go()
    [line] = [line for line in run.said.lines if "damaged" in line]
    assert f"{run.state} is damaged" in line
    assert "goes on from the state before it" in line
    assert finished.digest == run.go(out=tmp_path / "whole").digest


def test_a_run_without_a_good_state_says_so_and_begins_anew_when_they_are_deleted(
    data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    run = Resumed(data, teacher, Normal(), tmp_path / "run")
    run.stop(5)
    for state in (run.state, run.former):
        flip(state, -1)
    for state in (run.state, run.former):
        with pytest.raises(RunError, match=rf"{state.name} is damaged: its content.*Delete it"):
            run.go()
        state.unlink()
    assert run.go().digest == run.go(out=tmp_path / "whole").digest


def test_a_state_stays_where_a_file_cannot_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr("os.link", link)
    for done in range(3):
        write_state(tmp_path / STATE, {}, {"done": done})
    assert read_steps(tmp_path / STATE, tmp_path / FORMER) == [2, 1]


def test_a_run_whose_last_state_is_missing_goes_on_from_the_state_before(
    data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    run = Resumed(data, teacher, Normal(), tmp_path / "run")
    run.stop(1)
    [first] = read_steps(run.state)
    run.stop(5)
    [former] = read_steps(run.former)
    run.state.unlink()
    run.stop(1)
    assert read_steps(run.state) == [former + first]
    assert run.go().digest == run.go(out=tmp_path / "whole").digest


def test_a_state_without_a_digest_of_an_earlier_version_is_read(
    data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    run = Resumed(data, teacher, Normal(), tmp_path / "run")
    run.stop(5)
    _, plain = read_state(run.state)
    save_file(load_file(run.state), run.state, metadata={"plain": json.dumps(plain)})
    run.former.unlink()
    assert run.go().digest == run.go(out=tmp_path / "whole").digest


def small(path: Path) -> None:
    """A sealed file of a few hundred bytes, of several types."""
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor(True)}
    write_tensors(path, tensors, {"plain": json.dumps({"done": 3, "lr": 0.1})})


def test_every_changed_bit_of_a_sealed_file_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    small(path)
    wanted, content = read_state(path), path.read_bytes()
    refused = 0
    for place in range(len(content)):
        flip(path, place, bit=place % 8)
        try:
            tensors, plain = read_state(path)
            assert plain == wanted[1]
            assert tensors.keys() == wanted[0].keys()
            assert all(torch.equal(value, wanted[0][name]) for name, value in tensors.items())
            assert all(value.dtype == wanted[0][name].dtype for name, value in tensors.items())
        except RunError:
            refused += 1
        path.write_bytes(content)
    assert refused > 0.8 * len(content)  # the name of the digest may change, and blanks


def test_a_seal_covers_metadata_names_types_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"a": torch.zeros(4), "b": torch.zeros(4)}, {"say": "yes"})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    changes: list[tuple[dict[str, torch.Tensor], dict[str, str]]] = [
        ({"a": torch.zeros(4), "b": torch.zeros(4)}, {"say": "no"}),
        ({"a": torch.zeros(4), "c": torch.zeros(4)}, {}),
        ({"a": torch.zeros(4), "b": torch.zeros(4, dtype=torch.int32)}, {}),
        ({"a": torch.zeros(4), "b": torch.zeros(2, 2)}, {}),
        ({"a": torch.zeros(4)}, {}),
    ]
    for tensors, told in changes:
        save_file(tensors, path, metadata=metadata | told)
        with pytest.raises(Damaged, match="not what was written"):
            read_tensors(path)


def test_a_seal_of_json_covers_every_value() -> None:
    plain = {"predictions": [1, 2, 3], "note": "", "queries": 7}
    assert unsealed(json.loads(json.dumps(sealed(plain)))) == plain
    assert unsealed(plain) == plain
    for change in ({"queries": 8}, {"more": 1}, {"predictions": [1, 3, 2]}):
        with pytest.raises(Damaged):
            unsealed(sealed(plain) | change)
    with pytest.raises(Damaged, match="no JSON object, but list"):
        unsealed([plain])


def test_a_damaged_snapshot_is_refused(data: Dataset, tmp_path: Path) -> None:
    checkpointing = CheckpointConfig(keep_every=1)
    run = train("mlp", data, Normal(), QUICK, out=tmp_path,
                session=Session(checkpointing=checkpointing))  # fmt: skip
    assert len(list(snapshots(run))) == 1
    flip_mantissa(tmp_path / "snapshots" / "epoch-0001" / "weights.safetensors", "body.fc1.weight")
    with pytest.raises(RunError, match="not what was written"):
        list(snapshots(run))


def test_a_damaged_cell_of_an_audit_counts_as_not_measured(tmp_path: Path) -> None:
    store = CellStore(tmp_path, {})
    cell = MeasuredCell(predictions=(1, 2, 3), queries=40, note="a note")
    store.write("key", cell)
    path = store.folder / "key.json"
    content = path.read_bytes()
    for place in range(len(content)):
        flip(path, place, bit=place % 3)
        assert store.read("key") in (None, cell), content[place:]
        path.write_bytes(content)
    path.write_text(json.dumps({"predictions": [1, 2, 3], "queries": 40, "note": "a note"}))
    assert store.read("key") == cell


def test_a_damaged_transfer_set_is_refused(data: Dataset, tmp_path: Path) -> None:
    few = replace(data, train=data.train.take(np.arange(20)), test=data.test.take(np.arange(20)))
    answers = few.train.labels
    path = save_transfer(Transfer("label", answers, victim="v", folder=tmp_path), few)
    content = path.read_bytes()
    header = content.index(b"victim")
    for place in (header + 12, content.index(b"digits"), len(content) - 1):
        flip(path, place)
        with pytest.raises(RunError, match=r"cannot be read.*write it anew"):
            load_transfer(path)
        path.write_bytes(content)
    assert load_transfer(path)[0].victim == "v"


def test_a_damaged_outcome_of_an_attack_is_attacked_again(
    data: Dataset, teacher: Run, tmp_path: Path
) -> None:
    target = Target(teacher, data.test.images[:10].float() / 255, device="cpu")
    config = AttackConfig(effort="quick", attacks=("fgsm",), samples=12, seed=0)
    said = Heard()

    def attack() -> AttackOutcome:
        session = Session(progress=said)
        return evaluate(target, None, data, config, tmp_path, session=session).tried["fgsm"]

    wanted = attack()
    [path] = tmp_path.glob("*.npz")
    content = path.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 40):
        flip(path, place, bit=place % 8)
        said.lines.clear()
        found = attack()
        assert np.array_equal(found.found, wanted.found)
        assert all(np.array_equal(found.distances[n], wanted.distances[n]) for n in NORMS)
        again = [f"{path} is damaged; its images are attacked again."]
        assert said.lines in ([], again)
        assert said.lines == again or found.seconds == wanted.seconds
        path.write_bytes(content)
    path.write_bytes(content[: len(content) // 2])
    attack()
    assert said.lines[-1:] == [f"{path} is damaged; its images are attacked again."]


def test_damaged_labels_in_the_cache_are_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENATURE_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=np.arange(20) % 4,
             x_test=images, y_test=np.arange(20) % 4)  # fmt: skip
    wanted = load(str(tmp_path / "data.npz"))
    [labels] = (tmp_path / "cache").rglob("train.labels.npy")
    for file in (labels, labels.with_name("meta.json")):
        content, said = file.read_bytes(), Heard()
        flip(file, content.index(b'"digest": "') + 12 if file.suffix == ".json" else -8)
        found = load(str(tmp_path / "data.npz"), progress=said)
        assert torch.equal(found.train.labels, wanted.train.labels)
        assert found.digest == wanted.digest
        assert said.lines == [f"{file.parent} is damaged; {tmp_path}/data.npz is decoded again"]
        assert file.read_bytes() == content
