"""Pictures that belong together, pictures without labels, and pictures that are drawn."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from denature.cli.app import main
from denature.core.errors import ConfigError, DataError
from denature.data import DataConfig, load
from denature.data.landmarks import PLACES
from denature.extract import ExtractionConfig, FunctionVictim, steal
from denature.train import Normal, Training, train


def cell(seed: int, path: str) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": path}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Ten persons with six frames each, of whom the source's own splits share all."""
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        named = [(person, number) for person in range(10) for number in numbers]
        cells = [cell(10 * p + n, f"person-{p}_{n}.png") for p, n in named]
        labels = pa.array([person % 2 for person, _ in named])
        pq.write_table(pa.table({"image": cells, "label": labels}), tmp_path / f"{split}.parquet")
    return tmp_path


def persons(pixels: torch.Tensor) -> set[int]:
    """Whose frames these are: all pictures are made again, so nothing is taken on trust."""
    known = {
        np.random.default_rng(10 * p + n).integers(0, 256, (16, 16, 3), dtype=np.uint8).tobytes(): p
        for p in range(10)
        for n in range(6)
    }
    return {known[np.ascontiguousarray(it.transpose(1, 2, 0)).tobytes()] for it in pixels.numpy()}


def test_no_group_is_in_two_splits(frames: Path) -> None:
    plain = load(str(frames))
    both = [persons(s.images[s.rows]) for s in (plain.train, plain.test)]
    assert both == [set(range(10))] * 2  # which is what is wrong with the source's own
    data = load(DataConfig(source=str(frames), group="(.*)_"))
    rest, validation = data.train.divide(0.25, "validation")
    parts = [persons(split.images[split.rows]) for split in (rest, validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert [len(part) for part in parts] == [6, 2, 2]
    assert [len(split) for split in (rest, validation, data.test)] == [36, 12, 12]
    assert (data.test_origin, data.holdout) == ("holdout", 0.2)
    labels = {int(data.train.labels[row]) for row in data.train.rows}
    assert labels == {0, 1}
    more = load(DataConfig(source=str(frames), group="(.*)_", holdout=0.5))
    assert len(persons(more.test.images[more.test.rows])) == 5


def test_a_validation_split_is_cut_by_group(frames: Path) -> None:
    training = Training(epochs=1, batch_size=8, checkpoint="best-validation", validation=0.25,
                        device="cpu")  # fmt: skip
    run = train("mlp", DataConfig(source=str(frames), group="(.*)_"), Normal(), training)
    assert run.record.data is not None
    assert (run.record.data.train, run.record.data.validation) == (36, 12)


@pytest.mark.parametrize(
    ("group", "why"),
    [("(.*", "group is '\\(.*'"), (".*_", "with 0 groups"), ("(a)(b)", "with 2 groups")],
)
def test_a_pattern_that_says_no_group_is_refused(group: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        DataConfig(source="x", group=group)


def test_images_that_cannot_be_grouped_are_told(frames: Path) -> None:
    with pytest.raises(DataError, match=r"'\(nobody\)' finds nothing in 'person-0_"):
        load(DataConfig(source=str(frames), group="(nobody)"))
    with pytest.raises(DataError, match="The images of digits have no paths"):
        load(DataConfig(source="digits", group="(.*)_"))


def test_a_folder_of_images_without_labels_is_a_pool_and_no_data_set(tmp_path: Path) -> None:
    for number in range(40):
        data = cell(number, "")["bytes"]
        (tmp_path / f"{number:02d}.png").write_bytes(data)
    with pytest.raises(DataError, match="have no labels"):
        load(str(tmp_path))
    test = tmp_path.parent / "labelled.npz"
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), rng.integers(0, 2, 40)
    np.savez(test, x_train=x, y_train=y, x_test=x, y_test=y)

    def answer(pixels: np.ndarray) -> np.ndarray:
        bright = pixels.mean((1, 2, 3))
        return np.stack([bright, 1 - bright], axis=1).astype(np.float32)

    theft = steal(
        FunctionVictim(answer, name="a function", kind="probabilities"),
        net="mlp",
        pool=str(tmp_path),
        test=str(test),
        budgets=[40],
        out=tmp_path.parent / "theft",
        stealing=ExtractionConfig(test_images=10),
        training=Training(epochs=1, batch_size=16, device="cpu"),
    )
    assert theft.clones[0].answers == 30


def test_drawn_faces_are_the_same_wherever_they_are_drawn() -> None:
    data = load("drawn-faces")
    assert data.digest == "58647e572834f64d"
    assert data.classes[-2:] == ("nose.x", "nose.y")
    assert len(data.train) == 72 * 16
    nose = load(DataConfig(source="drawn-faces", points=("nose",)))
    assert torch.equal(nose.train.labels, data.train.labels[:, -2:])


def test_drawn_faces_are_where_their_labels_say() -> None:
    data = load("drawn-faces")
    places = data.test.labels.reshape(-1, 5, 2)
    assert ((places > 0) & (places < 1)).all()
    eyes = places[:, PLACES.index("eyeLeft")] * 64
    dark = 0
    for image, (x, y) in zip(data.test.images, eyes.long().tolist(), strict=True):
        around = image[:, max(0, y - 6) : y + 7, max(0, x - 6) : x + 7].float().mean(0)
        pupil = image[:, y - 1 : y + 2, x - 1 : x + 2].float().mean()
        dark += bool(around.max() > pupil + 40)  # the white of the eye beside it
    assert dark > 0.95 * len(eyes)
    grouped = load(DataConfig(source="drawn-faces", group="(.*)_"))
    assert len(grouped.train) + len(grouped.test) == 90 * 16


def test_the_command_line_groups(frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(frames), "--group", "(.*)_"]) == 0
    assert "holdout" in capsys.readouterr().out
