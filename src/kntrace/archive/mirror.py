"""Runs in an object store, or wherever else a URL leads.

Such a store has no locks, no renaming, and takes a while for every small file. So nothing is
computed in it: a run at a URL is worked on in its mirror, a folder of this machine that begins
as what is there, and from which every finished block is sent there. One machine at a time may
write; any number may read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kntrace.archive import folder
from kntrace.archive.locks import taking_turns
from kntrace.errors import RunError

__all__ = ["Mirror", "is_url", "mirrored", "url_of"]

# A letter at least, or Windows' drives would be protocols.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://.+")
_PARTIAL = ".partial"
# What a block ends with, whatever of its scores a run keeps.
_COMMITTING = ("score", "mean_score", "kept_score")
_URL_FILE = "mirror-of-url"
_AT_ONCE = 256
_EVERY = 30.0
"""Seconds between two looks at what is to be sent while the run is worked on."""

# Of a file as it was when it was sent or fetched: its size, what the store tells it apart from
# other contents by, and when it was last changed on this machine (ns).
_Seen = tuple[int, str, int]
_INDEX: TypeAdapter[dict[str, _Seen]] = TypeAdapter(dict[str, _Seen])
_TOKENS = ("ETag", "etag", "md5", "LastModified", "last_modified", "mtime", "created")


def is_url(place: str | Path) -> bool:
    """Say whether a run's place is a URL such as `s3://bucket/run`."""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def url_of(folder_of_run: Path) -> str | None:
    """Return the URL that a folder is the mirror of, if it is one."""
    try:
        return (folder_of_run.parent / _URL_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


@contextmanager
def mirrored(
    place: str | Path, tell: Callable[[str], None] | None = None, *, send: bool = True
) -> Iterator[Path]:
    """Give the folder in which the run at `place` is worked on: its mirror, if that is a URL.

    Parameters
    ----------
    place
        A folder, which is given back as it is, or the URL of one for which fsspec knows a file
        system (`s3://`, `gs://`, `abfs://`, `sftp://` and others, each of which needs its
        package).
    tell
        Told where the mirror is.
    send
        Whether what is done in the mirror is sent to the URL, meanwhile and at the end, also
        after an exception.

    Raises
    ------
    RunError
        If the URL cannot be read or written. What was done is in the mirror then, and is sent
        when the same place is asked for again.
    """
    if not is_url(place):
        yield Path(place)
        return
    mirror = Mirror(str(place))
    mirror.pull()
    if tell is not None:
        tell(f"{mirror.url} is worked on in {mirror.path}")
    if not send:
        yield mirror.path
        return
    ended = threading.Event()
    sender = threading.Thread(target=_send_often, args=(mirror, ended), daemon=True)
    sender.start()
    try:
        yield mirror.path
    except BaseException:
        _stop(sender, ended)
        with suppress(RunError):  # what went wrong first is what has to be heard
            mirror.push()
        raise
    _stop(sender, ended)
    mirror.push()


def _stop(sender: threading.Thread, ended: threading.Event) -> None:
    ended.set()
    sender.join()


def _send_often(mirror: Mirror, ended: threading.Event) -> None:
    while not ended.wait(_EVERY):
        with suppress(RunError):  # the last one says what is wrong
            mirror.push()


class Mirror:
    """A folder of this machine and what it follows.

    Attributes
    ----------
    url
        Where the run is kept.
    path
        The folder in which it is worked on: in `~/.cache/kntrace`, or in what the variable
        `KNTRACE_CACHE` of the environment says.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # for runs in folders it is not needed

        self.url = url.rstrip("/")
        with self._reached("opened"):
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        usual = Path.home() / ".cache" / "kntrace"
        home = Path(os.environ.get("KNTRACE_CACHE") or usual)
        self._home = home / "mirrors" / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.path = self._home / "run"
        self._index_file = self._home / "index.json"
        self._lock = threading.Lock()

    def pull(self) -> int:
        """Fetch what is new at the URL, and return how many files that were.

        Raises
        ------
        RunError
            If the URL cannot be read, or a file was changed both there and here.
        """
        with self._alone():
            index, there = self._index(), self._listed()
            here = self._local()
            wanted = [name for name, seen in there.items() if index.get(name, ())[:2] != seen]
            # What was never sent and is there all the same, another machine has finished.
            known = [name for name in wanted if name in index and name in here]
            for name in known:
                if self._changed(name, here, index):
                    raise RunError(
                        f"{name} was changed both there and here",
                        where=self.url,
                        fix=f"Delete {self._home} to take what is there.",
                    )
            wanted += sorted(set(there) - set(here) - set(wanted))
            for start in range(0, len(wanted), _AT_ONCE):
                self._fetch(wanted[start : start + _AT_ONCE], there, index)
            for name in set(index) - set(there):
                if name in here and not self._changed(name, here, index):
                    (self.path / name).unlink(missing_ok=True)
                del index[name]
            self._keep(index)
            return len(wanted)

    def push(self) -> int:
        """Send what is new here, scores last, and return how many files that were.

        Raises
        ------
        RunError
            If the URL cannot be written.
        """
        with self._alone():
            index, here = self._index(), self._local()
            changed = [name for name in here if self._changed(name, here, index)]
            changed.sort(key=lambda name: (_rank(name), name))
            for start in range(0, len(changed), _AT_ONCE):
                self._send(changed[start : start + _AT_ONCE], here, index)
            gone = sorted(set(index) - set(here))
            if gone:
                with self._reached("written"):
                    for name in gone:
                        with suppress(FileNotFoundError):
                            self._files.rm_file(self._at(name))
                        del index[name]
                self._keep(index)
            return len(changed)

    def _fetch(self, names: Sequence[str], there: dict[str, Any], index: dict[str, _Seen]) -> None:
        for name in names:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        halves = [self.path / f"{name}{_PARTIAL}" for name in names]
        with self._reached("read"):
            self._files.get([self._at(name) for name in names], [str(half) for half in halves])
        for name, half in zip(names, halves, strict=True):
            half.replace(self.path / name)
            index[name] = (*there[name], (self.path / name).stat().st_mtime_ns)
        self._keep(index)

    def _send(self, names: Sequence[str], here: dict[str, Any], index: dict[str, _Seen]) -> None:
        with self._reached("written"):
            for name in {str(PurePosixPath(self._at(name)).parent) for name in names}:
                self._files.makedirs(name, exist_ok=True)
            self._files.put([str(self.path / name) for name in names], [*map(self._at, names)])
            self._files.invalidate_cache()
            for name in names:
                # As it was before it was sent: what has changed meanwhile is sent again.
                index[name] = (*_seen(self._files.info(self._at(name))), here[name][1])
        self._keep(index)

    def _listed(self) -> dict[str, tuple[int, str]]:
        """Files at the URL, by their names in the run."""
        with self._reached("read"):
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                found = {}
            bucket = self._root.split("/")[0]  # "" where the URL leads into a tree of folders
            if not found and bucket and not self._files.exists(bucket):
                # To write there would make one, whatever was meant.
                raise RunError(f"there is no {bucket!r}", where=self.url, fix="Make it first.")
        start = len(self._root.rstrip("/")) + 1
        listed = {name[start:]: _seen(info) for name, info in found.items()}
        for name in listed:
            if not _is_plain(name):
                raise RunError(f"a file named {name[:60]!r}", where=self.url, expected="a run")
        return {name: seen for name, seen in listed.items() if _is_kept(name)}

    def _local(self) -> dict[str, tuple[int, int]]:
        """Files of the mirror: size, and when they were changed."""
        found = {}
        for home, _, names in os.walk(self.path):
            inside = Path(home).relative_to(self.path)
            for name in names:
                place = (inside / name).as_posix()
                if _is_kept(place):
                    with suppress(FileNotFoundError):
                        status = os.lstat(self.path / place)
                        found[place] = (status.st_size, status.st_mtime_ns)
        return found

    def _changed(
        self, name: str, here: dict[str, tuple[int, int]], index: dict[str, _Seen]
    ) -> bool:
        """Whether a file here is other than it was when both were the same."""
        seen = index.get(name)
        return seen is None or (seen[0], seen[2]) != here[name]

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _index(self) -> dict[str, _Seen]:
        try:
            return _INDEX.validate_json(self._index_file.read_bytes())
        except (OSError, ValidationError):
            return {}

    def _keep(self, index: dict[str, _Seen]) -> None:
        folder.write_text(self._index_file, json.dumps(index))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time, of the threads and processes of this machine."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self._home / _URL_FILE).write_text(self.url, encoding="utf-8")
        except OSError as error:
            raise folder.write_failure(self.path, error) from error
        with self._lock, taking_turns(self._home / "lock"):
            yield

    @contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        try:
            yield
        except RunError:
            raise
        except Exception as error:
            # File systems raise whatever their libraries do, for which there is no common class.
            raise RunError(
                f"cannot be {what}: {str(error)[:300] or type(error).__name__}",
                where=self.url,
                fix="What was done is kept on this machine: give the same command again when "
                "the place can be reached."
                if what == "written"
                else None,
            ) from error


def _seen(info: dict[str, Any]) -> tuple[int, str]:
    token = next((str(info[key]) for key in _TOKENS if info.get(key) is not None), "")
    return int(info["size"] or 0), token


def _rank(name: str) -> int:
    """When a file is sent: what describes the run, its blocks, and what commits them."""
    if name.endswith(("zarr.json", ".yaml")):
        return 0
    if not name.startswith(f"{folder.SCORES}/"):
        return 3
    return 2 if name.split("/")[1] in _COMMITTING else 1


def _is_kept(name: str) -> bool:
    """Whether a file belongs to the run, and not to a process that works on it."""
    parts = name.split("/")
    passing = parts[0] in (folder.SESSIONS, folder.LOCK, folder.CHANGING)
    return not passing and not any(part.endswith(_PARTIAL) for part in parts)


def _is_plain(name: str) -> bool:
    """Whether a name that a store gives leads to a file inside of the run's folder."""
    path = PurePosixPath(name)
    return (
        bool(name)
        and not path.is_absolute()
        and path.as_posix() == name
        and not {"..", "."} & set(path.parts)
        and "\\" not in name
        and name.isprintable()
    )
