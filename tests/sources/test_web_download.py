"""Files by an https address: fetched once, gone on with, checked, named and kept."""

import gzip
import hashlib
import json
import threading

import pytest

from lorakit_cli.core.downloads import downloads_shown
from lorakit_cli.errors import AdapterSpecError, CorruptFileError, DownloadError, OutputError, PickleError
from lorakit_cli.sources import web_client, web_tries
from lorakit_cli.sources.web import cached_file, web_file
from lorakit_cli.sources.web_cache import FACTS, kept_with_hash

NAME = "/loras/ink.safetensors"


@pytest.fixture(scope="session")
def content(adapters):
    return (adapters / "ink.safetensors").read_bytes()


def files_in(folder):
    """List what is kept, but for the locks."""
    return sorted(file.name for file in folder.rglob("*") if file.is_file() and file.name != ".lock")


def fails(source, kind=DownloadError, **options):
    with pytest.raises(kind) as caught:
        web_file(source, **options)
    return str(caught.value)


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
    ("body", "reason"),
    [
        (b"<!doctype html><title>Log in</title>", "is a web page, probably the site's error or log-in page"),
        (b'{"error": "not found"}', "is a JSON text, probably the site's error message"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"", "is empty"),
    ],
)
@pytest.mark.parametrize("path", [NAME, "/download", "/old.pt"])
def test_what_is_no_adapter_is_told_and_not_kept(site, web_cache, body, reason, path):
    url = site.serve(path, body)
    message = fails(url, CorruptFileError)
    assert message.startswith(f"what came from {url} {reason}")
    assert message.endswith("; it is not kept")
    assert files_in(web_cache) == []


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


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {}, "{url} is not given without a login (HTTP 401); if a browser that is logged in gets it, download it"),
        (403, {}, "{url} is not given to whoever asked (HTTP 403); if a browser"),
        (404, {}, "localhost has no {url} (HTTP 404); check the address"),
        (410, {}, "{url} is not there any more (HTTP 410); look for another copy of it"),
        (418, {}, "localhost does not give {url} (HTTP 418); download it with a browser"),
        (429, {}, "localhost asks for fewer requests (HTTP 429); wait some minutes"),
        (429, {"Retry-After": "3600"}, "localhost asks for fewer requests (HTTP 429); wait some minutes; it asks to"),
        (502, {}, "localhost is in trouble (HTTP 502) and does not give {url}; try again later"),
    ],
)
def test_refusals(site, web_cache, status, headers, message):
    url = site.serve(NAME, answers=[(status, headers)] * 9)
    assert fails(url).startswith(message.format(url=url))
    assert files_in(web_cache) == []
    asked_again = status == 502 or (status == 429 and not headers)
    assert len(site.requests) == (len(web_tries.PAUSES) + 1 if asked_again else 1)


def test_redirects(site, content, web_cache):
    there = site.serve(NAME, content)
    assert web_file(site.redirect("/a", there, 307)).read_bytes() == content
    assert "without end" in fails(site.redirect("/b", "/b"))
    message = fails(site.redirect("/c", f"http://localhost:{site.port}{NAME}"))
    assert "/c leads to localhost by plain http, where anyone on the way could exchange it" in message
    assert "by plain ftp" in fails(site.redirect("/d", "ftp://host/x"))


def test_credentials_reach_their_host_alone_and_are_written_nowhere(site, content, web_cache):
    site.serve("/there.safetensors", content)
    path = site.redirect("/here.safetensors", f"{site.other}/there.safetensors?X-Amz-Signature=s3cr3t&part=1")
    asked = path.replace("https://", "https://jane:pa55word@") + "?token=t0ken&file=3&sig=s1g"
    kept = web_file(asked)
    here, there = site.requests
    assert here.headers["Authorization"].startswith("Basic ")
    assert (here.host, here.path) == ("localhost", "/here.safetensors?token=t0ken&file=3&sig=s1g")
    assert (there.host, "Authorization" in there.headers) == ("127.0.0.1", False)
    assert json.loads((kept.parent / FACTS).read_text())["source"] == f"{path}?file=3"
    everything = b"".join(file.read_bytes() for file in web_cache.rglob("*") if file.is_file())
    for secret in (b"pa55word", b"t0ken", b"s3cr3t", b"s1g"):
        assert secret not in everything
        assert not any(secret.decode() in str(file) for file in web_cache.rglob("*"))
    site.files.clear()
    message = fails(asked.replace("file=3", "file=4"))
    assert message == f"localhost has no {path}?file=4 (HTTP 404); check the address"


def test_another_password_is_the_same_file_but_another_key_may_not_be(site, content):
    url = site.serve(NAME, content)
    path = web_file(url.replace("https://", "https://a:b@"))
    assert web_file(url + "#about") == path
    assert web_file(url + "?key=2") != path
    assert len(site.requests) == 2


@pytest.mark.parametrize("url", ["https://", "https:///x.safetensors", "https://host:port/x", "https://[::1/x"])
def test_what_is_no_address(web_cache, url):
    assert "is no address of a file, which is written https://host/file" in fails(url, AdapterSpecError)


def test_a_server_that_cannot_be_reached(site, monkeypatch):
    port = site.port
    monkeypatch.setattr(web_tries.time, "sleep", lambda seconds: pytest.fail("nobody was there to wait for"))
    message = fails("https://localhost:1/x.safetensors")
    assert message.startswith("localhost cannot be reached for https://localhost:1/x.safetensors (")
    message = fails("https://no-such-host.invalid/x.safetensors")
    assert message.startswith("there is no host no-such-host.invalid, or no network, to fetch https://no-such")
    monkeypatch.delenv("SSL_CERT_FILE")
    message = fails(f"https://localhost:{port}/x.safetensors")
    assert message.startswith(
        f"localhost cannot prove who it is, so that https://localhost:{port}/x.safetensors is not"
    )
    assert "SSL_CERT_FILE" in message
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    assert "SSL_CERT_FILE) cannot be used" in fails(f"https://localhost:{port}/x.safetensors")


def test_a_name_that_the_certificate_is_not_for(tmp_path, web_cache, monkeypatch):
    from tests.web_server import Certificates, WebServer

    made = Certificates.make(tmp_path, "elsewhere.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with WebServer(made) as server:
        assert "certificate is not valid for 'localhost'" in fails(server.serve(NAME, b"x"))
        assert server.requests == []


def test_a_redirect_to_a_host_that_is_not_there_names_that(site):
    message = fails(site.redirect("/a", "https://no-such-host.invalid/x"))
    assert message.startswith("there is no host no-such-host.invalid, or no network")


def test_a_proxy_that_is_not_there(site, content, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:1")
    monkeypatch.delenv("NO_PROXY")
    message = fails(site.serve(NAME, content).replace("localhost", "somewhere.test"))
    assert message.startswith("somewhere.test cannot be reached for ")
    assert message.endswith("check the connection and, if there is one, the proxy in HTTPS_PROXY")
    monkeypatch.setenv("HTTPS_PROXY", "what://localhost")
    assert fails("https://somewhere.test/x").startswith("the network settings of the environment (HTTPS_PROXY and the")


def test_a_server_that_falls_silent(site, content, monkeypatch):
    monkeypatch.setattr(web_client, "_SECONDS_WITHOUT_A_BYTE", 0.3)
    url = site.serve(NAME, content, before=lambda: site.closing.wait(2) if len(site.requests) == 1 else None)
    assert web_file(url).read_bytes() == content
    assert len(site.requests) == 2
    url = site.serve("/b.safetensors", content, before=lambda: site.closing.wait(2))
    assert fails(url) == f"the connection broke off over {url} (ReadTimeout)"


def test_pickles_are_refused_before_they_come(site, adapters, web_cache):
    url = site.serve("/old.pt", b"\x80\x02}q\x00.")
    message = fails(url, PickleError, allow_pickle=False)
    assert message.startswith(f"{url} is 'old.pt', a pickle file, which can run code when opened; pass --allow-pickle")
    assert site.requests == []
    hidden = site.serve("/d", b"\x80\x02}q\x00.", headers={"Content-Disposition": "attachment; filename=x.ckpt"})
    assert "is 'x.ckpt', a pickle file" in fails(hidden, PickleError, allow_pickle=False)
    assert site.requests[-1].path == "/d"
    assert files_in(web_cache) == []
    assert web_file(url).name == "old.pt"
    # What does not say what it is is named after what it is.
    assert web_file(site.serve("/plain", b"\x80\x02}q\x00.", etag=None)).name == "plain.pt"
    assert "a pickle file under another name" in fails(
        site.serve("/p.safetensors", b"\x80\x02}q\x00."), CorruptFileError
    )


def test_no_room_is_told_before_anything_comes(site, content, web_cache, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5, 5))
    message = fails(site.serve(NAME, content), OutputError)
    assert message.startswith("not enough space in ")
    assert message.endswith("which LORAKIT_CACHE names")
    assert web_cache.stat().st_mode


def test_a_cache_that_cannot_be_written(site, content, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "file"))
    assert "cannot write" in fails(site.serve(NAME, content), OutputError)


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
