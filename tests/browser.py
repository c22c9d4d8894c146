"""A page in headless Chromium: what it logs, and what a probe in it finds."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--hide-scrollbars", "--window-size=1400,1000"),
)


def probe(page: str, script: str, folder: Path, *, width: int, dark: bool = False) -> Any:
    """Open a page in a frame and return what a script finds in it.

    A window is at least 500 pixels wide, a frame is as wide as is asked for.

    Args:
        page: HTML text.
        script: body of a function of `view` and `page`, window and document of the frame; what it
            returns is turned into JSON.
        folder: for the profile and the file.
        width: of the frame, in pixels.
        dark: the scheme that the reader prefers.

    Raises:
        AssertionError: the page logged something, or the script failed.
    """
    assert CHROMIUM is not None
    file = folder / "probe.html"
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><iframe style="width:{width}px;height:900px;'
        f'border:0" srcdoc="{escape(page)}"></iframe><pre></pre><script>onload = () => {{\n'
        "const view = document.querySelector('iframe').contentWindow, page = view.document;\n"
        f"const found = (() => {{ {script} }})();\n"
        "document.querySelector('pre').textContent = JSON.stringify(found); };</script>",
        encoding="utf-8",
    )
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, scheme, f"--user-data-dir={folder / 'profile'}", "--dump-dom",
         file.as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    logged = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not logged, logged
    found = re.findall(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert any(found), done.stderr[-2000:]
    return json.loads(unescape(found[-1]))
