"""A ledger is believed only where its file holds what was written to it."""

import asyncio
import os
import random
import shutil
import sqlite3
import tarfile
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denature.cli.app import main
from denature.core.errors import RunError
from denature.extract import ExtractionConfig, steal
from denature.extract.asking.anchor import Anchor, Commit
from denature.extract.asking.ledger import Ledger, Query, read_tallies
from denature.extract.asking.limits import QueryLimits
from denature.extract.theft import LEDGER
from denature.extract.victims.base import VictimInfo
from denature.extract.victims.called import FunctionVictim
from denature.remote.errors import AskFailed
from denature.train import Training
from tests.oracles import Counted, images_of, oracle_of

ANCHOR = f"{LEDGER}.anchor"
QUICK = Training(epochs=1, batch_size=32, device="cpu", precision="fp32")


def filled(folder: Path, count: int = 200) -> Path:
    """A closed ledger with answers to so many images."""
    with Ledger(folder / LEDGER) as ledger:
        oracle_of(ledger, Counted(), budget=10_000).ask(images_of(count), range(count))
    return folder / LEDGER


def answers_in(path: Path) -> dict[bytes, dict[int, Any]]:
    with Ledger(path) as ledger:
        answers = ledger.answers(1)
        return {
            key: {n: row.tolist() for n, row in repeats.items()} for key, repeats in answers.items()
        }


def alter(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE queries SET answer = zeroblob(12)")


def swap_two(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        [[first], [second]] = db.execute("SELECT answer FROM queries WHERE id < 3 ORDER BY id")
        db.execute("UPDATE queries SET answer = ? WHERE id = 1", (second[:8] + bytes(4),))
        db.execute("UPDATE queries SET answer = ? WHERE id = 2", (first,))


def drop_last(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM requests WHERE id = (SELECT max(id) FROM requests)")


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (alter, "altered or damaged"),
    (swap_two, "altered or damaged"),
    (drop_last, "altered or damaged"),
    (empty, "lacks what was written to it"),
    (Path.unlink, "lacks what was written to it"),
]


def test_a_ledger_of_others_holds_tables_alone(tmp_path: Path) -> None:
    """A view computes what it likes, without an end."""
    with closing(sqlite3.connect(tmp_path / LEDGER)) as db:
        db.execute("CREATE TABLE targets (id, target, options, kind)")
        db.execute(
            "CREATE VIEW requests AS WITH RECURSIVE n(x) AS "
            "(SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS target, x AS purpose, "
            "x AS images, x AS billed, x AS status, x AS price FROM n"
        )
        db.commit()
    with pytest.raises(RunError, match="holds the view 'requests', and a ledger has none"):
        read_tallies(tmp_path / LEDGER)


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda it: getattr(it, "__name__", None))
def test_a_changed_ledger_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    path = filled(tmp_path)
    damage(path)
    for _ in range(2):  # the refusal itself changes nothing
        with pytest.raises(RunError, match=said) as refused:
            Ledger(path)
        assert "Restore all files ledger.sqlite* from a copy" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", [empty, Path.unlink])
@pytest.mark.parametrize("anchored", [True, False])
def test_a_theft_pays_nothing_twice_when_its_ledger_is_gone(
    tmp_path: Path, damage: Callable[[Path], None], anchored: bool
) -> None:
    counted = Counted(lambda pixels: np.eye(10, dtype=np.float32)[np.arange(len(pixels)) % 10])

    def go() -> None:
        victim = FunctionVictim(counted, name="v", kind="probabilities")
        steal(victim, net="mlp", pool="digits", budgets=[40], out=tmp_path, training=QUICK,
              stealing=ExtractionConfig(test_images=10))  # fmt: skip

    go()
    assert sum(counted.calls) == 40
    damage(tmp_path / LEDGER)
    if not anchored:  # as in folders of earlier versions
        (tmp_path / ANCHOR).unlink()
    for _ in range(2):
        with pytest.raises(RunError, match="from a copy, or name another folder"):
            go()
    assert sum(counted.calls) == 40


def test_flipped_bytes_are_refused_in_one_line_or_changed_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = filled(tmp_path)
    before, content, chance = answers_in(path), path.read_bytes(), random.Random(0)
    used = [place for place, byte in enumerate(content) if byte]
    refused = 0
    for _ in range(40):
        damaged, at = bytearray(content), chance.choice(used)
        for place in range(at, min(at + chance.choice((1, 40)), len(damaged))):
            damaged[place] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        assert main(["ledger", str(path)]) in (0, 1)
        said = capsys.readouterr().err
        try:
            assert answers_in(path) == before
        except RunError as error:
            refused += 1
            said += str(error)
        assert said.count("\n") <= 1
        assert "Traceback" not in said
    assert refused > 20  # most of these bytes are in use


def test_an_older_ledger_beside_a_newer_anchor_is_refused_until_it_is_accepted(
    tmp_path: Path,
) -> None:
    path = filled(tmp_path, 50)
    older = path.read_bytes()
    filled(tmp_path, 60)
    newer, anchor = path.read_bytes(), (tmp_path / ANCHOR).read_bytes()
    path.write_bytes(older)
    with pytest.raises(RunError, match=f"lacks what was written .*; remove {ANCHOR} alone to go"):
        Ledger(path)
    (tmp_path / ANCHOR).unlink()
    assert len(answers_in(path)) == 50
    path.write_bytes(newer)
    (tmp_path / ANCHOR).write_bytes(anchor)
    assert len(answers_in(path)) == 60


def test_another_ledger_is_refused_whatever_it_holds(tmp_path: Path) -> None:
    path = filled(tmp_path, 50)
    (tmp_path / "other").mkdir()
    other = filled(tmp_path / "other", 70)
    shutil.copy(other, path)
    with pytest.raises(RunError, match="lacks what was written"):
        Ledger(path)


def test_an_older_anchor_fits(tmp_path: Path) -> None:
    """As after a kill between a commit and its anchor, or after a power cut."""
    path = filled(tmp_path, 50)
    older = (tmp_path / ANCHOR).read_bytes()
    filled(tmp_path, 90)
    newer = (tmp_path / ANCHOR).read_bytes()
    (tmp_path / ANCHOR).write_bytes(older)
    assert len(answers_in(path)) == 90
    assert (tmp_path / ANCHOR).read_bytes() == newer


@pytest.mark.parametrize("text", [b"", b"denature ledger 1", b"\xff" * 97])
def test_a_damaged_anchor_is_told(tmp_path: Path, text: bytes) -> None:
    path = filled(tmp_path)
    (tmp_path / ANCHOR).write_bytes(text)
    with pytest.raises(RunError, match=r"anchor is damaged: .*Restore it from a copy; or remove"):
        Ledger(path)
    (tmp_path / ANCHOR).unlink()
    assert len(answers_in(path)) == 200


@pytest.mark.parametrize("before_anchor", [True, False])
@pytest.mark.parametrize("commit", [1, 2, 3, 4])
def test_a_process_that_dies_beside_a_commit_leaves_a_ledger_that_opens(
    tmp_path: Path, before_anchor: bool, commit: int
) -> None:
    """Commits: creation, target, intent, answers. A real process ends at each, without cleaning."""
    with warnings.catch_warnings(action="ignore"):  # threads of other tests do not matter here
        child = os.fork()
    if not child:
        write = Anchor.write

        def dying(self: Anchor, made: Commit) -> None:
            if made.number == commit and before_anchor:
                os._exit(9)
            write(self, made)
            if made.number == commit:
                os._exit(9)

        Anchor.write = dying  # type: ignore[assignment, method-assign]
        with Ledger(tmp_path / LEDGER) as ledger:
            oracle_of(ledger, Counted()).ask(images_of(8), range(8))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with Ledger(tmp_path / LEDGER) as ledger:
        oracle, victim = oracle_of(ledger, Counted()), Counted()
        assert oracle.left == (100 if commit < 3 else 92)
        oracle_of(ledger, victim).ask(images_of(8), range(8))
        assert sum(victim.calls) == (0 if commit == 4 else 8)
        assert len(ledger.answers(oracle.target)) == 8


def test_every_kind_of_write_is_in_the_digest(tmp_path: Path) -> None:
    """Refunds, second attempts, other kinds, texts of any sort, whole prices; and a rollback."""

    async def some(ledger: Ledger, target: int) -> None:
        questions = [Query(content=bytes([n]), repeat=0, reference="é#\U0001f600") for n in (1, 2)]
        terms: dict[str, Any] = {
            "purpose": "train",
            "limits": QueryLimits(queries=9),
            "attempt": 1,
            "price": 1,
        }
        request, _ = await ledger.send(target, questions, **terms)
        await ledger.failed(target, request, purpose="train", billed=False, latency=0, error="\0é")
        request, _ = await ledger.send(target, questions, **terms)
        with pytest.raises(RunError, match="cannot be written"):
            await ledger.answered(
                target, request, questions, np.ones((2, 3)), kind={},  # type: ignore[arg-type]
                latency=1,
            )  # fmt: skip
        await ledger.answered(target, request, questions, np.ones((2, 3)), kind="logits", latency=1)

    with Ledger(tmp_path / LEDGER) as ledger:
        target = ledger.target(VictimInfo(target="v"))
        asyncio.run(some(ledger, target))
        ledger.set_kind(target, "probabilities")
    with Ledger(tmp_path / LEDGER) as ledger:
        assert (ledger.spent(1, "train"), ledger.kind(1)) == (2, "probabilities")
        [tally] = ledger.tallies(1).values()
        assert (tally.queries, tally.answered, tally.money) == (2, 2, 2.0)


def test_a_refused_write_leaves_the_next_ones_whole(tmp_path: Path) -> None:
    failed = AskFailed("lost", again=False, billed=False)

    def failing(pixels: np.ndarray) -> np.ndarray:
        raise failed

    with Ledger(tmp_path / LEDGER) as ledger:
        with pytest.raises(AskFailed):
            oracle_of(ledger, failing).ask(images_of(3), range(3))
        oracle_of(ledger, Counted()).ask(images_of(3), range(3))
        [tally] = ledger.tallies(1).values()
        assert tally.money is None  # no price was named
    assert len(answers_in(tmp_path / LEDGER)) == 3


def test_a_ledger_of_a_former_version_is_read_and_anchored(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).with_name("former.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    path = tmp_path / "theft" / LEDGER
    before = [(tally.queries, tally.answered) for tally in read_tallies(path)]
    assert len(answers_in(path)) == 50
    assert [(tally.queries, tally.answered) for tally in read_tallies(path)] == before
    assert (tmp_path / "theft" / ANCHOR).is_file()
    alter(path)
    with pytest.raises(RunError, match="altered or damaged"):
        Ledger(path)


# The ledger as a file


def test_one_process_at_a_time_is_at_work_with_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / LEDGER), pytest.raises(RunError, match="Another process is at work"):
        Ledger(tmp_path / LEDGER)
    Ledger(tmp_path / LEDGER).close()


@pytest.mark.parametrize("content", [b"no database at all, only words", b"SQLite format 3\0torn"])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(content)
    for look in (Ledger, read_tallies):
        with pytest.raises(RunError, match=r"cannot be (used|read) as a ledger"):
            look(path)
    assert path.read_bytes() == content


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE cheese (name TEXT)")
    with pytest.raises(RunError, match="is no ledger of this denature's format"):
        Ledger(path)


def test_a_disk_that_is_full_ends_a_harvest_and_loses_nothing(small_disk: Path) -> None:
    wide = Counted(lambda pixels: np.full((len(pixels), 500), 0.002, np.float32))
    (small_disk / "other").write_bytes(bytes(65_536))
    with Ledger(small_disk / LEDGER) as ledger:
        with pytest.raises(RunError, match=r"cannot be written: .*full"):
            oracle_of(ledger, wide, budget=10_000).ask(images_of(2000), range(2000))
        kept = ledger.answers(1)
    # It may be full where an answer comes, or where an intent is written and nothing is sent.
    assert 0 < len(kept) <= sum(wide.calls)
    (small_disk / "other").unlink()  # room is made
    with Ledger(small_disk / LEDGER) as ledger:
        assert ledger.answers(1).keys() == kept.keys()


def test_a_damaged_answer_is_told(ledger: Ledger) -> None:
    oracle = oracle_of(ledger, Counted())
    oracle.ask(images_of(2), range(2))
    with closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("UPDATE queries SET answer = x'0102' WHERE id = 1")
    with pytest.raises(RunError, match="damaged: an answer has 2 bytes"):
        ledger.answers(oracle.target)
