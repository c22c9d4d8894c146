"""HTTP APIs that speak no known protocol, described in TOML: requests, replies, prices."""

import base64
import io
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from denature.cli.app import main
from denature.extract.theft import LEDGER
from denature.extract.victims.base import run_now
from denature.extract.victims.find import find
from denature.extract.victims.rest.body import body_of
from denature.extract.victims.rest.spec import ImageSpec, RequestSpec
from tests.descriptions import IMAGES, KEY, asked, described
from tests.hostile import Answer, Request, hostile, reply


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).transpose(2, 0, 1)


# Services as they are


SKLEARN = """
url = "<url>/predict"
[image]
format = "numbers"
layout = "flat"
scale = 1
[request]
body = '{"instances": "$images"}'
batch = 8
[reply]
each = "$.probabilities[*]"
scores = "$[*]"
classes = ["ant", "bee"]
"""


def test_numbers_of_several_images_and_rows_of_scores(tmp_path: Path) -> None:
    """As behind FastAPI and scikit-learn."""

    def answer(request: Request) -> Answer:
        rows = np.array(json.loads(request.body)["instances"])
        np.testing.assert_allclose(rows, IMAGES.reshape(2, -1) / 255, atol=1e-6)
        return reply({"probabilities": [[mean, 1 - mean] for mean in rows.mean(1)]})

    with hostile(answer) as service:
        found = asked(described(tmp_path, SKLEARN, url=service.url), IMAGES)
    means = IMAGES.reshape(2, -1).mean(1) / 255
    np.testing.assert_allclose(found, np.stack([means, 1 - means], 1), atol=1e-6)


VISION = """
url = "<url>/v1/images:annotate?key=${VISION_KEY}"
price_per_1000 = 1.5
[headers]
X-Goog-User-Project = "${VISION_PROJECT}"
[request]
body = '{"requests": ["$each", {"image": {"content": "$image"}, "features": [{"maxResults": 2}]}]}'
batch = 16
[reply]
each = "$.responses[*]"
scores = "$.labelAnnotations[*].score"
names = "$.labelAnnotations[*].description"
classes = ["ant", "bee", "cow"]
"""


def vision(request: Request) -> Answer:
    """As Google's Vision API: the two best labels of each image, best first."""
    responses = []
    for each in json.loads(request.body)["requests"]:
        assert each["features"] == [{"maxResults": 2}]
        level = float(decoded(each["image"]["content"]).mean()) / 255
        best = [("cow", 0.9 * level), ("ant", 0.1 * level)]
        labels = [{"description": name, "score": score, "mid": "/m/0"} for name, score in best]
        responses.append({"labelAnnotations": labels})
    return reply({"responses": responses})


def test_pictures_in_base64_and_the_names_of_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISION_KEY", KEY)
    monkeypatch.setenv("VISION_PROJECT", "mine")
    with hostile(vision) as service:
        found = asked(described(tmp_path, VISION, url=service.url), IMAGES)
    [request] = service.requests
    assert request.path == f"/v1/images:annotate?key={KEY}"
    assert request.headers["x-goog-user-project"] == "mine"
    levels = IMAGES.reshape(2, -1).mean(1) / 255
    np.testing.assert_allclose(
        found[:, [2, 0]], np.stack([0.9 * levels, 0.1 * levels], 1), rtol=1e-5
    )
    assert np.isnan(found[:, 1]).all()


MULTIPART = """
url = "<url>/classify"
[image]
format = "jpeg"
[request]
form = "multipart"
file = "picture"
[request.fields]
mode = "fast"
[reply]
scores = "$.confidences"
names = "$.labels"
classes = ["ant", "bee", "cow"]
"""


def test_a_picture_in_a_form_and_percentages(tmp_path: Path) -> None:
    """As BentoML takes files, and as services write for people."""

    def answer(request: Request) -> Answer:
        kind = request.headers["content-type"]
        boundary = re.fullmatch("multipart/form-data; boundary=(.*)", kind)
        assert boundary is not None
        _, mode, picture, _ = request.body.split(f"--{boundary[1]}".encode())
        assert mode == b'\r\nContent-Disposition: form-data; name="mode"\r\n\r\nfast\r\n'
        head, _, file = picture.removesuffix(b"\r\n").partition(b"\r\n\r\n")
        assert b'name="picture"; filename="image.jpeg"' in head
        assert b"Content-Type: image/jpeg" in head
        pixels = np.asarray(Image.open(io.BytesIO(file))).astype(float)
        assert np.abs(pixels - IMAGES[0].transpose(1, 2, 0)).mean() < 25
        return reply({"labels": ["bee", "ant"], "confidences": ["93.1 %", "6.9%"]})

    with hostile(answer) as service:
        [found] = asked(described(tmp_path, MULTIPART, url=service.url))
    np.testing.assert_allclose(found, [0.069, 0.931, np.nan], atol=1e-6)


BYTES = """
url = "<url>/predict"
[image]
size = 4
channels = 3
[request]
form = "bytes"
[reply]
label = "$.output.class"
classes = ["ant", "bee", "cow"]
"""


@pytest.mark.parametrize("told", ["bee", 1, 1.0])
def test_the_bytes_of_a_picture_and_a_class(tmp_path: Path, told: Any) -> None:
    """As LitServe takes raw requests."""

    def answer(request: Request) -> Answer:
        assert request.headers["content-type"] == "image/png"
        assert (
            np.asarray(Image.open(io.BytesIO(request.body))).transpose(2, 0, 1) == IMAGES[0]
        ).all()
        return reply({"output": {"class": told}})

    with hostile(answer) as service:
        path = described(tmp_path, BYTES, url=service.url)
        found = asked(path)
    assert found.dtype == np.int64
    assert found.tolist() == [1]
    about = run_now(find(str(path)).about())
    assert (about.kind, about.classes, about.image_size, about.channels, about.most) == (
        "label", 3, 4, 3, 1
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["HWC", "CHW", "flat"])
def test_numbers_are_normalised_as_stated(layout: Any) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.5)
    image = ImageSpec(format="numbers", layout=layout, mean=mean, std=std)
    body = body_of(IMAGES[:1], image, RequestSpec(body='["$image"]'))
    [found] = json.loads(body.content)
    wanted = (IMAGES[0] / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    if layout == "HWC":
        wanted = wanted.transpose(1, 2, 0)
    np.testing.assert_allclose(found, wanted.reshape(-1) if layout == "flat" else wanted, atol=1e-6)


@pytest.mark.parametrize("scale", [255, 1])
def test_a_grey_image_is_sent_as_rows(scale: float) -> None:
    image = ImageSpec(format="numbers", layout="HW", scale=scale)
    body = body_of(IMAGES[:1, :1], image, RequestSpec(body='{"image": "$image"}'))
    found = json.loads(body.content)["image"]
    np.testing.assert_allclose(found, IMAGES[0, 0] / 255 * scale, atol=1e-6)
    assert image.takes == 1  # so images of 3 channels are refused before a query


# From a description to a theft, and to a page


def test_a_described_service_is_stolen_within_its_budget_and_its_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    text = """
url = "<url>/predict?key=${API_KEY}"
price_per_1000 = 2.0
[image]
format = "numbers"
size = 8
channels = 1
[request]
body = '{"pixels": "$images"}'
batch = 16
[reply]
each = "$.rows[*]"
scores = "$.scores"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""

    def answer(request: Request) -> Answer:
        count = len(json.loads(request.body)["pixels"])
        return reply({"rows": [{"scores": [0.91] + [0.01] * 9}] * count})

    with hostile(answer) as service:
        path = described(tmp_path, text, url=service.url)
        out = str(tmp_path / "theft")
        words = ["steal", str(path), "--pool", "digits", "--budget", "40", "--student", "mlp",
                 "--epochs", "1", "--device", "cpu", "--out", out, "-q"]  # fmt: skip
        assert main(words) == 0
        said = capsys.readouterr().out
        sent = len(service.requests)
        images = [len(json.loads(request.body)["pixels"]) for request in service.requests]
        assert main(words) == 0
        assert len(service.requests) == sent
    assert sum(images) == 40
    assert max(images) <= 16
    assert "US $ 0.08" in said or "US $0.08" in said
    with closing(sqlite3.connect(tmp_path / "theft" / LEDGER)) as db:
        kept = "".join(map(str, db.execute("SELECT * FROM targets")))
    assert "${API_KEY}" in kept
    for file in (tmp_path / "theft").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_a_description_is_tried_on_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISION_KEY", KEY)
    monkeypatch.setenv("VISION_PROJECT", "mine")
    Image.new("RGB", (5, 7), (255, 255, 255)).save(tmp_path / "white.png")
    with hostile(vision) as service:
        path = described(tmp_path, VISION, url=service.url)
        assert main(["rest", "try", str(path), str(tmp_path / "white.png")]) == 0
        said = capsys.readouterr().out
        assert main(["rest", "try", str(path), str(tmp_path / "white.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["read"] == pytest.approx({"cow": 0.9, "ant": 0.1})
    assert f"POST {service.url}/v1/images:annotate?key=${{VISION_KEY}}" in said
    assert "read as probabilities: cow 0.9, ant 0.1" in said
    assert KEY not in said + json.dumps(told)
