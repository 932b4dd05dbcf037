"""Say why a file on the web does not come, and what would help; never with the address's secrets."""

import socket
import ssl
from collections.abc import Iterator

from lorakit_cli.core.record import Record
from lorakit_cli.errors import DownloadError

_BROWSER = "download it with a browser and give the file's path"


class Asked(Record):
    """What is asked for: what people call it, its host, and what helps where it is not given to everybody."""

    label: str
    host: str
    log_in: str = f"if a browser that is logged in gets it, {_BROWSER}"
    missing: str = "check the address"


def refused(asked: Asked, status: int, detail: str = "") -> DownloadError:
    """Say what a status means, with what the server itself says."""
    label, said = asked.label, f" ({detail})" if detail else ""
    if status == 401:
        return DownloadError(f"{label} is not given without a login (HTTP 401){said}; {asked.log_in}")
    if status == 403:
        return DownloadError(f"{label} is not given to whoever asked (HTTP 403){said}; {asked.log_in}")
    if status == 404:
        return DownloadError(f"{asked.host} has no {label} (HTTP 404){said}; {asked.missing}")
    if status == 410:
        return DownloadError(f"{label} is not there any more (HTTP 410){said}; look for another copy of it")
    if status == 429:
        return DownloadError(f"{asked.host} asks for fewer requests (HTTP 429){said}; wait some minutes")
    if status >= 500 or status == 408:
        return DownloadError(f"{asked.host} is in trouble (HTTP {status}) and does not give {label}; try again later")
    return DownloadError(f"{asked.host} does not give {label} (HTTP {status}){said}; {_BROWSER}")


def unreachable(asked: Asked, error: Exception) -> DownloadError:
    """Say why a server was not reached."""
    host, label = asked.host, asked.label
    causes = list(_causes(error))
    certificate = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if certificate:
        reason = certificate.verify_message or "it is not trusted"
        return DownloadError(
            f"{host} cannot prove who it is, so that {label} is not fetched: {reason}; behind a proxy with a "
            "certificate of its own, SSL_CERT_FILE names that"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return DownloadError(f"{host} and this machine find no secure connection for {label}; {_BROWSER}")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return DownloadError(f"there is no host {host}, or no network, to fetch {label}; check the name and connection")
    why = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return DownloadError(
        f"{host} cannot be reached for {label} ({why or type(error).__name__}); check the connection and, if there is "
        "one, the proxy in HTTPS_PROXY"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
