"""Ask the hub, or the cache of what came from it; what it refuses becomes one line.

Everything goes through huggingface_hub, which is imported when a repository is first asked for.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from kntrace.errors import HubError, SuiteError
from kntrace.suite.known import nearest_repository

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

__all__ = [
    "at_once",
    "branches_and_tags",
    "cached_branches_and_tags",
    "cached_repositories",
    "fetch",
    "hashes",
    "offline",
    "repositories",
    "snapshot",
    "tree",
]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_TIMEOUT = 10.0
"""Seconds in which the hub must answer the first question."""

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
            api.auth_check(repository)
        refs = api.list_repo_refs(repository)
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
        return [info.id for info in api.list_models(author=owner, search=search or None)]


def tree(repository: str, revision: str) -> dict[str, int]:
    """Return the size in bytes of each file at the root of a revision. One request."""
    with _explained(repository, revision) as api:
        entries = list(api.list_repo_tree(repository, revision=revision))
    return {entry.path: entry.size for entry in entries if hasattr(entry, "size")}


def hashes(repository: str, revision: str) -> dict[str, tuple[str, int]]:
    """Return SHA-256 (hex) and size of each large file at the root of a revision. One request."""
    with _explained(repository, revision) as api:
        entries = list(api.list_repo_tree(repository, revision=revision))
    large = {entry.path: getattr(entry, "lfs", None) for entry in entries}
    return {path: (lfs.sha256, lfs.size) for path, lfs in large.items() if lfs is not None}


def fetch(repository: str, revision: str, names: list[str]) -> Path:
    """Bring files of a revision into the cache, those that are not there yet, without a bar."""
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm

    class Silent(tqdm):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named | {"disable": True})

    with _explained(repository, revision) as api:
        try:
            found = snapshot_download(
                repository,
                revision=revision,
                allow_patterns=names,
                endpoint=api.endpoint,
                tqdm_class=Silent,
            )
        except OSError as failure:
            if failure.errno != errno.ENOSPC:
                raise
            fix = "Make room, or set HF_HUB_CACHE to another disk; what came is kept."
            raise HubError("the disk is full", where=_cache(), fix=fix) from None
    return Path(found)


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
    where = repository if revision is None else f"{repository} at {revision}"
    try:
        yield api
    except errors.GatedRepoError:
        raise SuiteError(
            "the repository is gated, and you have no access to it",
            where=where,
            fix="Accept its licence on the hub, then log in with `hf auth login`.",
        ) from None
    except errors.RevisionNotFoundError:
        raise SuiteError("there is no such revision", where=where) from None
    except errors.RepositoryNotFoundError:
        raise _absent(repository) from None
    except errors.DisabledRepoError:
        raise SuiteError("the repository was disabled on the hub", where=where) from None
    except errors.HfHubHTTPError as failure:
        if failure.response.status_code in (401, 403):
            raise SuiteError(
                f"the hub refuses access ({_said(failure)})",
                where=where,
                fix="Log in again with `hf auth login`.",
            ) from None
        raise HubError(
            f"the hub answered {failure.response.status_code} ({_said(failure)})",
            where=where,
            fix="Try again later, or use what is in the cache with HF_HUB_OFFLINE=1.",
        ) from None
    except (_http_error(), OSError) as failure:
        raise HubError(
            f"{api.endpoint} cannot be reached: {str(failure) or type(failure).__name__}",
            where=where,
            fix="Without a network, set HF_HUB_OFFLINE=1 to use what is in the cache.",
        ) from None
    except errors.HFValidationError as failure:
        raise SuiteError(f"no repository can be called so: {failure}", where=where) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HubError(
            f"{api.endpoint} does not answer as the hub does",
            where=where,
            fix="Is there a log-in page between, or does HF_ENDPOINT name something else?",
        ) from None


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


# The cache


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folder(repository: str) -> Path:
    return _cache() / f"models--{repository.replace('/', '--')}"


def snapshot(repository: str, commit: str) -> Path:
    """Return the folder in which the cache keeps the files of a commit, if it has any."""
    return _folder(repository) / "snapshots" / commit


def cached_branches_and_tags(repository: str) -> dict[str, str]:
    """Return the commit of every branch and tag of which something was ever fetched."""
    refs = _folder(repository) / "refs"
    found: dict[str, Any] = {}
    for path in sorted(refs.rglob("*")) if refs.is_dir() else []:
        if path.is_file() and not path.is_relative_to(refs / "refs"):  # pull requests
            found[path.relative_to(refs).as_posix()] = path.read_text(encoding="ascii").strip()
    return found


def cached_repositories(owner: str) -> list[str]:
    """Return the ids of an owner's repositories of which something is in the cache."""
    prefix = f"models--{owner}--"
    return sorted(
        f"{owner}/{path.name.removeprefix(prefix)}" for path in _cache().glob(f"{prefix}*")
    )
