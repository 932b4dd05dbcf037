"""Versions on CivitAI: the site's answer, the choice of a file, the token and the hash."""

import hashlib
import json

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.civitai_reference import CivitaiReference, parse_civitai
from lorakit_cli.core.triggers import read_triggers
from lorakit_cli.errors import (
    AdapterSpecError,
    CorruptFileError,
    NotALoraError,
    PickleError,
    UnknownAdapterError,
)
from lorakit_cli.sources import web_tries
from lorakit_cli.sources.sidecar import read_side_files
from lorakit_cli.sources.web import cached_file, web_file
from lorakit_cli.sources.web_address import without_secret
from lorakit_cli.sources.web_cache import FACTS
from tests.fetched import fails

API = "/api/v1/model-versions/12345"
TOKEN = "c1v1t41-t0ken"


@pytest.fixture(scope="session")
def content(adapters):
    return (adapters / "wash.safetensors").read_bytes()


def entry(name, url, content=b"", **more):
    """Describe a file as the API does."""
    hashes = {"SHA256": hashlib.sha256(content).hexdigest().upper(), "AutoV2": "0123456789"}
    return {"name": name, "type": "Model", "hashes": hashes, "downloadUrl": url, "sizeKB": 1.5} | more


def offer(site, content, *files, kind="LORA", **script):
    """Offer version 12345, of one file unless others are given, by way of another host as the site does."""
    site.serve("/cdn/stored-under-a-hash", content)
    download = site.redirect("/api/download/models/12345", f"{site.other}/cdn/stored-under-a-hash?X-Amz-Signature=s1g")
    version = {
        "id": 12345, "modelId": 67, "name": "v1.0", "baseModel": "SDXL 1.0", "trainedWords": ["wash style", "wsh"],
        "model": {"name": "Wash", "type": kind},
        "files": list(files) or [entry("Wash v1.safetensors", download, content)],
    }  # fmt: skip
    site.serve_json(API, version, **script)
    return version


@pytest.mark.parametrize(
    ("text", "reference", "name"),
    [
        ("civitai:12345", "civitai:12345", "civitai_12345"),
        ("civitai:12345:0.7", "civitai:12345", "civitai_12345"),
        ("civitai:67@12345", "civitai:12345", "civitai_12345"),
        ("civitai:12345/a b.safetensors:-1", "civitai:12345/a b.safetensors", "civitai_12345_a_b"),
        ("https://civitai.com/models/67?modelVersionId=12345", "civitai:12345", "civitai_12345"),
        ("https://civitai.com/models/67/some-name?modelVersionId=12345:0.5", "civitai:12345", "civitai_12345"),
        ("https://civitai.com/api/download/models/12345?type=Model&token=x", "civitai:12345", "civitai_12345"),
        ("https://mirror.test/models/67?modelVersionId=12345", "civitai:12345", "civitai_12345"),
        ("https://elsewhere.test/models/67?modelVersionId=12345", None, "67"),
        ("https://civitai.com/images/12345", None, "12345"),
    ],
)
def test_how_a_version_is_written(monkeypatch, text, reference, name):
    monkeypatch.setenv("LORAKIT_CIVITAI_URL", "https://mirror.test/")
    spec = AdapterSpec.parse(text)
    assert (str(spec), spec.name) == (text, name)
    assert AdapterSpec.parse(f"ink={text}").name == "ink"
    found = parse_civitai(spec.source)
    assert (found and str(found)) == reference
    assert without_secret(spec.source) == (reference or spec.source)


@pytest.mark.parametrize(
    "text", ["civitai:abc", "civitai:12345/", "civitai:1/a/b", "civitai:-1", "civitai:1234567890123"]
)
def test_what_names_no_version(text):
    assert f"{text!r} names no version on CivitAI, which is written civitai:12345" in fails(text, AdapterSpecError)


@pytest.mark.parametrize("address", ["https://civitai.com/models/67", "https://civitai.com/models/67/wash/"])
def test_the_page_of_a_model_is_not_enough(address):
    message = fails(address, AdapterSpecError)
    assert message == (
        f"{address} is the page of a model with all its versions; on the model's page choose the version; its number "
        "then stands behind modelVersionId= in the address"
    )


def test_a_version_is_fetched_with_what_the_site_says_of_it(site, content):
    version = offer(site, content)
    path = web_file("civitai:12345")
    assert (path.name, path.read_bytes()) == ("Wash v1.safetensors", content)
    beside = path.parent / "Wash v1.civitai.info"
    assert json.loads(beside.read_text()) == version
    triggers = read_triggers({}, read_side_files(path))
    assert triggers.stated == ("wash style", "wsh")
    facts = json.loads((path.parent / FACTS).read_text())
    assert facts["source"] == "civitai:12345"
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert facts["hashes"]["AutoV2"] == "0123456789"
    count = len(site.requests)
    for again in ("civitai:12345", f"{site.url}/models/67/wash?modelVersionId=12345", "civitai:67@12345"):
        assert web_file(again) == path == cached_file(again)
    assert len(site.requests) == count


@pytest.mark.parametrize("variable", ["CIVITAI_API_TOKEN", "CIVITAI_API_KEY"])
def test_the_token_goes_to_the_site_alone_and_is_written_nowhere(site, content, web_cache, monkeypatch, variable):
    offer(site, content, token=TOKEN)
    monkeypatch.setenv(variable, f" {TOKEN}\n")
    web_file("civitai:12345")
    sent = [(request.host, request.headers.get("Authorization")) for request in site.requests]
    assert sent == [("localhost", f"Bearer {TOKEN}"), ("localhost", f"Bearer {TOKEN}"), ("127.0.0.1", None)]
    assert not any(TOKEN in request.path for request in site.requests)
    for file in web_cache.rglob("*"):
        assert TOKEN not in str(file)
        assert file.is_dir() or TOKEN.encode() not in file.read_bytes()
        assert file.is_dir() or b"s1g" not in file.read_bytes()


def test_a_file_that_lies_elsewhere_gets_no_token(site, content, monkeypatch):
    monkeypatch.setenv("CIVITAI_API_TOKEN", TOKEN)
    site.serve("/x.safetensors", content)
    offer(site, content, entry("x.safetensors", f"{site.other}/x.safetensors", content))
    web_file("civitai:12345")
    assert "Authorization" not in site.asked("/x.safetensors")[0].headers


def test_refusals_say_what_would_help(site, content, monkeypatch):
    offered = offer(site, content)
    site.serve("/api/download/models/12345", content, token=TOKEN)
    set_it = "set CIVITAI_API_TOKEN to a key from the site's account settings"
    assert fails("civitai:12345") == f"civitai:12345 is not given without a login (HTTP 401); {set_it}"
    site.serve_json(API, offered | {"earlyAccessEndsAt": "2030-01-01T00:00:00Z"})
    assert fails("civitai:12345").endswith(f"{set_it}; its early access lasts until 2030-01-01T00:00:00Z")
    # A page to log in on, where others say 401.
    site.redirect("/api/download/models/12345", "/login?reason=download-auth", 307)
    site.serve("/login", b"<html>")
    assert f"(HTTP 401); {set_it}" in fails("civitai:12345")
    monkeypatch.setenv("CIVITAI_API_TOKEN", "wrong")
    site.serve("/api/download/models/12345", answers=[(403, {})])
    assert "(HTTP 403); the token in CIVITAI_API_TOKEN may be wrong, or its account may not have it" in fails(
        "civitai:12345"
    )
    monkeypatch.setenv("CIVITAI_API_TOKEN", "two words")
    assert fails("civitai:12345") == "CIVITAI_API_TOKEN holds what can be no key of CivitAI's"
    monkeypatch.delenv("CIVITAI_API_TOKEN")
    message = fails("civitai:67")
    assert message.startswith("localhost has no civitai:67 (HTTP 404); the number is a version's, which stands behind")


def test_the_site_in_trouble(site, content):
    offer(site, content, answers=[(503, {}), (429, {"Retry-After": "0"})])
    assert web_file("civitai:12345").read_bytes() == content
    site.serve("/api/v1/model-versions/9", answers=[(503, {})] * 9)
    assert fails("civitai:9") == "localhost is in trouble (HTTP 503) and does not give civitai:9; try again later"
    assert len(site.asked("/api/v1/model-versions/9")) == len(web_tries.PAUSES) + 1
    for body, reason in ((b"<html>", "is not JSON: "), (b"[]", "is no JSON object"), (b"[" * 10**5, "is nested too")):
        site.serve("/api/v1/model-versions/9", body)
        assert fails("civitai:9").startswith(f"what CivitAI says of civitai:9 {reason}")
    site.serve("/api/v1/model-versions/9", b" " * 4_100_000)
    assert "is longer than 4 MB" in fails("civitai:9")


def test_a_wrong_hash_is_told_and_nothing_kept(site, content, web_cache):
    download = site.serve("/x", content)
    offer(site, content, entry("x.safetensors", download, b"something else"))
    message = fails("civitai:12345")
    announced = hashlib.sha256(b"something else").hexdigest()[:12]
    is_it = hashlib.sha256(content).hexdigest()[:12]
    assert message.startswith(
        f"civitai:12345 is not what was announced: its sha256 is {is_it} instead of {announced}, and it is not kept"
    )
    assert [file.name for file in web_cache.rglob("*") if file.is_file()] == [".lock"]
    assert cached_file("civitai:12345") is None


def test_a_broken_transfer_goes_on(site, content):
    download = site.serve("/x", content, drops=[30_000])
    offer(site, content, entry("x.safetensors", download, content))
    assert web_file("civitai:12345").read_bytes() == content
    assert site.asked("/x")[1].headers["Range"] == "bytes=30000-"


def test_which_file_it_is(site, content, web_cache):
    def files(*names, **marks):
        offer(
            site,
            content,
            *(
                entry(name, site.serve(f"/files/{k}", content), content, **marks.get(f"m{k}", {}))
                for k, name in enumerate(names)
            ),
        )

    files("a.safetensors", "b.safetensors", m1={"primary": True})
    assert web_file("civitai:12345").name == "b.safetensors"
    assert web_file("civitai:12345/a.safetensors").name == "a.safetensors"
    assert fails("civitai:12345/c.safetensors", UnknownAdapterError) == (
        "civitai:12345 has no file 'c.safetensors'; did you mean b.safetensors or a.safetensors?"
    )
    (web_cache / "web").rename(web_cache / "before")
    files("a.safetensors", "b.safetensors")
    assert fails("civitai:12345", UnknownAdapterError) == (
        "civitai:12345 has several files: a.safetensors, b.safetensors; name one, civitai:12345/a.safetensors"
    )
    # What is no model does not count, nor does a pickle beside one, even as the primary file.
    files("a.ckpt", "data.zip", "a.safetensors", "vae.safetensors", m0={"primary": True}, m3={"type": "VAE"})
    assert web_file("civitai:12345").name == "a.safetensors"
    (web_cache / "web").rename(web_cache / "before-2")
    files("data.zip")
    assert fails("civitai:12345", UnknownAdapterError) == "civitai:12345 has no file of weights on CivitAI"
    files("old.pt")
    message = fails("civitai:12345", PickleError, allow_pickle=False)
    assert message.startswith("civitai:12345 is 'old.pt', a pickle file")
    assert site.asked("/files/0")[-1].sent == len(content)
    site.serve("/files/0", b"\x80\x02}q\x00.")
    offer(site, b"", entry("old.pt", f"{site.url}/files/0", b"\x80\x02}q\x00."))
    assert web_file("civitai:12345").name == "old.pt"


def test_names_of_the_site_do_not_lead_out(site, content, web_cache):
    offer(site, content, entry("../../x/../CON.safetensors", site.serve("/x", content), content))
    path = web_file("civitai:12345")
    assert (path.name, path.parent.parent.parent) == ("_CON.safetensors", web_cache)
    assert (path.parent / "_CON.civitai.info").is_file()


def test_what_the_site_calls_no_adapter_is_not_fetched(site, content):
    offer(site, content, kind="Checkpoint")
    assert fails("civitai:12345", NotALoraError) == "civitai:12345 is a Checkpoint (Wash), and no adapter"
    assert [request.path for request in site.requests] == [API]


def test_an_error_page_in_place_of_the_file(site, content):
    offer(site, content, entry("x.safetensors", site.serve("/x", b"<html>sorry</html>"), b"", hashes={}))
    assert "is a web page, probably the site's error or log-in page" in fails("civitai:12345", CorruptFileError)


def test_the_site_is_asked_over_https_only(monkeypatch, web_cache):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("LORAKIT_CIVITAI_URL", "http://localhost:1")
    assert "LORAKIT_CIVITAI_URL names http://localhost:1, which is no address with https" in fails("civitai:1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fails("civitai:1").startswith("civitai:1 is not in the cache, and HF_HUB_OFFLINE forbids the network")
    assert CivitaiReference(1) == parse_civitai("civitai:1")
