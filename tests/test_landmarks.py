"""Landmarks: labels that say where things are, from the file to the measured run."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from denature.cli.app import main
from denature.core.compute import resolve
from denature.core.errors import ConfigError, DataError
from denature.data import DataConfig, load
from denature.data.feed import Feed
from denature.data.landmarks import axes_of, coordinates, names_of, places_of, select_points
from denature.data.views import views
from denature.losses.landmarks import coordinate_error
from denature.train import Distilled, Nasty, Normal, Training, evaluate_run, load_run, train

QUICK = Training(epochs=12, batch_size=32, device="cpu", precision="fp32", lr=3e-3)


def dots(folder: Path, *, count: int = 400, width: int = 16, height: int = 16, **more: Any) -> Path:
    """Pictures with one bright dot, whose place is the label; and a corner that never moves."""
    rng = np.random.default_rng(0)
    for split, size in (("train", count), ("test", count // 4)):
        cells, labels = [], []
        for _ in range(size):
            x, y = rng.integers(2, width - 2), rng.integers(2, height - 2)
            pixels = rng.integers(0, 40, (height, width), dtype=np.uint8)
            pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "png")
            cells.append({"bytes": buffer.getvalue(), "path": None})
            labels.append([(x + 0.5) / width, (y + 0.5) / height, 0.0, 0.0])
        columns = {"image": cells, "keypoints": pa.array(labels, pa.list_(pa.float32())), **more}
        pq.write_table(pa.table(columns), folder / f"{split}-0.parquet")
    return folder


def test_coordinates_become_labels(tmp_path: Path) -> None:
    data = load(str(dots(tmp_path)))
    assert data.landmarks
    assert data.classes == ("0.x", "0.y", "1.x", "1.y")
    assert data.train.labels.shape == (400, 4)
    assert data.train.labels.dtype == torch.float32
    for row in (0, 7):  # the brightest pixel is where the label says
        image = data.train.images[row, 0].float()
        place = torch.nn.functional.avg_pool2d(image[None], 3, 1, 1)[0].flatten().argmax()
        found = torch.tensor([int(place) % 16 + 0.5, int(place) // 16 + 0.5]) / 16
        assert torch.allclose(data.train.labels[row, :2], found)
    first = load(DataConfig(source=str(tmp_path), points=("1", "0")))
    assert first.classes == ("1.x", "1.y", "0.x", "0.y")
    assert torch.equal(first.test.labels, data.test.labels[:, [2, 3, 0, 1]])
    assert first.digest != data.digest
    rest, cut = data.train.divide(0.25, "x")
    assert (len(rest), len(cut), len(data.train.fraction(0.1))) == (300, 100, 40)


def test_a_picture_that_is_not_square_is_stretched_so_that_points_stay(tmp_path: Path) -> None:
    data = load(DataConfig(source=str(dots(tmp_path, width=32, height=16)), image_size=32))
    assert tuple(data.train.images.shape[1:]) == (1, 32, 32)
    labels = data.train.labels[:50, :2]
    for image, label in zip(data.train.images[:50, 0], labels, strict=True):
        x, y = (int(v) for v in label * 32)
        assert image[y, x] > 150


def test_a_network_learns_where_things_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(dots(tmp_path))
    data = load(source)
    run = train("cnn", data, Normal(), QUICK, out=tmp_path / "run")
    mean = data.train.labels.mean(0).expand(100, -1)
    base = coordinate_error(mean, data.test.labels).mean().item()
    assert run.record.error is not None
    assert run.record.error.value < base / 3
    assert run.record.accuracy is None
    assert run.record.history[-1].train_accuracy is None
    assert evaluate_run(run, data) == run.record.error
    again = load_run(tmp_path / "run")
    assert again.record == run.record
    assert again.record.landmarks
    assert main(["eval", str(tmp_path / "run"), "--data", source, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["error"]["value"] == run.record.error.value
    assert main(["eval", str(tmp_path / "run"), "--data", source]) == 0
    assert "% of the side on 100 images (test)" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html")]) == 0
    assert "of the side" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("checkpoint", ["best-test", "best-validation"])
def test_of_errors_the_least_is_best(tmp_path: Path, checkpoint: Any) -> None:
    data = load(str(dots(tmp_path, count=120)))
    training = Training(epochs=6, batch_size=32, device="cpu", precision="fp32", lr=0.05,
                        checkpoint=checkpoint, schedule="constant")  # fmt: skip
    run = train("cnn", data, Normal(), training)
    key = "test_error" if checkpoint == "best-test" else "validation_error"
    errors = [getattr(entry, key) for entry in run.record.history]
    assert run.record.chosen_epoch == 1 + int(np.argmin(errors))


def test_what_compares_classes_is_refused(tmp_path: Path) -> None:
    data = load(str(dots(tmp_path, count=60)))
    run = train("cnn", data, Normal(), Training(epochs=1, device="cpu"))
    for objective in (Distilled(), Nasty()):
        with pytest.raises(ConfigError, match="compares classes, and the labels are landmarks"):
            train("cnn", data, objective, QUICK, source=run)
    with pytest.raises(ConfigError, match="landmarks can follow a crop only"):
        train("cnn", data, Normal(), Training(augment="flip"))
    with pytest.raises(
        ConfigError, match="predicts landmarks, and the labels of digits are classes"
    ):
        evaluate_run(run, "digits")
    with pytest.raises(ConfigError, match="points are of landmarks only"):
        load(DataConfig(source="digits", points=("nose",)))


@pytest.mark.parametrize("label", [[0.1], [0.1, float("nan")], [0.1, 7.0], [], ["a", "b"], None])
def test_what_are_no_coordinates_is_refused(label: Any) -> None:
    with pytest.raises(DataError, match=r"row 3: the landmarks are .*; wanted are x0, y0"):
        coordinates(label, "row 3")


def test_the_five_places_of_a_face_are_found_in_68_points() -> None:
    points = np.arange(2 * 68, dtype=np.float32).reshape(1, -1)
    known = places_of(68)
    found = select_points(points, ("eyeLeft", "nose", "3"), known)
    np.testing.assert_array_equal(found, [[77, 78, 60, 61, 6, 7]])  # means of 36 to 41, 30, 3
    assert names_of(("eyeLeft", "nose")) == ("eyeLeft.x", "eyeLeft.y", "nose.x", "nose.y")
    with pytest.raises(ConfigError, match="There is no landmark 'ear'"):
        select_points(points, ("ear",), known)
    with pytest.raises(ConfigError, match="There is no landmark 'nose'"):
        select_points(points[:, :8], ("nose",), places_of(4))


def test_images_with_different_numbers_of_points_are_told(tmp_path: Path) -> None:
    dots(tmp_path, count=8)
    table = pq.read_table(tmp_path / "train-0.parquet")
    labels = pa.array([[0.5, 0.5]] + [[0.1, 0.1, 0.2, 0.2]] * 7, pa.list_(pa.float32()))
    pq.write_table(table.set_column(1, "keypoints", labels), tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match="different numbers of landmarks"):
        load(str(tmp_path))


def test_faces_have_their_landmarks(real_data: Path) -> None:
    points = ("eyeLeft", "eyeRight", "mouthLeft", "mouthRight", "nose")
    data = load(DataConfig(source=str(real_data / "faces"), image_size=32, points=points))
    assert (len(data.train), len(data.test), len(data.classes)) == (3462, 770, 10)
    left, right, mouth, _, nose = data.test.labels.reshape(-1, 5, 2).unbind(1)
    assert (left[:, 0] < right[:, 0]).float().mean() > 0.99  # the picture's left
    assert (left[:, 1] < nose[:, 1]).float().mean() > 0.99
    assert (nose[:, 1] < mouth[:, 1]).float().mean() > 0.99


def test_landmarks_move_with_what_is_seen(tmp_path: Path) -> None:
    data = load(str(dots(tmp_path)))
    compute = resolve(torch.nn.Identity(), device="cpu", precision="fp32")
    feed = Feed(data.train, compute=compute, views=views("crop", channels=1, image_size=16),
                names=data.classes)  # fmt: skip
    seen = 0
    for batch in feed.epoch(1, view_seed=0, batch_size=50):
        pixels = torch.nn.functional.avg_pool2d(batch.pixels, 3, 1, 1)[:, 0].flatten(1)
        at = pixels.argmax(1)
        found = torch.stack([at % 16 + 0.5, at // 16 + 0.5], 1) / 16
        inside = ((batch.labels[:, :2] > 0.1) & (batch.labels[:, :2] < 0.9)).all(1)
        torch.testing.assert_close(found[inside], batch.labels[inside, :2])
        assert (batch.labels[:, :2] != data.train.labels[batch.samples, :2]).any()
        seen += int(inside.sum())
    assert seen > 250


def test_what_is_no_coordinate_stays_where_views_move() -> None:
    np.testing.assert_array_equal(
        axes_of(("brightness", "nose.x", "nose.y")), [[0, 1, 0], [0, 0, 1]]
    )


def test_places_begin_at_their_mean(tmp_path: Path) -> None:
    data = load(str(dots(tmp_path)))
    run = train("sepcnn", data, Normal(), Training(epochs=1, lr=1e-9, device="cpu"))
    mean = data.train.labels.mean(0).expand(100, -1)
    base = coordinate_error(mean, data.test.labels).mean().item()
    assert run.record.error is not None
    assert run.record.error.value == pytest.approx(base, abs=1e-4)
