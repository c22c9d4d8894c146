"""What benchmarks share: works that take turns, and figures of what came out."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from denature.core.record import environment

Work = Callable[[], int]
"""Does something, and returns how many images it did it to."""


class Bench:
    """Measures works in turns and keeps what came out.

    Args:
        device: that the works compute on.
        repeats: of each work, after one that does not count.
        clock: seconds; `time.thread_time` leaves out what other processes take of a busy machine,
            for works of one thread.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        repeats: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device = device
        self.clock = clock
        self.repeats = repeats
        self.figures: dict[str, dict[str, object]] = {}

    def seconds(self, work: Work) -> float:
        """Seconds per image."""
        self._wait()
        started = self.clock()
        seen = work()
        self._wait()
        return (self.clock() - started) / seen

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def compare(self, key: str, ours: Work, theirs: Work, *, unit: str = "images/s") -> None:
        """Measure a pair; as images per second, or as milliseconds per image."""
        taken: tuple[list[float], list[float]] = ([], [])
        for turn in range(self.repeats + 1):
            for kept, work in zip(taken, (ours, theirs), strict=True):
                took = self.seconds(work)
                if turn:
                    kept.append(took)
        a, b = map(statistics.median, taken)
        if unit == "images/s":
            a, b = 1 / a, 1 / b
        else:
            a, b = 1e3 * a, 1e3 * b
        self.figures[key] = {
            "ratio": round(a / b, 3),
            "median_ours": round(a, 2),
            "median_theirs": round(b, 2),
            "unit": unit,
            "repeats": self.repeats,
        }
        print(f"{key:30} {a / b:>8.3f} = {a:>11,.2f} / {b:>11,.2f} {unit}", flush=True)

    def say(self, key: str, value: float, unit: str) -> None:
        """A plain figure."""
        self.figures[key] = {"value": round(value, 4), "unit": unit}
        print(f"{key:30} {value:>8.3f} {unit}", flush=True)

    def finish(self, wanted: Mapping[str, str], path: Path | None, **machine: object) -> None:
        """Print the table, and write all figures as JSON with where they were measured."""
        if wanted:
            print("\n" + table(self.figures, wanted))
        if path is None:
            return
        about = {
            **machine,
            "cpus": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "commit": environment()["commit"],
        }
        path.write_text(json.dumps({"machine": about, **self.figures}, indent=1) + "\n")


def table(figures: Mapping[str, Any], wanted: Mapping[str, str]) -> str:
    """The ratios of a JSON file as Markdown.

    Args:
        figures: by their keys.
        wanted: what each ratio is of, and the least or most that is wanted of it.
    """
    lines = ["| what | divided by | wanted | ratio | ours | theirs |", "| --- " * 6 + "|"]
    for key, line in wanted.items():
        if found := figures.get(key):
            ours, theirs = f"{found['median_ours']:,.4g}", f"{found['median_theirs']:,.4g}"
            lines.append(f"| {line} | {found['ratio']:.2f} | {ours} | {theirs} |")
    return "\n".join(lines)
