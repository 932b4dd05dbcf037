"""The lock of an output: held by one, named to the other, gone with its process."""

import errno
import importlib
import os
import re
import sys
from pathlib import Path

import pytest

from lorakit_cli.core import file_lock, lock_holder, output_lock, pid_file
from lorakit_cli.core.living_process import lives
from lorakit_cli.core.lock_holder import Holder, this_machine
from lorakit_cli.errors import OutputError
from tests.children import start

OUT = Path("out")
HOLD = """
import sys
from pathlib import Path
from lorakit_cli.core import file_lock, output_lock
{before}
with output_lock.output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
NO_LOCKS = """
def none(fd):
    raise OSError(95, "Operation not supported")
output_lock.lock_file = none
"""


def no_locks(monkeypatch):
    def none(_fd):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(output_lock, "lock_file", none)


@pytest.fixture(params=["locks", "no locks"])
def before(request, monkeypatch):
    """Code for the other process, where this one has been told the same."""
    if request.param == "locks":
        return ""
    no_locks(monkeypatch)
    return NO_LOCKS


@pytest.fixture
def quick(monkeypatch):
    """Do not wait for a number that nobody writes."""
    monkeypatch.setattr(lock_holder, "_TRIES", 2)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def take():
    with output_lock.output_lock(OUT):
        return names(Path())


def test_one_run_at_a_time(here, before):
    with start(HOLD.format(before=before), OUT) as other:
        assert other.stdout.readline() == "held\n"
        message = f"another run (process {other.pid}) is writing out; wait for it or stop it"
        with pytest.raises(OutputError, match=f"^{re.escape(message)}$"):
            take()
        assert "out" not in names(here)
        other.stdin.close()
    assert names(here) == []
    assert take() == ([".out.pid"] if before else [".out.lock"])
    assert names(here) == []


def test_the_lock_of_a_killed_run_is_gone(here, before):
    with start(HOLD.format(before=before), OUT) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
        other.wait()
    assert len(names(here)) == 1
    take()
    assert names(here) == []


def test_an_error_ends_it(here, before):
    def fail():
        with output_lock.output_lock(OUT):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(here) == []


def test_two_in_one_process(here, before):
    with output_lock.output_lock(OUT):
        with pytest.raises(OutputError, match=f"process {os.getpid()}"):
            take()
        with output_lock.output_lock(Path("other")):
            pass
    assert names(here) == []


def test_a_lock_file_that_was_removed_between_opening_and_locking(here, monkeypatch):
    removed = []

    def lock(fd):
        if not removed:
            removed.append(Path(".out.lock").unlink())
        file_lock.lock_file(fd)

    monkeypatch.setattr(output_lock, "lock_file", lock)
    assert take() == [".out.lock"]
    assert names(here) == []


def test_another_runs_lock_file_is_not_removed(here):
    with output_lock.output_lock(OUT):
        Path(".out.lock").unlink()
        Path(".out.lock").write_text("another's")
    assert Path(".out.lock").read_text() == "another's"


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_link_in_its_place_is_not_followed(here):
    Path(".out.lock").symlink_to("mine")
    Path("mine").write_text("mine")
    with pytest.raises(OutputError, match="cannot write out: "):
        take()
    assert Path("mine").read_text() == "mine"


@pytest.mark.usefixtures("quick")
def test_a_held_lock_without_a_number(here):
    with output_lock.output_lock(OUT):
        Path(".out.lock").write_text("")
        with pytest.raises(OutputError, match=r"^another run is writing out; wait"):
            take()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("text", ["", f"999999999 {this_machine()}\n", "no number"])
def test_stale_files_where_there_are_no_locks(here, monkeypatch, text):
    no_locks(monkeypatch)
    Path(".out.pid").write_text(text)
    assert take() == [".out.pid"]
    assert names(here) == []


def test_processes_on_other_machines_are_taken_to_live(here, monkeypatch):
    no_locks(monkeypatch)
    Path(".out.pid").write_text("999999999 elsewhere\n")
    with pytest.raises(OutputError, match=r"another run \(process 999999999 on elsewhere\) is writing out"):
        take()


def test_a_file_that_another_run_has_just_created_is_not_removed(here):
    Path(".out.pid").write_text("1 elsewhere\n")
    pid_file._remove_stale(Path(".out.pid"))
    assert names(here) == [".out.pid"]


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_killed_while_it_removed_a_stale_file(here, monkeypatch):
    no_locks(monkeypatch)
    Path(".out.pid").touch()
    Path(".out.pid.guard").touch()
    with pytest.raises(
        OutputError, match=r"cannot write out: a run that has ended left \.out\.pid\*; remove that if no"
    ):
        take()


def test_a_file_taken_from_one_that_slept_between_creating_and_writing(here, monkeypatch):
    no_locks(monkeypatch)

    def write(holder, fd):
        Path(".out.pid").unlink()
        Path(".out.pid").write_text("1 elsewhere\n")

    monkeypatch.setattr(Holder, "write", write)
    with pytest.raises(OutputError, match="process 1 on elsewhere"):
        take()


def test_a_system_without_any(here, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert take() == [".out.pid"]


@pytest.mark.parametrize(("number", "held"), [(None, False), (errno.EACCES, True), (errno.ENOLCK, False)])
def test_the_lock_of_windows(here, monkeypatch, number, held):
    class Windows:
        LK_NBLCK = 2

        @staticmethod
        def locking(fd, mode, count):
            assert (os.lseek(fd, 0, os.SEEK_CUR), mode, count) == (1 << 30, 2, 1)
            if number:
                raise OSError(number, "")

    def load(name):
        if name == "msvcrt":
            return Windows
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", load)
    if held:
        Path(".out.lock").write_text("7 elsewhere\n")
        with pytest.raises(OutputError, match="process 7 on elsewhere"):
            take()
    else:
        assert take() == [".out.pid" if number else ".out.lock"]


def test_a_system_that_removes_nothing_that_is_open(here, monkeypatch):
    """As Windows does."""
    closed, unlink, close = [], Path.unlink, os.close

    def guarded(path, **options):
        if not closed:
            raise PermissionError
        unlink(path, **options)

    with output_lock.output_lock(OUT):
        monkeypatch.setattr(Path, "unlink", guarded)
        monkeypatch.setattr(os, "close", lambda fd: (close(fd), closed.append(fd)))
    assert names(here) == []


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/.."])
def test_what_is_no_name(here, name):
    with pytest.raises(OutputError, match="is no name for an output"), output_lock.output_lock(Path(name)):
        pass


def test_living_processes():
    assert lives(os.getpid())
    assert lives(os.getppid())
    with start("") as child:
        assert child.wait() == 0
    assert not lives(child.pid)
    assert not lives(10**18)
