"""Descriptions of HTTP APIs, and the victims that follow from them."""

from pathlib import Path

import numpy as np

from denature.extract.victims.base import run_now
from denature.extract.victims.find import find

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6), dtype=np.uint8)

KEY = "sk-live-Zm9vYmFyLXNlY3JldC0wMTIzNDU2Nzg5"


def described(folder: Path, text: str, **changes: str) -> Path:
    path = folder / "api.toml"
    for name, value in changes.items():
        text = text.replace(f"<{name}>", value)
    path.write_text(text)
    return path


def asked(path: Path, images: np.ndarray = IMAGES[:1]) -> np.ndarray:
    victim = find(str(path))

    async def ask() -> np.ndarray:
        async with victim:
            return await victim.ask(images, id="1")

    return run_now(ask())
