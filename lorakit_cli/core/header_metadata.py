"""Another text in the metadata of a file of weights that is to be written."""

import json
import struct

from lorakit_cli.core.weights_file import WeightsFile


def with_metadata(file: WeightsFile, key: str, text: str | None) -> WeightsFile:
    """Give the file with this text under that key of its header's metadata, None: without the key."""
    entries = json.loads(file.header[8:])
    metadata = {name: value for name, value in (entries.pop("__metadata__", None) or {}).items() if name != key}
    metadata |= {} if text is None else {key: text}
    written = json.dumps(
        ({"__metadata__": metadata} if metadata else {}) | entries, separators=(",", ":"), ensure_ascii=False
    ).encode()
    # The data begins on 8 bytes, as the library has it.
    written += b" " * (-len(written) % 8)
    header = struct.pack("<Q", len(written)) + written
    shift = len(header) - len(file.header)
    pieces = tuple(piece._replace(begin=piece.begin + shift) for piece in file.pieces)
    return file._replace(header=header, pieces=pieces, size=file.size + shift, copy_of=None)
