"""Runs on the Hugging Face hub: pushed in one commit, pulled as files that are not trusted.

The repository of a run holds a model card, the record and the weights. The token is the one that
huggingface_hub finds: HF_TOKEN, or what `hf auth login` left.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from denature import __version__
from denature.core.errors import ConfigError, DenatureError, RunError, needs
from denature.core.names import FOLDER, library_of
from denature.core.progress import SILENT, Progress
from denature.core.record import RECORD, NetRecord, Record, read_record
from denature.core.sealed import content_digest
from denature.core.sniffing import is_safetensors
from denature.core.untrusted import MIB, MOST_JSON
from denature.core.weights import WEIGHTS, read_weights
from denature.nets import outline_of, parameter_count
from denature.remote.redaction import server_text
from denature.train.run import Run, keep_run, load_run

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

CARD = "README.md"

MADE_BY_THE_HUB = {".gitattributes"}
"""Files of an empty repository."""

MOST_EACH = 16
"""Bytes of weights for each parameter at most: eight for its value, as many for buffers."""

MOST_HEADER = 16 * MIB
"""Bytes of weights beside their values at most."""

MOST_FETCHED = 8192 * MIB
"""Bytes of weights at most, also of a network that cannot be outlined; ViT-G has 7,400 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """The files of one push."""

    repository: str
    """`owner/name`."""
    card: str
    """Markdown with the hub's block of metadata."""
    record: Record
    """See `denature.train.shareable.shareable`."""
    weights: Path

    @property
    def files(self) -> dict[str, bytes | Path]:
        """By name in the repository."""
        record = self.record.to_json(indent=1) + "\n"
        return {CARD: self.card.encode(), RECORD: record.encode(), WEIGHTS: self.weights}


class Pushed(NamedTuple):
    """What a push did."""

    url: str
    sent: bool
    """False where the repository held this run already."""


def repository_of(name: str) -> str:
    """`owner/name` of `hf:owner/name`.

    Raises:
        ConfigError: no such name.
    """
    named = library_of(name)
    if named is None or named[0] != "hf" or "/" not in named[1] or re.fullmatch(FOLDER, named[1]):
        raise ConfigError(f"{name!r} is no repository of the hub; wanted is hf:owner/name.")
    return named[1]


def checked_weights(folder: Path, net: NetRecord) -> Path:
    """The file of a run's weights, which holds tensors alone and those that its record names.

    Raises:
        RunError: it is another file, damaged, or changed.
    """
    path = folder / WEIGHTS
    if not path.is_file() or not is_safetensors(path):
        raise RunError(f"{path} is no safetensors file; wanted is the folder of a finished run.")
    if content_digest(read_weights(path))[:16] != net.digest:
        raise RunError(
            f"The weights in {folder} are not those that its record names. Restore "
            "weights.safetensors from a copy, or make the run again with --overwrite."
        )
    return path


def push(
    upload: Upload, *, public: bool = False, overwrite: bool = False, progress: Progress = SILENT
) -> Pushed:
    """Send a run to the hub in one commit, so that no reader finds a part of it.

    Nothing is written on this machine. A push that was killed leaves an empty repository at most,
    and the next one goes on.

    Args:
        upload: the files.
        public: whether the repository is public; an existing one must be as said.
        overwrite: replace all files of the repository, such as those of another run.
        progress: display of progress.

    Raises:
        ConfigError: the repository exists with another visibility.
        RunError: the repository holds other files, or the hub refused.
        MissingExtra: huggingface_hub is not installed.
    """
    repository = upload.repository
    with needs("hub", "A push to the hub"):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    with _reaching(repository, progress, "pushing to") as api:
        there = _info(api, repository)
        if there is not None:
            _check_visibility(repository, there, public=public)
            if not overwrite and _holds(api, repository, there, upload.record):
                return Pushed(f"{api.endpoint}/{repository}", sent=False)
        else:
            api.create_repo(repository, private=not public)
        files = upload.files
        done = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, content) for name, content in files.items()),
                *(CommitOperationDelete(name) for name in sorted(_names(there) - files.keys())),
            ],
            commit_message=f"{upload.record.kind} {upload.record.net.name}, {upload.record.id}",
            parent_commit=None if there is None else there.sha,
        )
        return Pushed(done.repo_url.url, sent=True)


def pull(
    repository: str,
    *,
    revision: str | None = None,
    trust: Collection[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Run:
    """Fetch a run from the hub: record and weights alone, whose sizes are checked beforehand.

    Both are read as those of any stranger, compared with each other, and written anew. Files are
    fetched into the cache of huggingface_hub, so that a pull that was killed goes on.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; the newest by default.
        trust: modules that the record may name as its network's factory.
        out: folder of the run; in memory without it.
        overwrite: replace another run in that folder.
        progress: display of progress.

    Raises:
        RunError: no run, a damaged or foreign one, or the hub cannot be reached.
        MissingExtra: huggingface_hub is not installed, or the network's library.
    """
    with _reaching(repository, progress, "pulling") as api:
        folder = _fetched(api, repository, RECORD, revision, most=MOST_JSON).parent
        most = _most_weights(repository, read_record(folder).net)
        weights = _fetched(api, repository, WEIGHTS, folder.name, most=most)
    if not is_safetensors(weights):
        raise RunError(
            f"{WEIGHTS} of hf:{repository} is no safetensors file; nothing else is opened, since "
            "reading a pickle can execute code."
        )
    run = replace(load_run(weights.parent, trust=trust), folder=None)
    return run if out is None else keep_run(run, Path(out), overwrite=overwrite)


def is_run(repository: str) -> bool:
    """Whether a repository of the hub is of a run, and not of a model of another library.

    Without a connection the cache of huggingface_hub decides.
    """
    if re.fullmatch(FOLDER, repository):
        return False
    try:
        from huggingface_hub import HfApi, try_to_load_from_cache
    except ImportError:
        return False
    try:
        return HfApi().file_exists(repository, RECORD)
    except Exception:  # whatever fails here, the caller's own request says it
        return isinstance(try_to_load_from_cache(repository, RECORD), str)


def _info(api: "HfApi", repository: str) -> "ModelInfo | None":
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repository)
    except RepositoryNotFoundError:
        return None


def _names(there: "ModelInfo | None") -> set[str]:
    """Files of a repository, but those that the hub made."""
    siblings = () if there is None else there.siblings or ()
    return {file.rfilename for file in siblings} - MADE_BY_THE_HUB


def _check_visibility(repository: str, there: "ModelInfo", *, public: bool) -> None:
    """Check that an existing repository is as public as the push shall be."""
    if bool(there.private) is not public:
        return
    raise ConfigError(
        f"hf:{repository} is private, and a push does not change that; leave out --public."
        if public
        else f"hf:{repository} exists and is public; pass --public to publish the run there."
    )


def _holds(api: "HfApi", repository: str, there: "ModelInfo", record: Record) -> bool:
    """Whether a repository holds this run; False where it is empty.

    Raises:
        RunError: it holds something else.
    """
    names = _names(there)
    if not names:
        return False
    if RECORD in names:
        with suppress(RunError):
            found = read_record(_fetched(api, repository, RECORD, there.sha, most=MOST_JSON).parent)
            if (found.id, found.net.digest) == (record.id, record.net.digest):
                return True
    raise RunError(
        f"hf:{repository} holds another run or files of its own, such as {min(names)}. Name "
        "another repository, or pass --overwrite to replace it."
    )


def _fetched(api: "HfApi", repository: str, name: str, revision: str | None, *, most: int) -> Path:
    """A file in the cache of huggingface_hub, in a folder that is named after its commit.

    Raises:
        RunError: there is none, or it is larger than `most` bytes.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        about = api.hf_hub_download(repository, name, revision=revision, dry_run=True)
        _check_size(repository, name, about.file_size, most)
        # By the same name of a revision, which the cache then knows without a connection.
        path = Path(api.hf_hub_download(repository, name, revision=revision))
    except RemoteEntryNotFoundError:
        raise RunError(
            f"hf:{repository} has no {name}, so it holds no run that denature pushed. A model of "
            f"transformers is named as it is: denature eval hf:{repository} --data DATA."
        ) from None
    _check_size(repository, name, path.stat().st_size, most)
    return path


def _most_weights(repository: str, net: NetRecord) -> int:
    """Bytes that the weights of a network have at most, by its outline and not by its record alone.

    Raises:
        RunError: the record states another number of parameters than the network has.
        ConfigError: see `denature.nets.create`.
    """
    outline = outline_of(
        net.name, classes=net.classes, channels=net.channels, image_size=net.image_size
    )
    if outline is not None and (count := parameter_count(outline)) != net.parameters:
        raise RunError(
            f"{RECORD} of hf:{repository} states {net.parameters:,} parameters for {net.name}, "
            f"which has {count:,}; it is no record of such a run."
        )
    return min(MOST_FETCHED, MOST_HEADER + MOST_EACH * net.parameters)


def _check_size(repository: str, name: str, size: int | None, most: int) -> None:
    if size is None or size > most:
        raise RunError(
            f"{name} of hf:{repository} has {'unknown' if size is None else f'{size:,}'} bytes; "
            f"wanted are at most {most:,}."
        )


@contextmanager
def _reaching(repository: str, progress: Progress, deed: str) -> "Iterator[HfApi]":
    """A client of the hub, whose failures become one line with the next step, without the token.

    Raises:
        RunError: the hub cannot be reached, or refused.
        MissingExtra: huggingface_hub is not installed.
    """
    with needs("hub", f"Work with hf:{repository}"):
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils.tqdm import (
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
        )

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with progress.task(f"{deed} hf:{repository}", 0, "files"):
            yield HfApi(library_name="denature", library_version=__version__)
    except DenatureError:
        raise
    except Exception as error:  # the library and its HTTP client raise many kinds
        said = server_text(_said(error), [get_token() or ""])
        raise RunError(f"hf:{repository}: {said} {_way(error)}".rstrip()) from None
    finally:
        if shown:
            enable_progress_bars()


def _said(error: BaseException) -> str:
    """The first lines of an error of huggingface_hub, the hub's own words, and the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()][:2]
    words = getattr(error, "server_message", None)
    if words and words not in lines:
        lines.append(str(words))
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        lines.append(_said(error.__cause__))
    return " ".join(lines) or type(error).__name__


def _way(error: Exception) -> str:
    """The next step after an error of huggingface_hub; empty where its text says it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "Log in with `hf auth login`, or set HF_TOKEN to a token with access to it."
    if status in (None, 404) and not isinstance(error, ValueError):
        return "Is the name right, and the machine online?"
    return ""
