"""Marks in pictures: what models found, in files of any size."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from denature.cli.app import main
from denature.data import DataConfig, load
from denature.data.landmarks import PLACES
from denature.extract.locating import locate, open_picture, places_of
from denature.extract.victims.local import local
from denature.recipes.annotate import distinct_names
from denature.report.marks import COLOURS, SMALLEST, Mark, marked
from denature.train import CheckpointConfig, Normal, Run, Training, train
from denature.train.session import Session
from tests.served import serve, stop

ORANGE = tuple(int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that knows five places of drawn faces, with snapshots."""
    training = Training(epochs=5, batch_size=32, lr=6e-3, device="cpu", precision="fp32")
    return train(
        "sepcnn@width=8",
        DataConfig(source="drawn-faces", image_size=32),
        Normal(),
        training,
        out=tmp_path_factory.mktemp("runs") / "finder",
        session=Session(checkpointing=CheckpointConfig(keep_every=1)),
    )


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    """Three pictures of other sizes: small, wide, and turned by its EXIF."""
    data = load("drawn-faces")
    pictures = [
        Image.fromarray(data.test.images[i].numpy().transpose(1, 2, 0)) for i in (0, 20, 40)
    ]
    files = [tmp_path / name for name in ("small.png", "wide.png", "turned.jpg")]
    pictures[0].save(files[0])
    pictures[1].resize((640, 400)).save(files[1])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, so that it is stored turned back
    pictures[2].resize((300, 300)).rotate(90).save(files[2], exif=exif)
    return files


@pytest.mark.parametrize("size", [(24, 24), (640, 400), (90, 500)])
def test_a_cross_is_where_the_nose_is_and_a_point_where_an_eye_is(size: tuple[int, int]) -> None:
    grey = Image.new("RGB", size, (90, 90, 90))
    seen = {"nose": (0.25, 0.75), "eyeLeft": (0.6, 0.2)}
    found = np.asarray(marked(grey, [Mark("it", COLOURS[0], seen)], legend=False))
    tall, wide = found.shape[:2]
    assert min(tall, wide) >= SMALLEST
    assert wide * size[1] == tall * size[0]
    rows, columns = np.nonzero((found == ORANGE).all(axis=2))
    for x, y in seen.values():
        near = (abs(columns - x * wide) < 0.05 * wide) & (abs(rows - y * tall) < 0.05 * tall)
        assert near.sum() > 8
        assert abs(columns[near].mean() - x * wide) < 2
        assert abs(rows[near].mean() - y * tall) < 2
    assert (found[0, 0] == 90).all()
    legend = np.asarray(marked(grey, [Mark("it", COLOURS[0], {})]))
    assert len(legend) > tall


def test_what_is_found_is_where_the_label_says(finder: Run, faces: list[Path]) -> None:
    data = load("drawn-faces")
    found = locate(local(finder), [open_picture(file) for file in faces])
    for row, places in zip((0, 20, 40), found, strict=True):
        assert tuple(places) == PLACES
        wanted = data.test.labels[row].reshape(-1, 2).numpy()
        off = np.abs(np.array(list(places.values())) - wanted).mean()
        assert off < 0.06  # stretched, turned upright: the same fractions


def test_numbers_without_names_are_points_and_nothing_found_is_nothing() -> None:
    assert places_of((), np.array([0.25, 0.5, 0.75, 1.0])) == {"0": (0.25, 0.5), "1": (0.75, 1.0)}
    assert places_of(("nose.x", "nose.y"), np.array([np.nan, np.nan])) == {}
    assert places_of(("brightness", "nose.x", "nose.y"), np.array([9.0, 0.5, 0.5])) == {
        "nose": (0.5, 0.5)
    }


def test_several_models_mark_files_and_folders(
    finder: Run, faces: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, a server, and a service through boto3, of one network: all see the same."""
    out = tmp_path / "marked"
    folder = str(finder.folder)
    served = serve(tmp_path, f"finder={folder}")
    try:
        url = f"http://{served.address}"
        words = [
            "--detector",
            folder,
            "--detector",
            f"{url}/v2/models/finder",
            "--detector",
            "rekognition",
        ]
        words += ["--endpoint-url", url, "--out", str(out), "--json", "-q"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "environ", environment)
            assert main(["mark", str(faces[0]), str(tmp_path), *words]) == 0
    finally:
        stop(served)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == {str(file) for file in faces}
    for seen in told.values():
        first, second, third = (np.array(list(places.values())) for places in seen.values())
        np.testing.assert_allclose(first, second, atol=1e-5)
        np.testing.assert_allclose(first, third, atol=1e-3)
    assert sorted(file.name for file in out.iterdir()) == [
        "small-2.png", "small.png", "turned.png", "wide.png"
    ]  # fmt: skip


def test_marked_files_have_names_of_their_own() -> None:
    files = [Path(name) for name in ("a/x.png", "b/x.jpg", "x-2.png", "c/x.png", "y.png")]
    names = distinct_names(files)
    assert names[:2] == ["x", "x-2"]
    assert len(set(names)) == len(files)
    assert names[-1] == "y"


def test_marked_files_do_not_replace_each_other() -> None:
    files = [Path(name) for name in ("x-3.png", "x.png", "b/x.png", "c/x.png", "d/x-2.png")]
    names = distinct_names(files)
    assert names == ["x-3", "x", "x-2", "x-4", "x-2-2"]


def test_an_animation_has_a_frame_for_each_snapshot(
    finder: Run, faces: list[Path], tmp_path: Path
) -> None:
    words = [
        "mark",
        str(faces[1]),
        "--detector",
        str(finder.folder),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--animate", "-q"]) == 0
    with Image.open(tmp_path / "out" / "wide.gif") as gif:
        assert gif.n_frames == 5  # type: ignore[attr-defined]
        assert gif.size[0] == 640


def test_bad_requests_are_told(
    finder: Run, faces: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "-q"]
    folder = str(finder.folder)
    assert main(["mark", "--detector", folder, *out]) == 1
    assert "No image was given" in capsys.readouterr().err
    text = tmp_path / "notes.png"
    text.write_text("no image")
    assert main(["mark", str(text), "--detector", folder, *out]) == 1
    assert "notes.png cannot be read as an image" in capsys.readouterr().err
    plain = train("mlp", "digits", Normal(), Training(epochs=1), out=tmp_path / "digits")
    assert main(["mark", str(faces[0]), "--detector", str(plain.folder), *out]) == 1
    assert "only landmarks can be marked" in capsys.readouterr().err
    never = train("sepcnn@width=4", DataConfig(source="drawn-faces", image_size=16), Normal(),
                  Training(epochs=1, device="cpu"), out=tmp_path / "no-snapshots")  # fmt: skip
    words = ["mark", str(faces[0]), "--detector", str(never.folder), *out, "--animate"]
    assert main(words) == 1
    assert "--keep-every 1" in capsys.readouterr().err
