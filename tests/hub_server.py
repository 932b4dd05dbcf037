"""A Hub on this machine: it speaks as much of the Hugging Face Hub's HTTP as its client asks, and counts what it sends.

    with HubServer() as hub:
        commit = hub.add("owner/name", folder)
        ... HF_ENDPOINT=hub.url ...
        hub.sent("/unet/")

Weights are given by way of a redirect to another host, as the real Hub does, which must not see the token.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_accepting import Accepting
from tests.hub_repository import LARGE, Refusal, Repository, Request, entries, etag, pieces

_API = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+))?(?P<path>/.*)?"
)
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_CDN = re.compile(r"/cdn/(?P<repo>[^/]+/[^/]+)/(?P<revision>[^/]+)/(?P<file>.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class HubServer:
    """The server. `ranges=False`: it sends whole files, whatever part was asked for; `cut`: as many bytes at most.

    `pause`: it waits so many seconds before every piece that it sends of a file.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.ranges = True
        self.cut: int | None = None
        self.pause = 0.0
        self.accepting = Accepting(self)
        # Unlike time.sleep, which tests take from the client.
        self.waiting = Event()
        self._refusals: list[Refusal] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._server.daemon_threads = True
        # A client that has enough hangs up: that is no error of the server.
        self._server.handle_error = lambda request, address: None
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.accepting.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn(self) -> str:
        """The other host, which is the same server."""
        return f"http://localhost:{self._server.server_port}"

    def add(self, name: str, folder: Path, *revisions: str, **access: object) -> str:
        """Serve a folder as the next commit of a repository, under branch main or the revisions named."""
        repository = self.repositories.setdefault(name, Repository(**access))
        commit = hashlib.sha1(f"{name} {len(repository.commits)}".encode()).hexdigest()
        repository.commits[commit] = folder
        repository.revisions |= dict.fromkeys(revisions or ("main",), commit)
        return commit

    def refuse(self, mark: str, status: int, times: int | None = None, **headers: str) -> None:
        """Answer with a status what has `mark` in its path; headers are written with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._refusals.append(Refusal(mark, status, named, times))

    def refusal(self, path: str) -> Refusal | None:
        for refusal in self._refusals:
            if refusal.mark in path and refusal.times != 0:
                refusal.times = None if refusal.times is None else refusal.times - 1
                return refusal
        return None

    def sent(self, mark: str = "") -> int:
        """Count the bytes of all answers to requests with `mark` in their path."""
        return sum(request.sent for request in self.requests if mark in request.path)

    def asked_for(self) -> set[str]:
        """Name the files that were asked for, whole or in part."""
        found = (_RESOLVE.fullmatch(request.path) for request in self.requests)
        return {match["file"] for match in found if match}


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    _body = b""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Say nothing: the requests are kept."""

    @property
    def _hub(self) -> HubServer:
        return self.server.hub

    def _answer(self) -> None:
        address = urlsplit(self.path)
        self._path = unquote(address.path)
        refusal = self._hub.refusal(self._path)
        if refusal:
            self._send(refusal.status, b"{}", dict(refusal.headers))
        elif accepted := self._hub.accepting.answer(self.command, self._path, self._token(), self._body):
            status, content = accepted
            self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})
        elif found := _CDN.fullmatch(self._path):
            self._file(found, direct=True)
        elif found := _API.fullmatch(address.path):
            self._api(found, parse_qs(address.query))
        elif found := _RESOLVE.fullmatch(self._path):
            self._file(found, direct=False)
        else:
            self._fail(404, "NotFound")

    def _api(self, found: re.Match[str], query: Mapping[str, list[str]]) -> None:
        repository = self._repository(found["repo"])
        if repository is None:
            return
        commit = repository.commit(unquote(found["revision"] or "main"))
        if commit is None:
            self._fail(404, "RevisionNotFound")
            return
        folder = repository.commits[commit]
        if found["what"] == "tree":
            inside = unquote(found["path"] or "/").strip("/")
            recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            self._json(list(entries(folder, inside, recursive)))
        elif found["what"] == "paths-info":
            asked = parse_qs(self._body.decode()).get("paths", [])
            self._json([entry for entry in entries(folder, "", True) if entry["path"] in asked])
        else:
            names = [entry["path"] for entry in entries(folder, "", True) if entry["type"] == "file"]
            self._json({"id": found["repo"], "sha": commit, "siblings": [{"rfilename": name} for name in names]})

    def _file(self, found: re.Match[str], direct: bool) -> None:
        # The other host trusts the address, which only the Hub gives.
        repository = self._hub.repositories[found["repo"]] if direct else self._repository(found["repo"], content=True)
        if repository is None:
            return
        commit = repository.commit(found["revision"])
        if commit is None:
            self._fail(404, "RevisionNotFound")
            return
        headers = {"X-Repo-Commit": commit}
        path = repository.commits[commit] / found["file"]
        if not path.is_file():
            self._fail(404, "EntryNotFound", headers)
            return
        headers |= {"ETag": f'"{etag(path)}"', "Accept-Ranges": "bytes"}
        if found["file"].endswith(LARGE) and not direct:
            size = path.stat().st_size
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(size)}
            headers["Location"] = f"{self._hub.cdn}/cdn/{found['repo']}/{commit}/{found['file']}"
            self._send(302, b"", headers)
        else:
            self._content(path, headers)

    def _content(self, path: Path, headers: dict[str, str]) -> None:
        size = path.stat().st_size
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if self._hub.ranges else None
        begin, end = (int(asked[1]), int(asked[2] or size - 1) + 1) if asked else (0, size)
        if asked and begin >= size:
            self._send(416, b"", headers | {"Content-Range": f"bytes */{size}"})
            return
        end = min(end, size)
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        self._send(206 if asked else 200, (path, begin, end), headers)

    def _repository(self, name: str, content: bool = False) -> Repository | None:
        """Find a repository that whoever asks may read, or answer why not."""
        repository = self._hub.repositories.get(name)
        known = repository is not None and self._token() is not None and self._token() == repository.token
        if repository is None or (repository.private and not known):
            self._fail(401 if self._token() is None else 404, "RepoNotFound")
        elif content and repository.gated and not known:
            self._fail(401 if self._token() is None else 403, "GatedRepo")
        else:
            return repository
        return None

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _fail(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, **(headers or {})})

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes | tuple[Path, int, int], headers: Mapping[str, str]) -> None:
        length = len(body) if isinstance(body, bytes) else body[2] - body[1]
        host = self.headers.get("Host", "").partition(":")[0]
        # Counted before it is sent, so that no client is faster than the count.
        request = Request(self.command, self._path, host, self._token(), status)
        self._hub.requests.append(request)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            for piece in pieces(body, self._hub.cut):
                self._hub.waiting.wait(self._hub.pause)
                request.sent += len(piece)
                self.wfile.write(piece)
        except ConnectionError:
            # The client has enough.
            self.close_connection = True
        if request.sent < length:
            self.close_connection = True
