"""Commands that share runs on the Hugging Face hub: denature push, pull."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from denature.cli.options import (
    FolderFlags,
    FolderOptions,
    OutputFlags,
    OutputOptions,
    RunFolder,
    Trust,
)
from denature.cli.terminal import print
from denature.core.schema import encode

if TYPE_CHECKING:
    from denature.train.hub import Upload

Flag = Parameter(negative="")


def push(
    run: RunFolder,
    repository: str,
    /,
    *,
    license: str | None = None,
    public: Annotated[bool, Flag] = False,
    dry_run: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Push a run to the Hugging Face hub: a model card, its record and its weights.

    Paths, addresses of services, facts of the machine and test images stay here.

    Args:
        run: Folder of a finished run.
        repository: hf:owner/name. The token is that of `hf auth login`, or of HF_TOKEN.
        license: License of the weights as the hub names it, such as apache-2.0; by default none is
            stated.
        public: Make the repository public; a new one is private by default. A push never changes
            the visibility of an existing one, and is refused where that differs.
        dry_run: Show what would be sent, and send nothing.
        overwrite: Replace all files of the repository, such as those of another run; older commits
            keep them.
    """
    from denature.core.record import read_record
    from denature.report.card import model_card
    from denature.train import hub
    from denature.train.shareable import shareable, what_is_left_out

    name = hub.repository_of(repository)
    record = read_record(run)
    shared = shareable(record)
    upload = hub.Upload(
        repository=name,
        card=model_card(shared, name, license=license),
        record=shared,
        weights=hub.checked_weights(run, record.net),
    )
    kept = what_is_left_out(record, shared)
    if dry_run:
        _show(upload, kept, public, output_options)
        return
    done = hub.push(upload, public=public, overwrite=overwrite, progress=output_options.display())
    if output_options.json:
        print(json.dumps({**_summary(upload, kept, public), "url": done.url, "sent": done.sent}))
    elif done.sent:
        print(f"{'public' if public else 'private'}: {done.url}")
    else:
        print(f"{done.url} holds this run already. --overwrite sends it again, with a new card.")


def pull(
    repository: str,
    /,
    *,
    revision: str | None = None,
    trust: Trust = (),
    folder_options: FolderFlags = FolderOptions(),
    output_options: OutputFlags = OutputOptions(),
) -> None:
    """Fetch a run that denature pushed to the Hugging Face hub, without executing anything in it.

    Record and weights alone are fetched, and checked as files of a stranger.

    Args:
        repository: hf:owner/name; the run's folder is runs/NAME by default.
        revision: Branch, tag or commit; the newest by default.
        trust: A module of your own that the run's record may import; repeat the option for several.
    """
    from denature.train import hub

    name = hub.repository_of(repository)
    folder = folder_options.out or Path("runs") / name.rpartition("/")[2]
    run = hub.pull(
        name,
        revision=revision,
        trust=trust,
        out=folder,
        overwrite=folder_options.overwrite,
        progress=output_options.display(),
    )
    if output_options.json:
        print(run.record.to_json())
        return
    net = run.record.net
    print(f"{run.record.kind} {net.name}, {net.parameters:,} parameters. Run: {folder}.")


def _summary(upload: "Upload", kept: str, public: bool) -> dict[str, Any]:
    return {
        "repository": upload.repository,
        "visibility": "public" if public else "private",
        "files": {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in upload.files.items()
        },
        "left_out": kept,
    }


def _show(upload: "Upload", kept: str, public: bool, output_options: OutputOptions) -> None:
    """What a push would send."""
    summary = _summary(upload, kept, public)
    if output_options.json:
        print(json.dumps({**summary, "card": upload.card, "record": encode(upload.record)}))
        return
    print(upload.card)
    print(f"hf:{upload.repository}, {summary['visibility']}. The card above is README.md.")
    for name, size in summary["files"].items():
        print(f"{size:14,} bytes  {name}")
    print(f"record.json is that of the run, but: {kept}. Nothing was sent.")
