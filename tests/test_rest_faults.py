"""Descriptions of HTTP APIs that do not fit: replies, statuses, and descriptions themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from denature.cli.app import main
from denature.core.errors import ConfigError
from denature.extract.victims.rest.reading import ReplyReader
from denature.extract.victims.rest.spec import ReplySpec, read_spec
from denature.remote.errors import AskFailed
from tests.descriptions import KEY, asked, described
from tests.hostile import hostile, reply

SIMPLE = """
url = "<url>/predict"
[headers]
Authorization = "Bearer ${API_KEY}"
[reply]
scores = "$.scores"
classes = ["ant", "bee"]
"""

MISFITS: dict[str, tuple[bytes | Any, str]] = {
    "no JSON": (b"<html>" + b"x" * 500, r"no JSON .*It was: <html>x{194}$"),
    "nothing": ({"other": []}, "matches 0 scores, of 2 classes"),
    "too many": ({"scores": [1, 2, 3]}, "matches 3 scores, of 2 classes"),
    "no number": ({"scores": [1, "high"]}, "'high', which is no score"),
    "a truth": ({"scores": [1, True]}, "'True', which is no score"),
    "not finite": ({"scores": [1, "nan"]}, "the score nan, which is not finite"),
    "the key for a score": ({"scores": [1, "no " * 10 + KEY]}, r"\[redacted\]', which is no score"),
    "the key": ({"other": KEY}, r"It was: \{\"other\": \"\[redacted\]\"\}"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_reply_that_does_not_fit_is_shown_without_the_key(
    misfit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    sent, said = MISFITS[misfit]
    with hostile(lambda _: reply(sent)) as service:
        path = described(tmp_path, SIMPLE, url=service.url)
        with pytest.raises(AskFailed, match=said) as failed:
            asked(path)
    assert (failed.value.billed, failed.value.again) == (True, False)
    assert KEY not in str(failed.value)


def test_a_key_in_the_address_is_not_in_what_a_reply_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    with hostile(lambda _: reply({"scores": [1, 2]}, more="Content-Encoding: gzip\r\n")) as service:
        path = described(tmp_path, SIMPLE, url=f"{service.url}/classify?key=${{API_KEY}}")
        with pytest.raises(AskFailed, match="compressed") as failed:
            asked(path)
    assert KEY not in str(failed.value)


@pytest.mark.parametrize(
    ("status", "again", "billed"),
    [("400 Bad", False, False), ("429 Slow", True, False), ("503 Later", True, True),
     ("402 Pay", False, True), ("418 Tea", True, False)],
)  # fmt: skip
def test_retries_and_bills_follow_the_description(
    status: str, again: bool, billed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    text = SIMPLE
    if status.startswith("418"):
        text += "[retry]\nstatuses = [418]\nfree = [418]\n"
    with (
        hostile(lambda _: reply({}, status=status, more="Retry-After: 3\r\n")) as service,
        pytest.raises(AskFailed, match=f"answered {status[:3]}") as failed,
    ):
        asked(described(tmp_path, text, url=service.url))
    assert (failed.value.again, failed.value.billed, failed.value.wait_s) == (again, billed, 3)


LABEL = "\n[reply]\nlabel = '$'"

FAULTS: dict[str, tuple[str, str]] = {
    "a key of another table": (
        f"[request]\nlayout = 'flat'{LABEL}",
        "no key 'request.layout'. Did you mean image.layout",
    ),
    "an unknown key": (f"urll = 'http://x'{LABEL}", "no key 'urll'. Did you mean url"),
    "an unknown key within": (
        "url = 'http://x'\n[reply]\nlabels = '$'",
        "no key 'reply.labels'. Did you mean reply.label",
    ),
    "no reply": ("url = 'http://x'", "required field `reply`"),
    "no URL": (f"url = 'localhost'{LABEL}", "a URL of http or https"),
    "no path": ("url = 'http://x'\n[reply]\nkind = 'logits'", "neither scores nor label"),
    "both paths": (f"url = 'http://x'{LABEL}\nscores = '$'", "leave one of them out"),
    "no JSONPath": ("url = 'http://x'\n[reply]\nlabel = '$['", "which is no JSONPath"),
    "names alone": ("url = 'http://x'\n[reply]\nscores = '$'\nnames = '$'", "needs reply.classes"),
    "no image": (f"url = 'http://x'\n[request]\nbody = '{{}}'{LABEL}", "nowhere where an image"),
    "no room": (
        f"url = 'http://x'\n[request]\nbatch = 2{LABEL}\neach = '$[*]'",
        "room for one image",
    ),
    "no template": (f"url = 'http://x'\n[request]\nbody = '{{'{LABEL}", "request.body is no JSON"),
    "a form for two": (
        f"url = 'http://x'\n[request]\nform = 'bytes'\nbatch = 2{LABEL}",
        "holds one image",
    ),
    "no variable": (f"url = 'http://x/${{UNSET_KEY}}'{LABEL}", "does not set UNSET_KEY"),
    "a password": (f"url = 'http://me:secret@x'{LABEL}", "holds a password"),
    "no TOML": ("url = ", "cannot be read"),
    "a choice": (
        f"url = 'http://x'\n[image]\nformat = 'gif'{LABEL}",
        "must be one of png, jpeg, numbers",
    ),
    "a kind": (f"url = 'http://x'{LABEL}\nkind = 'softmax'", "probabilities, label"),
    "a method": (f"url = 'http://x'\nmethod = 'PATCH'{LABEL}", "must be one of POST, PUT, GET"),
    "items without an image": (
        f'url = \'http://x\'\n[request]\nbody = \'{{"items": ["$each", {{"id": 1}}]}}\'{LABEL}',
        "nowhere where an image goes",
    ),
    "a third element": (
        f"url = 'http://x'\n[request]\nbody = '[\"$each\", \"$image\", 3]'{LABEL}",
        "in another place than the first of two elements",
    ),
    "no part for each": (
        f"url = 'http://x'\n[request]\nbody = '[\"$images\"]'\nbatch = 16{LABEL}",
        "reply.each does not say which part",
    ),
    "rows of a photograph": (
        f"url = 'http://x'\n[image]\nlayout = 'HW'\nchannels = 3{LABEL}",
        "write channels = 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_description_is_one_line(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = FAULTS[fault]
    path = described(tmp_path, text)
    words = ["steal", str(path), "--pool", "digits", "--budget", "40", "--student", "mlp"]
    assert main([*words, "--out", str(tmp_path / "theft"), "-q"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["scores", "names", "rows", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)

READERS = [
    ReplySpec(scores="$.scores", classes=("a", "b")),
    ReplySpec(scores="$.scores[*]", names="$.names[*]", classes=("a", "b")),
    ReplySpec(each="$.rows[*]", label="$.x"),
    ReplySpec(each="$.rows[*]", scores="$..scores"),
]


@pytest.mark.parametrize("spec", READERS)
@given(value=JSON, count=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_any_reply_is_read_or_refused(spec: ReplySpec, value: Any, count: int) -> None:
    try:
        found = ReplyReader(spec).read(value, count=count)
    except ValueError:
        return
    assert len(found) == count
    if found.dtype == np.int64:
        assert (found >= 0).all()
    else:
        assert not np.isinf(found).any()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"scores": [0.9, 0.1], "names": ["a", "a"]}, "the class 'a' twice"),
        ({"scores": [10**400, 1], "names": ["a", "b"]}, "a score that is not finite"),
    ],
)
def test_scores_that_cannot_be_told_apart_are_refused(reply: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ReplyReader(READERS[1]).read(reply, count=1)


def test_a_description_is_no_more_than_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no key"):
        read_spec(described(tmp_path, "url = 'http://x'\ntrust = ['os']\n[reply]\nlabel = '$'"))


def test_a_key_in_place_of_a_score_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    Image.new("RGB", (5, 7)).save(tmp_path / "black.png")
    with hostile(lambda _: reply({"scores": [1, f"{KEY}\x1b[2J"]})) as service:
        path = described(tmp_path, SIMPLE, url=service.url)
        assert main(["rest", "try", str(path), str(tmp_path / "black.png")]) == 1
    said = capsys.readouterr()
    assert "does not fit the reply" in said.err
    assert "[redacted]" in said.err
    for part in (KEY[8:16], "\x1b"):
        assert part not in said.err + said.out
