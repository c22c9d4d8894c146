"""Audits as commands with few steps: what they print, and how they refuse."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from denature.cli.app import main

SMALL = (
    *("--student", "mlp", "--thief", "naive", "--budget", "20", "--seeds", "1", "--epochs", "1"),
    *("--test-images", "40", "--device", "cpu", "--workers", "1"),
)


def told(capsys: pytest.CaptureFixture[str], *given: str, out: Path) -> dict[str, Any]:
    """The line of JSON of an audit that succeeds."""
    assert main(["audit", *audit_words(given), "--out", str(out), "--json", "-q"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def refused(capsys: pytest.CaptureFixture[str], *given: str, out: Path) -> str:
    capsys.readouterr()  # what the test made before
    assert main(["audit", *audit_words(given), "--out", str(out), "-q"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def audit_words(given: Sequence[str]) -> list[str]:
    """Arguments, and those of `SMALL` and the data that they do not have."""
    pairs = list(zip(SMALL[::2], SMALL[1::2], strict=True))
    usual = [
        word for pair in [*pairs, ("--data", "digits")] if pair[0] not in given for word in pair
    ]
    return [*given, *usual]
