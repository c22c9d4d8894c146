"""The card of a run on the hub."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.core.record import Record, find_records
from denature.report.card import model_card
from denature.train import Run
from denature.train.identity import plan_of
from denature.train.shareable import shareable

hub_library = pytest.importorskip("huggingface_hub")
RESULTS = Path(__file__).parents[1] / "results"


def card(record: Record, **options: Any) -> Any:
    """A card as huggingface_hub reads it."""
    return hub_library.ModelCard(model_card(shareable(record), "me/digits", **options))


def test_a_card_says_what_the_record_says(runs: dict[str, Run]) -> None:
    run = runs["nasty"]
    found = card(run.record, license="apache-2.0")
    assert found.data.library_name == "denature"
    assert found.data.pipeline_tag == "image-classification"
    assert found.data.license == "apache-2.0"
    [result] = found.data.eval_results
    assert result.metric_value == pytest.approx(run.accuracy.value, abs=1e-6)
    value, low, high = (f"{100 * x:.1f}" for x in (run.accuracy.value, run.accuracy.low,
                                                   run.accuracy.high))  # fmt: skip
    assert f"accuracy {value} [{low}, {high}] %, 95 % interval, n = 359 test images" in found.text
    assert "nasty teacher (Ma et al., ICLR 2021)" in found.text
    assert "do not distil from them" in found.text
    assert "this teacher is not nasty: tau^2 KL from its adversary" in found.text
    assert "1,438 training" in found.text
    assert run.record.id in found.text


def test_a_card_states_no_license_that_was_not_given(runs: dict[str, Run]) -> None:
    found = card(runs["normal"].record)
    assert found.data.license is None
    assert "None is stated" in found.text
    assert "nasty" not in found.text


def test_a_card_shows_texts_as_texts(runs: dict[str, Run]) -> None:
    record = runs["normal"].record
    assert record.data is not None
    classes = ("<script>", "a|b", "![x](http://evil)", *record.data.classes[3:])
    found = card(replace(record, data=replace(record.data, classes=classes, source="x: [y\n---")))
    assert "\\<script>" in found.text
    assert "a\\|b" in found.text
    assert "![x](http" not in found.text
    assert found.data.eval_results[0].dataset_name == "x: [y\n---"


def test_a_card_of_landmarks_and_of_imported_weights(runs: dict[str, Run]) -> None:
    record = runs["normal"].record
    assert record.data is not None
    placed = replace(
        record, data=replace(record.data, landmarks=True), accuracy=None, error=record.accuracy
    )
    assert card(placed).data.pipeline_tag == "keypoint-detection"
    assert "% of the side" in card(placed).text
    own = replace(
        record, kind="imported", data=None, config={}, accuracy=None, hits=None,
        net=replace(record.net, name="own_nets:make"),
    )  # fmt: skip
    text = card(own).text
    assert "never measured" in text
    assert "--trust own_nets" in text
    assert "Learned from" not in text


def test_every_kind_of_run_has_a_card_and_shares_no_folder() -> None:
    """Of results that were published before, whose records name the folders of their inputs."""
    places = [
        RESULTS / name / "cpu" / "records.jsonl" for name in ("nose", "defensive-distillation")
    ]
    kinds = {record.kind: record for record in find_records([RESULTS / "demo.jsonl", *places])}
    assert kinds.keys() >= {"normal", "nasty", "distilled", "cloned", "hardened", "adversarial"}
    for kind, record in kinds.items():
        shared = shareable(record)
        assert plan_of(shared) == plan_of(record)
        assert "runs/" not in shared.to_json()
        found = card(record)
        assert f"Kind of run | {kind}" in found.text
        assert ("This is a clone" in found.text) == (kind == "cloned")
