"""What benchmarks share: works that take turns, and figures of what came out."""

import json
import os
import platform
import re
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
        self.load = round(os.getloadavg()[0], 2)
        self.gflops = {
            str(kind).removeprefix("torch."): matmul_gflops(device, kind)
            for kind in (torch.float32, torch.bfloat16)
        }

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

    def compare(
        self,
        key: str,
        ours: Work,
        theirs: Work,
        *,
        unit: str = "images/s",
        limit: Work | None = None,
    ) -> None:
        """Measure a pair; as images per second, or as milliseconds per image.

        Args:
            key: of the figure.
            ours: the work that is measured.
            theirs: what it is divided by.
            unit: of both, `images/s` or `ms/image`.
            limit: the work that ours cannot do without, measured in the same turns; the figure
                then has a share of the limit, 1 where ours takes no more time than that.
        """
        works = [ours, theirs] if limit is None else [ours, theirs, limit]
        taken: list[list[float]] = [[] for _ in works]
        for turn in range(self.repeats + 1):
            for kept, work in zip(taken, works, strict=True):
                took = self.seconds(work)
                if turn:
                    kept.append(took)
        seconds = list(map(statistics.median, taken))
        a, b = (1 / s if unit == "images/s" else 1e3 * s for s in seconds[:2])
        self.figures[key] = {
            "ratio": round(a / b, 3),
            "median_ours": round(a, 2),
            "median_theirs": round(b, 2),
            "unit": unit,
            "repeats": self.repeats,
        }
        of_limit = ""
        if limit is not None:
            share = seconds[2] / seconds[0]
            self.figures[key]["of_limit"] = round(share, 3)
            of_limit = f", {share:.3f} of the limit"
        print(f"{key:30} {a / b:>8.3f} = {a:>11,.2f} / {b:>11,.2f} {unit}{of_limit}", flush=True)

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
            "capability": torch.backends.cpu.get_cpu_capability(),
            "features": processor_features(),
            "load": self.load,
            "gflops": self.gflops,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "commit": environment()["commit"],
        }
        path.write_text(json.dumps({"machine": about, **self.figures}, indent=1) + "\n")


def processor_features() -> list[str]:
    """Vector and matrix units that the processor states; Linux only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return sorted(flag for flag in flags if re.match(r"avx|amx|fma", flag))


def matmul_gflops(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations of a product of two square matrices, in 10^9 a second."""
    one = torch.randn(size, size, device=device).to(dtype)
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        (one @ one).sum().item()
        taken.append(time.perf_counter() - started)
    return round(2 * size**3 / min(taken) / 1e9, 1)


def table(figures: Mapping[str, Any], wanted: Mapping[str, str]) -> str:
    """The ratios of a JSON file as Markdown.

    Args:
        figures: by their keys.
        wanted: what each ratio is of, and the least or most that is wanted of it.
    """
    limited = any("of_limit" in figures.get(key, {}) for key in wanted)
    titles = ["what", "divided by", "wanted", "ratio", "ours", "theirs"]
    titles += ["share of the limit"] if limited else []
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for key, line in wanted.items():
        if found := figures.get(key):
            ours, theirs = f"{found['median_ours']:,.4g}", f"{found['median_theirs']:,.4g}"
            cells = [line, f"{found['ratio']:.2f}", ours, theirs]
            if limited:
                cells.append(f"{found['of_limit']:.2f}" if "of_limit" in found else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
