"""Transfer sets on disk: the same answers and images come back, or none; workers train clones."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from denature.answers.transfer import Transfer
from denature.answers.transfer_file import load_transfer, save_transfer
from denature.core.errors import ConfigError, RunError
from denature.core.progress import Silent
from denature.core.record import read_record
from denature.data import Dataset, load
from denature.defenses.rounding import Rounding
from denature.extract import ExtractionConfig, steal
from denature.extract.victims.local import local
from denature.train import Cloned, Normal, Order, Run, Training, make, train
from denature.train import runs as runs_module
from denature.train.job import Job
from denature.train.objectives.base import Objective
from denature.train.passes import make_pass
from denature.train.session import Session
from denature.train.workers import ProcessPool, RayPool

pytestmark = pytest.mark.usefixtures("without_figures")

QUICK = Training(epochs=1, batch_size=32, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def transfer_of(data: Dataset, kind: Any, folder: Path | None) -> Transfer:
    soft = torch.rand((len(data.train.labels), 10), generator=torch.Generator().manual_seed(0))
    values = {"label": data.train.labels, "logits": soft, "probabilities": soft.softmax(-1)}[kind]
    return Transfer(kind, values, victim="v", recipe="r", folder=folder)


@pytest.mark.parametrize("kind", ["label", "logits", "probabilities"])
def test_what_is_written_is_read(digits: Dataset, tmp_path: Path, kind: Any) -> None:
    sent = transfer_of(digits, kind, tmp_path)
    data = replace(digits, validation=digits.test, left_out={"hidden": 2})
    path = save_transfer(sent, data)
    transfer, found = load_transfer(path)
    assert (transfer.kind, transfer.victim, transfer.recipe) == (kind, "v", "r")
    assert (transfer.digest, transfer.as_input()) == (sent.digest, sent.as_input())
    assert load_transfer(path, folder=Path("named"))[0].folder == Path("named")
    for split, other in ((found.train, data.train), (found.test, data.test),
                         (found.validation, data.validation)):  # fmt: skip
        assert split is not None
        assert other is not None
        assert torch.equal(split.images, other.images)
        assert torch.equal(split.labels, other.labels)
        assert torch.equal(split.rows, other.rows)
    # Splits that share their images here have their own there.
    assert found.describe() | {"megabytes": 0} == data.describe() | {"megabytes": 0}
    assert found.config == data.config
    assert load_transfer(save_transfer(sent, digits))[1].validation is None


def test_landmarks_and_groups_come_back(digits: Dataset, tmp_path: Path) -> None:
    count = len(digits.train.images)
    places = torch.rand((count, 4), generator=torch.Generator().manual_seed(0))
    split = replace(digits.train, labels=places, groups=torch.arange(count) // 2)
    names = ("a.x", "a.y", "b.x", "b.y")
    data = replace(digits, train=split, test=split, classes=names)
    path = save_transfer(Transfer("landmarks", places, victim="v", folder=tmp_path), data)
    transfer, found = load_transfer(path)
    assert torch.equal(transfer.values, places)
    assert found.landmarks
    assert torch.equal(found.train.groups, split.groups)  # type: ignore[arg-type]
    assert found.classes == names


def test_a_file_is_written_once_and_for_each_data_set(digits: Dataset, tmp_path: Path) -> None:
    sent = transfer_of(digits, "label", tmp_path)
    path = save_transfer(sent, digits)
    written = path.stat().st_mtime_ns
    assert save_transfer(sent, digits) == path
    assert path.stat().st_mtime_ns == written
    assert save_transfer(sent, replace(digits, digest="other")) != path
    assert save_transfer(transfer_of(digits, "logits", tmp_path), digits) != path
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_transfer_set_without_a_folder_cannot_be_written(digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="in this process's memory only; give it a folder"):
        save_transfer(transfer_of(digits, "label", None), digits)


def changed(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write a file again with other fields or arrays."""
    with safe_open(path, framework="pt") as file:
        before = json.loads(file.metadata()["header"])
    found = {name: value for name, value in (load_file(path) | tensors).items() if len(value)}
    save_file(found, path, metadata={"header": json.dumps(before | header)})


ODD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "format": ({"format": 2}, {}, "format is 2, this denature reads 1"),
    "kind": ({"kind": "guess"}, {}, "kind"),
    "another kind": ({"kind": "logits"}, {}, "values is .*wanted is"),
    "values": ({}, {"values": torch.zeros(7, dtype=torch.int64)}, "values is"),
    "a value": ({}, {"values": "first"}, "not those that were written"),
    "images": ({}, {"test/images": torch.zeros(3, 2)}, "test/images"),
    "type": ({}, {"train/images": "float"}, "train/images is"),
    "more": ({}, {"more": torch.zeros(3)}, "more is"),
    "no test": ({}, {"test/images": torch.zeros(0)}, "test/labels is"),
    "classes": ({"classes": ["a", "b"]}, {}, "2 classes"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_file_that_does_not_fit_itself_is_refused(
    digits: Dataset, tmp_path: Path, name: str
) -> None:
    header, tensors, said = ODD[name]
    path = save_transfer(transfer_of(digits, "label", tmp_path), digits)
    made: dict[str, Any] = dict(tensors)
    if made.get("values") == "first":
        made["values"] = load_file(path)["values"].clone()
        made["values"][0] = (made["values"][0] + 1) % 10
    if "train/images" in made:
        made["train/images"] = load_file(path)["train/images"].float()
    changed(path, header, made)
    with pytest.raises(RunError, match=said) as caught:
        load_transfer(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["train/images", "train/rows", "test/images"])
def test_an_array_without_a_length_is_refused(digits: Dataset, tmp_path: Path, name: str) -> None:
    path = save_transfer(transfer_of(digits, "label", tmp_path), digits)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(path) | {name: torch.tensor(1)}, path, metadata=header)
    with pytest.raises(RunError, match="cannot be read"):
        load_transfer(path)


def test_rows_outside_the_images_are_refused(digits: Dataset, tmp_path: Path) -> None:
    odd = replace(digits.train, rows=digits.train.rows + 10**6)
    path = save_transfer(transfer_of(digits, "label", tmp_path), replace(digits, train=odd))
    with pytest.raises(RunError, match="rows of train do not lie among"):
        load_transfer(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\xff" * 64])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(RunError, match="cannot be read"):
        load_transfer(path)
    path.write_bytes(content)
    with pytest.raises(RunError, match="cannot be read"):
        load_transfer(path)


def test_a_file_that_claims_more_than_it_holds_is_refused(digits: Dataset, tmp_path: Path) -> None:
    """The header's sizes are checked against the file, before memory is taken for them."""
    path = save_transfer(transfer_of(digits, "label", tmp_path), digits)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + size])
    told["train/images"]["shape"][0] = 10**12
    told["train/images"]["data_offsets"][1] = 10**14
    text = json.dumps(told).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(RunError, match="cannot be read"):
        load_transfer(path)


@pytest.fixture(scope="module", params=["processes", pytest.param("ray", marks=pytest.mark.alone)])
def pool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessPool | RayPool]:
    """Two workers, which stay in the folder where they began, as the tests do; or a Ray cluster.

    On two cores they compute with one thread each, and so do the tests: more may add in another
    order.
    """
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'denature[ray]'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ProcessPool(2) if request.param == "processes" else RayPool("local", device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workers"))
        patch.setattr("denature.core.threads.usable_cores", lambda: 2)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        try:
            yield pool
        finally:
            pool.close()
            torch.set_num_threads(before)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("mlp", "digits", Normal(), QUICK, out=tmp_path_factory.mktemp("runs") / "mlp")


@pytest.mark.slow
def test_clones_made_by_workers_equal_those_made_here(
    victim: Run, pool: ProcessPool | RayPool
) -> None:
    def stolen(out: str, session: Session) -> Any:
        return steal(
            local(victim, kind="probabilities"), net="mlp", pool="digits", budgets=[100, 200],
            out=out, stealing=ExtractionConfig(test_images=40, seeds=2), training=QUICK,
            session=session,
        )  # fmt: skip

    there = stolen("there", Session(workers=pool))
    here = stolen("here", Session())
    assert len(list(Path("there/transfers").iterdir())) == 2
    assert not Path("here/transfers").exists()
    for clone, other in zip(there.clones, here.clones, strict=True):
        record, wanted = read_record(Path(clone.folder)), read_record(Path(other.folder))
        assert (record.id, record.net.digest) == (wanted.id, wanted.net.digest)
        assert record.inputs["victim"].folder == "there"
        assert record.data == wanted.data
        assert record.accuracy == wanted.accuracy
        assert replace(clone, folder="") == replace(other, folder="")
    assert asdict(there)["victim_accuracy"] == asdict(here)["victim_accuracy"]


@pytest.mark.slow
def test_clones_of_defended_answers_are_the_same_in_workers(
    digits: Dataset, tmp_path: Path, pool: ProcessPool | RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds the undefended answers; the defense travels beside it.

    So do the data of a run of labels, which no other process could load.
    """
    images = 255 - digits.train.images
    data = replace(digits, train=replace(digits.train, images=images), digest="inverted")
    plain = transfer_of(data, "probabilities", tmp_path)
    learned: list[tuple[Objective, Transfer]] = [
        (Cloned(), plain),
        (Cloned(), plain.defended(Rounding(decimals=1))),
        (Normal(), plain),
    ]
    waiting: list[str] = []

    def noted(jobs: Sequence[Job], *rest: Any, **named: Any) -> list[Run]:
        waiting.extend(job.title for job in jobs if not job.is_finished)
        return make_pass(jobs, *rest, **named)

    monkeypatch.setattr(runs_module, "make_pass", noted)

    def runs(out: str, session: Session) -> list[Run]:
        orders = [
            Order(net="mlp", objective=objective, training=QUICK, source=source,
                  under=tmp_path / out)
            for objective, source in learned
        ]  # fmt: skip
        return make(orders, data, session=session)

    there = runs("there", Session(workers=pool))
    assert not waiting
    here = runs("here", Session())
    assert len(waiting) == 3
    assert len(list((tmp_path / "transfers").iterdir())) == 1
    assert [run.digest for run in there] == [run.digest for run in here]
    assert [run.record.id for run in there] == [run.record.id for run in here]
    assert len({run.digest for run in there}) == 3


@pytest.mark.slow
def test_workers_report_while_they_train(
    digits: Dataset, tmp_path: Path, pool: ProcessPool | RayPool
) -> None:
    steps, notes = list[float](), list[str]()

    class Tally(Silent):
        def advance(self, amount: float, note: str = "") -> None:
            steps.extend([amount] if amount else [])
            notes.extend([note] if note else [])

    orders = [
        Order(net="mlp", objective=Normal(), under=tmp_path,
              training=replace(QUICK, epochs=12, batch_size=32, seed=seed))
        for seed in (0, 1)
    ]  # fmt: skip
    make(orders, digits, session=Session(progress=Tally(), workers=pool))
    images = 12 * len(digits.train)
    assert sum(steps) == 2 * images
    # Not at the ends of the runs alone.
    assert len(steps) > 2
    assert max(steps) < images
    assert notes[-1] == "2 finished"
