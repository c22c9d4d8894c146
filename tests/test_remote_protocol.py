"""The inference protocol as a client: descriptions, requests, replies and class names."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.answers.network import answers_from
from denature.core.errors import ConfigError
from denature.data import Dataset
from denature.extract.asking.reading import fitting
from denature.extract.compatibility import fitted
from denature.extract.victims.base import VictimInfo
from denature.remote.protocol import (
    Address,
    read_reply,
    read_signature,
    request,
    wire_images,
)
from denature.remote.signature import RemoteSignature
from denature.remote.wire import retry_after
from denature.serve import protocol
from denature.serve.config import Exposure
from denature.serve.exposure import expose
from tests.heard import Heard

SIGNATURE = RemoteSignature(
    input="images", datatype="UINT8", shape=(1, 4, 4), channels_last=False,
    output="probabilities", classes=3,
)  # fmt: skip
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], np.float32)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize(
    ("show", "top"),
    [("probabilities", 0), ("logits", 0), ("label", 0), ("probabilities", 2), ("logits", 2)],
)
def test_what_our_client_asks_our_server_answers(
    show: Any, top: int, datatype: str, binary: bool
) -> None:
    served = protocol.ModelSignature(
        name="m", shape=(1, 4, 4), classes=("a", "b", "c"), exposure=Exposure(show=show)
    )
    signature = replace(read_signature(served.describe(), None), datatype=datatype)
    wire = wire_images(PIXELS, signature)
    body, headers = request(wire, signature, id="7", binary=binary, top=top)
    asked = protocol.parse(body, headers.get(protocol.LENGTH), served, max_images=9)
    assert asked.id == "7"
    wanted = PIXELS if datatype == "UINT8" else (PIXELS / 255).astype(np.float32)
    np.testing.assert_array_equal(asked.images, wanted)
    values = answers_from(torch.from_numpy(LOGITS), show, dtype=torch.float64).values.numpy()
    reply, length = protocol.render(expose(values, served.exposure), asked, served)
    found = read_reply(reply, length, replace(signature, classes=3), count=2)
    if show == "label":
        np.testing.assert_array_equal(found, [0, 1])
        return
    full = LOGITS if show == "logits" else np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    if top:
        assert np.isnan(found).sum(1).tolist() == [1, 1]
        full = np.where(np.isnan(found), np.nan, full)
    np.testing.assert_allclose(found, full, rtol=1e-6)


def test_a_model_of_channels_last_is_asked_so() -> None:
    described = {
        "name": "tf",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4, 5, 3]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    signature = read_signature(described, None)
    assert (signature.shape, signature.channels_last) == ((3, 4, 5), True)
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(1, 3, 4, 5)
    wire = wire_images(images, signature)
    body, _ = request(wire, signature, id="1", binary=False)
    [tensor] = json.loads(body)["inputs"]
    assert tensor["shape"] == [1, 4, 5, 3]
    np.testing.assert_allclose(
        np.reshape(tensor["data"], tensor["shape"]), images.transpose(0, 2, 3, 1) / 255, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("", None),
        ("/", None),
        ("/v2", None),
        ("/v2/", None),
        ("/v2/models", None),
        ("/v2/models/m", "/v2/models/m"),
        ("/v2/models/m/", "/v2/models/m"),
        ("/v2/models/m/infer", "/v2/models/m"),
        ("/v2/models/m/ready", "/v2/models/m"),
        ("/v2/models/m/versions/7", "/v2/models/m/versions/7"),
        ("/v2/models/m/versions/7/infer/", "/v2/models/m/versions/7"),
        ("/behind/a/proxy/v2/models/m", "/behind/a/proxy/v2/models/m"),
    ],
)
def test_every_url_of_a_model_names_it(url: str, named: str | None) -> None:
    found = Address.of(f"http://host:8000{url}")
    version = "" if found.version is None else f"/versions/{found.version}"
    if named is None:
        assert found == ("http://host:8000", None, None)
    else:
        assert f"{found.url}/v2/models/{found.model}{version}" == f"http://host:8000{named}"


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT8", "FP32", "FP64"])
@pytest.mark.parametrize("shape", [[-1], [-1, 1]])
def test_labels_in_a_column_are_labels(datatype: str, shape: list[int]) -> None:
    described = {**DESCRIBED, "outputs": [{"name": "y", "datatype": datatype, "shape": shape}]}
    whole = not datatype.startswith("FP")
    signature = read_signature(described, None, kind=None if whole else "label")
    assert signature.classes is None
    tensor = {"name": "y", "datatype": datatype, "shape": [3, *shape[1:]], "data": [2, 0, 1]}
    body = json.dumps({"outputs": [tensor]}).encode()
    found = read_reply(body, None, signature, count=3)
    np.testing.assert_array_equal(found, np.array([2, 0, 1]), strict=True)
    if not whole:  # one number an image may be a score; the caller says that it is a class
        plain = read_reply(body, None, read_signature(described, None), count=3)
        with pytest.raises(ConfigError, match=r"1 values an image.*pass --kind label"):
            fitting(plain, count=3, kind=None, about=VictimInfo(target="m", classes=4))
        wild = json.dumps({"outputs": [{**tensor, "data": [0.5, 0, 1]}]}).encode()
        with pytest.raises(ValueError, match="no whole numbers"):
            read_reply(wild, None, signature, count=3)


@pytest.mark.parametrize("place", ["model", "output"])
@pytest.mark.parametrize("key", ["names", "labels", "class_names", "classes"])
def test_a_server_may_name_classes_in_several_ways(place: str, key: str) -> None:
    names = ["aquarium fish", "goldfish, Carassius auratus", "eel"]
    output: dict[str, Any] = {"name": "a", "datatype": "FP32", "shape": [-1, 3]}
    model = {**DESCRIBED, "outputs": [output]}
    (model if place == "model" else output)["parameters"] = {key: names}
    assert read_signature(model, None).names == tuple(names)
    output |= {"datatype": "INT64", "shape": [-1, 1]}
    assert read_signature(model, None).classes == 3
    output |= {"datatype": "FP32", "shape": [-1, 3]}
    for wrong in (names[:2], [*names[:2], 3], [*names[:2], "\x1b[2J"], "eel", None):
        (model if place == "model" else output)["parameters"] = {key: wrong}
        found = read_signature(model, None)
        assert found.names == ()
        assert (found.unread is None) == (wrong is None)


NAMES = ("dog", "cat", "great tit")
COUNTED: list[Any] = [
    {"0": "dog", "1": "cat", "2": "great tit"},
    {"2": "great tit", "0": "dog", "1": "cat"},
    {"cat": 1, "great tit": 2, "dog": 0},
    "dog,cat,great tit",
    "dog, cat, great tit",
    "dog\ncat\r\ngreat tit\n",
    "dog; cat; great tit",
    '["dog", "cat", "great tit"]',
    '{"0": "dog", "1": "cat", "2": "great tit"}',
    {"string_value": "dog,cat,great tit"},
]


@pytest.mark.parametrize("key", ["names", "labels", "id2label", "label2id"])
@pytest.mark.parametrize("named", COUNTED)
def test_class_names_in_an_object_or_a_text_are_read(named: Any, key: str) -> None:
    parameters = {"parameters": {key: named}}
    for form in ({"datatype": "FP32", "shape": [-1, 3]}, {"datatype": "INT64", "shape": [-1]}):
        model = {**DESCRIBED, "outputs": [{"name": "a", **form, **parameters}]}
        found = read_signature(model, None)
        assert (found.names, found.classes, found.unread) == (NAMES, 3, None)


def test_a_text_is_parted_where_that_gives_as_many_names_as_there_are_classes() -> None:
    output = {"name": "a", "datatype": "FP32", "shape": [-1, 2]}
    for text in ("tit, great\neel", "tit, great; eel", "tit, great|eel"):
        model = {**DESCRIBED, "outputs": [{**output, "parameters": {"labels": text}}]}
        assert read_signature(model, None).names == ("tit, great", "eel")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"1": "dog", "2": "cat", "3": "eel"}, "labels: an object of 3, such as '1': 'dog'"),
        ({"0": "dog", "1": "cat", "1.0": "eel"}, "labels: an object of 3"),
        ({"dog": 0, "cat": 0, "eel": 1}, "labels: an object of 3"),
        ({"dog": True, "cat": 0, "eel": 2}, "labels: an object of 3"),
        ({"0": {"name": "dog"}}, "labels: an object of 1"),
        ([{"id": 0, "name": "dog"}] * 3, "labels: a list of 3, such as an object"),
        (["dog", "cat"], "labels: a list of 2, such as 'dog'"),
        ("dog,cat", "labels: a text, 'dog,cat'"),
        ("labels.txt", "labels: a text, 'labels.txt'"),
        ("[" * 100_000, "labels: a text"),
        ("\x1b" * 100, "labels: a text"),
        ([["\x1b[2J" * 99]] * 3, "labels: a list of 3, such as a list"),
        ({"\x1b" * 99: None, "1": 2}, "labels: an object of 2"),
        ("x\x1b[2J,y,z", "labels: a text, 'x"),
    ],
)
def test_class_names_in_a_form_that_is_not_known_are_told(
    named: Any, said: str, digits: Dataset
) -> None:
    output = {"name": "a", "datatype": "FP32", "shape": [-1, 3], "parameters": {"labels": named}}
    found = read_signature({**DESCRIBED, "outputs": [output]}, None)
    assert found.names == ()
    assert found.unread is not None
    assert found.unread.startswith(said)
    assert found.unread.isprintable()
    assert len(found.unread) < 100
    heard = Heard()
    told = VictimInfo(target="m", classes=10, unread=found.unread)
    for data, count in ((digits, 0), (replace(digits, classes=tuple("abcdefghij")), 1)):
        fitted(told, data, heard)
        assert len(heard.lines) == count
    assert "m names its classes in a form that is not known here (labels: " in heard.lines[0]
    assert "no class names" not in heard.lines[0]


def test_numbers_of_classes_are_no_names() -> None:
    nothing: list[Any] = [3, True, [], {}, "", None]
    for said in nothing:
        model = {**DESCRIBED, "parameters": {"classes": said}}
        found = read_signature(model, "a")
        assert (found.names, found.unread) == ((), None)


DESCRIBED: dict[str, Any] = {
    "name": "m",
    "inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 1, 4, 4]}],
    "outputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "b", "datatype": "INT64", "shape": [-1]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "has the outputs a, b; choose one with --output"),
        ({"outputs": None}, "does not describe its outputs"),
        ({"outputs": [{"name": "a"}]}, "does not describe its outputs"),
        ({"inputs": []}, "states no input; MLServer takes inputs"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]}, "wanted is one"),
        ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, 1, 4, 4]}]}, "no pixels"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_signature({**DESCRIBED, **changes}, None)
    assert read_signature(DESCRIBED, "b").output == "b"


def reply(**changes: Any) -> bytes:
    tensor = {"name": "probabilities", "shape": [2, 3], "datatype": "FP32",
              "data": [0.1, 0.2, 0.7, 0.3, 0.3, 0.4]}  # fmt: skip
    return json.dumps({"outputs": [{**tensor, **changes}]}).encode()


BAD_REPLIES = [
    b"", b"[]", b"{", b'{"outputs": 3}', b'{"outputs": []}', b'{"outputs": [3]}',
    reply(name="other"), reply(shape=[2]), reply(shape=[3, 3]), reply(shape=[2, -3]),
    reply(shape=[2, 10**9]), reply(shape="23"), reply(datatype="FP8"), reply(datatype=None),
    reply(data=[0.1]), reply(data=None), reply(data=["a"] * 6), reply(data=[True] * 6),
    reply(data=[[0.1, 0.2, 0.7], 3]), reply(data=[1e999, 0, 0, 0, 0, 0]),
    reply(datatype="INT64", shape=[2], data=[1, 3]), 
    reply(datatype="INT64", shape=[2], data=[-1, 0]),
    reply(datatype="BYTES", data=["0.5:0"] * 5 + ["x"]), reply(datatype="BYTES", data=["1:9"] * 6),
    b"[" * 100_000, b'{"outputs": ' + b"[" * 100_000, reply(datatype=["FP32"]),
    reply(shape=[2] + [1] * 20_000), reply(data=[10**400, 0, 0, 0, 0, 0]),
    reply(datatype="BYTES", data=["nan:0"] * 6), reply(parameters={"binary_data_size": 4}),
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_REPLIES)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, OverflowError, RecursionError), match=r"\w"):
        read_reply(body, None, SIGNATURE, count=2)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_reply_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    head = json.dumps({"outputs": [{"name": "probabilities", "shape": [2, 3], "datatype": "FP32",
                                    "parameters": {"binary_data_size": 24}}]}).encode()  # fmt: skip
    body = bytearray(head + np.full((2, 3), 1 / 3, np.float32).tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    length = data.draw(st.sampled_from([str(len(head)), None, "x", "-1", "99999", "3"]))
    try:
        found = read_reply(bytes(body[:cut]), length, SIGNATURE, count=2)
    except ValueError:
        return
    assert len(found) == 2


def test_how_long_to_wait_is_read() -> None:
    assert (retry_after(None), retry_after("7"), retry_after("soon")) == (None, 7.0, None)
    assert (retry_after("\u00b2"), retry_after("-3"), retry_after("9" * 400)) == (
        None,
        None,
        float("inf"),
    )
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 +999999") is None
    later = retry_after("Fri, 01 Jan 2100 00:00:00 GMT")
    assert later is not None
    assert later > 1e9
