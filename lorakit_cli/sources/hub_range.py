"""Read a part of a file on the Hub, without the rest of it."""

import re

_CONTENT_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


def read_range(url: str, begin: int, end: int) -> tuple[bytes, int]:
    """Read bytes `begin` to `end` of a file, or as many as there are, and its size; the client retries what may pass.

    A server that knows no ranges sends the file from its start, of which no more than that is taken. Raises what the
    Hub's client raises.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    headers = {**build_hf_headers(), "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
    content = bytearray()
    broken: HTTPError | None = None
    with http_stream_backoff("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code == 416 and found:
            return b"", int(found[1])
        if response.is_error:
            response.read()
            hf_raise_for_status(response)
        size = int(found[1] if found else response.headers.get("Content-Length", 0))
        skipped = 0 if response.status_code == 206 else begin
        try:
            for chunk in response.iter_raw():
                content += chunk
                if len(content) >= skipped + end - begin:
                    break
        except HTTPError as error:
            # Kept for later: the client would take it for the opening's failure, and open a second time for nobody.
            broken = error
    if broken:
        raise broken
    return bytes(content[skipped : skipped + end - begin]), size
