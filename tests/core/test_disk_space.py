"""Room on the disk: asked for, and taken."""

import ctypes
import errno
import os
import shutil

import pytest

from lorakit_cli.core import preallocation
from lorakit_cli.core.disk_space import require_space
from lorakit_cli.core.preallocation import preallocate
from lorakit_cli.errors import OutputError


def test_space_is_asked_of_the_nearest_folder_there_is(here, monkeypatch):
    asked = []

    def usage(folder):
        asked.append(folder)
        return shutil._ntuple_diskusage(10, 8, 2_500_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_space(here / "new" / "deep", 2_500_000_000)
    with pytest.raises(OutputError, match=r"not enough space in new: 7\.13 GB are needed and 2\.50 GB free; free some"):
        require_space((here / "new").relative_to(here), 7_130_000_000)
    assert asked == [here, here]


def test_a_disk_that_does_not_know_its_size_is_tried(here, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    require_space(here, 10**15)


def test_a_real_disk(here):
    require_space(here, 1)
    with pytest.raises(OutputError, match="not enough space in"):
        require_space(here, 10**18)


def test_a_small_disk(small_disk):
    require_space(small_disk, 4 << 20)
    with pytest.raises(OutputError, match=r"0\.01 GB are needed and 0\.00 GB free"):
        require_space(small_disk, 6_000_000)


@pytest.fixture(params=["the system's", "posix", "posix cannot", "none"])
def way(request, monkeypatch):
    if request.param == "the system's":
        return
    monkeypatch.setattr(preallocation, "_fallocate", lambda: None)
    if request.param == "posix cannot":

        def cannot(*_):
            raise OSError(errno.EOPNOTSUPP, "")

        monkeypatch.setattr(os, "posix_fallocate", cannot, raising=False)
    if request.param == "none":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_preallocated_files_have_their_length(here, size):
    with (here / "a").open("xb") as file:
        preallocate(file.fileno(), size)
        assert file.tell() == 0
    assert (here / "a").read_bytes() == bytes(size)


def test_a_file_system_that_cannot(here, monkeypatch):
    def cannot(*_):
        ctypes.set_errno(errno.EOPNOTSUPP)
        return -1

    monkeypatch.setattr(preallocation, "_fallocate", lambda: cannot)
    with (here / "a").open("xb") as file:
        preallocate(file.fileno(), 1000)
    assert (here / "a").stat().st_size == 1000


def test_a_full_disk_shows_at_once(small_disk):
    with (small_disk / "a").open("xb") as file, pytest.raises(OSError, match="No space left"):
        preallocate(file.fileno(), 5 << 20)
