"""What all benchmarks share."""

import pytest
import torch

from benchmarks.bench import Bench, table


def test_a_figure_has_a_ratio_and_a_share_of_the_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.bench.matmul_gflops", lambda *_: 1.0)
    now = 0.0

    def work(seconds: float) -> int:
        nonlocal now
        now += seconds
        return 10

    bench = Bench(torch.device("cpu"), repeats=3, clock=lambda: now)
    bench.compare("limited", lambda: work(2.0), lambda: work(8.0), limit=lambda: work(1.5))
    bench.compare("plain", lambda: work(1.0), lambda: work(2.0), unit="ms/image")
    assert bench.figures["limited"]["ratio"] == pytest.approx(4.0)
    assert bench.figures["limited"]["of_limit"] == pytest.approx(0.75)
    assert bench.figures["plain"]["ratio"] == pytest.approx(0.5)
    assert "0.750 of the limit" in capsys.readouterr().out
    wanted = {"limited": "a | b | >= 3", "plain": "c | d | "}
    assert table(bench.figures, wanted).splitlines() == [
        "| what | divided by | wanted | ratio | ours | theirs | share of the limit |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| a | b | >= 3 | 4.00 | 5 | 1.25 | 0.75 |",
        "| c | d |  | 0.50 | 100 | 200 |  |",
    ]
    assert "share" not in table(bench.figures, {"plain": "c | d | "})
