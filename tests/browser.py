"""A page in headless Chromium: what it logs, what a probe finds, what axe-core objects to."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--hide-scrollbars", "--window-size=1400,1000"),
)

NEWER = 'axe.configure({checks: [{id: "aria-valid-attr", options: ["aria-description"]}]});\n'
"""An attribute of ARIA 1.3, which is newer than this axe-core."""


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
    file = folder / "probe.html"
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><iframe style="width:{width}px;height:900px;'
        f'border:0" srcdoc="{escape(page)}"></iframe><pre></pre><script>onload = () => {{\n'
        "const view = document.querySelector('iframe').contentWindow, page = view.document;\n"
        f"const found = (() => {{ {script} }})();\n"
        "document.querySelector('pre').textContent = JSON.stringify(found); };</script>",
        encoding="utf-8",
    )
    found = re.findall(r"<pre>(.*?)</pre>", _opened(file, folder, dark=dark), re.DOTALL)
    assert found[-1], "the script failed"
    return json.loads(unescape(found[-1]))


def violations(page: str, folder: Path, *, dark: bool = False) -> list[str]:
    """Rules of axe-core (WCAG 2.1 and its best practices) that a page breaks, with an element.

    Skips the test, and says so, where Chromium or axe-core is missing.
    """
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    axe = files(pytest.importorskip("axe_core_python")).joinpath("axe.min.js").read_text("utf-8")
    assert page.count("</body>") == 1
    code = axe.replace("</script", "<\\/script")
    file = folder / "axe.html"
    file.write_text(
        page.replace(
            "</body>",
            f"<script>{code}</script><script>{NEWER}onload = () => axe.run().then((found) => {{\n"
            "const text = found.violations.map((rule) => "
            "`${rule.id}: ${rule.nodes[0].html.slice(0, 200)}`);\n"
            "const pre = document.createElement('pre'); pre.textContent = JSON.stringify(text);\n"
            "document.body.append(pre); });</script></body>",
        ),
        encoding="utf-8",
    )
    text = _opened(file, folder, "--virtual-time-budget=60000", dark=dark)
    said = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)
    assert said, "axe-core did not end"
    found: list[str] = json.loads(unescape(said[-1]))
    return found


def _opened(file: Path, folder: Path, *flags: str, dark: bool) -> str:
    """The document after its scripts ran."""
    assert CHROMIUM is not None
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, scheme, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom",
         file.as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    logged = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not logged, logged
    assert "<pre>" in done.stdout, done.stderr[-2000:]
    return done.stdout
