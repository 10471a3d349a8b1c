"""A stand-in for the hub: two HTTP servers on 127.0.0.1 that speak what huggingface_hub expects.

One is the hub (`/api/models/...`, `/owner/name/resolve/...`), the other the store to which it
redirects for large files. What it does on purpose: gated and private repositories, tokens,
redirects, ranges, and faults that a test asks for. It never refuses to be asked: it records.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

BAD_TOKEN = "Invalid credentials in Authorization header"


@dataclass
class Repo:
    """One repository: the files of each commit, and the names of commits."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    private: bool = False
    gated: bool = False
    members: set[str] = field(default_factory=set)  # tokens with access
    states_sizes: bool = True  # in its list of files
    claims: dict[str, int] = field(default_factory=dict)  # sizes that are not true

    @classmethod
    def of(cls, files: dict[str, bytes], **options: Any) -> Repo:
        """Return a repository with one commit, named main."""
        repo = cls({}, {}, **options)
        repo.commit(files)
        return repo

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """Add a commit, point `ref` at it and return its hash."""
        parts = [f"{name} {blob_hash(data)}" for name, data in sorted(files.items())]
        sha = hashlib.sha1(f"{len(self.commits)}\n{parts}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, tag or hash."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """What happens to the next `times` requests of `method` whose path ends in `path`."""

    path: str
    method: str = "GET"
    status: int | None = None  # answer with this status, and with:
    message: str = "the stand-in was told to fail"
    code: str | None = None
    cut_after: int | None = None  # state the whole length, send so many bytes, hang up
    stalls: threading.Event | None = None  # set when cut; then nothing comes, and no hang-up
    short_by: int = 0  # send and state so many bytes less
    body: bytes | None = None  # answer 200 with this
    times: int = 1_000_000


@dataclass(frozen=True)
class Seen:
    """One request as it came in, and the status it was answered with."""

    place: str  # "hub" or "store"
    method: str
    path: str
    range: str | None
    token: str | None
    status: int


class HubServer:
    """The servers with their repositories, tokens, faults and record; see `serve_hub`."""

    def __init__(self) -> None:
        self.clear()
        self.hub = _server(self, "hub")
        self.store = _server(self, "store")

    def clear(self) -> None:
        """Forget repositories, tokens, faults and requests."""
        self.repos: dict[str, Repo] = {}
        self.tokens: set[str] = set()
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        """The value for HF_ENDPOINT."""
        return _url(self.hub)

    def fetched(self, place: str | None = None, method: str = "GET") -> list[str]:
        """Return the last part of every path that was asked for with `method`."""
        return [
            seen.path.rsplit("/", 1)[-1]
            for seen in self.seen
            if seen.method == method and place in (None, seen.place) and "harness" not in seen.path
        ]

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Return the first fault that fits, and count it."""
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and path.endswith(fault.path):
                fault.times -= 1
                return fault
        return None


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Run the two servers in threads for the length of the block."""
    server = HubServer()
    running = [server.hub, server.store]
    for one in running:
        threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        for one in running:
            one.shutdown()
            one.server_close()


def blob_hash(data: bytes) -> str:
    """Return git's hash of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(name: str) -> bool:
    """Whether the hub keeps the file in its store (LFS) rather than in git."""
    return name.endswith((".safetensors", ".bin"))


def _server(owner: HubServer, place: str) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"owner": owner, "place": place})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    return server


def _url(server: ThreadingHTTPServer) -> str:
    """Return an address; the store has another host name, as the real one has."""
    host = "localhost" if server.RequestHandlerClass.place == "store" else "127.0.0.1"
    return f"http://{host}:{server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    owner: HubServer
    place: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits for the reader's delayed ACK

    def log_message(self, *_: object) -> None:
        """Say nothing; `owner.seen` has it."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.owner.fault_for(self.command, path)
        if fault is not None and fault.status is not None:
            self.refuse(fault.status, fault.code, fault.message)
        elif fault is not None and fault.body is not None:
            self.send(200, fault.body, {"Content-Type": "text/html"})
        elif self.place == "store":
            self.serve_blob(path, fault)
        elif path.startswith("/api/models/"):
            self.serve_model(path.removeprefix("/api/models/"))
        elif "/resolve/" in path or path.startswith("/api/resolve-cache/models/"):
            self.serve_file(path, fault)
        else:
            self.send(404, b"{}")

    # --- the hub ---------------------------------------------------------------------------

    def serve_model(self, path: str) -> None:
        repo_id, _, revision = path.partition("/revision/")
        repo = self.visible_repo(repo_id)
        if repo is None:
            return
        commit = repo.resolve(revision or "main")
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repo.commits[commit]
        document = {
            "_id": "0", "id": repo_id, "modelId": repo_id, "sha": commit, "tags": [],
            "private": repo.private, "gated": "manual" if repo.gated else False,
            "downloads": 0, "likes": 0,
            "siblings": [_sibling(repo, name, data) for name, data in files.items()],
        }  # fmt: skip
        self.send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def serve_file(self, path: str, fault: Fault | None) -> None:
        direct = path.startswith("/api/resolve-cache/models/")
        if direct:  # /api/resolve-cache/models/owner/name/commit/file
            owner, name, rest = path.removeprefix("/api/resolve-cache/models/").split("/", 2)
            repo_id = f"{owner}/{name}"
        else:
            repo_id, _, rest = path.strip("/").partition("/resolve/")
        repo = self.visible_repo(repo_id)
        if repo is None or not self.may_read(repo, repo_id):
            return
        name = rest.rsplit("/", 1)[-1]
        commit = repo.resolve(rest.removesuffix(f"/{name}"))
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest}")
        elif name not in repo.commits[commit]:
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        elif is_large(name):
            self.redirect_to_store(commit, repo.commits[commit][name])
        else:
            data = repo.commits[commit][name]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{blob_hash(data)}"'}
            if direct:
                self.send_content(data, headers, fault)
            else:  # as the hub does: small files come from its own cache, same host
                place = f"/api/resolve-cache/models/{repo_id}/{commit}/{name}"
                self.send(307, b"", {**headers, "Location": place})

    def redirect_to_store(self, commit: str, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{_url(self.owner.store)}/{sha256}",
        }
        self.send(302, b"", headers)

    def token(self) -> str | None:
        value = self.headers.get("Authorization")
        return value.removeprefix("Bearer ") if value else None

    def visible_repo(self, repo_id: str) -> Repo | None:
        """Return the repository if the caller may know of it; answer the request otherwise."""
        token, repo = self.token(), self.owner.repos.get(repo_id)
        if token is not None and token not in self.owner.tokens:
            self.refuse(401, None, BAD_TOKEN)
            return None
        if repo is not None and (not repo.private or token in repo.members):
            return repo
        if token is None:
            self.refuse(401, "RepoNotFound", "Invalid username or password.")
        else:
            self.refuse(404, "RepoNotFound", "Repository not found")
        return None

    def may_read(self, repo: Repo, repo_id: str) -> bool:
        """Whether the caller may read files; answers the request if not."""
        token = self.token()
        if not repo.gated or token in repo.members:
            return True
        start = f"Access to model {repo_id} is restricted"
        if token is None:
            self.refuse(401, "GatedRepo", f"{start}. You must be authenticated to access it.")
        else:
            self.refuse(403, "GatedRepo", f"{start} and you are not in the authorized list.")
        return False

    # --- the store -------------------------------------------------------------------------

    def serve_blob(self, path: str, fault: Fault | None) -> None:
        for repo in self.owner.repos.values():
            for files in repo.commits.values():
                for name, data in files.items():
                    if is_large(name) and path == f"/{hashlib.sha256(data).hexdigest()}":
                        self.send_content(data, {"ETag": f'"{path[1:]}"'}, fault)
                        return
        self.send(403, b"")

    # --- HTTP ------------------------------------------------------------------------------

    def refuse(
        self, status: int, code: str | None, message: str, more: dict[str, str] | None = None
    ) -> None:
        headers = {"Content-Type": "application/json", **(more or {})}
        if message.isprintable():  # a header is one line
            headers["X-Error-Message"] = message
        if code is not None:
            headers["X-Error-Code"] = code
        self.send(status, json.dumps({"error": message}).encode(), headers)

    def send_content(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        """Send a file or the range of it that was asked for, with the faults asked for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        wanted, status = self.headers.get("Range"), 200
        total = len(data)
        if wanted is not None:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            data, status = data[start:], 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if fault is not None and fault.short_by:
            data = data[: -fault.short_by]
        self.send(status, data, headers, fault)

    def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None,
        fault: Fault | None = None,
    ) -> None:  # fmt: skip
        """Record the request and answer it."""
        path = urlsplit(self.path).path
        seen = Seen(self.place, self.command, path, self.headers.get("Range"), self.token(), status)
        self.owner.seen.append(seen)
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault.cut_after if fault else None
        self.close_connection = self.close_connection or cut is not None
        with contextlib.suppress(OSError):  # a reader that was killed; its test knows
            self.wfile.write(body if cut is None else body[:cut])
            if fault is not None and fault.stalls is not None:
                fault.stalls.set()
                self.connection.recv(1)  # until the reader is gone


def _sibling(repo: Repo, name: str, data: bytes) -> dict[str, Any]:
    """Return what `?blobs=true` says of one file."""
    if not repo.states_sizes:
        return {"rfilename": name}
    size = repo.claims.get(name, len(data))
    sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": blob_hash(data)}
    if is_large(name):
        sha256 = hashlib.sha256(data).hexdigest()
        sibling["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return sibling
