"""The store of answers: how they are coded, what lies on disk, and all that may happen to it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denature.answers import InferenceConfig
from denature.answers.coding import BFloat16, Float16, Float32, TopKStorage, coding
from denature.answers.store import ANSWERS, HEADER, Store, StoreKey, open_store
from denature.core.errors import ConfigError, RunError

# Codings

CODINGS = {
    "float32": Float32(11),
    "bfloat16": BFloat16(11),
    "float16": Float16(11),
    "top-1": TopKStorage(11, 1),
    "top-4": TopKStorage(11, 4),
    "top-9": TopKStorage(11, 9),
}


@pytest.mark.parametrize("name", CODINGS)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 30.0, 1e5]))
@settings(max_examples=40, deadline=None)
def test_rounded_answers_come_back_bit_for_bit(name: str, seed: int, scale: float) -> None:
    found = CODINGS[name]
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(seed)) * scale
    logits[0, 3:6] = logits[0, 3]  # ties
    rounded = found.round(logits)
    words = found.encode(rounded.numpy())
    assert words.shape == (7, found.words)
    assert found.decode(words).tobytes() == rounded.contiguous().numpy().tobytes()
    again = found.round(rounded)
    if isinstance(found, TopKStorage):
        kept = rounded.topk(found.k, dim=-1).indices
        assert torch.equal(again.gather(-1, kept), rounded.gather(-1, kept))
        # The others' common value goes through a logarithm of a sum each time.
        torch.testing.assert_close(again, rounded, rtol=1e-6, atol=1e-6)
    else:
        assert torch.equal(again, rounded)


def test_half_precision_is_as_near_as_it_says() -> None:
    logits = torch.randn(1000, 11) * torch.logspace(-6, 4, 1000)[:, None]
    error = (Float16(11).round(logits) - logits).abs()
    assert bool((error <= logits.abs() * 2**-11 + 2**-25).all())
    assert Float16(11).round(torch.full((1, 11), 1e9)).max() == 65504


def test_the_largest_keep_their_probabilities() -> None:
    logits = torch.randn(500, 11).double().float() * 4
    before, after = logits.softmax(-1), TopKStorage(11, 4).round(logits).softmax(-1)
    values, places = before.topk(4)
    torch.testing.assert_close(after.gather(-1, places), values)
    torch.testing.assert_close(after.sum(-1), torch.ones(500))


@pytest.mark.parametrize("storage", ["top-9", "top-10", "top-500"])
def test_a_top_that_saves_nothing_is_refused(storage: str) -> None:
    with pytest.raises(ConfigError, match="saves nothing"):
        coding(storage, classes=10, dtype=torch.float32)


@pytest.mark.parametrize("storage", ["top-0", "top-", "fp8", "exactly", "top--1", "top-1.5"])
def test_unknown_storages_are_refused(storage: str) -> None:
    with pytest.raises(ConfigError, match="exact, fp16 or top-K"):
        InferenceConfig(storage=storage)


# The store


def key_of(**changes: Any) -> StoreKey:
    usual: dict[str, Any] = {
        "network": "0123", "net": "cnn", "form": {"chunk": 64}, "data": "abcd", "samples": 50,
        "views": {"padding": 1, "flip": True}, "view_count": 18, "classes": 5,
        "storage": "exact", "words": 5, "revisions": {"nets": 1},
    }  # fmt: skip
    return StoreKey(**{**usual, **changes})


def opened(root: Path, **changes: Any) -> Store:
    key = key_of(**changes)
    return open_store(root, key, Float32(key.classes), about={})


def filled(root: Path, count: int = 200) -> tuple[Store, np.ndarray, np.ndarray]:
    store = opened(root)
    places = np.random.default_rng(0).permutation(900)[:count].astype(np.int64)
    values = np.random.default_rng(1).normal(size=(count, 5)).astype(np.float32)
    store.write(places, values)
    return store, places, values


def test_what_was_written_is_read_and_the_rest_is_absent(tmp_path: Path) -> None:
    store, places, values = filled(tmp_path)
    found, present = store.read(places)
    assert present.all()
    assert found.tobytes() == values.tobytes()
    others = np.setdiff1d(np.arange(900), places)
    assert not store.read(others)[1].any()
    standing = store.standing()
    assert (standing.present, standing.damaged, standing.total) == (200, 0, 900)
    again = opened(tmp_path)
    assert again.read(places)[0].tobytes() == values.tobytes()


def test_any_damage_makes_a_record_absent(tmp_path: Path) -> None:
    """Every bit of a record, a record at another's place, and a torn one."""
    store, places, values = filled(tmp_path)
    path = store.folder / ANSWERS
    whole = path.read_bytes()
    place, width = int(places[0]), 24
    for bit in range(8 * width):
        broken = bytearray(whole)
        broken[place * width + bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        _, present = opened(tmp_path).read(places)
        assert not present[0]
        assert present[1:].all()
    broken = bytearray(whole)
    other = int(places[1])
    broken[place * width : (place + 1) * width] = whole[other * width : (other + 1) * width]
    path.write_bytes(broken)
    reopened = opened(tmp_path)
    assert not reopened.read(places[:1])[1].any()
    assert reopened.standing().damaged == 1
    reopened.write(places[:1], values[:1])
    assert reopened.read(places)[1].all()


def test_a_store_that_is_damaged_or_foreign_is_made_anew(tmp_path: Path) -> None:
    def spoil(folder: Path, how: str) -> None:
        if how == "short":
            os.truncate(folder / ANSWERS, 100)
        elif how == "no header":
            (folder / HEADER).unlink()
        elif how == "no answers":
            (folder / ANSWERS).unlink()
        elif how == "garbled":
            (folder / HEADER).write_text("{")
        else:  # the store of another network under this one's name
            header = json.loads((folder / HEADER).read_text())
            header["key"]["network"] = "another"
            (folder / HEADER).write_text(json.dumps(header))

    for how in ("short", "no header", "no answers", "garbled", "foreign"):
        store, places, _ = filled(tmp_path)
        spoil(store.folder, how)
        again = opened(tmp_path)
        assert not again.read(places)[1].any(), how
        assert [p.name for p in tmp_path.iterdir()] == [again.folder.name]


@pytest.mark.parametrize(
    "change",
    [
        {"network": "x"}, {"net": "mlp"}, {"form": {"chunk": 32}}, {"data": "x"}, {"samples": 51},
        {"views": {"padding": 0, "flip": True}}, {"view_count": 2}, {"storage": "fp16"},
        {"revisions": {"nets": 2}}, {"classes": 4, "words": 4},
    ],
)  # fmt: skip
def test_another_key_is_another_store(tmp_path: Path, change: dict[str, Any]) -> None:
    store, places, _ = filled(tmp_path)
    other = opened(tmp_path, **change)
    assert other.folder != store.folder
    assert other.standing().present == 0
    assert store.read(places)[1].all()


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be made: .*--store off"):
        opened(tmp_path / "file")


def test_a_disk_that_is_too_small_is_said_and_left_clean(small_disk: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be made: No space left on device.*--store off"):
        opened(small_disk, samples=5000)
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_harms_no_store(small_disk: Path) -> None:
    """Its room was taken when it was made: neither writing nor reading it can fail."""
    store = opened(small_disk, samples=400)
    with pytest.raises(OSError, match="No space"), open(small_disk / "other", "wb") as other:
        other.write(bytes(2**20))
    places = np.arange(7200, dtype=np.int64)
    assert not store.read(places)[1].any()
    store.write(places, np.ones((7200, 5), np.float32))
    assert opened(small_disk, samples=400).read(places)[1].all()


def test_a_write_that_fails_is_said(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a failing disk."""
    store = opened(tmp_path)
    program = (
        "import resource, sys, numpy as np; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from test_store import opened\n"
        "store = opened(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "store.write(np.arange(900), np.ones((900, 5), np.float32))"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", program, str(tmp_path), here]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "RunError: Answers could not be stored" in found.stderr
    assert "File too large" in found.stderr
    present = store.read(np.arange(900))[1]
    assert present[: 6000 // 24].all()
    assert not present[6000 // 24 :].any()


FILLER = """
import sys, numpy as np
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import opened
store = opened(Path(sys.argv[1]))
values = np.arange(900 * 5, dtype=np.float32).reshape(900, 5)
for start in np.random.default_rng(int(sys.argv[3])).permutation(900):
    places = (start + np.arange(7)) % 900
    assert (store.read(places)[0][store.read(places)[1]] >= 0).all()
    store.write(places, values[places])
"""


@pytest.mark.slow
def test_several_processes_fill_one_store(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    root = tmp_path / "stores"
    fillers = [
        subprocess.Popen([sys.executable, "-c", FILLER, str(root), here, str(seed)])
        for seed in range(2)
    ]
    assert [filler.wait(timeout=120) for filler in fillers] == [0, 0]
    [folder] = root.iterdir()
    store = opened(root)
    values, present = store.read(np.arange(900))
    assert present.all()
    assert values.tobytes() == np.arange(900 * 5, dtype=np.float32).tobytes()
    assert folder == store.folder
