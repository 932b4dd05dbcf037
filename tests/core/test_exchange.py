"""Two names that change places."""

import ctypes
import errno

import pytest

from lorakit_cli.core import exchange as module
from lorakit_cli.core.exchange import exchange


def test_folders_change_places_or_nothing_happens(here):
    for name in ("a", "b"):
        (here / name).mkdir()
        (here / name / "file").write_text(name)
    done = exchange(here / "a", here / "b")
    found = [(here / name / "file").read_text() for name in ("a", "b")]
    assert found == (["b", "a"] if done else ["a", "b"])


@pytest.mark.skipif(module._system_exchange() is None, reason="this system has no such call")
def test_a_missing_name_is_an_error(here):
    (here / "a").mkdir()
    with pytest.raises(FileNotFoundError):
        exchange(here / "a", here / "b")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
def test_what_cannot_is_said(here, monkeypatch, number):
    monkeypatch.setattr(module, "_system_exchange", lambda: lambda first, second: number)
    assert not exchange(here / "a", here / "b")


def test_a_system_without_a_c_library(here, monkeypatch):
    def missing(*_, **__):
        raise TypeError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not exchange(here / "a", here / "b")


def test_the_call_of_macos(here, monkeypatch):
    calls = []

    class Library:
        def renamex_np(self, first, second, flags):
            calls.append((first, second, flags))
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    assert exchange(here / "a", here / "b")
    assert calls == [(bytes(here / "a"), bytes(here / "b"), 2)]
