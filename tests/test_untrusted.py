"""Strange files, texts and replies: one line each, nothing hangs, nothing starts."""

import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from denature.cli.app import main
from denature.core.errors import ConfigError, DataError, DenatureError
from denature.core.progress import SILENT
from denature.core.record import read_record
from denature.core.untrusted import parse_json, read_bytes, read_toml
from denature.data import DataConfig, load
from denature.data.pictures import BadImage, open_image
from denature.extract.victims.base import VictimInfo
from denature.extract.victims.rekognition import _failed, numbers
from denature.recipes.nose.service_answers import _read as read_answers
from denature.remote.protocol import read_signature
from denature.remote.wire import Response
from denature.train.importing import import_run
from denature.train.run import load_run


@pytest.fixture
def pipe(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        return path

    return make


@pytest.mark.timeout(20)
def test_a_dotted_key_of_toml_has_a_limit(tmp_path: Path) -> None:
    """Its parser keeps each beginning of the key: 32 KB took a gigabyte."""
    (tmp_path / "a.toml").write_text(".".join("a" * 8000) + " = 1")
    with pytest.raises(ValueError, match="more than 200 dots"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(".".join("a" * 50) + " = 1")
    assert read_toml(tmp_path / "a.toml")


def test_a_pipe_in_place_of_a_picture_does_not_hang(
    pipe: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadImage, match="pipe, a device or a socket"):
        open_image(pipe("a.png"))
    with pytest.raises(BadImage, match="pipe, a device"):
        open_image(Path("/dev/zero"))
    pipe("cells/a.png")
    table = pa.table({"image": ["a.png"] * 2, "label": [0, 1]})
    pq.write_table(table, tmp_path / "cells" / "train.parquet")
    with pytest.raises(DataError, match=r"a.png.*pipe, a device"):
        load(DataConfig(source=str(tmp_path / "cells"), holdout=0.5))
    assert main(["data", str(pipe("a.npz"))]) == 1
    assert "pipe, a device or a socket" in capsys.readouterr().err


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["a.npz", "train.parquet", "a.tar.gz", "a.zip"])
def test_a_pipe_in_place_of_data_does_not_hang(pipe: Callable[[str], Path], name: str) -> None:
    with pytest.raises(DataError, match="pipe, a device or a socket"):
        load(str(pipe(name)))


@pytest.mark.timeout(20)
def test_pipes_in_place_of_other_files_do_not_hang(
    pipe: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = pipe("a.toml")
    assert main(["train", "cnn", "--data", "digits", "--config", str(config)]) == 1
    assert "wanted is a regular file" in capsys.readouterr().err
    with pytest.raises(DataError, match="wanted is a regular file"):
        read_answers(pipe("labels.json"))
    with pytest.raises(DenatureError):
        import_run("cnn", pipe("a.pt"), classes=10)


def test_a_name_with_a_nul_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="NUL"):
        load("a\0b")
    table = pa.table({"image": ["a\0b"] * 2, "label": [0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no path of an image file"):
        load(DataConfig(source=str(tmp_path), holdout=0.5))
    (tmp_path / "a.toml").write_text('data = "a\\u0000b"')
    assert main(["train", "cnn", "--config", str(tmp_path / "a.toml")]) == 1
    assert "NUL character" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper"),
        ("[" * 500 + "]" * 500, "nested deeper"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested deeper"),
        ("1" + "0" * 400, "bits; wanted are at most 64"),
        ('["\\u0000"]', "NUL"),
        ("[" + "{}," * 2_000_000 + "{}]", "MiB of memory"),
    ],
)
def test_values_that_break_other_code_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(text)


def test_deep_records_and_configs_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "record.json").write_text("[" * 5000 + "]" * 5000)
    with pytest.raises(DenatureError, match="nested deeper"):
        read_record(tmp_path)
    (tmp_path / "a.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    assert main(["train", "cnn", "--config", str(tmp_path / "a.toml")]) == 1
    assert "nested deeper" in capsys.readouterr().err


def test_a_file_that_grows_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    assert len(read_bytes(tmp_path / "a", 100)) == 100
    with pytest.raises(OSError, match="at most 99"):
        read_bytes(tmp_path / "a", 99)


def sparse(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_sparse()


def quantized(tensor: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


@pytest.mark.parametrize("change", [sparse, quantized])
def test_sparse_and_quantized_weights_are_one_line(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    from denature.nets import create

    network: Any = create("cnn", classes=10)
    tensors = network.body.state_dict()
    with warnings.catch_warnings(action="ignore"):  # torch deprecates both
        torch.save(tensors | {"fc2.weight": change(tensors["fc2.weight"])}, tmp_path / "a.pt")
        with pytest.raises(DenatureError, match=r"fc2.weight is (sparse|quantized)") as raised:
            import_run("cnn", tmp_path / "a.pt", classes=10)
        assert "\n" not in str(raised.value)
        run = import_run("cnn", _plain(tmp_path, tensors), classes=10, out=tmp_path / "run")
        assert run.folder is not None
        (run.folder / "weights.safetensors").write_bytes((tmp_path / "a.pt").read_bytes())
        with pytest.raises(DenatureError):
            load_run(run.folder)


def _plain(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save(tensors, folder / "plain.pt")
    return folder / "plain.pt"


# A service's replies


@pytest.mark.parametrize(("header", "seconds"), [("²", None), ("7", 7)])
def test_a_superscript_is_no_number_of_seconds(header: str, seconds: float | None) -> None:
    body = b'{"__type": "ThrottlingException"}'
    assert _failed(Response(400, {"Retry-After": header}, body), ()).wait_s == seconds


def test_coordinates_of_400_digits_are_infinite() -> None:
    mark = {"Type": "nose", "X": 10**400, "Y": -(10.0**300)}
    found = numbers({"FaceDetails": [{"Landmarks": [mark]}]}, ["nose"])
    assert np.isinf(found).all()


@pytest.mark.parametrize("size", [10**30, 0, 4097, True, 1.0])
def test_absurd_shapes_of_a_model_are_one_line(size: Any) -> None:
    described: dict[str, Any] = {
        "name": "m",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, size, size]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
    }
    with pytest.raises(ConfigError):
        read_signature(described, None)
    described["inputs"][0]["shape"] = [-1, 3, 8, 8]
    described["outputs"][0]["shape"] = [-1, 10**30]
    with pytest.raises(ConfigError, match=r"1e\+30"):
        read_signature(described, None)


class Claims:
    """A victim that claims a size of its images."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def __aenter__(self) -> "Claims":
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def about(self) -> VictimInfo:
        return VictimInfo(target="t", kind="label", channels=1, image_size=self.size)

    async def ask(self, images: np.ndarray, *, id: str) -> np.ndarray:
        raise AssertionError("it was queried")


@pytest.mark.parametrize(("net", "size"), [("cnn", 1024), ("mlp", 512)])
def test_a_victim_cannot_claim_memory(tmp_path: Path, net: str, size: int) -> None:
    from denature.extract import steal

    source = tmp_path / "a.npz"
    np.savez(source, x_train=np.zeros((20, 8, 8), np.uint8), y_train=np.arange(20) % 2)
    config = DataConfig(source=str(source), holdout=0.5)
    with pytest.raises(ConfigError, match=f"on its word; .* --image-size {size}"):
        steal(Claims(size), net=net, pool=config, budgets=[5], out=tmp_path / "out")


# Pictures


def test_an_orientation_turns_a_picture_as_before() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (4, 2)).save(buffer, "jpeg", exif=exif)
    assert open_image(buffer.getvalue()).size == (2, 4)


def test_only_one_place_opens_pictures() -> None:
    """The lint rule that holds this is on, and finds a breach."""
    code = "from PIL import Image\n\npicture = Image.open('a.png')\n"
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "-"]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [*command, "--stdin-filename", "denature/data/x.py"],
        input=code, capture_output=True, text=True, check=False, cwd=root,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "open_image" in done.stdout


def test_recorded_answers_never_start_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denature.recipes.nose.service_answers import load_recorded

    trace = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    images = tmp_path / "images"
    images.mkdir()
    marks = [{"Type": name, "X": 0.5, "Y": 0.5} for name in
             ("eyeLeft", "eyeRight", "mouthLeft", "mouthRight", "nose")]  # fmt: skip
    face = {"Landmarks": marks, "Quality": {"Brightness": 50.0, "Sharpness": 50.0}}
    answers = {}
    for number in range(12):
        (images / f"{number}.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
        )
        answers[f"{number}.png"] = {"FaceDetails": [face]}
    (tmp_path / "labels.json").write_text(json.dumps(answers))
    with pytest.raises(DataError, match="none of JPEG"):
        load_recorded(images, tmp_path / "labels.json", size=8, group=None, progress=SILENT)
    assert not trace.exists()
