"""Digests that are remembered from run to run: never one of what a file was before."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from lorakit_cli.sources import digest_cache
from lorakit_cli.sources.digest_cache import places_of, remembered


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    monkeypatch.setattr(digest_cache, "_told", {})


@pytest.fixture
def file(here):
    path = here / "x.safetensors"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def later(monkeypatch):
    """Let what is written be written long ago."""
    now = time.time_ns
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: now() + 10_000_000_000)


def contents(path):
    contents.asked += 1
    return path.read_bytes().decode()


def ask(file, forget=True):
    contents.asked = 0
    if forget:
        digest_cache._told.clear()
    return remembered(file, "kind", contents), contents.asked


def test_a_digest_is_computed_once_for_all_runs(file, later):
    assert [ask(file), ask(file), ask(file, forget=False)] == [("old", 1), ("old", 0), ("old", 0)]
    assert list(places_of("kind", "old")) == [file]
    assert list(places_of("other", "old")) == list(places_of("kind", "new")) == []
    assert remembered(file, "other", lambda path: "another") == "another"
    assert ask(file) == ("old", 0)
    file.unlink()
    assert list(places_of("kind", "old")) == []


def test_what_has_changed_is_computed_again_even_with_its_times_put_back(file, later):
    before = file.stat()
    assert ask(file) == ("old", 1)
    file.write_bytes(b"new")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ask(file, forget=False) == ("new", 1)
    other = file.with_name("other")
    other.write_bytes(b"two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert ask(file) == ("two", 1)


def test_what_was_written_just_now_is_not_kept(file):
    assert [ask(file), ask(file), ask(file, forget=False)] == [("old", 1), ("old", 1), ("old", 1)]


@pytest.mark.parametrize(
    "junk", [b"", b"{", b"[]", b'{"x": 3, "y": {"state": 1}}', b"[" * 100_000, b"\xff", b" " * 5_000_000]
)
def test_a_cache_that_cannot_be_read_is_none(file, later, junk):
    cache = user_cache_path("lorakit") / "digests.json"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(junk)
    assert [ask(file), ask(file)] == [("old", 1), ("old", 0)]
    assert json.loads(cache.read_bytes())[str(file)]["kind"] == "old"


def test_where_nothing_can_be_kept_it_is_computed_again(file, later):
    folder = user_cache_path("lorakit")
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"no folder")
    assert [ask(file), ask(file)] == [("old", 1), ("old", 1)]


def test_many_at_a_time_are_all_kept(here, later):
    files = [here / f"{number}.bin" for number in range(30)]
    for path in files:
        path.write_bytes(path.stem.encode())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda path: remembered(path, "kind", lambda own: own.stem), files)) == [
            p.stem for p in files
        ]
    assert [list(places_of("kind", path.stem)) for path in files] == [[path] for path in files]
    assert len(list(Path(user_cache_path("lorakit")).iterdir())) == 1
