"""Copies of files and stretches, by each of the system's ways and without any."""

import errno
import importlib
import itertools
import os
import random
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lorakit_cli.core import file_copy
from lorakit_cli.core.file_copy import copy_file, copy_range

DATA = random.Random(0).randbytes(300_001)


def failing(number):
    def call(*_arguments):
        raise OSError(number, os.strerror(number))

    return call


def short(call, index):
    """Do at most 1000 bytes of what is asked for."""

    def called(*arguments):
        arguments = list(arguments)
        arguments[index] = min(arguments[index], 1000)
        return call(*arguments)

    return called


@pytest.fixture(params=["as it is", "no clone", "no copy_file_range", "short", "short sends", "no sendfile", "seeks"])
def way(request, monkeypatch):
    """Take the system's ways away one after the other."""

    def fail(name, number):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, failing(number))

    if request.param == "as it is":
        return
    monkeypatch.setattr(file_copy, "_clone", lambda *_: False)
    monkeypatch.setattr(file_copy, "_KERNEL_PIECE", 100_000)
    if request.param == "short" and hasattr(os, "copy_file_range"):
        monkeypatch.setattr(os, "copy_file_range", short(os.copy_file_range, 2))
    if request.param in ("as it is", "no clone", "short"):
        return
    fail("copy_file_range", errno.EXDEV)
    if request.param == "short sends" and hasattr(os, "sendfile"):
        monkeypatch.setattr(os, "sendfile", short(os.sendfile, 3))
    if request.param in ("no copy_file_range", "short sends"):
        return
    fail("sendfile", errno.EINVAL)
    monkeypatch.setattr(file_copy, "_PIECE", 4096)
    if request.param == "seeks":
        for name in ("preadv", "pwrite", "copy_file_range", "sendfile"):
            monkeypatch.delattr(os, name, raising=False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("data", [DATA, b"", b"x"])
def test_a_file(here, data):
    (here / "a").write_bytes(data)
    copy_file(here / "a", here / "b")
    assert (here / "b").read_bytes() == data


@pytest.mark.usefixtures("way")
def test_stretches_by_several_threads(here):
    (here / "a").write_bytes(DATA)
    edges = [0, 1, 4096, 4097, 70_000, 200_000, len(DATA)]
    with (here / "a").open("rb") as source, (here / "b").open("xb") as target, ThreadPoolExecutor(4) as pool:
        places = source.tell(), target.tell()
        stretches = [(first, first + 5, last - first) for first, last in itertools.pairwise(edges)]
        random.Random(1).shuffle(stretches)
        list(pool.map(lambda stretch: copy_range(source.fileno(), target.fileno(), *stretch), stretches))
        copy_range(source.fileno(), target.fileno(), 3, 0, 0)
        if hasattr(os, "preadv"):
            assert (source.tell(), target.tell()) == places
    assert (here / "b").read_bytes() == bytes(5) + DATA


@pytest.mark.usefixtures("way")
def test_a_source_that_is_too_short_is_said_so(here):
    (here / "a").write_bytes(DATA)
    with (
        (here / "a").open("rb") as source,
        (here / "b").open("xb") as target,
        pytest.raises(OSError, match="the file that is read ends 7 bytes early; was it changed meanwhile"),
    ):
        copy_range(source.fileno(), target.fileno(), 100, 0, len(DATA) - 93)


def test_a_kernel_that_copies_nothing_without_an_error(here, monkeypatch):
    for name in ("copy_file_range", "sendfile"):
        monkeypatch.setattr(os, name, lambda *_: 0, raising=False)
    (here / "a").write_bytes(DATA)
    copy_file(here / "a", here / "b")
    assert (here / "b").read_bytes() == DATA


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["copy_file_range", "sendfile"])
def test_real_faults_are_not_tried_again(here, monkeypatch, name, number):
    if not hasattr(os, name):
        pytest.skip(f"this system has no {name}")
    monkeypatch.setattr(file_copy, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", failing(errno.EXDEV), raising=False)
    monkeypatch.setattr(os, name, failing(number))
    (here / "a").write_bytes(DATA)
    with pytest.raises(OSError, match=os.strerror(number).replace("/", ".")):
        copy_file(here / "a", here / "b")


def test_a_clone_needs_no_copy(here, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def ioctl(target, request, source):
        assert request == 0x40049409
        os.write(target, os.read(source, 1000))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(os, "copy_file_range", failing(errno.EIO), raising=False)
    (here / "a").write_bytes(b"cloned")
    copy_file(here / "a", here / "b")
    assert (here / "b").read_bytes() == b"cloned"


def test_no_fcntl(here, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    (here / "a").write_bytes(DATA)
    copy_file(here / "a", here / "b")
    assert (here / "b").read_bytes() == DATA


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_links_are_followed_and_permissions_are_normal(here):
    (here / "a").write_bytes(DATA)
    (here / "a").chmod(0o400)
    (here / "link").symlink_to("a")
    old = os.umask(0o027)
    try:
        copy_file(here / "link", here / "b")
    finally:
        os.umask(old)
    assert not (here / "b").is_symlink()
    assert stat.S_IMODE((here / "b").stat().st_mode) == 0o640
    assert (here / "b").read_bytes() == DATA


def test_nothing_is_replaced(here):
    (here / "a").write_bytes(DATA)
    with pytest.raises(FileExistsError):
        copy_file(here / "a", here / "a")
    assert (here / "a").read_bytes() == DATA


@pytest.mark.usefixtures("way")
def test_a_full_disk(here, small_disk):
    with (here / "a").open("xb") as file:
        file.truncate(5 << 20)
    with pytest.raises(OSError, match="No space left"):
        copy_file(here / "a", small_disk / "b")
