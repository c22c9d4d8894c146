"""The inference protocol as a server: requests, what is refused, and what an answer shows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.answers.network import answers_from
from denature.core.errors import ConfigError
from denature.serve.config import Exposure, ServedModel, Serving
from denature.serve.exposure import expose
from denature.serve.numbers import check_finite, read_numbers
from denature.serve.protocol import InferenceRequest, ModelSignature, parse, render
from denature.serve.refusal import Refused

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 4), dtype=np.uint8)


def signature(**exposure: Any) -> ModelSignature:
    return ModelSignature(name="m", shape=(2, 4, 4), classes=("cat", "dog", "owl"),
                     exposure=Exposure(**exposure))  # fmt: skip


def request(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "images", "shape": [3, 2, 4, 4], "datatype": "UINT8",
              "data": IMAGES.reshape(-1).tolist()}  # fmt: skip
    tensor |= changes.pop("tensor", {})
    return {"inputs": [{k: v for k, v in tensor.items() if v is not None}], **changes}


def binary(header: dict[str, Any], tail: bytes) -> tuple[bytes, str]:
    head = json.dumps(header).encode()
    return head + tail, str(len(head))


# Requests, between bytes and arrays


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("form", ["flat", "nested", "binary"])
def test_an_image_is_the_same_in_every_form(form: str, datatype: str) -> None:
    images = IMAGES if datatype == "UINT8" else (IMAGES / 255).astype(np.float32)
    tensor: dict[str, Any] = {"datatype": datatype}
    length, tail = None, b""
    if form == "binary":
        tail = images.tobytes()
        tensor |= {"data": None, "parameters": {"binary_data_size": len(tail)}}
        body, length = binary(request(tensor=tensor), tail)
    else:
        tensor["data"] = (images.reshape(-1) if form == "flat" else images).tolist()
        body = json.dumps(request(tensor=tensor)).encode()
    asked = parse(body, length, signature(), max_images=3)
    np.testing.assert_array_equal(asked.images, images, strict=True)
    assert (asked.id, asked.binary, asked.top) == (None, False, 0)


def test_what_a_request_wants_is_read() -> None:
    body = request(id="7", parameters={"binary_data_output": True})
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.id, asked.binary, asked.top) == ("7", True, 0)
    output = {"name": "probabilities", "parameters": {"binary_data": False, "classification": 2}}
    body["outputs"] = [output]
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.binary, asked.top) == (False, 2)
    # A model that shows its two largest shows no more, whatever is asked.
    output["parameters"] = {"classification": 9}
    asked = parse(json.dumps(body).encode(), None, signature(top=2), max_images=3)
    assert asked.top == 2


def test_null_is_as_good_as_nothing_wherever_a_field_may_be_left_out() -> None:
    output: dict[str, Any] = {"name": "probabilities", "parameters": None}
    body = request(id=None, parameters=None, outputs=[output])
    body["inputs"][0]["parameters"] = None
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.id, asked.binary, asked.top) == (None, False, 0)
    body["outputs"] = None
    parse(json.dumps(body).encode(), None, signature(), max_images=3)
    output["parameters"] = {"binary_data": None, "classification": None}
    body |= {"outputs": [output], "parameters": {"binary_data_output": True}}
    body["inputs"][0]["parameters"] = {"binary_data_size": None}
    asked = parse(json.dumps(body).encode(), None, signature(), max_images=3)
    assert (asked.binary, asked.top) == (True, 0)


def test_data_may_be_null_where_bytes_follow() -> None:
    tensor = {"data": None, "parameters": {"binary_data_size": IMAGES.nbytes}}
    head = request(tensor=tensor)
    head["inputs"][0]["data"] = None
    body, length = binary(head, IMAGES.tobytes())
    asked = parse(body, length, signature(), max_images=3)
    np.testing.assert_array_equal(asked.images, IMAGES)


SIZE = IMAGES.size
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"inputs": []}, "a list of one tensor"),
    ({"inputs": [1]}, "A JSON object was expected"),
    ({"id": 7}, "The id must be a string"),
    ({"id": "x" * 257}, "at most 256 characters"),
    ({"parameters": []}, "JSON object was expected as parameters"),
    ({"parameters": {"binary_data_output": 1}}, "must be true or false"),
    ({"outputs": [{"name": "logits"}]}, "shows the output 'probabilities' and no other"),
    ({"outputs": 1}, "outputs must be a list of one"),
    ({"outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]}, "classificat"),
    ({"outputs": [{"name": "probabilities", "parameters": {"classification": True}}]}, "classif"),
    ({"tensor": {"name": "x"}}, "must be called 'images'"),
    ({"tensor": {"datatype": "FP64"}}, "datatype must be one of UINT8, FP32"),
    ({"tensor": {"datatype": ["UINT8"]}}, "datatype must be one of"),
    ({"tensor": {"shape": [3, 2, 4]}}, "four whole numbers"),
    ({"tensor": {"shape": [3.0, 2, 4, 4]}}, "four whole numbers"),
    ({"tensor": {"shape": [True, 2, 4, 4]}}, "four whole numbers"),
    ({"tensor": {"shape": [-3, 2, 4, 4]}}, "m takes"),
    ({"tensor": {"shape": [0, 2, 4, 4], "data": []}}, "m takes"),
    ({"tensor": {"shape": [3, 1, 4, 8]}}, r"m takes \[-1, 2, 4, 4\]"),
    ({"tensor": {"shape": [10**30, 2, 4, 4]}}, "four whole numbers|at most 3 are accepted|no JSON"),
    ({"tensor": {"shape": [4, 2, 4, 4]}}, "at most 3 are accepted"),
    ({"tensor": {"data": [0] * (SIZE - 1)}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": ["0"] * SIZE}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [True] * SIZE}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [0.5] * SIZE}}, "whole ones"),
    ({"tensor": {"data": [[0] * SIZE]}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [0] * (SIZE - 1) + [[0]]}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": [0] * (SIZE - 1) + [256]}}, "0 to 255"),
    ({"tensor": {"data": [0] * (SIZE - 1) + [-1]}}, "0 to 255"),
    ({"tensor": {"data": "0"}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"data": None}}, f"a list of {SIZE} numbers"),
    ({"tensor": {"datatype": "FP32", "data": [1.5] * SIZE}}, r"ones in \[0, 1\]"),
    ({"tensor": {"datatype": "FP32", "data": [1e300] * SIZE}}, r"ones in \[0, 1\]"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        parse(json.dumps(request(**changes)).encode(), None, signature(), max_images=3)
    assert refused.value.status == 400


@pytest.mark.parametrize("length", ["x", "-1", "", "9" * 30, "100000", "1.0"])
def test_a_wrong_length_of_the_header_is_refused(length: str) -> None:
    with pytest.raises(Refused, match=r"^Inference-Header-Content-Length (is|must be)"):
        parse(json.dumps(request()).encode(), length, signature(), max_images=3)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, -1, True, "96", 1 << 70])
def test_bytes_that_do_not_fit_their_tensor_are_refused(size: Any) -> None:
    tensor = {"data": None, "parameters": {"binary_data_size": size}}
    body, length = binary(request(tensor=tensor), IMAGES.tobytes())
    with pytest.raises(Refused, match=r"bytes of UINT8 are wanted|no JSON"):
        parse(body, length, signature(), max_images=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001, 1.001])
def test_floats_that_are_no_pixels_are_refused(value: float) -> None:
    images = np.full(IMAGES.shape, 0.5, np.float32)
    images[1, 1, 1, 1] = value
    tensor = {"data": None, "datatype": "FP32", "parameters": {"binary_data_size": 4 * SIZE}}
    body, length = binary(request(tensor=tensor), images.tobytes())
    with pytest.raises(Refused, match=r"\[0, 1\]"):
        parse(body, length, signature(), max_images=3)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b'"' * 3]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match=r"The body is no JSON|A JSON object was expected") as refused:
        parse(body, None, signature(), max_images=3)
    assert refused.value.status == 400


def read_or_refused(body: bytes, length: str | None) -> None:
    """Anything else that it raised would be an error of the server."""
    try:
        asked = parse(body, length, signature(), max_images=3)
    except Refused:
        return
    assert asked.images.shape == IMAGES.shape


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(
    place=st.sampled_from(["inputs", "outputs", "parameters", "id", "name", "shape", "datatype",
                           "data", "own"]),
    value=ANYTHING,
)  # fmt: skip
def test_anything_anywhere_is_read_or_refused(place: str, value: Any) -> None:
    if place in ("inputs", "outputs", "parameters", "id"):
        body = request(**{place: value})
    else:
        body = request(tensor={"parameters" if place == "own" else place: value})
    try:
        text = json.dumps(body).encode()
    except (ValueError, UnicodeError):
        return
    read_or_refused(text, None)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_body_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    tensor = {"data": None, "parameters": {"binary_data_size": SIZE}}
    body, length = binary(request(tensor=tensor), IMAGES.tobytes())
    changed = bytearray(body)
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)))
    read_or_refused(bytes(changed[:cut]), data.draw(st.sampled_from([length, None, str(cut)])))


# What is shown

LOGITS = np.log(np.array([[0.2, 0.7, 0.1], [0.25, 0.25, 0.5]], np.float32))


def shown(logits: np.ndarray, exposure: Exposure) -> np.ndarray:
    """What a server shows of a network's logits."""
    answers = answers_from(torch.from_numpy(logits), exposure.kind, dtype=torch.float64)
    return expose(answers.values.numpy(), exposure)


def test_an_answer_shows_what_was_set() -> None:
    soft = shown(LOGITS, Exposure())
    np.testing.assert_allclose(soft, np.exp(LOGITS), rtol=1e-6)
    assert soft.dtype == np.float32
    assert shown(LOGITS, Exposure(show="logits")) is not LOGITS
    np.testing.assert_array_equal(shown(LOGITS, Exposure(show="logits")), LOGITS)
    assert shown(LOGITS, Exposure(show="label")).tolist() == [1, 2]
    assert shown(LOGITS, Exposure(show="label")).dtype == np.int64
    assert shown(LOGITS[:1], Exposure(decimals=0)).tolist() == [[0, 1, 0]]
    large = shown(np.array([[1000.0, 0.0]], np.float32), Exposure())
    assert large.tolist() == [[1.0, 0.0]]


def test_decimals_are_those_of_the_exact_probabilities() -> None:
    """Rounding in float32 would move one in ten values of eight decimals."""
    logits = np.random.default_rng(0).normal(size=(500, 10)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    for decimals in (0, 2, 8):
        found = shown(logits, Exposure(decimals=decimals))
        np.testing.assert_array_equal(found, exact.round(decimals).astype(np.float32))


def test_decimals_below_zero_are_those_of_rounding() -> None:
    """-1 rounds to tens, as `rounding@decimals=-1` does; no rounding is the default."""
    logits = np.array([[14.0, 15.0, -26.0]], np.float32)
    assert shown(logits, Exposure(show="logits", decimals=-1)).tolist() == [[10, 20, -30]]
    assert shown(logits, Exposure(show="logits")).tolist() == logits.tolist()
    with pytest.raises(ConfigError, match="decimals is -9; it must be -8 to 15"):
        Exposure(decimals=-9)


def test_of_equal_values_the_first_classes_are_shown() -> None:
    """Rounding comes before the choice of the largest, as on the wire."""
    logits = np.log(np.array([[0.331, 0.332, 0.337]], np.float32))
    few = shown(logits, Exposure(top=2, decimals=1))
    np.testing.assert_array_equal(few, np.array([[0.3, 0.3, np.nan]], np.float32))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_largest_are_told_with_their_places_and_classes(as_bytes: bool) -> None:
    asked = InferenceRequest(images=IMAGES[:2], id="a", binary=as_bytes, top=2)
    body, length = render(shown(LOGITS, Exposure(decimals=2)), asked, signature(decimals=2))
    wanted = ["0.7:1:dog", "0.2:0:cat", "0.5:2:owl", "0.25:0:cat"]
    head = json.loads(body if length is None else body[: int(length)])
    [output] = head.pop("outputs")
    assert head == {"model_name": "m", "model_version": "1", "id": "a"}
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    if not as_bytes:
        assert output["data"] == wanted
        return
    assert length is not None
    tail = body[int(length) :]
    assert output["parameters"] == {"binary_data_size": len(tail)}
    assert tail == b"".join(len(w).to_bytes(4, "little") + w.encode() for w in wanted)


def test_models_are_named_and_told_what_to_show(tmp_path: Path) -> None:
    usual = Exposure(decimals=3)
    # As runs of networks with options are named by default.
    run = tmp_path / "normal-cnn@dropout=0-1234"
    run.mkdir()
    for text, name in ((str(run), "normal-cnn-dropout-0-1234"), (f"x={run}", "x")):
        for more, wanted in (("", usual), ("@show=label", Exposure(show="label"))):
            placed = ServedModel.of(text + more, usual if not more else Exposure())
            assert placed == ServedModel(name=name, run=str(run), exposure=wanted)
    assert ServedModel.of("runs/a", usual) == ServedModel(name="a", run="runs/a", exposure=usual)
    changed = ServedModel.of("b=runs/a/@show=logits+decimals=1", usual)
    assert (changed.name, changed.run) == ("b", "runs/a/")
    assert changed.exposure == Exposure(show="logits", decimals=1)
    for text, said in (
        ("=runs/a", "cannot be read"),
        ("a b=runs/a", "cannot be read"),
        ("a=runs/a@show=all", "no show 'all'"),
        ("a=runs/a@top=x", "must be a whole number"),
        ("a=runs/a@rounded=1", "no option 'rounded'"),
        ("a=runs/a@show=label+top=2", "neither top values nor decimals"),
    ):
        with pytest.raises(ConfigError, match=said):
            ServedModel.of(text, Exposure())
    with pytest.raises(ConfigError, match="Two models are called a"):
        Serving(models=(changed.of("a", usual), changed.of("x/a", usual)))
    with pytest.raises(ConfigError, match="No model was named"):
        Serving(models=())


# Numbers in JSON


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_numbers_are_read_as_json_reads_them(data: st.DataObject) -> None:
    """In every form and spacing, and refused where json or the shape refuse them."""
    from denature.serve.numbers import read_numbers

    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "float32"])))
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=4, max_size=4)))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = draw.integers(0, 256, shape) if dtype.kind == "u" else draw.random(shape)
    nested = data.draw(st.booleans())
    text = json.dumps((values if nested else values.reshape(-1)).tolist(),
                      indent=data.draw(st.sampled_from([None, 1])))  # fmt: skip
    np.testing.assert_array_equal(
        read_numbers(text.encode(), shape, dtype), values.astype(dtype), strict=True
    )
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from("[],.-e 0")) + text[at + 1 :]
    try:
        wanted = np.asarray(json.loads(changed))
    except ValueError:
        return  # its syntax is checked before
    try:
        found = read_numbers(changed.encode(), shape, dtype)
    except Refused:
        return
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted.astype(dtype))


@pytest.mark.parametrize("text", ["[]", "[ ]", "[[1]]", "[1,2]", "1", "null", "[true]", '["1"]',
                                  "[[[[1]]],[[[1]]]]", "[-]", "[1.5.5]"])  # fmt: skip
def test_what_is_not_one_number_is_refused(text: str) -> None:
    from denature.serve.numbers import read_numbers

    with pytest.raises(Refused, match="a list of 1 numbers"):
        read_numbers(text.encode(), (1, 1, 1, 1), np.dtype("uint8"))
    assert read_numbers(b"[[[[ 7 ]]]]", (1, 1, 1, 1), np.dtype("uint8")).item() == 7


@pytest.mark.parametrize("text", ["1e39", "-1e39"])
def test_numbers_beyond_a_float_are_refused_whatever_a_model_takes(text: str) -> None:
    """No model answers them validly, so that a client could spend it for nothing."""
    with pytest.raises(Refused, match="not finite"):
        read_numbers(f"[0,{text}]".encode(), (1, 1, 1, 2), np.dtype(np.float32), pixels=False)
    for value in (np.nan, np.inf):
        with pytest.raises(Refused, match="not finite"):
            check_finite(np.array([0.0, value]))
    check_finite(np.array([1, 2], np.uint8))
