"""A model hub on this machine: as much of its HTTP as huggingface_hub uses, and the ways in which a hub can refuse.

    with Hub() as hub:
        hub.add("owner/name", folder, gated=True).members.add("hf_token")

Two ports, as two machines: the hub, and the store that it sends one to for a large file. The store must never be given
a token. `seen` has every request.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

PIECE = 2**16


@dataclass(frozen=True)
class Seen:
    """One request: `where` is hub or store."""

    where: str
    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class Repo:
    """A model of the hub. `private`: who is no member sees nothing. `gated`: sees the names, and gets no file."""

    name: str
    folder: Path
    large: tuple[str, ...] = ("*.safetensors",)
    private: bool = False
    gated: bool = False
    members: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)  # path -> what the hub calls it

    def files(self) -> dict[str, bytes]:
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = {path: path.relative_to(self.folder).as_posix() for path in found}
        return {self.renamed.get(name, name): path.read_bytes() for path, name in names.items()}

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files().items())).encode()).hexdigest()

    def is_large(self, path: str) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in self.large)


class Hub:
    """The hub and its store. Tokens that are nobody's are refused."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.repos: dict[str, Repo] = {}
        self.accounts: set[str] = set()
        self.seen: list[Seen] = []
        self.sent = 0  # bytes of large files
        self.cut_at: list[int] = []  # the next downloads of large files break off after so many bytes
        self.instead: dict[str, bytes] = {}  # sha256 -> what the store gives in its place
        self.echo = 0  # a status with which every file is refused, in the words of the request's own headers
        self.page: bytes | None = None  # answered to everything, as the login page of a network is
        self.go = threading.Event()  # the store holds every answer back after `held` bytes until it is set
        self.go.set()
        self.held = 0
        self._lock = threading.Lock()
        self._servers = [self._serve(address, "hub", self._hub), self._serve(address, "store", self._store)]
        self.url, self.store = (f"http://{address}:{server.server_address[1]}" for server, _ in self._servers)

    def add(self, name: str, folder: Path, **keys: Any) -> Repo:
        self.repos[name] = Repo(name, folder, **keys)
        return self.repos[name]

    def asked(self, where: str, method: str = "") -> list[Seen]:
        return [seen for seen in self.seen if seen.where == where and method in ("", seen.method)]

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.go.set()
        for server, thread in self._servers:
            server.shutdown()
            server.server_close()
            thread.join()

    def _serve(
        self, address: str, where: str, answer: Callable[[_Request], None]
    ) -> tuple[ThreadingHTTPServer, threading.Thread]:
        hub = self

        class Request(_Request):
            def do_GET(self) -> None:
                token = self.headers["Authorization"]
                path = unquote(urlsplit(self.path).path)
                with hub._lock:
                    hub.seen.append(Seen(where, self.command, path, token, self.headers["Range"]))
                self.token = token.removeprefix("Bearer ") if token else None
                self.asked = path
                answer(self)

            do_HEAD = do_GET

        server = ThreadingHTTPServer((address, 0), Request)
        server.daemon_threads = False  # so that closing waits for them
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        return server, thread

    # ------------------------------------------------------------------------------------------ the hub

    def _hub(self, request: _Request) -> None:
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", request.asked)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.asked)
        found = api or file
        repo = self.repos.get(found[1]) if found else None
        if self.page is not None:
            request.answer(200, {"Content-Type": "text/html"}, self.page)
        elif request.token is not None and request.token not in self.accounts:
            request.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and request.token not in repo.members):
            request.refuse(404 if request.token else 401, "RepoNotFound", "Repository not found")
        elif (revision := api[3] if api else file[2] if file else None) not in (None, "main", repo.commit):
            request.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif api:
            self._describe(request, repo, tree=api[2] == "tree")
        elif file:
            self._file(request, repo, file[3])

    def _describe(self, request: _Request, repo: Repo, tree: bool) -> None:
        entries = []
        for path, data in repo.files().items():
            sha256, entry = hashlib.sha256(data).hexdigest(), {"size": len(data)}
            if tree:
                entry |= {"type": "file", "path": path, "oid": _git(data)}
            else:
                entry |= {"rfilename": path, "blobId": _git(data)}
            if repo.is_large(path):
                entry["lfs"] = {"sha256": sha256, "oid": sha256, "size": len(data), "pointerSize": 130}
            entries.append(entry)
        about = {"id": repo.name, "sha": repo.commit, "private": repo.private, "gated": repo.gated and "manual"}
        request.answer_json(200, entries if tree else {**about, "siblings": entries})

    def _file(self, request: _Request, repo: Repo, path: str) -> None:
        data = repo.files().get(path)
        if self.echo:
            request.refuse(self.echo, "", f"what you sent: {dict(request.headers)}")
        elif repo.gated and request.token not in repo.members:
            request.refuse(403 if request.token else 401, "GatedRepo", f"Access to model {repo.name} is restricted")
        elif data is None:
            request.refuse(404, "EntryNotFound", "Entry not found")
        elif repo.is_large(path):
            sha256 = hashlib.sha256(data).hexdigest()
            headers = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": repo.commit}
            place = f"{self.store}/{repo.name}/{sha256}?Signature=abc"
            request.answer(302, {**headers, "Location": place}, b"Found. Redirecting")
        else:
            request.answer(200, {"ETag": f'"{_git(data)}"', "X-Repo-Commit": repo.commit}, data)

    # ------------------------------------------------------------------------------------------ its store

    def _store(self, request: _Request) -> None:
        name, _, sha256 = request.asked[1:].rpartition("/")
        data = next(data for data in self.repos[name].files().values() if hashlib.sha256(data).hexdigest() == sha256)
        data = self.instead.get(sha256, data)
        begin = re.fullmatch(r"bytes=(\d+)-", request.headers["Range"] or "bytes=0-")
        assert begin is not None
        at = int(begin[1])
        if at >= len(data) > 0:
            request.answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
            return
        headers = {"ETag": f'"{sha256}"', "Content-Length": str(len(data) - at)}
        if at:
            headers["Content-Range"] = f"bytes {at}-{len(data) - 1}/{len(data)}"
        with self._lock:
            left = self.cut_at.pop(0) if self.cut_at else len(data)
        request.begin(206 if at else 200, headers)
        held = at + self.held
        while at < len(data) and left > 0:
            if at >= held:
                self.go.wait()
            piece = data[at : at + min(PIECE, left)]
            try:
                request.wfile.write(piece)
            except OSError:  # nobody reads any more
                return
            at, left = at + len(piece), left - len(piece)
            with self._lock:
                self.sent += len(piece)


class _Request(BaseHTTPRequestHandler):
    token: str | None
    asked: str

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.begin(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, status: int, value: Any, **headers: str) -> None:
        self.answer(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode())

    def refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.answer_json(status, {"error": message}, **{name: text for name, text in headers.items() if text})


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
