"""denature serve and keys: the victim's side of a wire."""

import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from denature.cli.options import OutputFlags, OutputOptions, RunFolder, Trust
from denature.core.errors import ConfigError
from denature.core.schema import encode
from denature.serve.config import Exposure, Limits, ServedModel, Serving
from denature.train.config import Device, Precision

EXPOSURE = Group("What answers show", sort_key=2)
LIMITS = Group("Limits", sort_key=3)


def serve(
    *models: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    keys: str | None = None,
    log: str | None = None,
    exposure: Annotated[Exposure, Parameter(name="*", group=EXPOSURE)] = Exposure(),
    limits: Annotated[Limits, Parameter(name="*", group=LIMITS)] = Limits(),
    device: Device = "auto",
    precision: Precision = "fp32",
    trust: Trust = (),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Serve networks over the Open Inference Protocol, as KServe, Triton and MLServer do.

    A model is a run's folder; NAME=RUN gives it another name, and NAME=RUN@show=label+decimals=2
    says what its answers show where the others show something else.

    Args:
        models: RUN, NAME=RUN or NAME=RUN@show=label.
        host: Address to listen at; 0.0.0.0 for all of this machine's.
        port: Its port; 0 takes a free one.
        workers: Processes that answer, each with all models.
        keys: File or redis:// URL of the keys that may ask, made by `denature keys`; without,
            everybody may.
        log: File for one line a request, or off; standard error by default.
        device: Where to compute.
        precision: In which precision.
        trust: A module of your own that a run's record may import.
    """
    from denature.serve.listen import listen

    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1.")
    serving = Serving(
        models=tuple(ServedModel.of(text, exposure).resolved() for text in models),
        limits=limits,
        keys=keys,
        log=log,
        device=device,
        precision=precision,
        trust=trust,
    )

    def announce(url: str) -> None:
        if showing.json:
            told = {placed.name: encode(placed.exposure) for placed in serving.models}
            print(json.dumps({"url": url, "models": told}), flush=True)
            return
        for placed in serving.models:
            print(f"{url}/v2/models/{placed.name} shows {_about(placed.exposure)}", flush=True)
        if keys is None and host not in ("127.0.0.1", "localhost", "::1"):
            print(f"Without --keys, whoever reaches {host} may ask.", file=sys.stderr)

    listen(serving, host=host, port=port, workers=workers, announce=announce)


def _about(exposure: Exposure) -> str:
    top = f"the {exposure.top} largest " if exposure.top else ""
    rounded = f", {exposure.decimals} decimals" if exposure.decimals >= 0 else ""
    return f"{top}{exposure.show}{rounded}"


def export(
    run: RunFolder,
    *,
    format: Literal["onnx", "pt2"] = "onnx",
    out: Path | None = None,
    trust: Trust = (),
    showing: OutputFlags = OutputOptions(),
) -> None:
    """Write a run's network for other servers: from images in [0, 1] of any batch size to logits.

    Args:
        run: The run.
        format: onnx, for ONNX Runtime, Triton and others; pt2, for torch.export.load.
        out: The file; network.onnx or network.pt2 in the run's folder by default.
        trust: A module of your own that the run's record may import.
    """
    from denature.serve.export import export as write
    from denature.train.run import load_run

    path = out or run / f"network.{format}"
    apart = write(load_run(run, trust=trust), path, format)
    size = path.stat().st_size
    if showing.json:
        print(json.dumps({"file": str(path), "bytes": size, "apart": apart}))
        return
    print(
        f"{path}: {size / 1e6:.1f} MB; its logits are within {apart:.1g} of the network's, as a "
        "share of their spread."
    )


def keys(
    place: str,
    *,
    add: str | None = None,
    change: str | None = None,
    remove: str | None = None,
    budget: int | None = None,
    rate: float | None = None,
    showing: OutputFlags = OutputOptions(),
) -> None:
    """List the keys of a server, add one, change or remove it; servers that run notice at once.

    Args:
        place: A file, made when the first key is added; or redis://HOST:PORT/DB, for servers on
            several machines.
        add: Name of a new key, which is printed once and kept nowhere.
        change: Name of a key to give another budget and rate.
        remove: Name of a key that may ask no more.
        budget: Images that it may ask in all; without bound by default.
        rate: Images a second; without bound by default.
    """
    from denature.cli.show import print_table
    from denature.serve.keys import open_keys

    if sum(name is not None for name in (add, change, remove)) > 1:
        raise ConfigError("Take one of --add, --change and --remove.")
    with closing(open_keys(place, make=add is not None)) as accounts:
        if add is not None:
            key = accounts.add(add, budget=budget, rate=rate)
            print(json.dumps({"name": add, "key": key}) if showing.json else key)
            return
        if change is not None:
            accounts.change(change, budget=budget, rate=rate)
        elif remove is not None:
            accounts.remove(remove)
        elif budget is not None or rate is not None:
            raise ConfigError("--budget and --rate say something of a key: name it by --add.")
        found = accounts.accounts()
    if showing.json:
        for account in found:
            print(json.dumps(asdict(account)))
        return
    lines = [["Key", "Used", "Budget", "Images/s"]]
    for account in found:
        bounds = ("" if it is None else f"{it:,g}" for it in (account.budget, account.rate))
        lines.append([account.name, f"{account.used:,}", *bounds])
    print_table(lines)
