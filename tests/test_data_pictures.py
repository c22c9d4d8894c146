"""One decoder for all image files: upright, of known formats, of bounded size."""

import base64
import io
import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import denature
from denature.cli.app import main
from denature.core.errors import DataError
from denature.core.progress import SILENT
from denature.data import DataConfig, decode, load
from denature.data.pictures import MOST_PIXELS, BadImage, TooManyPixels, open_image
from denature.extract.locating import open_picture
from denature.recipes.nose.service_answers import load_recorded
from denature.serve.faces import RekognitionError
from denature.serve.faces import details as face_details
from denature.serve.faces import read as read_request
from denature.train import Normal, Run, Training, train
from tests.heard import Heard
from tests.layouts import read

TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture is stored so that a viewer that knows its orientation shows it upright."""


def upright() -> Image.Image:
    """A picture whose four corners differ."""
    pixels = np.random.default_rng(0).integers(0, 60, (32, 32, 3)).astype(np.uint8)
    pixels[:16, :16, 0] += 180
    pixels[:16, 16:, 1] += 180
    pixels[16:, :16, 2] += 180
    return Image.fromarray(pixels)


def stored(orientation: int, kind: str = "png") -> bytes:
    turn = TURNS[orientation]
    picture = upright() if turn is None else upright().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, kind, exif=exif.tobytes(), lossless=True)  # of WEBP
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_a_picture_is_opened_as_a_viewer_shows_it(orientation: int, kind: str) -> None:
    found = open_image(stored(orientation, kind))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(upright()))


@pytest.mark.parametrize("orientation", [3, 6])
def test_all_readers_see_a_picture_upright(tmp_path: Path, orientation: int) -> None:
    """Folders, cells, `mark`, DetectFaces, and pictures that a service was asked about."""
    expected = np.asarray(upright())
    data = stored(orientation)
    folder = tmp_path / "folder" / "a"
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"{number}.png").write_bytes(data)
    (tmp_path / "cells").mkdir()
    table = pa.table({"image": pa.array([data] * 2, pa.binary()), "label": [0, 0]})
    pq.write_table(table, tmp_path / "cells" / "train.parquet")
    for source in (folder.parent, tmp_path / "cells"):
        pixels = read(source, holdout=0.5).train.images[0].numpy()
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), expected)
    np.testing.assert_array_equal(np.asarray(open_picture(folder / "0.png")), expected)
    request = {"Image": {"Bytes": base64.b64encode(data).decode()}}
    picture = read_request(json.dumps(request).encode(), channels=3, size=32)
    np.testing.assert_array_equal(picture.image[0].transpose(1, 2, 0), expected)
    places = dict.fromkeys(("eyeLeft", "eyeRight", "nose"), (0.5, 0.5))
    places |= dict.fromkeys(("mouthLeft", "mouthRight"), (0.5, 0.6))
    answer = {"FaceDetails": [face_details(places, picture, None)]}
    for number in range(10):
        (folder / f"{number}.png").write_bytes(data)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({f"{number}.png": answer for number in range(10)}))
    told = load_recorded(folder, labels, size=32, group=None, progress=SILENT)
    np.testing.assert_array_equal(told.train.images[0].numpy().transpose(1, 2, 0), expected)


def test_exif_that_is_damaged_turns_nothing() -> None:
    buffer = io.BytesIO()
    upright().save(buffer, "png", exif=b"Exif\0\0no header at all")
    np.testing.assert_array_equal(np.asarray(open_image(buffer.getvalue())), np.asarray(upright()))


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "webp", "tiff", "ppm"])
def test_known_formats_are_opened_whatever_a_file_is_called(tmp_path: Path, kind: str) -> None:
    upright().save(tmp_path / "picture.png", kind)
    found = open_image(tmp_path / "picture.png")
    assert (found.width, found.height) == (32, 32)


def test_the_first_frame_of_an_animation_is_the_picture() -> None:
    frames = [Image.new("RGB", (8, 8), (level, level, level)) for level in (40, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    assert np.unique(np.asarray(open_image(buffer.getvalue()).convert("L"))).tolist() == [40]


@pytest.mark.parametrize("kind", ["ico", "tga", "pcx", "pdf", "eps", "sgi"])
def test_other_formats_are_refused(kind: str) -> None:
    buffer = io.BytesIO()
    upright().save(buffer, kind)
    with pytest.raises(BadImage, match="none of JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM"):
        open_image(buffer.getvalue())


POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
0 0 8 8 rectfill
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that a `gs` on the path leaves behind, should it be started."""
    trace = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\necho 10.0\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it looks once in a process
    return trace


def test_the_trap_for_ghostscript_works(ghostscript: Path, tmp_path: Path) -> None:
    """Pillow alone starts it for a file called .png."""
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    with pytest.raises(OSError), Image.open(tmp_path / "a.png") as picture:  # noqa: PT011
        picture.load()
    assert ghostscript.exists()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = Training(epochs=1, batch_size=64, device="cpu", precision="fp32")
    out = tmp_path_factory.mktemp("runs") / "classifier"
    return train("mlp", DataConfig(source="digits"), Normal(), training, out=out)


def test_postscript_never_starts_ghostscript(
    ghostscript: Path, tmp_path: Path, classifier: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "folder" / "a" / "0.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(POSTSCRIPT)
    (tmp_path / "cells").mkdir()
    table = pa.table({"image": pa.array([POSTSCRIPT] * 2, pa.binary()), "label": [0, 0]})
    pq.write_table(table, tmp_path / "cells" / "train.parquet")
    for source in (tmp_path / "folder", tmp_path / "cells"):
        with pytest.raises(DataError, match="cannot be decoded: it is none of JPEG"):
            read(source, holdout=0.5)
    request = {"Image": {"Bytes": base64.b64encode(POSTSCRIPT).decode()}}
    with pytest.raises(RekognitionError, match="no JPEG or PNG"):
        read_request(json.dumps(request).encode(), channels=3, size=8)
    for command in (
        ["predict", str(classifier.folder), str(file), "--resize"],
        ["mark", str(file), "--detector", str(classifier.folder), "--out", str(tmp_path / "out")],
    ):
        assert main(command) == 1
        assert "cannot be read as an image: it is none of JPEG" in capsys.readouterr().err
    assert not ghostscript.exists()


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also between Pillow's bounds for warning and for refusing, and where its own are off."""
    side = int(MOST_PIXELS**0.5) + 100
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "png")
    with pytest.raises(TooManyPixels, match="pixels"):
        open_image(buffer.getvalue())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(TooManyPixels, match=rf"{side}x{side}; wanted are at most 40,000,000"):
        open_image(buffer.getvalue())


def test_image_files_are_opened_in_one_place() -> None:
    package = Path(denature.__file__).parent
    opened = [
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"\bImage\.open\(|imageio|imread", file.read_text("utf-8"))
    ]
    assert opened == ["data/pictures.py"]


def test_what_was_decoded_before_pictures_were_turned_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version of the cache is in its key."""
    (tmp_path / "a").mkdir()
    for number in range(2):
        (tmp_path / "a" / f"{number}.png").write_bytes(stored(1))
    config = DataConfig(source=str(tmp_path), holdout=0.5)
    monkeypatch.setattr("denature.data.cache.VERSION", 2)
    load(config)
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(decode, "opened_image", lambda _: pytest.fail("decoded again"))
        with pytest.raises(pytest.fail.Exception, match="decoded again"):
            load(config)


# Sixteen bits.


def sixteen(kind: str, highest: int) -> bytes:
    """A picture of 16 bits with values from 0 to `highest`."""
    grey = np.linspace(0, highest, 64).reshape(8, 8).astype(np.uint16)
    if kind == "ppm":
        return b"P6\n8 8\n65535\n" + np.repeat(grey[..., None], 3, 2).astype(">u2").tobytes()
    if kind == "pgm":
        return b"P5\n8 8\n65535\n" + grey.astype(">u2").tobytes()
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, kind)
    return buffer.getvalue()


def deep(root: Path, kind: str, *highest: int) -> Path:
    for place, most in enumerate(highest):
        for name in "ab":
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f"{place}.{kind}").write_bytes(sixteen(kind, most))
    return root


DEEP = ("png", "tiff", "pgm", "ppm")


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("highest", [255, 4095])
def test_low_bits_of_sixteen_are_refused_and_not_read_as_black(
    tmp_path: Path, kind: str, highest: int
) -> None:
    root = deep(tmp_path, kind, highest, highest, 100)
    with pytest.raises(DataError, match=r"6 images of 16 bits in the train .* read as black"):
        read(root, holdout=0.5)


def test_low_bits_in_the_test_split_alone_are_refused(tmp_path: Path) -> None:
    deep(tmp_path / "train", "png", 65535, 255)
    deep(tmp_path / "test", "png", 255)
    with pytest.raises(DataError, match=r"16 bits in the test split .* read as black"):
        read(tmp_path)


@pytest.mark.parametrize("kind", DEEP)
def test_sixteen_bits_are_read_by_their_upper_byte(tmp_path: Path, kind: str) -> None:
    root = deep(tmp_path, kind, 65535, 255)
    found = read(root, holdout=0.5)
    assert found.train.images.max() == 255
    small = read(root, holdout=0.5, image_size=2)
    assert small.channels == (3 if kind == "ppm" else 1)


def test_sixteen_bits_that_are_dark_are_told_at_every_load(tmp_path: Path) -> None:
    root = deep(tmp_path, "png", 16383, 9000)
    for _ in range(2):
        lines = Heard()
        load(DataConfig(source=str(root), holdout=0.5), progress=lines)
        assert len(lines.lines) == 1
        assert "16 bits in the train split" in lines.lines[0]
        assert "above 16,383, and white is 65,535" in lines.lines[0]


def test_a_plain_map_of_another_white_is_scaled_to_it(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(2):
            data = b"P5\n8 8\n4095\n" + np.full(64, 4095, ">u2").tobytes()
            (tmp_path / name / f"{number}.pgm").write_bytes(data)
    assert read(tmp_path, holdout=0.5).train.images.unique().tolist() == [255]


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan goes over all pixels; 5 MB of them took minutes."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 7).save(buffer, "jpeg", progressive=True)
    data = buffer.getvalue()
    assert np.asarray(open_image(data)).shape == (64, 64)
    last = data.rindex(b"\xff\xda")
    scans = data[:-2] + data[last:-2] * 200 + data[-2:]
    with pytest.raises(BadImage, match="more than 100 scans"):
        open_image(scans)


def test_a_tile_larger_than_its_image_counts_as_pixels(tmp_path: Path) -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16384, 323: 16384, 325: 9}
    packed = {**tags, 324: 8 + 2 + 12 * (len(tags) + 1) + 4}
    entries = b"".join(
        struct.pack("<HHLL", tag, 4, 1, value) for tag, value in sorted(packed.items())
    )
    head = struct.pack("<2sHLH", b"II", 42, 8, len(packed))
    path = tmp_path / "tiled.tif"
    path.write_bytes(head + entries + bytes(4) + zlib.compress(b""))
    with pytest.raises(TooManyPixels, match="wanted are at most"):
        open_image(path)
