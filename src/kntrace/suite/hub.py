"""Ask the hub; what it refuses becomes one line, and what it leaves unanswered too.

Everything goes through huggingface_hub, which is imported when a repository is first asked for.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from kntrace.errors import HubError, KntraceError, SuiteError
from kntrace.suite.known import nearest_repository

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

__all__ = [
    "RemoteFile",
    "Revision",
    "StoppedDownload",
    "at_once",
    "branches_and_tags",
    "download",
    "look_up",
    "number_formats",
    "offline",
    "repositories",
]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_TIMEOUT = 10.0
"""Seconds in which the hub must answer the first question."""

_PATIENCE = 60.0
"""Seconds in which it must answer the others, which may be long lists."""

_AT_ONCE = 8
"""Requests at a time: about what a browser makes."""


def offline() -> bool:
    """Whether the user forbade the network with HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def branches_and_tags(repository: str) -> dict[str, str]:
    """Return the commit of every branch and tag; of two of one name, the branch's.

    Two short requests, whatever their number; a third for a gated repository.

    Raises
    ------
    SuiteError
        If the repository is absent, private, gated or disabled.
    HubError
        If the hub cannot be reached or fails.
    """
    with _explained(repository) as api:
        # The one of the questions that has a time limit comes first.
        info = api.model_info(repository, timeout=_TIMEOUT)
        if info.gated:
            _in_time(lambda: api.auth_check(repository))
        refs = _in_time(lambda: api.list_repo_refs(repository))
    found = {tag.name: tag.target_commit for tag in refs.tags}
    return found | {branch.name: branch.target_commit for branch in refs.branches}


def repositories(owner: str, search: str) -> list[str]:
    """Return the ids of an owner's model repositories with `search` in their names."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        get_session,
        hf_raise_for_status,
    )

    with _explained(owner) as api:
        # The listing is tried again and again where there is no network; this is not.
        url = f"{api.endpoint}/api/models?author={quote(owner)}&limit=1"
        hf_raise_for_status(get_session().get(url, timeout=_TIMEOUT))
        found = _in_time(lambda: list(api.list_models(author=owner, search=search or None)))
        return [info.id for info in found]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and what the cache calls its content."""

    size: int
    blob: str


@dataclass(frozen=True)
class Revision:
    """A revision as it is now: its commit, and the files at its root by name."""

    commit: str
    files: dict[str, RemoteFile]

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each file in bytes."""
        return {name: file.size for name, file in self.files.items()}


def look_up(repository: str, revision: str) -> Revision:
    """Ask for the commit of a revision and for its files. One request.

    Raises
    ------
    SuiteError
        If the repository or revision is absent, private or disabled.
    HubError
        If the hub cannot be reached or fails.
    """
    with _explained(repository, revision) as api:
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=_TIMEOUT)
        if info.sha is None:
            raise ValueError("a revision without a commit")
        files = {
            file.rfilename: RemoteFile(
                file.size or 0, file.lfs.sha256 if file.lfs else file.blob_id or ""
            )
            for file in info.siblings or ()
            if "/" not in file.rfilename
        }
    return Revision(info.sha, files)


def number_formats(repository: str, commit: str, file: str) -> list[str]:
    """Return the formats of the numbers in a file of safetensors: `F16`, the commonest first."""
    from huggingface_hub.errors import SafetensorsParsingError

    with _explained(repository, commit) as api:
        try:
            read = _in_time(
                lambda: api.parse_safetensors_file_metadata(repository, file, revision=commit)
            )
        except SafetensorsParsingError as failure:
            raise SuiteError(
                f"{file} is not of the format safetensors: {failure}",
                where=f"{repository} at {commit}",
            ) from None
    counts = sorted(read.parameter_count.items(), key=lambda item: -item[1])
    return [name for name, _ in counts]


class StoppedDownload(Exception):  # noqa: N818 - nothing is wrong
    """Nobody wants any longer what was being downloaded."""


def download(
    repository: str, revision: str, file: str, told: Callable[[int], None] = lambda _: None
) -> Path:
    """Bring one file into the cache, unless it is there, and return where it lies.

    Parameters
    ----------
    told
        Called with the number of bytes whenever some have come; what it raises ends the
        download.

    Raises
    ------
    SuiteError, HubError
        As `look_up`; also if the disk is full.
    """
    from huggingface_hub import constants, hf_hub_download

    with _explained(repository, revision):
        # Where the cache lies is asked each time: a default is read when the client is imported.
        kept = hf_hub_download(
            repository,
            file,
            revision=revision,
            cache_dir=constants.HF_HUB_CACHE,
            etag_timeout=_TIMEOUT,
            tqdm_class=_meter(told),
        )
    return Path(kept)


def _meter(told: Callable[[int], None]) -> type[Any]:
    """Make what the client takes for a bar, which draws nothing."""
    from tqdm import tqdm

    class Meter(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            told(int(n or 0))

        # The client counts what came over the wire apart from what was written, if it may.
        def update_transfer(self, _: float) -> None:
            told(0)

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            pass

    return Meter


def _in_time(ask: Callable[[], Answer]) -> Answer:
    """Ask what has no time limit of its own, and wait no longer than `_PATIENCE`."""
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as failure:
            answer.set_exception(failure)

    threading.Thread(target=work, daemon=True, name="kntrace-asks").start()
    try:
        return answer.result(_PATIENCE)
    except TimeoutError:
        raise OSError(f"no answer in {_PATIENCE:.0f} s") from None


def at_once(ask: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """Ask for several things, eight at a time; the first failure ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return list(pool.map(ask, items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _explained(repository: str, revision: str | None = None) -> Iterator[HfApi]:
    """Lend the client; turn what it raises into one line."""
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        yield api
    except Exception as failure:
        # Where it had tried long enough, the client raises the reason as a cause.
        reason = failure.__cause__ if isinstance(failure, errors.LocalEntryNotFoundError) else None
        said = _in_one_line(reason or failure, api.endpoint, repository, revision)
        if said is None:
            raise
        raise said from None


def _in_one_line(
    failure: BaseException, endpoint: str, repository: str, revision: str | None
) -> KntraceError | None:
    """Say what it means that the client raised this; None if it means nothing of the hub."""
    from huggingface_hub import errors

    where = repository if revision is None else f"{repository} at {revision}"
    match failure:
        case KntraceError():
            return None
        case errors.GatedRepoError():
            return SuiteError(
                "the repository is gated, and you have no access to it",
                where=where,
                fix="Accept its licence on the hub, then log in with `hf auth login`.",
            )
        case errors.RevisionNotFoundError():
            return SuiteError("there is no such revision", where=where)
        case errors.RepositoryNotFoundError():
            return _absent(repository)
        case errors.DisabledRepoError():
            return SuiteError("the repository was disabled on the hub", where=where)
        case errors.HfHubHTTPError():
            return _refusal(failure, where)
        case errors.HFValidationError():
            return SuiteError(f"no repository can be called so: {failure}", where=where)
        case OSError() if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            return HubError(
                "the disk is full",
                where=where,
                fix="Make room and go on, or give --evict to delete each checkpoint after use.",
            )
        case OSError() if failure.filename is not None:
            return HubError(
                f"{failure.filename} cannot be written: {failure.strerror}",
                where=where,
                fix="HF_HOME says where the cache of the hub lies.",
            )
        case OSError():
            return _unreached(endpoint, failure, where)
        case ValueError() | KeyError() | TypeError() | AttributeError():
            return HubError(
                f"{endpoint} does not answer as the hub does ({type(failure).__name__}: {failure})",
                where=where,
                fix="Is there a log-in page between, or does HF_ENDPOINT name something else?",
            )
    return _unreached(endpoint, failure, where) if isinstance(failure, _http_error()) else None


def _refusal(failure: HfHubHTTPError, where: str) -> KntraceError:
    if failure.response.status_code in (401, 403):
        return SuiteError(
            f"the hub refuses access ({_said(failure)})",
            where=where,
            fix="Log in again with `hf auth login`.",
        )
    return HubError(
        f"the hub answered {failure.response.status_code} ({_said(failure)})",
        where=where,
        fix="Try again later, or use what is in the cache with HF_HUB_OFFLINE=1.",
    )


def _unreached(endpoint: str, failure: BaseException, where: str) -> HubError:
    return HubError(
        f"{endpoint} cannot be reached: {str(failure) or type(failure).__name__}",
        where=where,
        fix="Without a network, set HF_HUB_OFFLINE=1 to use what is in the cache.",
    )


def _said(failure: HfHubHTTPError) -> str:
    return failure.server_message or str(failure.response.reason_phrase)


def _http_error() -> type[Exception]:
    """The error of the library that the client speaks HTTP with: httpx, or what replaced it."""
    from huggingface_hub import errors

    kind: type[Exception] = vars(errors)["HTTPError"]
    return kind


def _absent(repository: str) -> SuiteError:
    return SuiteError(
        "there is no such repository on the hub, or it is private",
        where=repository,
        expected="owner/name, as on the hub",
        fix=nearest_repository(repository) or "If it is private, log in with `hf auth login`.",
    )
