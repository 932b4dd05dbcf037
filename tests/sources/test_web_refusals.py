"""What does not come from an https address, or must not: told in a line, without secrets, and not kept."""

import json
import shutil
from collections import namedtuple

import pytest

from lorakit_cli.errors import AdapterSpecError, CorruptFileError, OutputError, PickleError
from lorakit_cli.sources import web_tries
from lorakit_cli.sources.web import web_file
from lorakit_cli.sources.web_cache import FACTS
from tests.fetched import fails, files_in
from tests.web_server import Certificates, WebServer

NAME = "/loras/ink.safetensors"


@pytest.fixture(scope="session")
def content(adapters):
    return (adapters / "ink.safetensors").read_bytes()


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
