"""A hub on this machine: serves folders as model repositories to the real huggingface_hub client.

It answers as the Hugging Face hub does where kntrace and transformers ask: information on a
repository, its branches and tags, the tree of a revision (in pages), files with their ETags and
redirects (small ones within the hub, large ones to another host as to the CDN), ranges, and the
codes for what is absent, private or gated. A download can be cut off or held up, a path made to
fail, and a branch moved.

    with HubServer() as hub:
        hub.add("owner/name", {"main": folder, "step0": other}, tags={"v1": folder})
        ... HF_ENDPOINT=hub.url ...
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

_HANGS = 60.0
"""Seconds after which those that a request waits for will not come."""

LARGE = (".safetensors", ".bin", ".gguf", ".h5")


@dataclass(frozen=True)
class File:
    """One file of a repository."""

    path: Path
    blob: str
    sha256: str
    size: int
    large: bool

    @classmethod
    def of(cls, path: Path) -> File:
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        large = path.name.endswith(LARGE)
        return cls(path, blob, hashlib.sha256(content).hexdigest(), len(content), large)

    @property
    def etag(self) -> str:
        return f'"{self.sha256 if self.large else self.blob}"'

    @property
    def lfs(self) -> dict[str, Any]:
        return {"oid": self.sha256, "size": self.size, "pointerSize": 134} if self.large else {}


@dataclass
class Repository:
    """A repository: commits, and the branches and tags that point to them."""

    id: str
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    disabled: bool = False
    readers: frozenset[str] = frozenset()

    def commit(self, folder: Path) -> str:
        """Take in a folder as it is now; equal content makes an equal commit."""
        files = {
            path.relative_to(folder).as_posix(): File.of(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        content = json.dumps([self.id, {name: file.sha256 for name, file in files.items()}])
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits[commit] = files
        return commit

    def resolve(self, revision: str) -> str | None:
        known = self.branches | self.tags
        for name in (revision, revision.removeprefix("refs/heads/")):
            if name in known:
                return known[name]
        return revision if revision in self.commits else None


class HubServer:
    """The server; `url` is what HF_ENDPOINT should say.

    Parameters
    ----------
    page
        Entries in a page of a listing.
    """

    def __init__(self, *, page: int = 1000) -> None:
        self.repositories: dict[str, Repository] = {}
        self.page = page
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.secrets_to_cdn: list[str] = []
        self._cuts: dict[str, int] = {}
        self._held: dict[str, threading.Event] = {}
        self._failures: Counter[tuple[str, int]] = Counter()
        self._gathered: dict[str, tuple[threading.Barrier, Iterator[int]]] = {}
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for event in self._held.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(
        self,
        repository: str,
        branches: dict[str, Path] | None = None,
        *,
        tags: dict[str, Path] | None = None,
        **access: Any,
    ) -> Repository:
        """Make a repository, or move the branches and tags of one that is there."""
        made = self.repositories.setdefault(repository, Repository(repository))
        for name, value in access.items():
            setattr(made, name, value)
        made.branches |= {name: made.commit(folder) for name, folder in (branches or {}).items()}
        made.tags |= {name: made.commit(folder) for name, folder in (tags or {}).items()}
        return made

    def add_suite(self, repository: str, folder: Path, *, tagged: bool = False) -> Repository:
        """Serve each subfolder as a branch (or tag) of its name; the last also as main."""
        folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
        last = max(folders, key=lambda name: int(re.sub(r"\D", "", name) or 0))
        main = {"main": folders[last]}
        if tagged:
            return self.add(repository, main, tags=folders)
        return self.add(repository, main | folders)

    def cut(self, filename: str, after: int) -> None:
        """Close the connection after so many bytes of the next download of a file, once."""
        self._cuts[filename] = after

    def hold(self, part: str) -> threading.Event:
        """Let downloads of what has `part` in its path stall half-way until the event is set."""
        return self._held.setdefault(part, threading.Event())

    def gather(self, part: str, number: int) -> None:
        """Answer the next `number` requests with `part` in their path when all have come."""
        self._gathered[part] = (threading.Barrier(number), iter(range(number)))

    def _wait_for_others(self, path: str) -> None:
        for part, (barrier, places) in self._gathered.items():
            if part in path and next(places, None) is not None:
                try:
                    barrier.wait(_HANGS)
                except threading.BrokenBarrierError:
                    raise _Refusal(503, "", "the others did not come") from None

    def fail(self, part: str, status: int, times: int = 1) -> None:
        """Answer the next requests whose path holds `part` with a status."""
        self._failures[part, status] += times

    def count(self, part: str = "", method: str | None = None) -> int:
        """How many requests had `part` in their path."""
        return sum(part in path and method in (None, made) for made, path in self.requests)

    def environment(self, home: Path) -> dict[str, str]:
        """What makes huggingface_hub in another process use this server and a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }


class _Handler(BaseHTTPRequestHandler):
    """One connection. Refusals are raised as `_Refusal` and written in one place."""

    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def _handle(self) -> None:
        hub = self.server_hub
        hub.requests.append((self.command, self.path))
        url = urlsplit(self.path)
        path, query = url.path, parse_qs(url.query)
        try:
            hub._wait_for_others(self.path)
            for part, status in [*hub._failures]:
                if part in self.path and hub._failures[part, status] > 0:
                    hub._failures[part, status] -= 1
                    raise _Refusal(status, "", "made to fail")
            if path == "/api/models":
                self._send_models(query)
            elif path.startswith("/cdn/"):
                self._send_from_cdn(path)
            elif path.startswith("/api/resolve-cache/models/"):
                self._send_small(path)
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/([a-z-]+)(?:/(.*))?)?", path):
                self._send_api(*match.groups(), query)
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._send_resolved(*(unquote(part) for part in match.groups()))
            else:
                raise _Refusal(404, "", "no such path")
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            headers |= {"X-Error-Message": refusal.says, **refusal.headers}
            self._send_json({"error": refusal.says}, status=refusal.status, **headers)

    # Who may

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _repository(self, name: str, *, content: bool = False) -> Repository:
        """Return a repository, if this client may see it; `content`: may read its files."""
        found = self.server_hub.repositories.get(name)
        if found is None or (found.private and self._token not in found.readers):
            raise _Refusal(404 if self._token else 401, "RepoNotFound", "Repository not found")
        if found.disabled:
            raise _Refusal(403, "", "Access to this resource is disabled.")
        if content and found.gated and self._token not in found.readers:
            says = f"Access to model {name} is restricted."
            raise _Refusal(403 if self._token else 401, "GatedRepo", says)
        return found

    def _files(self, repository: Repository, revision: str) -> tuple[str, dict[str, File]]:
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    # The interface for programs

    def _send_models(self, query: dict[str, list[str]]) -> None:
        author, search = (query.get(name, [""])[0] for name in ("author", "search"))
        found = [
            {"_id": name, "id": name, "modelId": name, "private": False, "tags": []}
            for name, repository in sorted(self.server_hub.repositories.items())
            if (not author or name.split("/")[0] == author)
            and search.lower() in name.lower()
            and not repository.private
        ]
        self._send_page(found, query)

    def _send_api(
        self, name: str, verb: str | None, rest: str | None, query: dict[str, list[str]]
    ) -> None:
        repository = self._repository(name, content=verb == "auth-check")
        if verb is None or verb == "revision":
            commit, files = self._files(repository, unquote(rest) if rest else "main")
            self._send_json(_described(repository, commit, files, blobs="blobs" in query))
        elif verb == "auth-check":
            self._send_json("OK")
        elif verb == "refs":
            self._send_json(
                {
                    "branches": _refs(repository.branches, "heads"),
                    "tags": _refs(repository.tags, "tags"),
                    "converts": [],
                }
            )
        elif verb == "tree" and rest:
            revision, _, under = rest.partition("/")
            _, files = self._files(repository, unquote(revision))
            recursive = query.get("recursive", [""])[0].lower() == "true"
            self._send_page(_tree(files, unquote(under), recursive), query)
        else:
            raise _Refusal(404, "", "no such path")

    def _send_page(self, entries: list[Any], query: dict[str, list[str]]) -> None:
        start = int(query.get("cursor", ["0"])[0])
        page = min(self.server_hub.page, int(query.get("limit", ["1000"])[0]))
        headers = {}
        if start + page < len(entries):
            kept = {name: values[0] for name, values in query.items() if name != "cursor"}
            following = "&".join(f"{name}={quote(value)}" for name, value in kept.items())
            where = f"{self.server_hub.url}{urlsplit(self.path).path}"
            headers["Link"] = f'<{where}?{following}&cursor={start + page}>; rel="next"'
        self._send_json(entries[start : start + page], **headers)

    # Files

    def _send_resolved(self, name: str, revision: str, filename: str) -> None:
        commit, files = self._files(self._repository(name, content=True), revision)
        file = files.get(filename)
        if file is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": file.etag,
            "X-Linked-Size": str(file.size),
            "Accept-Ranges": "bytes",
        }
        if file.large:
            # Another name of this machine is another host: the client must not send its token.
            where = f"http://localhost:{self.server_hub.port}/cdn/{name}/{commit}/{filename}"
            self._send(302, b"", headers | {"Location": where})
        else:
            where = f"/api/resolve-cache/models/{name}/{commit}/{filename}"
            self._send(307, b"", headers | {"Location": where})

    def _send_small(self, path: str) -> None:
        owner, name, commit, filename = (
            unquote(path).removeprefix("/api/resolve-cache/models/").split("/", 3)
        )
        _, files = self._files(self._repository(f"{owner}/{name}", content=True), commit)
        self._send_file(files[filename], {"X-Repo-Commit": commit})

    def _send_from_cdn(self, path: str) -> None:
        if self._token:
            self.server_hub.secrets_to_cdn.append(path)
        owner, name, commit, filename = unquote(path).removeprefix("/cdn/").split("/", 3)
        repository = self.server_hub.repositories[f"{owner}/{name}"]
        self._send_file(repository.commits[commit][filename], {})

    def _send_file(self, file: File, headers: dict[str, str]) -> None:
        content = file.path.read_bytes()
        headers = headers | {"ETag": file.etag, "Accept-Ranges": "bytes"}
        status, asked = 200, self.headers.get("Range")
        if asked is not None:
            self.server_hub.ranges.append(asked)
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), int(last) if last else len(content) - 1
            if begin >= len(content):
                raise _Refusal(416, "", "no such range", {"Content-Range": f"*/{len(content)}"})
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
            status, content = 206, content[begin : end + 1]
        after = None
        if self.command == "GET":
            after = self.server_hub._cuts.pop(file.path.name, None)
        self._send(status, content, headers, after=after)

    def _send_json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(
            status, json.dumps(value).encode(), headers | {"Content-Type": "application/json"}
        )

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        held = [event for part, event in self.server_hub._held.items() if part in self.path]
        if held and status in (200, 206):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            for event in held:
                event.wait()
            body, after = body[len(body) // 2 :], None
        self.wfile.write(body if after is None else body[:after])
        if after is not None:
            self.close_connection = True


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """What a request is answered with instead of what it asked for."""

    def __init__(
        self, status: int, code: str, says: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(says)
        self.status, self.code, self.says, self.headers = status, code, says, headers or {}


def _described(
    repository: Repository, commit: str, files: dict[str, File], *, blobs: bool
) -> dict[str, Any]:
    siblings = []
    for name, file in files.items():
        entry: dict[str, Any] = {"rfilename": name}
        if blobs:
            entry |= {"size": file.size, "blobId": file.blob}
            if file.large:
                lfs = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
                entry["lfs"] = lfs
        siblings.append(entry)
    return {
        "_id": repository.id,
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.id.partition("/")[0],
        "sha": commit,
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "disabled": repository.disabled,
        "tags": [],
        "siblings": siblings,
    }


def _refs(refs: dict[str, str], kind: str) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
        for name, commit in sorted(refs.items())
    ]


def _tree(files: dict[str, File], under: str, recursive: bool) -> list[dict[str, Any]]:
    base = f"{under}/" if under else ""
    inside = {name: file for name, file in files.items() if name.startswith(base)}
    if under and not inside:
        raise _Refusal(404, "EntryNotFound", f"{under} does not exist")
    entries: dict[str, dict[str, Any]] = {}
    for name, file in inside.items():
        parts = name.removeprefix(base).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            folder = base + "/".join(parts[:depth])
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
        if recursive or len(parts) == 1:
            entry = {"type": "file", "oid": file.blob, "size": file.size, "path": name}
            entries[name] = entry | ({"lfs": file.lfs} if file.large else {})
    return list(entries.values())
