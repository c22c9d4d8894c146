"""denature rest: the description of an HTTP API, tried."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from denature.cli.commands import COMMANDS, SUBCOMMANDS, epilogue
from denature.cli.options import OutputFlags, OutputOptions
from denature.cli.terminal import print
from denature.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

SHOWN = 400
"""Characters of a request's body that are printed."""

MOST = 5
"""Scores that are printed."""


app = App(name="rest", help_epilogue=epilogue(COMMANDS["rest"].examples))


@app.command(name="try", help_epilogue=epilogue(SUBCOMMANDS["rest try"]))
def try_once(
    description: Path, image: Path, *, output_options: OutputFlags = OutputOptions()
) -> None:
    """Send one image to an HTTP API as its description says, and print what is read of the reply.

    This is one query. A description is a TOML file, and a model for steal, audit, robustness, mark
    and speed.

    Args:
        description: The .toml file.
        image: An image file, resized where the description states a size.
    """
    from denature.extract.victims.base import run_now
    from denature.extract.victims.rest.spec import read_spec
    from denature.extract.victims.rest.victim import Exchange, RestVictim
    from denature.remote.config import RequestConfig

    spec = read_spec(description)
    pixels = _pixels(image, size=spec.image.size, channels=spec.image.takes)
    victim = RestVictim(spec, pace=RequestConfig())

    async def send() -> Exchange:
        async with victim:
            return await victim.exchange(pixels)

    sent = run_now(send())
    result: dict[str, Any] = {
        "request": {
            "method": sent.method,
            "url": sent.url,
            "headers": sent.headers,
            "body": _excerpt(sent.body.content),
        },
        "status": sent.response.status,
        "reply": victim.excerpt(sent.response.body),
    }
    fault = None
    if sent.response.status == 200:
        try:
            values = victim.read(sent.response.body, count=1)
            result |= {"kind": spec.reply.shown, "read": _read(values[0], spec.reply.classes)}
        except ValueError as error:
            fault = str(error)
    if output_options.json:
        print(json.dumps({**result, "error": fault}))
    else:
        _print(result)
    if fault is not None:
        raise ConfigError(f"{description} does not fit the reply: {fault}.")
    if sent.response.status != 200:
        raise ConfigError(
            f"{sent.url} answered {sent.response.status}; wanted is 200. Check url, headers and "
            f"key in {description} beside the reply above."
        )


def _print(result: dict[str, Any]) -> None:
    sent = result["request"]
    print(f"{sent['method']} {sent['url']}")
    for name, text in sent["headers"].items():
        print(f"{name}: {text}")
    print(f"\n{sent['body']}\n")
    print(f"answered {result['status']}: {result['reply']}")
    if "read" in result:
        found = ", ".join(f"{name} {value:.4g}" for name, value in result["read"].items())
        print(f"read as {result['kind']}: {found}")


def _read(row: Any, classes: tuple[str, ...]) -> dict[str, float]:
    """The largest scores by class, or the class itself."""
    import numpy as np

    if np.ndim(row) == 0:
        return {classes[int(row)] if classes else str(int(row)): 1.0}
    known = np.flatnonzero(np.isfinite(row))
    order = known[np.argsort(-row[known], kind="stable")][:MOST]
    return {classes[place] if classes else str(place): float(row[place]) for place in order}


def _excerpt(body: bytes) -> str:
    text = body[:SHOWN].decode("utf-8", "replace")
    rest = len(body) - SHOWN
    return text if rest <= 0 else f"{text}... and {rest:,} bytes more"


def _pixels(file: Path, *, size: int | None, channels: int | None) -> "np.ndarray":
    """An image file as uint8, 1 x channels x height x width."""
    import numpy as np

    from denature.data.decode import to_array
    from denature.data.pictures import BadImage, open_image

    try:
        picture = open_image(file)
        if channels is None and picture.mode in ("1", "L"):
            channels = 1
        if size is not None:
            array = to_array(picture, channels=channels or 3, size=size, fit=True)
            assert array is not None
            return array[None]
    except (BadImage, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from None
    if channels == 1:
        return np.asarray(picture.convert("L"))[None, None]
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)[None]
