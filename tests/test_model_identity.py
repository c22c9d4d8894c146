"""Functions and modules of Python as models: what makes one another model."""

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from denature.core.errors import ConfigError
from denature.extract.victims.base import Victim
from denature.recipes.given import models_of
from denature.train import Run


def made(factor: int) -> Callable[[np.ndarray], np.ndarray]:
    """Functions of one name with other code."""
    if factor == 2:
        return lambda pixels: 2 * pixels.mean((2, 3))
    return lambda pixels: 3 * pixels.mean((2, 3))


def model_of(model: Any, name: str | None = None) -> Run | Victim:
    [found] = models_of([model], "digits", name=name)
    return found


async def target_of(function: Callable[[np.ndarray], np.ndarray]) -> str:
    victim = model_of(function)
    assert not isinstance(victim, Run)
    return (await victim.about()).target


def of_source(text: str, **known: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The function `answer` of a module of its own."""
    names: dict[str, Any] = {"__name__": "of_source", "np": np, "reduce": reduce, **known}
    exec(text, names)
    found: Callable[[np.ndarray], np.ndarray] = names["answer"]
    return found


HELPED = "def helped(pixels): return {} * pixels.mean((2, 3))\ndef answer(x): return helped(x)"
ALIKE = {
    "code": (made(2), made(2), made(3)),
    "default": (
        *(of_source("def answer(x, by=2.0): return by * x"),) * 2,
        of_source("def answer(x, by=3.0): return by * x"),
    ),
    "keyword default": (
        *(of_source("def answer(x, *, by=(2, 1)): return by[0] * x"),) * 2,
        of_source("def answer(x, *, by=(3, 1)): return by[0] * x"),
    ),
    "function of the module": (
        *(of_source(HELPED.format(2)),) * 2,
        of_source(HELPED.format(3)),
    ),
    "global number": (
        *(of_source("def answer(x): return np.abs(x) * by", by=2),) * 2,
        of_source("def answer(x): return np.abs(x) * by", by=3),
    ),
}


@pytest.mark.parametrize("case", ALIKE)
def test_a_function_that_was_changed_is_another_model(case: str) -> None:
    names = [asyncio.run(target_of(function)) for function in ALIKE[case]]
    assert names[0] == names[1] != names[2]


class Model:
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def answer(self, pixels: np.ndarray) -> np.ndarray:
        return pixels


def around(weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: pixels @ weights


WEIGHTS = np.eye(3)
NAMELESS: dict[str, tuple[Any, str]] = {
    "object": (Model(), "object of Model"),
    "method": (Model().answer, "object of method"),
    "variable": (around(WEIGHTS), "reads weights of the function around it"),
    "global": (of_source("def answer(x): return x @ w", w=WEIGHTS), "reads the global w"),
    "in an inner function": (
        of_source("def answer(x): return (lambda: x @ w)()", w=WEIGHTS), "reads the global w"
    ),
    "in a function that is called": (
        of_source("def inner(x): return x @ w\ndef answer(x): return inner(x)", w=WEIGHTS),
        "inner, which reads the global w",
    ),
    "made elsewhere": (
        of_source("def answer(x): return made(x)", made=around(WEIGHTS)), "reads the global made"
    ),
    "own class": (of_source("class A: pass\ndef answer(x): return A()"), "reads the global A"),
    "default": (of_source("def answer(x, w=np.eye(3)): return x @ w"), "has defaults that are no"),
}  # fmt: skip


@pytest.mark.parametrize("way", ["function", "module"])
def test_a_function_of_other_modules_of_the_users_own_needs_a_name(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may hold weights, by which the function's own text says nothing."""
    (tmp_path / "own_weights.py").write_text("W = 2\ndef helped(x): return W * x.mean((2, 3))\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_weights")
    known = {"helped": own.helped} if way == "function" else {"own": own}
    call = "helped(x)" if way == "function" else "own.helped(x)"
    function = of_source(f"def answer(x): return {call}", **known)
    with pytest.raises(ConfigError, match=r"reads the global .*Pass name="):
        model_of(function)
    assert not isinstance(model_of(function, name="mine"), Run)


@pytest.mark.parametrize("case", NAMELESS)
def test_a_model_of_more_than_code_needs_a_name(case: str) -> None:
    model, message = NAMELESS[case]
    with pytest.raises(ConfigError, match=rf"{message}.*Pass name="):
        model_of(model)
    assert not isinstance(model_of(model, name="mine"), Run)


@pytest.mark.slow
def test_a_function_has_one_identity_in_all_processes() -> None:
    text = "def answer(x): return reduce(max, x) in {'a', 'b', 'c', 'd', 'e'}"
    script = (
        "import asyncio; from tests.test_model_identity import of_source, target_of; "
        f"print(asyncio.run(target_of(of_source({text!r}))))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": seed}, cwd=Path(__file__).parents[1],
        ).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(found) == 1


def test_a_named_module_with_other_weights_is_another_model() -> None:
    with torch.random.fork_rng():
        modules = [nn.Linear(2, 2), nn.Linear(2, 2)]
    victims = [model_of(module, name="mine") for module in [*modules, modules[0]]]
    first, other, again = (asyncio.run(v.about()).target for v in victims if not isinstance(v, Run))
    assert first == again != other
    assert first.startswith("mine ")


def test_other_values_are_no_models() -> None:
    with pytest.raises(ConfigError, match=r"is int; wanted is a run"):
        model_of(3)
    assert not isinstance(model_of(nn.Flatten()), Run)
