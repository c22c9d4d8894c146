"""A server with keys in a process of its own, and one whose output a test reads."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from denature.serve.keys import open_keys
from denature.train import Run
from tests.processes import Command
from tests.served import INFER, Served


def body(images: int = 1) -> bytes:
    tensor = {"name": "images", "shape": [images, 1, 8, 8], "datatype": "UINT8",
              "data": [7] * 64 * images}  # fmt: skip
    return json.dumps({"inputs": [tensor]}).encode()


@dataclass
class Guarded:
    """A server with keys."""

    served: Served
    keys: Path
    key: str
    answered: int = 0

    def ask(self, images: int = 1) -> tuple[int, dict[str, str]]:
        headers = {"Authorization": f"Bearer {self.key}"}
        status, told, _ = self.served.send("POST", INFER, body(images), headers)
        self.answered += images * (status == 200)
        assert status != 503 or told["retry-after"] == "1"
        return status, told

    def ask_at_once(self, count: int) -> set[int]:
        with ThreadPoolExecutor(count) as threads:
            return {status for status, _ in threads.map(lambda _: self.ask(), range(count))}

    def until_answered(self) -> None:
        for _ in range(200):
            if self.ask()[0] == 200:
                return
            time.sleep(0.05)
        raise AssertionError("the keys do not come back")

    def store(self) -> int:
        """The process that has the keys open."""
        for children in Path(f"/proc/{self.served.process.pid}/task").glob("*/children"):
            for child in children.read_text().split():
                if b"denature.serve.keys.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        raise AssertionError("no process of the keys")

    def check(self) -> None:
        """Nothing was charged that was not answered, and the other way round."""
        with contextlib.closing(open_keys(str(self.keys))) as keys:
            assert [account.used for account in keys.accounts()] == [self.answered]
        assert self.served.process.poll() is None
        assert self.served.send("GET", "/v2/health/live")[0] == 200


@contextlib.contextmanager
def running(
    victim: Run, *words: str, stderr: int | None = None, env: dict[str, str] | None = None
) -> Iterator[Served]:
    with Command(
        *("serve", f"m={victim.folder}", "--port", "0", "--device", "cpu", *words),
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **(env or {})},
    ) as process:
        assert process.stdout is not None
        found = re.match(r"http://([\d.:]+)/", process.stdout.readline())
        assert found is not None
        try:
            yield Served(process, found[1], Path("none"))
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
