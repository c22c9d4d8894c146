"""Settings of a training: defaults that are kept in the record, and values that are refused."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from denature.core.errors import ConfigError
from denature.data import Dataset, load
from denature.train import (
    Distilled,
    Nasty,
    Normal,
    Run,
    Training,
    distilled,
    nasty,
    normal,
    train,
)
from denature.train.config import DEFAULT_LR


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


def test_a_teacher_of_other_classes_is_refused(data: Dataset, trained_mlp: Run) -> None:
    record = trained_mlp.record
    other = Run(replace(record, net=replace(record.net, classes=7)), trained_mlp.network)
    with pytest.raises(ConfigError, match=r"teacher .* answers 7 classes .* has 10 classes"):
        distilled("mlp", data, teacher=other)
    with pytest.raises(ConfigError, match="adversary"):
        nasty("mlp", data, adversary=other)


def test_an_objective_without_its_run_is_refused(data: Dataset) -> None:
    with pytest.raises(ConfigError, match="needs a run as adversary"):
        train("mlp", data, Nasty())


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Training, {"epochs": 0}),
        (Training, {"batch_size": 1}),
        (Training, {"lr": -1.0}),
        (Training, {"fraction": 0.0}),
        (Training, {"fraction": 1.5}),
        (Training, {"schedule": "step"}),
        (Training, {"milestones": (3,)}),
        (Training, {"milestones": (-4, 3), "schedule": "step"}),
        (Training, {"milestones": (30,), "schedule": "step"}),
        (Training, {"lr": math.inf}),
        (Training, {"clip_norm": math.inf}),
        (Training, {"schedule": "cosin"}),
        (Training, {"checkpoint": "best-validaton"}),
        (Training, {"optimizer": "sdg"}),
        (Nasty, {"temperature": math.inf}),
        (Nasty, {"omega": math.nan}),
        (Distilled, {"answers": "label"}),
        (Nasty, {"omega": -0.1}),
        (Nasty, {"temperature": 0.0}),
        (Nasty, {"cap": 0.0}),
        (Nasty, {"warmup": 2.0}),
        (Distilled, {"alpha": 1.1}),
        (Distilled, {"temperature": -4.0}),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        kind(**wrong)


def test_an_unknown_option_is_named_with_the_nearest(data: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"option 'epoch'.*epochs"):
        normal("mlp", data, epoch=3)  # type: ignore[call-arg]


def test_defaults_are_settled_in_the_record_and_given_values_kept(data: Dataset) -> None:
    run = train("mlp", data, Normal(), Training(epochs=1, seed=3))
    assert run.record.given["training"] == {"epochs": 1, "seed": 3}
    settled = run.record.config["training"]
    assert settled["lr"] == DEFAULT_LR["adam"]
    assert settled["view_seed"] == 3
    assert settled["device"] in ("cpu", "cuda", "mps")
    assert settled["precision"] in ("fp32", "bf16")
    assert settled["augment"] == "none"
    assert run.record.config["data"]["holdout"] == 0.2


def test_a_device_that_is_not_there_is_refused(data: Dataset) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match=r"'cuda' was requested.*--device auto"):
        train("mlp", data, Normal(), Training(device="cuda"))


def test_bf16_is_not_chosen_where_it_is_emulated() -> None:
    """Held to AVX2, a processor with units for bf16 computes it in pieces, slower than fp32."""
    code = (
        "import torch; from denature.core.compute import resolve; "
        "print(resolve(torch.nn.Linear(1, 1), device='cpu', precision='auto').precision)"
    )
    held = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", code], env=held, capture_output=True, text=True)
    assert found.stdout.split() == ["fp32"], found.stderr


def test_a_setting_of_another_type_is_an_error_in_words() -> None:
    with pytest.raises(ConfigError, match=r"One of \{'epochs': '5'\} is of another type: '>='"):
        normal("mlp", "digits", epochs="5")  # type: ignore[arg-type]
