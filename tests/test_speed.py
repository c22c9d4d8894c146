"""Speed and cost of a clone beside those of the service."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from denature import api
from denature.cli.app import main
from denature.extract import speed
from denature.extract.asking.pricing import Prices, one_price
from denature.extract.speed import SpeedResult, Timing
from denature.extract.victims.local import local
from denature.report.speed import price_sentences, timing_table
from denature.train import Run, Training
from tests.commands import refused, told
from tests.served import Served, serving
from tests.ways import checkpoint, function, onnx, own_module, program

pytestmark = pytest.mark.usefixtures("without_figures")

QUICK = Training(epochs=2, batch_size=32, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def server(victim: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), f"mlp={victim.folder}") as served:
        yield served


def test_a_theft_pays_off_only_where_prices_are_known_and_above_zero() -> None:
    timing = Timing(images=1, count=9, images_per_second=2000.4, p50_ms=0.5, p90_ms=1, p99_ms=2)

    def result(prices: Prices | None, paid: float | None) -> SpeedResult:
        return SpeedResult(clone=[timing], service=[], queries=0, prices=prices, paid=paid)

    priced = result(one_price(2.0), 3.0)
    assert priced.cost(1000) == pytest.approx(2.0)
    assert priced.paid_after == pytest.approx(1500)
    assert "as much for 1,500 images" in price_sentences(priced)[-1]
    for other in (result(None, 3.0), result(one_price(2.0), None), result(one_price(0.0), 3.0)):
        assert other.paid_after is None
        assert not any("learned from" in sentence for sentence in price_sentences(other))
    assert result(None, None).cost(1000) is None
    assert price_sentences(result(None, None)) == []
    assert timing_table(priced)[1:] == [["clone", "1", "2,000", "0.50", "", "", "9"]]


@pytest.mark.parametrize(
    "way",
    [checkpoint, own_module, function, program, pytest.param(onnx, marks=pytest.mark.slow)],
    ids=lambda way: str(way.__name__),
)
def test_any_model_is_timed(
    trained: Run,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[Run, Path], list[str]],
) -> None:
    monkeypatch.setattr(speed, "time_run", partial(speed.time_run, seconds=0.01))
    model, *options = way(trained, place)
    answers = way in (function, onnx, program)
    size = [] if way in (onnx, program) else ["--image-size", "8", "--channels", "1"]
    asked = ["--queries", "30", "--per-request", "5", "--concurrency", "2"]
    found = told(capsys, "speed", model, *options, *size, *asked)
    assert [timing["images"] for timing in found["clone"]] == ([1, 5] if answers else [1, 256])
    assert all(timing["images_per_second"] > 0 for timing in found["clone"])
    assert found["queries"] == (30 if answers else 0)


@pytest.mark.slow
def test_a_server_is_timed_alone(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["speed", f"http://{server.address}", "--model", "mlp", "--queries", "30"]
    before = sum(entry["images"] for entry in server.entries())
    found = told(capsys, *words, "--per-request", "5", "--price-per-1000", "2")
    assert sum(entry["images"] for entry in server.entries()) - before == found["queries"] == 30
    assert found["costs"]["1000"] == 2
    assert "--net would say" in refused(capsys, *words, "--net", "mlp")


@pytest.mark.slow
def test_a_clone_is_timed_beside_the_service(
    server: Served, victim: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theft = api.steal(local(victim), "digits", student="mlp", budget=[60], out=tmp_path,
                      price_per_1000=2, test_images=10, training=QUICK).result  # fmt: skip
    words = ["speed", theft.clones[0].folder, "--against", f"http://{server.address}", "--model",
             "mlp", "--queries", "60", "--per-request", "10", "--concurrency", "2"]  # fmt: skip
    words += ["--price-per-1000", "4"]
    before = sum(entry["images"] for entry in server.entries())
    assert main([*words, "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    asked = sum(entry["images"] for entry in server.entries()) - before
    assert told["queries"] == asked == 60
    assert (told["paid"], told["paid_after"]) == (pytest.approx(0.1), pytest.approx(25))
    assert told["costs"] == {"1000": 4.0, "1000000": 4000.0}
    assert [it["images"] for it in told["clone"]] == [1, 256]
    assert [it["images"] for it in told["service"]] == [1, 10]
    for it in told["clone"] + told["service"]:
        assert 0 < it["p50_ms"] <= it["p90_ms"] <= it["p99_ms"]
        assert it["images_per_second"] > 0
    assert main([*words, "-q"]) == 0
    said = capsys.readouterr().out
    assert "the service charges as much for 25 images" in said
    assert "US $ 4.00 for a thousand images, US $ 4,000.00 for a million" in said
    assert main([*words[:6], "--queries", "5"]) == 1
    assert "it must be at least 30" in capsys.readouterr().err
