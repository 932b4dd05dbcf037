"""Headers made to deceive: what the safetensors library refuses is refused here too, and the other way round."""

import json
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from lorakit_cli.architectures import possible
from lorakit_cli.architectures.unet import SD1
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.recognition import published, recognise
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.core.tensor_info import BIT_SIZES
from lorakit_cli.core.verdict import judge
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.reading import open_adapter

DATA = bytes(range(8))


def entry(dtype="U8", shape=(8,), offsets=(0, 8), **extra):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)} | extra


def content(header, data=DATA):
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def write(tmp_path, header, data=DATA):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content(header, data))
    return path


def library_reads(path):
    """What the library sees: name -> (dtype, shape), or None where it refuses the file."""
    try:
        with safe_open(path, framework="np") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
    except SafetensorError:
        return None


def lorakit_reads(path):
    try:
        return {name: (info.dtype, info.shape) for name, info in read_header(path).tensors.items()}
    except CorruptFileError:
        return None


def text_entry(extra="", dtype='"U8"', shape="[8]", offsets="[0, 8]"):
    return f'{{"a": {{"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}{extra}}}}}'


def nested(levels, opening="[", closing="]", core=""):
    return text_entry(f', "x": {opening * levels}{core}{closing * levels}')


GOOD = {
    "plain": {"a": entry()},
    "no tensors": ({}, b""),
    "only metadata": ({"__metadata__": {"a": "b"}}, b""),
    "null metadata": {"__metadata__": None, "a": entry()},
    "spaces around": f"\n\t {text_entry()} \r\n",
    "any order of entries": {"b": entry(shape=[4], offsets=[4, 8]), "a": entry(shape=[4], offsets=[0, 4])},
    "empty tensors between": {
        "z": entry(shape=[0], offsets=[0, 0]),
        "a": entry(),
        "y": entry(shape=[0, 3], offsets=[8, 8]),
    },
    "zero before a huge dimension": ({"a": entry(shape=[0, 2**63, 4], offsets=[0, 0])}, b""),
    "a scalar": ({"a": entry(dtype="F16", shape=[], offsets=[0, 2])}, b"12"),
    "more fields": {"a": entry(x={"y": [1, 2.5e300, "z"]}, w=None)},
    "a number beyond 64 bits that nobody reads": text_entry(', "x": ' + "9" * 300),
    "nested to the limit": nested(125),
    "objects nested to the limit": nested(125, '{"k":', "}", "1"),
    "a pair of surrogates": text_entry().replace("a", "\\ud83d\\ude00", 1),
    "an escaped backslash before what looks like a surrogate": text_entry().replace("a", "\\\\ud800", 1),
    "an empty name": {"": entry()},
}
BAD = {
    "hole at the start": {"a": entry(shape=[4], offsets=[4, 8])},
    "hole between": {"a": entry(shape=[2], offsets=[0, 2]), "b": entry(shape=[4], offsets=[4, 8])},
    "hole at the end": {"a": entry(shape=[4], offsets=[0, 4])},
    "overlap": {"a": entry(shape=[5], offsets=[0, 5]), "b": entry(shape=[4], offsets=[4, 8])},
    "the same bytes twice": {"a": entry(), "b": entry()},
    "one tensor inside another": {"a": entry(), "b": entry(shape=[2], offsets=[3, 5])},
    "an empty tensor inside another": {"a": entry(), "b": entry(shape=[0], offsets=[3, 3])},
    "end before begin": ({"a": entry(shape=[0], offsets=[8, 0]), "b": entry()}, DATA),
    "beyond the end": {"a": entry(shape=[16], offsets=[0, 16])},
    "unknown dtype": {"a": entry(dtype="F128", shape=[0], offsets=[0, 0]), "b": entry()},
    "dtype in small letters": {"a": entry(dtype="u8")},
    "dtype is a list": {"a": entry() | {"dtype": ["U8"]}},
    "dtype is null": {"a": entry(dtype=None)},
    "negative shape": {"a": entry(shape=[-8])},
    "two negatives": {"a": entry(shape=[-2, -4])},
    "minus zero": text_entry(offsets="[-0, 8]"),
    "negative offset": {"a": entry(offsets=[-8, 0])},
    "a shape that is text": ({"a": entry(shape=[], offsets=[0, 1]) | {"shape": ""}}, b"1"),
    "a shape that is an object": ({"a": entry(shape=[], offsets=[0, 1]) | {"shape": {}}}, b"1"),
    "a shape of floats": text_entry(shape="[8.0]"),
    "a shape in scientific notation": text_entry(shape="[8e0]"),
    "a shape of truths": ({"a": entry(shape=[True], offsets=[0, 1])}, b"1"),
    "a dimension beyond 64 bits": ({"a": entry(shape=[0, 2**64], offsets=[0, 0])}, b""),
    "elements overflow to the right number": {"a": entry(shape=[2**63, 2, 8])},
    "bits overflow to the right number": {"a": entry(shape=[2**61 + 8])},
    "overflow before a zero": ({"a": entry(shape=[2**63, 4, 0], offsets=[0, 0])}, b""),
    "three offsets": {"a": entry(offsets=[0, 8, 8])},
    "one offset": {"a": entry(offsets=[8])},
    "no shape": {"a": {"dtype": "U8", "data_offsets": [0, 8]}},
    "tensor is null": {"a": None},
    "half a byte": {"a": entry(dtype="F4", shape=[15])},
    "six bits": ({"a": entry(dtype="F6_E2M3", shape=[3], offsets=[0, 2])}, b"12"),
    "metadata is a list": {"__metadata__": [], "a": entry()},
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": entry()},
    "metadata is null inside": {"__metadata__": {"a": None}, "a": entry()},
    "header is a list": "[]",
    "header is empty": "",
    "header is a number": "1",
    "not a number": text_entry(', "x": NaN'),
    "infinity": text_entry(', "x": -Infinity'),
    "too large a float": text_entry(', "x": 1e999'),
    "too long an integer": text_entry(', "x": ' + "9" * 400),
    "an integer longer than Python reads": text_entry(', "x": ' + "9" * 5000),
    "nested one deeper than the limit": nested(126),
    "objects nested one deeper than the limit": nested(126, '{"k":', "}", "1"),
    "nested deep": nested(100_000),
    "nested deep and never closed": "[" * 1_000_000,
    "surrogate in a name": text_entry().replace("a", "\\ud800", 1),
    "surrogate in a field nobody reads": text_entry(', "x": "\\uDFFF"'),
    "surrogate encoded as if it were a character": text_entry().encode().replace(b"a", b"\xed\xa0\x80", 1),
    "invalid UTF-8": text_entry().encode().replace(b"a", b"\xff", 1),
    "overlong UTF-8": text_entry().encode().replace(b"a", b"\xc1\xa1", 1),
    "UTF-16": text_entry().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + text_entry().encode(),
    "raw control character in a name": text_entry().encode().replace(b"a", b"\x01", 1),
    "something behind the object": text_entry() + "x",
    "padded with NUL": text_entry() + "\0\0",
    "single quotes": text_entry().replace('"', "'"),
    "comment": "/**/" + text_entry(),
}


def _written(tmp_path, case):
    return write(tmp_path, *case) if isinstance(case, tuple) else write(tmp_path, case)


@pytest.mark.parametrize("name", GOOD)
def test_unusual_headers_that_the_library_reads(tmp_path, name):
    path = _written(tmp_path, GOOD[name])
    assert lorakit_reads(path) == library_reads(path) is not None


@pytest.mark.parametrize("name", BAD)
def test_headers_that_the_library_refuses(tmp_path, name):
    path = _written(tmp_path, BAD[name])
    assert library_reads(path) is None
    with pytest.raises(CorruptFileError, match=r"a\.safetensors"):
        open_adapter(path)


@pytest.mark.parametrize("dtype", BIT_SIZES)
def test_every_dtype_has_the_size_the_library_gives_it(tmp_path, dtype):
    path = write(tmp_path, {"a": entry(dtype=dtype, shape=[8], offsets=[0, BIT_SIZES[dtype]])}, bytes(BIT_SIZES[dtype]))
    assert lorakit_reads(path) == library_reads(path) == {"a": (dtype, (8,))}


def test_no_dtype_of_the_library_is_missing(tmp_path):
    # The library lists what it knows when it meets what it does not.
    path = write(tmp_path, {"a": entry(dtype="X")})
    with pytest.raises(SafetensorError) as refusal, safe_open(path, framework="np"):
        pass
    known = str(refusal.value).split("expected one of ")[1].split(" at line")[0]
    assert {name.strip("` ") for name in known.split(",")} == set(BIT_SIZES)


NAMES = st.sampled_from(["a", "b", "c", "\x00", "../d", "__metadata__"])
SIZES = st.integers(0, 9) | st.sampled_from([-1, 2**31, 2**63, 2**64 - 1, 2**64, 1.0, None, True, "1"])
ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["U8", "I8", "BOOL", "F4", "F6_E3M2", "F16", "F8_E4M3FNUZ", "X"])},
    optional={
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=1, max_size=3),
        "x": SIZES,
    },
)


@st.composite
def nearly_right(draw):
    """Build a header whose tensors follow one another, then perhaps spoil one number of it."""
    header, place = {}, 0
    for name in draw(st.lists(NAMES.filter(lambda name: name != "__metadata__"), unique=True, max_size=4)):
        size = draw(st.integers(0, 4))
        header[name] = entry(dtype=draw(st.sampled_from(["U8", "BOOL"])), shape=[size], offsets=[place, place + size])
        place += size
    if header and draw(st.booleans()):
        spoiled = header[draw(st.sampled_from(sorted(header)))]
        numbers = spoiled[draw(st.sampled_from(["shape", "data_offsets"]))]
        numbers[draw(st.integers(0, len(numbers) - 1))] = draw(SIZES)
    return header, bytes(place)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nearly_right() | st.tuples(st.dictionaries(NAMES, ENTRIES, max_size=3), st.binary(max_size=9)))
def test_a_file_is_read_exactly_where_the_library_reads_it(tmp_path, made):
    path = write(tmp_path, *made)
    assert lorakit_reads(path) == library_reads(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 500), st.sampled_from(b'\x00\xff"[]{}:,\\ -0123456789eEnu'))
def test_one_byte_changed_anywhere_is_judged_as_the_library_judges_it(tmp_path, place, byte):
    header = {
        "__metadata__": {"k": "v"},
        "ab": entry(shape=[2, 2], offsets=[0, 4]),
        "c": entry(shape=[4], offsets=[4, 8]),
    }
    data = bytearray(content(header))
    data[place % len(data)] = byte
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert lorakit_reads(path) == library_reads(path)


@pytest.mark.parametrize(
    "header",
    [
        text_entry()[:-1] + "," + text_entry()[1:],
        '{"__metadata__": {"a": "1", "a": "2"}, ' + text_entry()[1:],
        text_entry(', "x": {"y": 1, "y": 2}'),
    ],
)
def test_a_name_that_stands_twice_is_refused_though_the_library_takes_the_last(tmp_path, header):
    path = write(tmp_path, header)
    assert library_reads(path) is not None
    with pytest.raises(CorruptFileError, match="a name stands in it twice"):
        open_adapter(path)


@pytest.mark.parametrize("header", ['{"a": ["U8", [8], [0, 8]]}', text_entry(dtype='{"U8": null}')])
def test_spellings_outside_the_format_are_refused_though_the_library_takes_them(tmp_path, header):
    path = write(tmp_path, header)
    assert library_reads(path) is not None
    assert lorakit_reads(path) is None


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**64 - 8, 100_000_001, 101])
def test_a_header_longer_than_the_file_or_the_limit_is_not_read(tmp_path, length):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length))
        # Takes no room on disk; the file is large enough for the header that only the limit forbids.
        file.truncate(100_000_200 if length == 100_000_001 else 100)
    assert library_reads(path) is None
    with pytest.raises(CorruptFileError, match="is no complete safetensors file"):
        read_header(path)


def test_names_are_data_and_never_paths(tmp_path):
    names = ["../../etc/passwd", "/absolute", "a\0b", "\x1b[2J\x1b]0;title\x07", "two\nlines", "C:\\x", "\u202eright"]
    tensors = {name: entry(shape=[1], offsets=[place, place + 1]) for place, name in enumerate(names)}
    path = write(tmp_path, tensors, bytes(len(names)))
    before = sorted(tmp_path.rglob("*"))
    assert list(read_header(path).tensors) == names
    assert lorakit_reads(path) == library_reads(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_endless_name_does_not_fill_the_terminal(tmp_path):
    path = write(tmp_path, {"a" * 5_000_000: entry(dtype="X" * 1_000_000)})
    with pytest.raises(CorruptFileError) as refusal:
        open_adapter(path)
    assert len(str(refusal.value)) < 1000


def test_a_header_of_very_many_tensors_is_read(tmp_path):
    count = 200_000
    tensors = {
        f"layer.{number}.lora_A.weight": entry(shape=[1, 1], offsets=[number, number + 1]) for number in range(count)
    }
    path = write(tmp_path, tensors, bytes(count))
    header = read_header(path)
    assert len(header.tensors) == count
    assert header.tensors[f"layer.{count - 1}.lora_A.weight"].end == path.stat().st_size


@pytest.mark.parametrize(
    "names",
    [[f"foo.{number}.baz" for number in range(60_000)], [f"bundle_emb.x.{n}" for n in range(60_000)], ["a." * 60_000]],
    ids=["of nothing", "of one embedding", "of very many parts"],
)
def test_keys_of_no_layer_are_told_apart_in_the_time_it_takes_to_read_them(tmp_path, names):
    pair = ("unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight")
    header = {name: entry("F32", (1, 1), (4 * n, 4 * n + 4)) for n, name in enumerate((*pair, *names))}
    path = write(tmp_path, header, bytes(4 * len(header)))
    start = time.monotonic()
    file = open_adapter(path)
    found = recognise(file, possible)
    assert judge(published(SD1, "SD1.x"), file, *match_layers(published(SD1, "SD1.x"), "a", file)).wrong
    assert time.monotonic() - start < 8
    assert found.confidence == "unknown"
    assert len(file.unknown_keys) + sum(map(len, file.embeddings.values())) == len(names)


def test_a_file_cut_off_after_its_header_was_read(tmp_path):
    path = write(tmp_path, {"a": entry(dtype="F64", shape=[], offsets=[0, 8])})
    header = read_header(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(CorruptFileError, match="has been cut off since its header was read"):
        header.scalars(["a"])


@pytest.mark.parametrize(("dtype", "code"), [("U16", "<H"), ("U32", "<I"), ("U64", "<Q"), ("I64", "<q"), ("F64", "<d")])
def test_scalars_of_every_width(tmp_path, dtype, code):
    data = struct.pack(code, 200)
    path = write(tmp_path, {"a": entry(dtype=dtype, shape=[], offsets=[0, len(data)])}, data)
    assert read_header(path).scalars(["a"]) == [200.0]
