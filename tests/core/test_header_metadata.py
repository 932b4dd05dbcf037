"""A file of weights with another text in its metadata is the same file otherwise."""

import struct

import pytest

from lorakit_cli.core.header_metadata import with_metadata
from lorakit_cli.core.match import Target
from lorakit_cli.core.tensor_file import parse_header
from lorakit_cli.core.weights_file import Piece, WeightsFile

ENTRY = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


def file(metadata):
    text = f"{{{metadata}{ENTRY}}}".encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    return WeightsFile("x", struct.pack("<Q", len(text)) + text, (Piece(Target("", "a"), "F32", begin),), begin + 8)


@pytest.mark.parametrize(
    ("metadata", "text", "expected"),
    [
        ("", "new", {"lorakit": "new"}),
        ("", None, {}),
        ('"__metadata__":{"lorakit":"old","format":"pt"},', "new\u20ac", {"format": "pt", "lorakit": "new\u20ac"}),
        ('"__metadata__":{"lorakit":"old","format":"pt"},', None, {"format": "pt"}),
        ('"__metadata__":{"lorakit":"old"},', None, {}),
    ],
)
def test_the_text_is_in_place_and_all_else_as_it_was(metadata, text, expected):
    made = with_metadata(file(metadata), "lorakit", text)
    length = int.from_bytes(made.header[:8], "little")
    assert len(made.header) == 8 + length
    assert length % 8 == 0
    tensors, found = parse_header("x", made.header[8:], made.size)
    assert found == expected
    assert (tensors["a"].begin, tensors["a"].end, made.size) == (made.pieces[0].begin, made.size, 16 + length)
    assert ("__metadata__" in made.header.decode()) == bool(expected)
