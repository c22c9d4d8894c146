"""Files of at most 20 MB that lie about their contents, and the memory that each loader takes.

Run as a program, it makes each file in a folder, loads it in a forked process whose peak of
resident memory is measured, and prints one JSON object a line: name, error and MiB over the start.
"""

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa

from denature.core.errors import DenatureError
from tests import lies_of_answers, lies_of_data, lies_of_runs
from tests.lies import CASES, LARGEST, MIB, Load

PARTS = (lies_of_answers, lies_of_data, lies_of_runs)
"""Modules whose files fill `CASES`."""


def peak(load: Load) -> dict[str, Any]:
    """The error and the MiB of resident memory that a load takes, in this process."""
    signal.alarm(120)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") * 1024 + 4096 * MIB,) * 2)
    try:
        load()
        error = ""
    except DenatureError as raised:
        error = f"{type(raised).__name__}: {raised}"
    except BaseException:
        error = f"Traceback: {traceback.format_exc(limit=-4)}"
    return {"error": error, "mib": round((status("VmHWM") - before) / 1024, 1)}


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def forked(name: str, folder: Path) -> None:
    """Make a file and measure its load in a process of its own, and print the outcome."""
    child = os.fork()
    if not child:
        load = CASES[name](folder)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        assert max(sizes, default=0) <= LARGEST, name
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory would serve the load
        pa.default_memory_pool().release_unused()
        print(json.dumps({"name": name, **peak(load)}), flush=True)
        os._exit(0)
    _, code = os.waitpid(child, 0)
    if code:
        print(json.dumps({"name": name, "error": f"Traceback: ended by {code}", "mib": 0}))


def main(root: Path, names: list[str]) -> None:
    import shutil

    assert {load.__module__ for load in CASES.values()} == {part.__name__ for part in PARTS}
    for name in names or CASES:
        folder = root / name
        folder.mkdir(parents=True)
        os.environ["DENATURE_CACHE"] = str(folder / "cache")
        forked(name, folder)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
