"""The quick way to read a header takes what is usual, gives what the close look gives, and leaves the rest to it."""

import json
from pathlib import Path

import pytest

from lorakit_cli.core.quick_header import quick_header
from lorakit_cli.core.tensor_file import _whole_header
from lorakit_cli.demo import ADAPTERS

ONE = b'{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}'


@pytest.mark.parametrize("path", [path for path, _ in ADAPTERS.values()], ids=lambda path: path.stem)
def test_files_as_safetensors_writes_them_go_the_quick_way(path: Path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    quick = quick_header(header, 8 + length)
    assert quick is not None
    assert quick == _whole_header(header, 8 + length)
    assert list(quick[0]) == [name for name in json.loads(header) if name != "__metadata__"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' + ONE + b"}",
        b'{"__metadata__":{"base":"sdxl_base_v1-0","date":"2024-01-02"},"a-0":' + ONE + b"}",
        b'{"__metadata__":{},"a":' + ONE + b"}",
        b'{"__metadata__": {"a": "}"}, "a": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}}   ',
        b'{"b":{"dtype":"F16","shape":[1],"data_offsets":[12,14]},"a":' + ONE + b"}",
        '{"ü\U0001f600":'.encode() + ONE + b"}",
    ],
)
def test_what_is_usual_goes_the_quick_way(text):
    assert quick_header(text, 0) == _whole_header(text, 0)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' + ONE + b',"a":' + ONE + b"}",
        b'{"__metadata__":{"x":"1","x":"2"},"a":' + ONE + b"}",
        b'{"__metadata__":{},"__metadata__":{},"a":' + ONE + b"}",
        b'{"__metadata__":{"x":1},"a":' + ONE + b"}",
        b'{"__metadata__":{"x":{}},"a":' + ONE + b"}",
        b'{"__metadata__":null,"a":' + ONE + b"}",
        b'{"a":null,"b":{"dtype":"F16","shape":[2,3],"data_offsets":{}}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[-0,12]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[ -0,12]}}',
        b'{"a":{"dtype":"F16","shape":[2.0,3],"data_offsets":[0,12]}}',
        b'{"a":{"dtype":"F16","shape":[true,6],"data_offsets":[0,12]}}',
        b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[true],"data_offsets":[2,4]}}',
        b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[1.0],"data_offsets":[2,4]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,11]}}',
        b'{"a":{"dtype":"F17","shape":[2,3],"data_offsets":[0,12]}}',
        b'{"a":{"dtype":["F16"],"shape":[2,3],"data_offsets":[0,12]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12],"x":1}}',
        b'{"a":{"dtype":"F16","dtype":"F16","shape":[2,3]}}',
        b'{"\\ud800":' + ONE + b"}",
        b'{"a":' + ONE,
        b'{"a"b":' + ONE + b"}",
        b'{"a\nb":' + ONE + b"}",
        b'{"a\\nb":' + ONE + b"}",
        b'{"a":' + ONE + b',"__metadata__":' + ONE + b"}",
        b'{"a":{"dtype":"F16","shape":[02,3],"data_offsets":[0,12]}}',
        b'{"a":{"dtype":"F16","shape":[-2,-3],"data_offsets":[0,12]}}',
        b'{"a":{"dtype":"F16","shape":[0,3],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F16","shape":[2,3,],"data_offsets":[0,12]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[00,12]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[+0,12]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[-12,0]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12,12]}}',
        b'{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[%d,%d]}}' % (2**64 - 12, 2**64),
        b'{"a":' + ONE + b"," + b"}",
        b'{"a":' + ONE + b"}}",
        b'{"a":' + ONE + b"} x",
        b'{"__metadata__":{}"a":' + ONE + b"}",
        b'{"__metadata__":["x"],"a":' + ONE + b"}",
        b'{"__metadata__":{}}',
        b"{}",
        b"",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_odd_is_left_to_the_close_look(text):
    assert quick_header(text, 0) is None
