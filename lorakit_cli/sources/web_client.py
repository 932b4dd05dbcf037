"""Open addresses over https: redirects counted and never away from https, credentials only for whom they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lorakit_cli.errors import DownloadError
from lorakit_cli.sources.web_errors import Asked

if TYPE_CHECKING:
    from httpx2 import Client, Response

_MOST_REDIRECTS = 10
_SECONDS_TO_CONNECT, _SECONDS_WITHOUT_A_BYTE = 15.0, 30.0


@contextmanager
def connected() -> Iterator["Client"]:
    """Open a client that finds proxies and certificates where the environment names them. Raises DownloadError."""
    # Loading it takes as long as all else that a light command does.
    import httpx2

    timeout = httpx2.Timeout(_SECONDS_WITHOUT_A_BYTE, connect=_SECONDS_TO_CONNECT)
    # Compressed on the way, a file could not be gone on with.
    headers = {"User-Agent": "lorakit", "Accept-Encoding": "identity"}
    try:
        client = httpx2.Client(timeout=timeout, headers=headers)
    except (OSError, ValueError, ImportError) as error:
        raise DownloadError(
            f"the network settings of the environment (HTTPS_PROXY and the like, SSL_CERT_FILE) cannot be used: {error}"
        ) from error
    with client:
        yield client


@contextmanager
def opened(client: "Client", url: str, headers: Mapping[str, str], asked: Asked) -> Iterator["Response"]:
    """Ask for an address and follow where it leads; the answer's body is still to be read.

    The client takes `Authorization` out where a redirect leads to another host. Raises DownloadError, and what the
    client raises.
    """
    import httpx2

    try:
        request = client.build_request("GET", url, headers=headers)
    except httpx2.InvalidURL as error:
        raise DownloadError(f"{asked.label} cannot be asked for: {error}") from error
    for _ in range(_MOST_REDIRECTS + 1):
        if request.url.scheme != "https":
            raise DownloadError(
                f"{asked.label} leads to {request.url.host} by plain {request.url.scheme}, where anyone on the way "
                "could exchange it; look for another address"
            )
        response = client.send(request, stream=True)
        try:
            if response.next_request is None:
                yield response
                return
            request = response.next_request
        finally:
            response.close()
    raise DownloadError(f"{asked.label} leads from address to address without end; look for another one")
