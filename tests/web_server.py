"""A web site on this machine, over TLS: it serves files as a script says, and keeps what it was asked.

    with WebServer(certificates) as site:
        site.files["/x.safetensors"] = Served(content)
        ... site.url, SSL_CERT_FILE=certificates.authority ...

The same server is also reached as another host, `site.other`, to which credentials for the first must not go.
"""

import email.utils
import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import trustme

_RANGE = re.compile(r"bytes=(\d+)-")
_PIECE = 16384


@dataclass(frozen=True)
class Certificates:
    """An authority that nobody else trusts, and the certificate of this machine that it has signed."""

    authority: Path
    server: Path

    @classmethod
    def make(cls, folder: Path, *names: str) -> "Certificates":
        """Make them for some names of this machine."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        issued = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        return cls(folder / "authority.pem", folder / "server.pem")


@dataclass
class Served:
    """One address. `drops`: after so many bytes of a body the connection is closed, one for each answer in turn.

    `answers`: (status, headers) to be given first, one for each request in turn. `length=False`: the size is not said.
    """

    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    length: bool = True
    drops: list[int] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    token: str | None = None
    before: Callable[[], object] = lambda: None


@dataclass
class Request:
    """One request that was answered."""

    host: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class WebServer:
    """The server, as long as the context lasts."""

    def __init__(self, certificates: Certificates) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []
        self.closing = Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.site = self
        self._server.daemon_threads = True
        # A client that has enough hangs up: that is no error of the server.
        self._server.handle_error = lambda request, address: None
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "WebServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def other(self) -> str:
        """The other host, which is the same server."""
        return f"https://127.0.0.1:{self.port}"

    def serve(self, path: str, content: bytes = b"", **script: object) -> str:
        """Serve something, and give its address."""
        self.files[path] = Served(content, **script)
        return self.url + path

    def serve_json(self, path: str, content: object, **script: object) -> str:
        """Serve JSON, and give its address."""
        return self.serve(path, json.dumps(content).encode(), headers={"Content-Type": "application/json"}, **script)

    def redirect(self, path: str, target: str, status: int = 302) -> str:
        """Send on from one path, and give its address."""
        return self.serve(path, answers=[(status, {"Location": target})] * 1000)

    def asked(self, path: str = "") -> list[Request]:
        """List the requests whose path begins so."""
        return [request for request in self.requests if request.path.startswith(path)]


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing: the requests are kept."""

    def do_GET(self) -> None:
        site: WebServer = self.server.site
        # As a server sees it: what stands in front of `@` is no part of a request.
        request = Request(self.headers.get("Host", "").partition(":")[0], self.path, dict(self.headers))
        site.requests.append(request)
        served = site.files.get(urlsplit(self.path).path)
        if served is None:
            self._send(request, 404, b"{}", {})
            return
        served.before()
        if served.answers:
            self._send(request, *_answer(served.answers.pop(0)))
        elif served.token and self.headers.get("Authorization") != f"Bearer {served.token}":
            self._send(request, 401, b"{}", {})
        else:
            self._file(request, served)

    def _file(self, request: Request, served: Served) -> None:
        headers = {"Last-Modified": email.utils.formatdate(0, usegmt=True)} if served.etag else {}
        headers |= ({"ETag": served.etag} if served.etag else {}) | served.headers
        whole = len(served.content)
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if served.ranges else None
        if self.headers.get("If-Range", served.etag) not in (served.etag, headers.get("Last-Modified")):
            asked = None
        begin = int(asked[1]) if asked else 0
        if asked and begin >= whole:
            self._send(request, 416, b"", {"Content-Range": f"bytes */{whole}"})
            return
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{whole - 1}/{whole}"
        drop = served.drops.pop(0) if served.drops else None
        self._send(request, 206 if asked else 200, served.content[begin:], headers, drop, length=served.length)

    def _send(
        self,
        request: Request,
        status: int,
        body: bytes,
        headers: dict[str, str],
        drop: int | None = None,
        *,
        length: bool = True,
    ) -> None:
        request.status = status
        self.send_response(status)
        self.close_connection = drop is not None or not length
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header(*(("Content-Length", str(len(body))) if length else ("Connection", "close")))
        self.end_headers()
        body = body if drop is None else body[:drop]
        try:
            for begin in range(0, len(body), _PIECE):
                piece = body[begin : begin + _PIECE]
                self.wfile.write(piece)
                request.sent += len(piece)
        except OSError:
            self.close_connection = True


def _answer(answer: tuple[int, dict[str, str]]) -> tuple[int, bytes, dict[str, str]]:
    status, headers = answer
    return status, b"<html>no</html>", headers
