"""Commands called in this process: what they print, and how they refuse."""

import json
from typing import Any

import pytest

from denature.cli.app import main


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The JSON line of a command that succeeds."""
    code = main([*words, "--json", "-q"])
    out, err = capsys.readouterr()
    assert code == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The error of a command that fails."""
    assert main([*words, "-q"]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]
