"""Links between pages of results that lie beside each other."""

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from denature.report.links import links_of
from denature.report.page import write
from denature.report.results import read_outcome, write_outcome
from tests.audits import audit

ROOT = Path(__file__).parents[1]


def test_an_audit_and_a_theft_of_one_model_lead_to_each_other(
    tmp_path: Path, without_figures: None
) -> None:
    digest = "0123456789abcdef"
    result = audit(threats=("B",))
    result = replace(result, model=replace(result.model, digest=digest))
    theft = read_outcome(ROOT / "results" / "stealing" / "cifar10").result
    write_outcome(replace(theft, target=f"cnn {digest} probabilities"), [], tmp_path / "theft-x")
    write_outcome(replace(theft, target="cnn fedcba9876543210 labels"), [], tmp_path / "other")
    outcome = write_outcome(result, [], tmp_path / "audit-x")
    links = {link.text: link.target for link in outcome.page.links}
    assert links["theft: theft-x"] == "../theft-x/report.html"
    assert not any("other" in text for text in links)
    assert 'href="../theft-x/report.html"' in outcome.report.read_text()
    back = read_outcome(tmp_path / "theft-x").page.links
    assert "audit: audit-x" in {link.text for link in back}
    # The theft was first, so its page got its link when the audit was written, and drew nothing.
    page = (tmp_path / "theft-x" / "report.html").read_text()
    assert 'href="../audit-x/report.html">audit: audit-x</a>' in page
    assert "audit-x" not in (tmp_path / "other" / "report.html").read_text()
    before = (tmp_path / "theft-x" / "report.html").stat().st_mtime_ns
    assert write(read_outcome(tmp_path / "theft-x").page, tmp_path / "theft-x")
    assert (tmp_path / "theft-x" / "report.html").stat().st_mtime_ns == before
    assert all((tmp_path / "audit-x" / target).is_file() for target in links.values())


def test_a_record_with_a_path_of_this_machine_is_no_link(tmp_path: Path) -> None:
    for name, source in {"named": "digits", "placed": "/home/me/images"}.items():
        (tmp_path / "clones" / name).mkdir(parents=True)
        record = tmp_path / "clones" / name / "record.json"
        record.write_text(json.dumps({"data": {"source": source}}))
    links = links_of({"result_type": "theft", "target": "x"}, tmp_path)
    assert [link.text for link in links] == ["run: named", "all records", "result as JSON"]


def test_results_of_others_beside_a_page_are_no_links(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name, text in {"a": "[]", "b": '{"result_type": "audit"}', "c": "{"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
        (tmp_path / name / "report.html").write_text("")
    plain = {"result_type": "audit", "model": {"digest": "d", "name": "n"}}
    assert [link.target for link in links_of(plain, tmp_path / "own")] == [
        "records.jsonl",
        "result.json",
    ]


def beside(tmp_path: Path, names: Iterable[str], *, size: int = 0) -> dict[str, Any]:
    """An audit whose page lies in `own`, beside others of the same model, oldest first."""
    plain = {"result_type": "audit", "model": {"digest": "d", "name": "n"}}
    (tmp_path / "own").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text("")
        result = tmp_path / name / "result.json"
        result.write_text(json.dumps(plain).ljust(size))
        os.utime(result, (number, number))
    return plain


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders whose result is opened from now on."""
    found: list[str] = []

    def read(path: Path) -> Any:
        found.append(path.parent.name)
        return json.loads(path.read_text())

    monkeypatch.setattr("denature.report.links.read_json", read)
    return found


def test_a_page_leads_to_the_newest_results_beside_it_and_opens_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, read = beside(tmp_path, [f"r{n}" for n in range(12)]), opened(monkeypatch)
    links = links_of(plain, tmp_path / "own")
    assert [link.text for link in links[:-2]] == [f"audit: r{n}" for n in range(11, 3, -1)]
    assert len(read) == 8
    read.clear()
    stranger = {"result_type": "audit", "model": {"digest": "e", "name": "m"}}
    monkeypatch.setattr("denature.report.links.MOST_READ", 5)
    assert len(links_of(stranger, tmp_path / "own")) == 2
    assert read == [f"r{n}" for n in range(11, 6, -1)]


def test_large_results_and_those_of_other_owners_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = beside(tmp_path, ["ours", "theirs", "written"])
    beside(tmp_path, ["large"], size=4 * 2**20 + 1)
    read, lstat = opened(monkeypatch), Path.lstat

    def owned(path: Path) -> Any:
        about = lstat(path)
        theirs = path.name == "theirs" or path.parent.name == "written"
        uid = about.st_uid + theirs
        return os.stat_result([*about[:4], uid, *about[5:]], {"st_mtime_ns": about.st_mtime_ns})

    monkeypatch.setattr(Path, "lstat", owned)
    links_of(plain, tmp_path / "own")
    assert read == ["ours"]
