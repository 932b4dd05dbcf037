"""Files by an https address: fetched once, gone on with where they broke off, named and kept."""

import errno
import gzip
import hashlib
import json
import threading

import pytest

from lorakit_cli.core import waiting_lock
from lorakit_cli.core.downloads import downloads_shown
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.sources import web_client, web_tries
from lorakit_cli.sources.web import cached_file, web_file
from lorakit_cli.sources.web_cache import FACTS, kept_with_hash
from tests.fetched import fails, files_in

NAME = "/loras/ink.safetensors"


@pytest.fixture(scope="session")
def content(adapters):
    return (adapters / "ink.safetensors").read_bytes()


def test_it_is_fetched_once_and_kept_with_where_it_came_from(site, content, web_cache):
    url = site.serve(NAME, content)
    path = web_file(url)
    assert path.read_bytes() == content
    assert (path.name, path.is_relative_to(web_cache)) == ("ink.safetensors", True)
    facts = json.loads((path.parent / FACTS).read_text())
    assert facts.pop("fetched").startswith("20")
    sha256 = hashlib.sha256(content).hexdigest()
    assert facts == {
        "schema": "lorakit/download/1", "source": url, "file": "ink.safetensors", "size": len(content),
        "sha256": sha256, "etag": '"one"', "last_modified": "Thu, 01 Jan 1970 00:00:00 GMT", "name": None,
    }  # fmt: skip
    assert web_file(url) == path == cached_file(url) == kept_with_hash(sha256)
    assert len(site.requests) == 1
    assert files_in(web_cache) == [FACTS, "ink.safetensors"]


def test_the_cache_needs_no_network(site, content, web_cache, monkeypatch):
    url = site.serve(NAME, content)
    assert cached_file(url) is None
    path = web_file(url)
    for variable in ("HF_HUB_OFFLINE", "LORAKIT_OFFLINE"):
        monkeypatch.setenv(variable, "1")
        assert web_file(url) == path
        message = fails(url + "?other=1")
        assert message.startswith(f"{url}?other=1 is not in the cache, and {variable} forbids the network; unset it")
        monkeypatch.delenv(variable)
    # A file that was cut off since is fetched again.
    path.write_bytes(content[:100])
    assert cached_file(url) is None
    assert web_file(url).read_bytes() == content


@pytest.mark.parametrize("lost", [[100], [70_000, 1, 0]])
def test_what_breaks_off_goes_on_where_it_was(site, content, lost):
    url = site.serve(NAME, content, drops=list(lost))
    assert web_file(url).read_bytes() == content
    ranges = [request.headers.get("Range") for request in site.requests]
    come = [sum(lost[: count + 1]) for count in range(len(lost))]
    assert ranges == [None, *(f"bytes={count}-" for count in come)]
    assert {request.headers.get("If-Range") for request in site.requests[1:]} == {'"one"'}
    assert sum(request.sent for request in site.requests) == len(content)


def test_a_line_that_stays_bad_says_what_is_kept_and_a_later_run_goes_on(site, content, web_cache):
    tries = len(web_tries.PAUSES) + 1
    url = site.serve(NAME, content, drops=[40_000] * tries)
    message = fails(url)
    assert f"the connection broke off over {url} (" in message
    assert message.endswith(
        f"; {40_000 * tries / 1e6:.1f} of {len(content) / 1e6:.1f} MB are kept, and the same command goes on from there"
    )
    assert cached_file(url) is None
    assert files_in(web_cache) == [".part", ".part.json"]
    site.requests.clear()
    assert web_file(url).read_bytes() == content
    assert [request.headers["Range"] for request in site.requests] == [f"bytes={40_000 * tries}-"]
    assert files_in(web_cache) == [FACTS, "ink.safetensors"]


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        ({"ranges": False}, 2),
        ({"etag": None}, 2),
        # Weak, it does not promise the same bytes; the date is compared instead.
        ({"etag": 'W/"one"'}, 1),
    ],
)
def test_a_server_that_cannot_go_on_begins_anew(site, content, script, sent):
    url = site.serve(NAME, content, drops=[50_000], **script)
    assert web_file(url).read_bytes() == content
    assert sum(request.sent for request in site.requests) == len(content) + 50_000 * (sent - 1)


def test_a_file_that_changed_meanwhile_comes_anew(site, content, adapters):
    url = site.serve(NAME, content, drops=[40_000] * 5)
    fails(url)
    wash = (adapters / "wash.safetensors").read_bytes()
    site.serve(NAME, wash, etag='"two"')
    assert web_file(url).read_bytes() == wash


def test_a_part_that_is_whole_already_is_taken(site, content, web_cache):
    url = site.serve(NAME, content, drops=[40_000] * 5)
    fails(url)
    (part,) = web_cache.rglob(".part")
    part.write_bytes(content)
    assert web_file(url).read_bytes() == content
    assert site.requests[-1].status == 416
    # But not one that is longer than the file.
    url = site.serve("/b.safetensors", content, drops=[40_000] * 5)
    fails(url)
    (part,) = web_cache.rglob(".part")
    part.write_bytes(content + b"more")
    assert web_file(url).read_bytes() == content


def test_a_size_that_is_not_said(site, content, web_cache):
    url = site.serve(NAME, content, length=False)
    assert web_file(url).read_bytes() == content
    # Where it ends cannot be told but by the file's own header.
    url = site.serve("/b.safetensors", content, length=False, drops=[50_000])
    message = fails(url, CorruptFileError)
    assert message == f"what came from {url} is no complete safetensors file (50000 bytes); it is not kept"
    assert cached_file(url) is None
    assert "b.safetensors" not in files_in(web_cache)


def test_compressed_on_the_way(site, content):
    url = site.serve(NAME, gzip.compress(content), headers={"Content-Encoding": "gzip"})
    assert web_file(url).read_bytes() == content


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        (NAME, None, "ink.safetensors"),
        ("/my%20ink%20(v2).safetensors", None, "my ink (v2).safetensors"),
        ("/api/download/7", None, "7.safetensors"),
        ("/", None, "adapter.safetensors"),
        ("/d", 'attachment; filename="Ink v3.safetensors"', "Ink v3.safetensors"),
        ("/d", "attachment; filename=ink.safetensors", "ink.safetensors"),
        ("/d", "attachment; filename=\"x.safetensors\"; filename*=UTF-8''%E5%A2%A8.safetensors", "墨.safetensors"),
        ("/d", "attachment; filename*=martian''%E5; filename=x.safetensors", "x.safetensors"),
        ("/d", 'attachment; filename="a\\"b.safetensors"', "a_b.safetensors"),
        ("/d", 'attachment; filename="../../.bashrc"', "bashrc.safetensors"),
        ("/d", 'attachment; filename="..\\\\..\\\\up.safetensors"', "up.safetensors"),
        ("/d", "attachment; filename*=UTF-8''%2Fetc%2Fcron.d%2Fjob.safetensors", "job.safetensors"),
        ("/d", "attachment; filename*=UTF-8''a%00b%1b%E2%80%AEc.safetensors", "abc.safetensors"),
        ("/d", 'attachment; filename="..."', "adapter.safetensors"),
        ("/d", 'attachment; filename="NUL.safetensors"', "_NUL.safetensors"),
        ("/d", 'attachment; filename="com1.x.safetensors"', "_com1.x.safetensors"),
        ("/d", 'attachment; filename="a:b|c?.safetensors"', "a_b_c_.safetensors"),
        ("/d", f'attachment; filename="{"x" * 300}.safetensors"', "x" * 108 + ".safetensors"),
        ("/d", "inline", "d.safetensors"),
    ],
)
def test_the_name_is_the_servers_but_harmless(site, content, web_cache, path, disposition, name):
    url = site.serve(path, content, headers={"Content-Disposition": disposition or "inline"})
    kept = web_file(url)
    assert (kept.name, kept.parent.parent.parent) == (name, web_cache)
    assert kept.read_bytes() == content


def test_statuses_that_pass_are_waited_for(site, content, monkeypatch):
    slept = []
    monkeypatch.setattr(web_tries.time, "sleep", slept.append)
    url = site.serve(NAME, content, answers=[(429, {"Retry-After": "7"}), (503, {}), (500, {})])
    assert web_file(url).read_bytes() == content
    assert slept == [7.0, 0.0, 0.0]


def test_a_server_that_falls_silent(site, content, monkeypatch):
    monkeypatch.setattr(web_client, "_SECONDS_WITHOUT_A_BYTE", 0.3)
    url = site.serve(NAME, content, before=lambda: site.closing.wait(2) if len(site.requests) == 1 else None)
    assert web_file(url).read_bytes() == content
    assert len(site.requests) == 2
    url = site.serve("/b.safetensors", content, before=lambda: site.closing.wait(2))
    assert fails(url) == f"the connection broke off over {url} (ReadTimeout)"


def test_two_at_once_fetch_it_once(site, content):
    first, go = threading.Event(), threading.Event()

    def hold():
        first.set()
        assert go.wait(10)

    url = site.serve(NAME, content, before=hold)
    waiting = []
    found = []

    class Bar:
        def __init__(self, label):
            waiting.append(label)
            if label.startswith("waiting"):
                go.set()

        def __enter__(self):
            return None

        def __exit__(self, *_):
            pass

    def run():
        with downloads_shown(Bar):
            found.append(web_file(url))

    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert first.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert len(site.requests) == 1
    assert found[0] == found[1] == cached_file(url)
    assert waiting == ["downloading ink.safetensors", "waiting for another run's download"]


def test_where_nothing_can_be_locked(site, content, web_cache, monkeypatch):
    def cannot(fd):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(waiting_lock, "lock_file", cannot)
    url = site.serve(NAME, content, drops=[40_000] * 5)
    assert fails(url).startswith(f"the connection broke off over {url} (")
    assert files_in(web_cache) == []
    assert web_file(url).read_bytes() == content
    assert files_in(web_cache) == [FACTS, "ink.safetensors"]


def test_progress(site, content):
    steps = []

    class Bar:
        def __init__(self, label):
            self.label = label

        def __enter__(self):
            return lambda done, total: steps.append((self.label, done, total))

        def __exit__(self, *_):
            pass

    with downloads_shown(Bar):
        web_file(site.serve(NAME, content, drops=[100_000]))
    counts = [done for _, done, _ in steps]
    assert counts == sorted(counts)
    assert counts[-1] == len(content)
    assert {step[::2] for step in steps} == {("downloading ink.safetensors", len(content))}
