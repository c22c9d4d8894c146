"""denature serve, keys and export: the victim's side of a wire."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from cyclopts import Group, Parameter

from denature.cli.models import NetworkFlags, ServedFlags
from denature.cli.options import FromFile, OutputFlags, OutputOptions, Trust
from denature.cli.terminal import print
from denature.core.errors import ConfigError
from denature.core.schema import encode
from denature.recipes.models import (
    NetworkOptions,
    ServedOptions,
    check_options,
    is_network,
    is_weights,
    open_run,
    served_options_of,
    trusted,
)
from denature.serve.config import (
    DefenseConfig,
    Exposure,
    ServedModel,
    ServerLimits,
    Serving,
)
from denature.serve.upstream_config import UpstreamConfig
from denature.train.config import Device, Precision

if TYPE_CHECKING:
    from denature.serve.keys.base import Keys

EXPOSURE = Group("What answers show", sort_key=2)
DEFENSE = Group("Defenses of the answers", sort_key=3)
UPSTREAM = Group("A server that exists", sort_key=4)
LIMITS = Group("Limits", sort_key=5)

PATIENCE_S = 10.0
"""Seconds for which `denature keys` waits for a file that servers write."""


def serve(
    *models: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    keys: str | None = None,
    log: str | None = None,
    metrics_token: Annotated[str | None, Parameter(env_var="DENATURE_METRICS_TOKEN")] = None,
    network: ServedFlags = ServedOptions(),
    exposure: Annotated[Exposure, Parameter(name="*", group=EXPOSURE), FromFile] = Exposure(),
    defense: Annotated[DefenseConfig, Parameter(name="*", group=DEFENSE)] = DefenseConfig(),
    upstream: Annotated[UpstreamConfig, Parameter(name="*", group=UPSTREAM)] = UpstreamConfig(),
    upstream_key: Annotated[
        str | None, Parameter(env_var="DENATURE_UPSTREAM_KEY", group=UPSTREAM)
    ] = None,
    limits: Annotated[ServerLimits, Parameter(name="*", group=LIMITS), FromFile] = ServerLimits(),
    device: Device = "auto",
    precision: Precision = "fp32",
    trust: Trust = (),
    behind_proxy: tuple[str, ...] = (),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Serve models over the Open Inference Protocol, as KServe, Triton and MLServer do.

    A model is a run's folder, a file of weights with --net, hf:owner/name, timm:NAME or
    torchvision:NAME, an .onnx or .pt2 file, or package.module:function. NAME=MODEL serves it under
    another name, MODEL@show=label+decimals=2 sets what its answers show, and
    MODEL@defense=rounding@decimals=1+label-only its defenses. With --upstream URL the models are
    those of a server that exists, for its clients unchanged.

    Args:
        models: MODEL, NAME=MODEL, NAME=MODEL@show=label or MODEL@defense=NAME@option=value+NAME,
            with defense last; with --upstream its models' names in place of runs, by default all.
        host: Address to listen at; 0.0.0.0 for all addresses of this machine.
        port: Port to listen at; 0 takes a free one.
        workers: Processes that answer, each with all models.
        keys: File or redis:// URL of the accepted keys, made by `denature keys`; without this
            option requests need no key. A Redis' password comes from DENATURE_REDIS_PASSWORD.
        log: File for the access log, one line per request, or off; standard error by default.
        metrics_token: Token that shows /metrics, as Authorization: Bearer TOKEN; by default they
            are shown on this machine alone. The environment keeps it out of the list of processes.
        upstream_key: Bearer token for the server that exists; the environment keeps it out of the
            list of processes.
        device: Device to compute on.
        precision: Precision of inference.
        trust: A module of your own that a run's record may import, or a .pt2 file that may be
            loaded although this can execute code; repeat the option for several.
        behind_proxy: Address or network of a proxy in front, whose X-Forwarded-For names the client
            and whose connections are not bounded for one peer; repeat the option for several.
    """
    from denature.serve.listen import listen

    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1.")
    if upstream.upstream is None:
        named = [ServedModel.of(text, exposure, defense.defense) for text in models]
        check_options({model.run: served_options_of(model.run) for model in named}, network)
        served = tuple(_known(model, network, trust) for model in named)
    else:
        from denature.serve.upstream import find_models

        check_options({upstream.upstream: ()}, network)
        served = find_models(models, upstream, exposure, defense.defense, key=upstream_key)
    serving = Serving(
        models=served,
        upstream=upstream,
        upstream_key=upstream_key,
        limits=limits,
        defense=defense,
        keys=keys,
        log=log,
        metrics_token=metrics_token,
        device=device,
        precision=precision,
        trust=trusted(network, trust),
        behind_proxy=behind_proxy,
    )

    def announce(url: str) -> None:
        for warning in _warnings(serving, host):
            print(warning, file=sys.stderr, flush=True)
        if output_options.json:
            exposures = {model.name: encode(model.exposure) for model in serving.models}
            defenses = {model.name: model.chain.name for model in serving.models}
            about = {"url": url, "models": exposures, "defenses": defenses}
            print(json.dumps({**about, "warnings": _warnings(serving, host)}), flush=True)
            return
        for model in serving.models:
            print(f"{url}/v2/models/{model.name} shows {_about(model)}", flush=True)

    listen(serving, host=host, port=port, workers=workers, announce=announce)


def _known(served: ServedModel, options: ServedOptions, trust: tuple[str, ...]) -> ServedModel:
    """A model with all that processes that serve it need to know; weights by their run's folder."""
    if is_weights(served.run):
        run = open_run(served.run, options, images=options.images, trust=trust)
        served = replace(served, run=str(run.folder))
    if is_network(served.run):
        return served.resolved()
    from denature.answers.scaling import PixelScale
    from denature.serve.functions import find_function

    return find_function(
        served,
        channels=options.channels,
        image_size=options.image_size,
        classes=options.classes,
        kind=options.kind,
        pixels=PixelScale(scale=options.scale, mean=options.mean, std=options.std),
        trust=trust,
    )


def _warnings(serving: Serving, host: str) -> list[str]:
    from denature.serve.keys import is_readable_by_others

    found = [
        f"{model.name}: what {model.chain.name} remembers is lost at the end; --defense-state "
        "FOLDER keeps it."
        for model in serving.models
        if serving.defense.defense_state is None and model.chain.remembers
    ]
    if serving.keys is None:
        found.append(f"Without --keys every client that reaches {host} is answered.")
    elif is_readable_by_others(serving.keys):
        found.append(f"Other users can read the keys: chmod 600 {serving.keys}")
    return found


def _about(model: ServedModel) -> str:
    exposure = model.exposure
    top = f"the {exposure.top} largest " if exposure.top else ""
    rounded = "" if exposure.decimals is None else f", {exposure.decimals} decimals"
    behind = f" behind {model.chain.name}" if model.chain.defenses else ""
    return f"{top}{exposure.kind}{rounded}{behind}"


def export(
    model: str,
    /,
    *,
    network: NetworkFlags = NetworkOptions(),
    format: Literal["onnx", "pt2"] = "onnx",
    out: Path | None = None,
    trust: Trust = (),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Write a run's network for other servers: from images in [0, 1] of any batch size to logits.

    Args:
        model: A run's folder, a file of weights with --net, or hf:owner/name, timm:NAME or
            torchvision:NAME.
        format: onnx, for ONNX Runtime, Triton and others; pt2, for torch.export.load.
        out: The file to write; network.onnx or network.pt2 in the run's folder by default.
        trust: A module of your own that the run's record may import; repeat the option for several.
    """
    from denature.serve.export import export as write

    run = open_run(model, network, images=network.images, trust=trust)
    assert run.folder is not None
    path = out or run.folder / f"network.{format}"
    apart = write(run, path, format)
    size = path.stat().st_size
    if output_options.json:
        print(json.dumps({"file": str(path), "bytes": size, "apart": apart}))
        return
    print(
        f"{path}: {size / 1e6:.1f} MB; its logits are within {apart:.1g} of the network's, as a "
        "share of their spread."
    )


NEW_KEY = (
    "That is the key of {name}, shown this once: only its hash is kept. Clients send it as "
    "'Authorization: Bearer KEY'."
)


class Bounds(NamedTuple):
    """Bounds of a key; None for none, or where it is not given."""

    budget: int | None
    rate: float | None
    burst: int | None


def _change(accounts: "Keys", name: str, given: Bounds, unlimited: Sequence[str]) -> None:
    """Replace the given bounds of a key, and take the `unlimited` ones away."""
    both = [bound for bound in unlimited if getattr(given, bound) is not None]
    if both:
        raise ConfigError(f"{both[0]} has a value and is to be unlimited; leave one of them out.")
    if not unlimited and given == (None, None, None):
        raise ConfigError("Name what changes: --budget, --rate, --burst or --unlimited.")
    found = [account for account in accounts.accounts() if account.name == name]
    new = given._asdict()
    # A burst belongs to its rate.
    ends = {*unlimited, *(["burst"] if "rate" in unlimited else [])}
    for bound in [] if not found else new.keys() - ends:
        if new[bound] is None:
            new[bound] = getattr(found[0], bound)
    accounts.change(name, **new)


def keys(
    place: str,
    *,
    add: str | None = None,
    change: str | None = None,
    remove: str | None = None,
    budget: int | None = None,
    rate: float | None = None,
    burst: int | None = None,
    unlimited: tuple[Literal["budget", "rate", "burst"], ...] = (),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """List, add, change or remove the keys of a server; running servers apply it at once.

    Args:
        place: The file of the keys, made when the first key is added; or redis://HOST:PORT/DB, for
            servers on several machines.
        add: Name of a new key; the key itself is printed once and only its hash is kept.
        change: Name of a key whose bounds are replaced by those that are given; others stay.
        remove: Name of a key to revoke.
        budget: Images that a new key may query in total; unlimited by default.
        rate: Images per second that a new key may query; unlimited by default.
        burst: Images at once under the rate, and so the largest request; one second's worth by
            default.
        unlimited: Bounds that --change takes away; repeat the option for several.
    """
    from denature.cli.show import print_table
    from denature.serve.keys import open_keys

    if add is not None and unlimited:
        raise ConfigError("A new key has the bounds that are given; leave --unlimited out.")
    if sum(name is not None for name in (add, change, remove)) > 1:
        raise ConfigError("Take one of --add, --change and --remove.")
    with closing(open_keys(place, make=add is not None, patience_s=PATIENCE_S)) as accounts:
        if add is not None:
            key = accounts.add(add, budget=budget, rate=rate, burst=burst)
            print(json.dumps({"name": add, "key": key}) if output_options.json else key)
            if not (output_options.json or output_options.quiet):
                print(NEW_KEY.format(name=add), file=sys.stderr)
            return
        if change is not None:
            _change(accounts, change, Bounds(budget, rate, burst), unlimited)
        elif remove is not None:
            accounts.remove(remove)
        elif (budget, rate, burst) != (None, None, None) or unlimited:
            raise ConfigError(
                "--budget, --rate and --burst belong to a key: name it by --add or --change, and "
                "by --change for --unlimited."
            )
        listed = accounts.accounts()
    if output_options.json:
        for account in listed:
            print(json.dumps(asdict(account)))
        return
    lines = [["Key", "Used", "Budget", "Images/s", "At once"]]
    for account in listed:
        bounds = (
            "" if bound is None else f"{bound:,g}"
            for bound in (account.budget, account.rate, account.burst)
        )
        lines.append([account.name, f"{account.used:,}", *bounds])
    print_table(lines)
