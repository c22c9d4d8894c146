"""Command lines in this process, and what they print."""

import pytest

from denature.cli.app import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line on standard error of a command that cannot do its work."""
    code, out, err = run(capsys, *words)
    assert code in (1, 2)
    assert not out
    [line] = [line for line in err.splitlines() if line.startswith("denature: ")]
    assert err.splitlines()[-1] == line
    return line
