"""Folders and files that appear whole or not at all, and what is told of those that did not."""

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from lorakit_cli.core import exchange, leftovers, output_folder
from lorakit_cli.core.leftovers import recover
from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.output_folder import new_folder
from lorakit_cli.errors import OutputError, OutputExistsError
from tests.children import start

OUT = Path("out")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def put(kind, content, path=OUT, error=None, **options):
    """Write an output of one kind, or fail in the middle."""
    with (new_folder if kind == "folder" else new_file)(path, **options) as made:
        if kind == "folder":
            (made / "file").write_text(content)
        else:
            made.write(content.encode())
            made.flush()
        if error:
            raise error


def content(kind, path=OUT):
    return (path / "file" if kind == "folder" else path).read_text()


@pytest.fixture(params=["folder", "file"])
def kind(request):
    return request.param


@pytest.fixture(params=["one step", "two steps"])
def steps(request, monkeypatch):
    """Replace folders in one step where this system can, and in two."""
    if request.param == "two steps":
        monkeypatch.setattr(exchange, "_system_exchange", lambda: lambda first, second: errno.ENOSYS)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(5, "gone"), OutputError("no")])
def test_whole_or_not_at_all(here, kind, error):
    wanted = OutputError if isinstance(error, OSError) else error if isinstance(error, type) else type(error)
    with pytest.raises(wanted):
        put(kind, "half", error=error)
    assert names(here) == []
    put(kind, "old")
    with pytest.raises(OutputExistsError, match="out exists already; choose another name or add --overwrite"):
        put(kind, "other")
    with pytest.raises(wanted):
        put(kind, "half", error=error, overwrite=True)
    assert content(kind) == "old"
    put(kind, "new", overwrite=True)
    assert content(kind) == "new"
    assert names(here) == ["out"]


def test_a_second_rename_that_fails(here, monkeypatch):
    put("folder", "old")
    monkeypatch.setattr(output_folder, "exchange", lambda *_: False)
    rename = Path.rename

    def failing(path, target):
        if path.suffix == ".part":
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match=r"^cannot write out: Permission denied$"):
        put("folder", "new", overwrite=True)
    assert content("folder") == "old"
    assert names(here) == ["out"]


def test_another_run_that_was_faster_keeps_its_folder(here):
    def race():
        with new_folder(OUT):
            OUT.mkdir()

    with pytest.raises(OutputExistsError, match="written by another run meanwhile"):
        race()
    assert names(here) == ["out"]


def test_two_runs_at_once(here, kind):
    code = f"""
import sys
from pathlib import Path
from lorakit_cli.core.output_{kind} import new_{kind}
with new_{kind}(Path("out"), overwrite=True) as made:
    print("writing", flush=True)
    sys.stdin.read()
    (made / "file").write_text("first") if {kind == "folder"} else made.write(b"first")
"""
    with start(code) as other:
        assert other.stdout.readline() == "writing\n"
        (part,) = (name for name in names(here) if name.endswith(".part"))
        with pytest.raises(OutputError, match=rf"another run \(process {other.pid}\) is writing out"):
            put(kind, "second", overwrite=True)
        with pytest.raises(OutputError, match="another run"):
            recover(OUT)
        assert part in names(here)
        other.stdin.close()
    assert (other.returncode, content(kind), names(here)) == (0, "first", ["out"])


@pytest.fixture
def litter(here):
    """What killed runs left, and what only looks like it."""
    (here / "mine").mkdir()
    (here / "mine" / "file").touch()
    (here / ".out.1.part").mkdir()
    (here / ".out.1.part" / "file").touch()
    (here / ".out.22.part").touch()
    (here / f".out.{os.getpid()}.part").mkdir()
    (here / ".out.lock").write_text("1 here\n")
    (here / ".out.333.part").symlink_to("mine")
    others = [".out.x.part", ".out.5.6.part", ".out..part", ".outer.1.part", ".out.1.parts", "out.1.part"]
    for name in others:
        (here / name).touch()
    return [*others, "mine"]


def test_parts_of_killed_runs_are_removed(here, kind, litter):
    said = []
    put(kind, "new", remark=said.append)
    assert content(kind) == "new"
    assert names(here) == sorted([*litter, "out"])
    assert names(here / "mine") == ["file"]
    parts = sorted([".out.1.part", ".out.22.part", ".out.333.part", f".out.{os.getpid()}.part"])
    assert said == [f"removed what an interrupted run left: {part}" for part in parts]


def test_parts_of_killed_runs_stay_where_nothing_is_to_be_written(here, kind, litter):
    (here / "out").touch() if kind == "file" else (here / "out").mkdir()
    before = names(here)
    with pytest.raises(OutputExistsError):
        put(kind, "new")
    assert names(here) == before


def test_a_part_that_cannot_be_removed_is_said(here, monkeypatch):
    (here / ".out.1.part").mkdir()
    monkeypatch.setattr(leftovers.shutil, "rmtree", lambda *_, **__: None)
    said = []
    put("file", "new", remark=said.append)
    assert said == ["cannot remove .out.1.part, which is of no use any more"]
    assert content("file") == "new"


def aside(name, text):
    Path(name).mkdir()
    (Path(name) / "file").write_text(text)


@pytest.mark.usefixtures("steps")
def test_what_was_moved_aside_is_put_back_first(here):
    aside(".out.7.old", "old")
    said = []
    with pytest.raises(OutputExistsError):
        put("folder", "new", remark=said.append)
    assert said == ["put back out, which an interrupted run had moved aside"]
    assert (content("folder"), names(here)) == ("old", ["out"])
    put("folder", "new", overwrite=True)
    assert (content("folder"), names(here)) == ("new", ["out"])


def test_the_latest_is_put_back(here):
    for number, name in enumerate((".out.7.old", ".out.9.old", ".out.8.old")):
        aside(name, name)
        os.utime(name, (number, number))
    aside(".out.9.part", "half")
    recover(OUT)
    assert (content("folder"), names(here)) == (".out.8.old", [".out.7.old", ".out.9.old", "out"])
    recover(OUT)
    assert names(here) == [".out.7.old", ".out.9.old", "out"]


def test_recovering_nothing_touches_nothing(here):
    recover(OUT)
    recover(Path("nowhere/out"))
    assert names(here) == []


@pytest.mark.usefixtures("steps")
def test_what_was_moved_aside_stays_until_a_new_one_stands(here):
    put("folder", "later")
    aside(f".out.{os.getpid()}.old", "old")
    with pytest.raises(RuntimeError):
        put("folder", "half", error=RuntimeError, overwrite=True)
    assert names(here) == [f".out.{os.getpid()}.old", "out"]
    said = []
    put("folder", "new", overwrite=True, remark=said.append)
    assert (content("folder"), names(here)) == ("new", ["out"])
    assert said == [f"removed what an interrupted run left: .out.{os.getpid()}.part"]


def test_folders_above_are_made_and_gone_again_after_an_error(here, kind):
    deep = Path("a/b/c/out")
    with pytest.raises(OutputError, match="cannot write a/b/c/out: No such file or directory"):
        put(kind, "new", deep)
    (here / "a").mkdir()
    with pytest.raises(KeyboardInterrupt):
        put(kind, "half", deep, KeyboardInterrupt, parents=True)
    assert names(here / "a") == []

    def fail_beside_something():
        with new_file(deep, parents=True):
            Path("a/b/mine").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_beside_something()
    assert names(here / "a" / "b") == ["mine"]
    put(kind, "new", deep, parents=True)
    assert content(kind, deep) == "new"
    (here / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write file/b/out: .*: file"):
        put(kind, "new", Path("file/b/out"), parents=True)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_permissions_are_normal(here, kind):
    old = os.umask(0o027)
    try:
        put(kind, "new", Path("deep/out"), parents=True)
    finally:
        os.umask(old)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (here / "deep", *sorted((here / "deep").rglob("*")))]
    assert modes == ([0o750, 0o750, 0o640] if kind == "folder" else [0o750, 0o640])


@pytest.mark.usefixtures("steps")
def test_a_full_disk(small_disk, kind):
    out = small_disk / "out"
    put(kind, "old", out)
    message = "the disk is full: cannot write .*/out; free some space, or write to another disk"
    with pytest.raises(OutputError, match=message):
        put(kind, "x" * (5 << 20), out, overwrite=True)
    assert (content(kind, out), names(small_disk)) == ("old", ["out"])


def test_a_disk_that_takes_nothing(sealed_disk, kind):
    with pytest.raises(OutputError, match=r"cannot write .*/out: Read-only file system$"):
        put(kind, "new", sealed_disk / "out")


def test_an_error_elsewhere_names_the_file(here, kind):
    with pytest.raises(OutputError, match="cannot write out: No such file or directory: other"):
        put(kind, "half", error=FileNotFoundError(errno.ENOENT, "No such file or directory", "other"))
