"""Adapters on the Hub: found and downloaded by the real client from a Hub on this machine, no file more than needed."""

import json
import shutil
from pathlib import Path

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.errors import LorakitError, NotDownloadedError
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.sources.library import Library, open_library
from lorakit_cli.sources.local import find_adapter
from tests.tiny import save_adapter

TOKEN = "hf_averysecrettoken"
CARD = "---\ninstance_prompt: ink style\nbase_model: someone/tiny\n---\nAn adapter.\n"


@pytest.fixture
def repository(tmp_path, adapters):
    """One adapter as people publish theirs, with much beside it that nobody needs."""
    folder = tmp_path / "published"
    (folder / "samples").mkdir(parents=True)
    shutil.copy(adapters / "ink.safetensors", folder / "ink.safetensors")
    (folder / "README.md").write_text(CARD)
    for name in ("samples/1.png", ".gitattributes", "optimizer.bin", "training_args.bin", "ink.ckpt", "ink.txt"):
        (folder / name).write_bytes(b"not needed" * 1000)
    return folder


def find(text, **options):
    return find_adapter(AdapterSpec.parse(text), open_library(), **options)


def refused(text, **options):
    with pytest.raises(LorakitError) as caught:
        find(text, **options)
    return str(caught.value)


def folder_of(tmp_path, *names, source=None):
    folder = tmp_path / "more"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name) if source else (folder / name).write_bytes(b"x")
    return folder


def file_requests(hub):
    """List what was asked for of files, but for looks at their size."""
    return [request for request in hub.requests if "/cdn/" in request.path or "/resolve/" in request.path]


@pytest.mark.parametrize(
    "text",
    [
        "someone/ink",
        "hf:someone/ink:0.5",
        "someone/ink@v1",
        "someone/ink@refs/pr/2:0.5",
        "someone/ink@feature%2Fx",
        "someone/ink/ink.safetensors:0.5",
        "hf:someone/ink@v1/ink.safetensors",
        "someone/ink@refs/pr/2/ink.safetensors",
    ],
)
def test_only_what_is_needed_is_downloaded(hub, repository, tmp_path, text):
    revisions = ("main", "v1", "refs/pr/2", "feature/x")
    commit = hub.add("someone/ink", repository, *revisions)
    found = find(text)
    assert found.path == tmp_path / "hub-cache/models--someone--ink/snapshots" / commit / "ink.safetensors"
    assert found.path.read_bytes() == (repository / "ink.safetensors").read_bytes()
    assert (found.name, found.weight, found.origin) == ("ink", 0.5 if ":0.5" in text else 1.0, "Hub")
    assert found.remote == f"hf:someone/ink@{commit}/ink.safetensors"
    assert hub.asked_for() == {"ink.safetensors", "README.md"}


def test_a_second_time_no_file_is_asked_for(hub, repository, offline):
    commit = hub.add("someone/ink", repository)
    first = find("someone/ink")
    hub.requests.clear()
    assert find("someone/ink") == first
    assert [request.path for request in hub.requests] == ["/api/models/someone/ink"]
    # What a recipe keeps needs no request at all.
    again = find(f"ink={first.remote}")
    assert (again.path, again.remote) == (first.path, first.remote)
    offline()
    assert find("someone/ink") == first
    assert find(f"someone/ink@{commit}").path == first.path
    assert len(hub.requests) == 1


def test_what_another_program_downloaded_is_found_offline(hub, repository, offline):
    from huggingface_hub import hf_hub_download

    hub.add("someone/ink", repository)
    path = hf_hub_download("someone/ink", "ink.safetensors")
    offline()
    assert find("someone/ink/ink.safetensors").path == Path(path)
    assert find("someone/ink").path == Path(path)


def test_a_newer_commit_is_taken_and_an_older_one_kept(hub, repository, adapters, tmp_path):
    old = hub.add("someone/ink", repository)
    first = find("someone/ink")
    newer = tmp_path / "newer"
    newer.mkdir()
    shutil.copy(adapters / "wash.safetensors", newer / "ink.safetensors")
    hub.add("someone/ink", newer)
    assert find("someone/ink").path.read_bytes() == (adapters / "wash.safetensors").read_bytes()
    assert find(f"someone/ink@{old}").path == first.path


def test_several_are_listed_as_they_are_asked_for(hub, tmp_path):
    hub.add("someone/many", folder_of(tmp_path, "b.safetensors", "a.safetensors", "old/c.safetensors"), "main", "v1")
    assert refused("hf:someone/many@v1:0.5") == (
        "hf:someone/many@v1 holds several adapters, name one: hf:someone/many@v1/a.safetensors, "
        "hf:someone/many@v1/b.safetensors"
    )
    assert refused("someone/many").endswith("name one: someone/many/a.safetensors, someone/many/b.safetensors")
    assert hub.asked_for() == set()


@pytest.mark.parametrize(
    ("names", "asked", "chosen"),
    [
        (["pytorch_lora_weights.safetensors", "a.safetensors"], "", "pytorch_lora_weights.safetensors"),
        (["adapter_model.safetensors", "adapter_config.json", "a.safetensors"], "", "adapter_model.safetensors"),
        (["a.safetensors", "checkpoint-1/a.safetensors"], "", "a.safetensors"),
        (["lora/a.safetensors", "text.txt"], "", "lora/a.safetensors"),
        (["a.safetensors", "sub/deep/b.safetensors"], "/sub", "sub/deep/b.safetensors"),
        (["sub/b.safetensors", "sub/c.safetensors"], "/sub/c.safetensors", "sub/c.safetensors"),
        (["a.safetensors", "a.bin", "optimizer.pt"], "", "a.safetensors"),
    ],
)
def test_the_one_that_is_meant(hub, adapters, tmp_path, names, asked, chosen):
    weights = [name for name in names if name.endswith(".safetensors")]
    others = [name for name in names if name not in weights]
    folder_of(tmp_path, *others)
    hub.add("someone/set", folder_of(tmp_path, *weights, source=adapters / "ink.safetensors"))
    found = find(f"someone/set{asked}")
    assert found.remote.partition("/set@")[2].partition("/")[2] == chosen
    assert hub.asked_for() == {chosen} | ({"adapter_config.json"} & set(names) if "adapter_model" in chosen else set())


def test_weights_of_pefts_come_with_their_scale(hub, tmp_path, offline):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "peft"
    folder.mkdir()
    save_adapter(folder / "x.safetensors", seed=1, text=False)
    tensors = {
        f"base_model.model.{key.removeprefix('unet.')}": value
        for key, value in load_file(folder / "x.safetensors").items()
    }
    (folder / "x.safetensors").unlink()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 12}))
    hub.add("someone/peft", folder)
    found = find("someone/peft")
    assert {layer.scale for layer in open_adapter(found.path).layers} == {3.0}
    found.path.with_name("adapter_config.json").unlink()
    offline()
    assert refused("someone/peft").startswith("someone/peft is not wholly in the cache, adapter_config.json is missing")


def test_pickles_alone_are_named_and_need_permission(hub, tmp_path):
    hub.add("someone/old", folder_of(tmp_path, "pytorch_lora_weights.bin", "optimizer.bin"))
    message = "run code when opened; pass --allow-pickle to read "
    assert "someone/old holds only pickled adapters, pytorch_lora_weights.bin, which can " + message in refused(
        "someone/old"
    )
    assert "someone/old/pytorch_lora_weights.bin is a pickle file, which can " + message in refused(
        "someone/old/pytorch_lora_weights.bin"
    )
    assert hub.asked_for() == set()
    assert find("someone/old", allow_pickle=True).path.name == "pytorch_lora_weights.bin"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("someone/none", "the Hub has no repository someone/none, or it is private; check its name, or log in with"),
        ("someone/ink@v9", "someone/ink has no revision v9; its branches and tags are listed at HUB/someone/ink/tree/"),
        ("someone/ink/inc.safetensors", "someone/ink has no file inc.safetensors; did you mean ink.safetensors"),
        ("hf:someone/ink@main/zzz", "hf:someone/ink@main has no file zzz; it has ink.ckpt, ink.safetensors"),
        ("someone/ink/README.md", "someone/ink/README.md is no adapter file (.safetensors, .bin, .pt, .pth, .ckpt)"),
        ("someone/text", "someone/text holds no adapter file (.safetensors, .bin, .pt, .pth, .ckpt)"),
        ("someone/base", "someone/base is a diffusers pipeline, a base and no adapter; give it with --base, or name"),
        ("hf:someone", "'hf:someone' names no adapter on the Hub, which is written hf:owner/repo or hf:owner/repo@re"),
        ("hf:someone/ink/../x", "'hf:someone/ink/../x' names no adapter on the Hub"),
        (
            "loras/ink.safetensor",
            "or log in with `hf auth login`; the folder loras here has none either; did you mean ink.safeten",
        ),
        ("loras/inc.safetensors", "there is no adapter file loras/inc.safetensors; did you mean ink.safetensors?"),
    ],
)
def test_what_the_hub_does_not_have(hub, repository, base, here, tmp_path, text, message):
    hub.add("someone/ink", repository)
    hub.add("someone/text", folder_of(tmp_path, "readme.txt"))
    hub.add("someone/base", base)
    (here / "loras").mkdir()
    (here / "loras" / "ink.safetensors").touch()
    assert message in refused(text).replace(hub.url, "HUB")
    assert hub.asked_for() == set()


def test_what_is_here_wins_unless_the_hub_is_forced(hub, repository, here):
    hub.add("someone/ink", repository)
    (here / "someone" / "ink").mkdir(parents=True)
    (here / "someone" / "ink" / "mine.safetensors").touch()
    assert find("someone/ink").path == Path("someone/ink/mine.safetensors")
    assert find("someone/ink/mine.safetensors").path == Path("someone/ink/mine.safetensors")
    assert hub.requests == []
    assert find("hf:someone/ink").origin == find("someone/ink@main").origin == "Hub"


def test_a_gated_repository_says_what_to_do(hub, repository, monkeypatch):
    hub.add("someone/gated", repository, gated=True, token=TOKEN)
    message = f"someone/gated is gated; accept its licence at {hub.url}/someone/gated and log in with `hf auth login`"
    assert refused("someone/gated") == message
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert refused("someone/gated") == message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find("someone/gated").path.is_file()
    # The other host, which has the files, is not told.
    assert {request.token for request in hub.requests if request.host == "localhost"} == {None}


def test_trouble_that_passes_is_not_noticed(hub, repository):
    hub.add("someone/ink", repository)
    hub.refuse("/api/models", 429, times=1)
    hub.refuse("/resolve/", 429, times=1)
    assert find("someone/ink").path.is_file()


@pytest.mark.parametrize(
    ("mark", "status", "message"),
    [
        ("/api/models", 429, "the Hub asks for fewer requests (HTTP 429) and does not give someone/ink; wait some"),
        ("/cdn/", 503, "the Hub is in trouble (HTTP 503) and does not give someone/ink; try again later"),
    ],
)
def test_trouble_that_stays_is_said(hub, repository, mark, status, message):
    hub.add("someone/ink", repository)
    hub.refuse(mark, status)
    assert refused("someone/ink").startswith(message)


def test_a_hub_out_of_reach_is_said_so_but_what_is_here_is_used(hub, repository, monkeypatch):
    from huggingface_hub import constants

    hub.add("someone/ink", repository)
    found = find("someone/ink")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused("someone/else") == (
        "http://127.0.0.1:9 cannot be reached for someone/else (ConnectError); check the connection, or give the path "
        "of a file"
    )
    assert find(found.remote).path == found.path


def test_a_transfer_that_breaks_off_is_taken_up_again(hub, repository, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add("someone/ink", repository)
    size = (repository / "ink.safetensors").stat().st_size
    hub.cut = size // 3
    assert find("someone/ink").path.read_bytes() == (repository / "ink.safetensors").read_bytes()
    begun = [request for request in hub.requests if request.path.startswith("/cdn/") and request.method == "GET"]
    assert [request.status for request in begun] == [200, 206, 206, 206]
    assert hub.sent("/cdn/") < 1.01 * size


def test_offline_what_is_not_here_is_said_without_a_request(hub, repository, offline):
    hub.add("someone/ink", repository)
    offline()
    assert refused("someone/ink") == (
        "someone/ink is not in the cache, and HF_HUB_OFFLINE forbids the network; unset it once, or give the path of "
        "a file"
    )
    assert hub.requests == []


def test_offline_the_one_of_several_that_is_not_here_is_said(hub, adapters, tmp_path, offline):
    names = ("a.safetensors", "b.safetensors")
    hub.add("someone/many", folder_of(tmp_path, *names, source=adapters / "ink.safetensors"))
    assert find("someone/many/a.safetensors").path.is_file()
    offline()
    assert find("someone/many/a.safetensors").path.is_file()
    assert refused("someone/many/b.safetensors") == (
        "someone/many is not wholly in the cache, b.safetensors is missing, and HF_HUB_OFFLINE forbids the network; "
        "unset it once, or give the path of a file"
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer, not the file"),
        (b"<!doctype html><title>Sign in</title>" * 9, "is a web page, probably the site's error or log-in page"),
        (b"", "is no complete safetensors file (0 bytes)"),
    ],
)
def test_a_file_that_is_none_is_told_for_what_it_is(hub, tmp_path, content, what):
    folder = folder_of(tmp_path, "a.safetensors")
    (folder / "a.safetensors").write_bytes(content)
    hub.add("someone/broken", folder)
    for _ in range(2):
        message = refused("someone/broken")
        assert message.startswith(f"someone/broken/a.safetensors {what}")
        assert message.endswith("; the repository's own copy is broken, try another revision")


def test_a_file_that_is_gone_is_said(hub, repository, tmp_path):
    hub.add("someone/ink", repository)
    from lorakit_cli.sources.hub_errors import ADAPTER
    from lorakit_cli.sources.hub_repo import HubRepo

    assert HubRepo("someone/ink", None, ADAPTER).names
    (repository / "ink.safetensors").unlink()
    assert refused("someone/ink") == (
        "someone/ink has lost ink.safetensors, which it lists; try again, or another revision"
    )


def test_a_full_disk_is_said_before_the_download(hub, repository, monkeypatch):
    hub.add("someone/ink", repository)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 9, 9))
    message = refused("someone/ink")
    assert message.startswith("someone/ink/ink.safetensors is to be downloaded: not enough space in ")
    assert message.endswith("which HF_HOME names")
    assert hub.asked_for() == set()


def test_small_files_beside_it_come_along_and_large_ones_do_not(hub, repository):
    (repository / "ink.civitai.info").write_text('{"trainedWords": ["ink"]}')
    (repository / "ink.json").write_text('{"activation text": "x"}' + " " * 4_000_001)
    hub.add("someone/ink", repository)
    find("someone/ink")
    assert hub.asked_for() == {"ink.safetensors", "README.md", "ink.civitai.info"}
    hub.requests.clear()
    find("someone/ink")
    assert file_requests(hub) == []


def test_without_leave_to_download_nothing_is_asked(hub, repository):
    hub.add("someone/ink", repository)
    for text in ("someone/ink", "someone/ink@v1/ink.safetensors", "https://host/a.safetensors", "civitai:12"):
        with pytest.raises(NotDownloadedError, match="is not downloaded"):
            find(text, download=False)
    assert hub.requests == []
    first = find("someone/ink")
    hub.requests.clear()
    assert find("someone/ink", download=False) == first
    assert hub.requests == []


def test_bytes_are_told_to_whoever_shows_them(hub, repository):
    from contextlib import contextmanager

    from lorakit_cli.core.downloads import downloads_shown

    told = []

    @contextmanager
    def screen(label):
        told.append(label)
        yield lambda done, total: told.append((done, total))

    hub.add("someone/ink", repository)
    size = sum((repository / name).stat().st_size for name in ("ink.safetensors", "README.md"))
    with downloads_shown(screen):
        find("someone/ink")
        find("someone/ink")
    assert told[0] == "downloading ink.safetensors"
    assert told[-1] == (size, size)
    assert told.count("downloading ink.safetensors") == 1


def test_the_library_may_name_adapters_on_the_hub(hub, repository, here, adapters):
    hub.add("someone/ink", repository)
    hub.add("someone/set", folder_of(here.parent, "sub/a.safetensors", source=adapters / "wash.safetensors"))
    (here / "lorakit.toml").write_text(
        'use = ["someone/set/sub/a.safetensors:2"]\n'
        '[adapters.one]\nsource = "someone/ink@main"\nweight = 0.4\n'
        '[adapters.two]\nsource = "someone/set/sub/a.safetensors"\ntriggers = ["wash"]\n'
        '[adapters.three]\nsource = "here/sub/a.safetensors"\n'
    )
    (here / "here").mkdir()
    one, two = find("one"), find("two:3")
    assert (one.weight, one.origin, one.path.name) == (0.4, str(here / "lorakit.toml"), "ink.safetensors")
    assert (two.weight, two.triggers) == (3.0, ("wash",))
    assert two.remote.endswith("/sub/a.safetensors")
    assert [str(spec) for spec in open_library().use] == ["someone/set/sub/a.safetensors:2"]
    assert refused("three").startswith(f"there is no adapter file {here}/here/sub/a.safetensors")
    assert find_adapter(AdapterSpec.parse("someone/ink"), Library({})).path == one.path
