"""An audit of thirty cells beside thirty thefts, each a command of its own.

    python -m benchmarks.audit_speed [--json FILE] [--quick]

Both train the same networks on as many answers of one digits model for as many steps: three
defenses, two thieves, five budgets. The audit asks each image once, trains in workers, and loads
the package once; thirty calls of `denature steal` do each of it thirty times. Wanted is a ratio of
3, the goal is 6. The calls run one after another, as a script would make them.
"""

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.bench import Bench
from denature.extract.config import thief_training
from denature.train import Normal, Training, train

BUDGETS = (50, 100, 150, 200, 250)

SHOWN: tuple[tuple[str, str, list[str]], ...] = (
    ("none", "naive", []),
    ("none", "labels", ["--kind", "label"]),
    ("rounding@decimals=1", "naive", ["--decimals", "1"]),
    ("rounding@decimals=1", "labels", ["--kind", "label"]),
    ("label-only", "naive", ["--kind", "label"]),
    ("label-only", "labels", ["--kind", "label"]),
)
"""A defense, a thief, and the options of a theft that learns from the same."""

WANTED = {"audit over thefts": "a cell of 30 thefts, s | a cell of an audit, s | 3"}
"""What the ratio is of, and the least that is wanted of it."""


def denature(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "denature", *words, "-q"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def thefts(victim: str, folder: Path, budgets: tuple[int, ...]) -> int:
    for (_, _, options), budget in product(SHOWN, budgets):
        training = thief_training(budget, net="cnn")
        denature(
            *("steal", victim, "--student", "cnn", "--pool", "digits", "--budget", str(budget)),
            *("--epochs", str(training.epochs), "--batch-size", str(training.batch_size)),
            *("--lr", str(training.lr)),
            *("--device", "cpu", "--out", str(folder / f"{len(list(folder.iterdir()))}")),
            # As many answers to learn from as in the cells of the audit.
            *("--fidelity-extra", *options),
        )
    return len(SHOWN) * len(budgets)


def audit(victim: str, folder: Path, budgets: tuple[int, ...]) -> int:
    defenses = dict.fromkeys(defense for defense, _, _ in SHOWN)
    thieves = dict.fromkeys(thief for _, thief, _ in SHOWN)
    denature(
        *("audit", victim, "--data", "digits", "--defense", ",".join(defenses)),
        *("--thief", ",".join(thieves), "--budget", ",".join(map(str, budgets))),
        *("--seeds", "1", "--labelled", "0", "--grid", "--device", "cpu"),
        *("--out", str(folder / f"{len(list(folder.iterdir()))}")),
    )
    return len(SHOWN) * len(budgets)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="one budget: a trial")
    given = parser.parse_args()
    budgets = BUDGETS[:1] if given.quick else BUDGETS
    bench = Bench(torch.device("cpu"), repeats=1)
    with TemporaryDirectory() as text:
        folder = Path(text)
        run = train("cnn", "digits", Normal(), Training(device="cpu"), out=folder / "victim")
        places = [folder / name for name in ("audits", "thefts")]
        for place in places:
            place.mkdir()
        victim = str(run.folder)
        # Seconds of one cell, less being better: the ratio is that of the thefts to the audit.
        ours = bench.seconds(lambda: audit(victim, places[0], budgets))
        theirs = bench.seconds(lambda: thefts(victim, places[1], budgets))
    figure = {
        "ratio": round(theirs / ours, 2),
        "median_ours": round(ours, 2),
        "median_theirs": round(theirs, 2),
        "unit": "s/cell",
        "repeats": 1,
    }
    bench.figures["audit over thefts"] = figure
    print(f"audit over thefts {theirs / ours:.2f} = {theirs:.2f} / {ours:.2f} s a cell")
    bench.finish(WANTED, given.json, device="cpu", threads=2)


if __name__ == "__main__":
    main()
