"""Bytes of a file are read wherever they are asked for, with and without the calls of some systems."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from lorakit_cli.core.ahead import ahead
from lorakit_cli.core.new_tensor import NewTensor, write_tensors
from lorakit_cli.core.source import Source
from lorakit_cli.errors import CorruptFileError

SIZE = 3_000_000


@pytest.fixture(params=["all calls", "portable calls"])
def path(request, tmp_path, monkeypatch):
    if request.param == "portable calls":
        monkeypatch.delattr(os, "preadv", raising=False)
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    file = tmp_path / "source"
    file.write_bytes(os.urandom(SIZE))
    return file


@pytest.mark.parametrize("count", [1, 1000, 100_000, SIZE])
def test_threads_read_what_stands_at_their_places(path, count):
    data = path.read_bytes()
    with Source(path) as source, ThreadPoolExecutor(4) as pool:

        def read(place):
            buffer = bytearray(count)
            source.fill(memoryview(buffer), place)
            return bytes(buffer) == data[place : place + count]

        assert all(pool.map(read, range(0, SIZE - count + 1, 299_999)))


def test_a_file_that_was_cut_off_is_told(path):
    with Source(path) as source, pytest.raises(CorruptFileError, match="cut off"):
        source.fill(memoryview(bytearray(100_000)), SIZE - 1000)


def test_pieces_of_any_size_are_written_one_after_another(path, tmp_path):
    data = path.read_bytes()
    pieces = ((2_500_000, 2_900_000), b"x" * 7, (0, 1_700_000), (1_700_000, 2_400_003), b"y" * 2_000_001, (5, 6))
    wanted = b"".join(piece if isinstance(piece, bytes) else data[slice(*piece)] for piece in pieces)
    with Source(path) as source, (tmp_path / "out").open("xb") as out:
        size = write_tensors(out, [NewTensor("a", "U8", (len(wanted),), pieces)], {}, source)
    written = (tmp_path / "out").read_bytes()
    assert size == len(written)
    assert written[8 + int.from_bytes(written[:8], "little") :] == wanted


def test_the_items_come_in_order_and_an_error_comes_through():
    def items():
        yield from range(1, 4)
        raise ValueError("the fourth")

    found = []
    with pytest.raises(ValueError, match="the fourth"):
        found += ahead(items())
    assert found == [1, 2, 3]
