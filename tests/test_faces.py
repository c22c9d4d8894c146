"""Faces across the wire: DetectFaces as boto3 speaks it, and a clone of who answers it."""

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.data import DataConfig, load
from denature.data.landmarks import PLACES
from denature.extract.victims.rekognition import Rekognition, numbers, outputs_of
from denature.serve.config import Exposure, ServedModel
from denature.serve.faces import confidence, details, quality, read, shrunk
from denature.serve.refusal import Refused
from denature.train import Normal, Run, Training, load_run, train
from tests.served import Served, serve, stop

POINTS = {"eyeLeft": (0.3, 0.4), "eyeRight": (0.7, 0.4), "mouthLeft": (0.35, 0.8),
          "mouthRight": (0.65, 0.8), "nose": (0.5, 0.6)}  # fmt: skip


def picture(x: float, y: float, side: int = 32, seed: int = 0) -> np.ndarray:
    """A drawn face around a nose at x, y, height x width x 3."""
    pixels = np.random.default_rng(seed).integers(0, 90, (side, side, 3), dtype=np.uint8)
    for dx, dy in ((-0.12, -0.12), (0.12, -0.12), (-0.09, 0.12), (0.09, 0.12), (0, 0)):
        row, column = int((y + dy) * side), int((x + dx) * side)
        pixels[row - 1 : row + 1, column - 1 : column + 1] = 255
    return pixels


def places_of(x: float, y: float) -> list[float]:
    return [x - 0.12, y - 0.12, x + 0.12, y - 0.12, x - 0.09, y + 0.12, x + 0.09, y + 0.12, x, y]


def coded(pixels: np.ndarray, form: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn faces with 68 points, of which the usual ones are where they should be."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    for split, size in (("train", 500), ("test", 100)):
        cells: list[dict[str, Any]] = []
        labels = []
        for x, y in rng.uniform(0.3, 0.7, (size, 2)):
            cells.append({"bytes": coded(picture(x, y, seed=len(cells))), "path": None})
            five = np.array(places_of(x, y)).reshape(5, 2)
            points = np.full((68, 2), 0.5)
            points[36:42], points[42:48], points[48], points[54], points[30] = five
            labels.append(points.reshape(-1).tolist())
        columns = {"image": cells, "keypoints": pa.array(labels, pa.list_(pa.float32()))}
        pq.write_table(pa.table(columns), folder / f"{split}-0.parquet")
    return folder


@pytest.fixture(scope="module")
def victim(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = DataConfig(source=str(faces), points=PLACES)
    training = Training(epochs=12, batch_size=50, lr=3e-3, device="cpu", precision="fp32")
    return train(
        "cnn@width=8", data, Normal(), training, out=tmp_path_factory.mktemp("runs") / "faces"
    )


@pytest.fixture(scope="module")
def server(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = serve(tmp_path_factory.mktemp("served"), f"faces={victim.folder}")
    yield served
    stop(served)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def client(address: str) -> Any:
    retries: Any = {"total_max_attempts": 1}
    session = boto3.session.Session()  # the default one keeps the credentials that it found first
    return session.client("rekognition", endpoint_url=f"http://{address}",
                          region_name="us-east-1", config=Config(retries=retries))  # fmt: skip


# The victim's side


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_a_stock_client_finds_the_nose(server: Served, victim: Run, form: str) -> None:
    pixels = np.kron(picture(0.4, 0.6), np.ones((4, 4, 1), np.uint8))  # 128 pixels a side
    data = coded(pixels, form)
    told = client(server.address).detect_faces(Image={"Bytes": data})
    [face] = told["FaceDetails"]
    marks = {mark["Type"]: (mark["X"], mark["Y"]) for mark in face["Landmarks"]}
    assert list(marks) == list(PLACES)
    taken = torch.from_numpy(shrunk(Image.open(io.BytesIO(data)), 3, 32).image).float() / 255
    own = victim.network(taken)[0].detach().reshape(5, 2)
    np.testing.assert_allclose(list(marks.values()), own, atol=1e-5)
    assert face["BoundingBox"].keys() == {"Width", "Height", "Left", "Top"}
    assert 0 <= face["Quality"]["Sharpness"] <= 100
    assert face["Confidence"] == 100
    assert len(told["ResponseMetadata"]["RequestId"]) == 36
    assert server.entries()[-1]["id"] == told["ResponseMetadata"]["RequestId"]


WRONG: list[tuple[Any, str]] = [
    ({"Bytes": b"no picture"}, "InvalidImageFormatException"),
    ({"Bytes": coded(picture(0.5, 0.5))[:60]}, "InvalidImageFormatException"),
    ({"Bytes": coded(picture(0.5, 0.5), "gif")}, "InvalidImageFormatException"),
    ({"S3Object": {"Bucket": "bucket", "Name": "n"}}, "InvalidS3ObjectException"),
    ({}, "InvalidParameterException"),
]


@pytest.mark.parametrize(("image", "name"), WRONG)
def test_what_is_no_picture_is_refused_in_the_services_words(
    server: Served, image: Any, name: str
) -> None:
    with pytest.raises(ClientError) as error:
        client(server.address).detect_faces(Image=image)
    assert error.value.response["Error"]["Code"] == name
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def bomb() -> bytes:
    """A small file of 100 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "png")
    return buffer.getvalue()


def test_bombs_and_giants_are_too_large(server: Served) -> None:
    before = server.memory_mb()
    for data in (bomb(), b"x" * 5_242_881):
        body = json.dumps({"Image": {"Bytes": base64.b64encode(data).decode()}}).encode()
        headers = {"X-Amz-Target": "RekognitionService.DetectFaces"}
        for _ in range(5):
            status, _, told = server.send("POST", "/", body, headers)
            assert (status, json.loads(told)["__type"]) == (400, "ImageTooLargeException")
    assert server.memory_mb() < before + 100


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b'{"Image": 3}', b'{"Image": {"Bytes": 7}}',
                                  b'{"Image": {"Bytes": "%%%"}}', b"[" * 50_000])  # fmt: skip
def test_what_is_no_request_is_refused(server: Served, body: bytes) -> None:
    headers = {"X-Amz-Target": "RekognitionService.DetectFaces"}
    status, _, told = server.send("POST", "/", body, headers)
    assert status == 400
    assert json.loads(told)["__type"] in ("SerializationException", "InvalidParameterException")
    status, _, told = server.send("POST", "/", body, {"X-Amz-Target": "Other.Thing"})
    assert json.loads(told)["__type"] == "UnknownOperationException"


def test_a_callers_access_key_is_its_key(
    victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    keys = str(tmp_path / "keys")
    assert main(["keys", keys, "--add", "thief", "--budget", "2"]) == 0
    key = capsys.readouterr().out.strip()
    served = serve(tmp_path, f"faces={victim.folder}", "--keys", keys)
    try:
        image = {"Bytes": coded(picture(0.5, 0.5))}
        with pytest.raises(ClientError, match="AccessDeniedException"):
            client(served.address).detect_faces(Image=image)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        asked = client(served.address)
        asked.detect_faces(Image=image)
        asked.detect_faces(Image=image)
        with pytest.raises(ClientError, match="ProvisionedThroughputExceededException"):
            asked.detect_faces(Image=image)
    finally:
        stop(served)


def test_landmarks_are_shown_as_such(victim: Run, server: Served) -> None:
    status, _, told = server.send("GET", "/v2/models/faces")
    described = json.loads(told)
    assert status == 200
    names = [f"{place}.{axis}" for place in PLACES for axis in "xy"]
    [output] = described["outputs"]
    assert output.pop("parameters") == {"names": names}
    assert output == {"name": "landmarks", "datatype": "FP32", "shape": [-1, 10]}
    place = ServedModel.of(f"a={victim.folder}", Exposure(decimals=2)).resolved()
    assert (place.exposure.show, place.exposure.decimals) == ("landmarks", 2)
    with pytest.raises(ConfigError, match="answers with landmarks, and cannot show label"):
        ServedModel.of(f"a={victim.folder}@show=label", Exposure()).resolved()


def test_a_picture_is_judged_by_what_it_shows() -> None:
    black, noise = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    noise[::2, ::2] = 255
    white = np.full((2, 2, 3), 255, np.uint8)
    assert quality(Image.fromarray(black)) == {"Brightness": 0, "Sharpness": 0}
    assert quality(Image.fromarray(noise))["Sharpness"] > 80
    assert quality(Image.fromarray(white)) == {"Brightness": 100, "Sharpness": 0}
    assert confidence(POINTS) == 100
    upside_down = {name: (x, 1 - y) for name, (x, y) in POINTS.items()}
    assert confidence(upside_down) == 60
    small = shrunk(Image.fromarray(noise), 1, 8)
    face = details(POINTS, small, 1)
    assert face["BoundingBox"] == {"Width": 0.8, "Height": 1.2, "Left": 0.1, "Top": 0.0}
    assert face["Pose"]["Roll"] == 0
    assert small.image.shape == (1, 1, 8, 8)
    body = json.dumps({"Image": {"Bytes": base64.b64encode(coded(noise)).decode()}}).encode()
    found = read(body, channels=3, size=64)
    np.testing.assert_array_equal(found.image[0].transpose(1, 2, 0), noise)
    assert (found.width, found.height) == (64, 64)
    with pytest.raises(Refused, match="The request has no Image"):
        read(b"{}", channels=3, size=64)


def test_all_of_a_rounded_answer_follows_from_the_rounded_places() -> None:
    """Roll and box of the exact places would tell the decimals that are hidden."""
    moved = {place: (x + 0.013, y + 0.02 * x) for place, (x, y) in POINTS.items()}
    rounded = {place: (round(x, 1), round(y, 1)) for place, (x, y) in moved.items()}
    small = shrunk(Image.fromarray(np.zeros((64, 48, 3), np.uint8)), 1, 8)
    assert details(moved, small, 1) == details(rounded, small, 1)
    assert details(moved, small, None)["Pose"]["Roll"] != details(rounded, small, 1)["Pose"]["Roll"]


# The thief's side


def test_an_answer_is_read_whatever_it_lacks() -> None:
    face = {"Landmarks": [{"Type": "nose", "X": 0.5, "Y": 0.25}],
            "BoundingBox": {"Width": 0.5, "Height": 0.5},
            "Quality": {"Brightness": 80.0, "Sharpness": 20.0}}  # fmt: skip
    small = {**face, "BoundingBox": {"Width": 0.1, "Height": 0.1}, "Landmarks": []}
    found = numbers({"FaceDetails": [small, face]}, ("nose", "brightness"))
    np.testing.assert_allclose(found, [0.5, 0.25, 0.8], rtol=1e-6)
    replies: list[dict[str, Any]] = [
               {}, {"FaceDetails": []}, {"FaceDetails": 3}, {"FaceDetails": [3]},
               {"FaceDetails": [{"Landmarks": [{"Type": "nose", "X": "a"}]}]}]  # fmt: skip
    for reply in replies:
        assert np.isnan(numbers(reply, ("nose",))).all()
    assert outputs_of(("sharpness", "nose")) == ("sharpness", "nose.x", "nose.y")
    with pytest.raises(ConfigError, match="no value of a face 'ear'"):
        outputs_of(("ear",))


def test_a_clone_learns_where_the_service_sees_the_nose(
    server: Served, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "theft"
    words = ["steal", "rekognition", "--endpoint-url", f"http://{server.address}",
             "--pool", str(faces), "--points", "nose", "--budget", "100,340",
             "--student", "cnn@width=8", "--test-images", "40",
             "--epochs", "12", "--batch-size", "30", "--lr", "3e-3",
             "--out", str(out), "--json", "-q"]  # fmt: skip
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["kind"], told["spent"], told["measuring"]) == ("landmarks", 300, 40)
    clone = load_run(told["clones"][-1]["folder"])
    data = load(DataConfig(source=str(faces), points=("nose",)))
    mean = float((data.test.labels - data.train.labels.mean(0)).abs().mean())
    assert clone.record.error is not None
    assert clone.record.error.value < mean / 2
    assert clone.classes == ("nose.x", "nose.y")
    assert told["clones"][-1]["fidelity"]["value"] < mean / 2
    assert {"report.html", "error.svg", "error.png", "records.jsonl"} <= set(os.listdir(out))
    page = (out / "report.html").read_text()
    assert "Distance\u00a0%" in page
    assert "of the picture&#39;s side" in page or "of the picture's side" in page


def test_rekognition_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from denature.extract.victims.find import find

    with pytest.raises(ConfigError, match="--endpoint-url does not apply to http"):
        find("http://localhost:1", endpoint_url="http://localhost:2")
    with pytest.raises(ConfigError, match="--model does not apply to rekognition"):
        find("rekognition", model="x")
    assert isinstance(find("rekognition", endpoint_url="http://localhost:1"), Rekognition)
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="AWS needs a region"):
        find("rekognition")
