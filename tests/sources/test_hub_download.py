"""Bases on the Hub: downloaded by the real client from a Hub on this machine, no file more than is needed."""

import errno
import os
import shutil
import signal

import pytest

from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.errors import BaseModelError
from lorakit_cli.sources.hub import hub_index
from lorakit_cli.sources.hub_download import download, missing_bytes
from tests.published import publish

UNET = "unet/diffusion_pytorch_model.safetensors"
NEEDED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    UNET,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def repository(tmp_path, base):
    return publish(base, tmp_path / "published")


def files(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def same(folder, other, names):
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_only_what_a_pipeline_needs_is_asked_for(hub, base, repository, tmp_path):
    commit = hub.add("someone/tiny", repository)
    index = hub_index("someone/tiny")
    counts = []
    folder = download(index, counts.append)
    assert folder == tmp_path / "hub-cache" / "models--someone--tiny" / "snapshots" / commit
    assert hub.asked_for() == NEEDED
    assert files(folder) == NEEDED
    assert same(folder, base, NEEDED)
    # The model_index.json and configs were there already, for they were read with the headers.
    weights = sum((base / name).stat().st_size for name in NEEDED if name.endswith(".safetensors"))
    others = sum(
        (base / name).stat().st_size for name in ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")
    )
    others += (base / "scheduler/scheduler_config.json").stat().st_size
    assert sum(counts) == weights + others


def test_a_second_time_nothing_is_asked_for(hub, repository, base, offline):
    hub.add("someone/tiny", repository)
    index = hub_index("someone/tiny")
    weights = sum(file.stat().st_size for file in base.rglob("*.safetensors"))
    assert missing_bytes(index) == weights
    folder = download(index)
    assert missing_bytes(index) == 0
    hub.requests.clear()
    assert download(index) == folder
    offline()
    assert download(index) == folder
    assert hub.requests == []


def test_what_is_not_in_the_cache_cannot_be_had_offline(hub, repository, offline, tmp_path):
    hub.add("someone/tiny", repository)
    index = hub_index("someone/tiny")
    before = files(tmp_path / "hub-cache")
    hub.requests.clear()
    offline()
    with pytest.raises(BaseModelError) as caught:
        download(index)
    assert str(caught.value) == (
        "someone/tiny is not wholly in the cache, scheduler/scheduler_config.json is missing, and HF_HUB_OFFLINE "
        "forbids the network; unset it once, or give the path of a folder"
    )
    assert hub.requests == []
    assert files(tmp_path / "hub-cache") == before


@pytest.mark.parametrize("size", [None, "100KB"])
def test_a_variant_is_downloaded_alone(hub, tmp_path, size):
    import torch

    from tests.tiny import build_pipeline

    both, alone = tmp_path / "both", tmp_path / "alone"
    more = {"max_shard_size": size} if size else {}
    pipeline = build_pipeline()
    pipeline.save_pretrained(both, **more)
    pipeline.to(torch.float16).save_pretrained(both, variant="fp16", **more)
    pipeline.save_pretrained(alone, variant="fp16", **more)
    hub.add("someone/both", both)
    hub.add("someone/alone", alone)
    for name, variant in (("both", "fp16"), ("alone", None)):
        folder = download(hub_index(f"someone/{name}", variant=variant))
        assert files(folder) == files(alone)
        assert same(folder, alone, files(alone))
        assert read_base_index(folder, "fp16").components.keys() == {"unet", "vae", "text_encoder"}


def test_a_commit_that_has_been_overtaken_is_downloaded(hub, base, tmp_path):
    hub.add("someone/tiny", base, "main", "v1")
    index = hub_index("someone/tiny", "v1")
    newer = tmp_path / "newer"
    shutil.copytree(base, newer)
    (newer / UNET).write_bytes(b"another one")
    hub.add("someone/tiny", newer)
    assert (download(index) / UNET).read_bytes() == (base / UNET).read_bytes()


def test_a_transfer_that_breaks_off_is_taken_up_again(hub, base, monkeypatch):
    from huggingface_hub import constants

    # The client keeps what came in whole pieces.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add("someone/tiny", base)
    index = hub_index("someone/tiny")
    hub.requests.clear()
    hub.cut = (base / UNET).stat().st_size // 3
    folder = download(index)
    assert same(folder, base, NEEDED)
    begun = [request for request in hub.requests if request.path.startswith("/cdn/") and request.method == "GET"]
    assert len(begun) > 3
    assert hub.sent("/cdn/") < 1.01 * sum(file.stat().st_size for file in base.rglob("*.safetensors"))


def test_ctrl_c_does_not_wait_for_files_that_have_begun(hub, base, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add("someone/tiny", base)
    index = hub_index("someone/tiny")
    hub.requests.clear()
    hub.pause = 0.3
    pressed = []

    def press(count):
        if not pressed and count == 1000:
            pressed.append(count)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        download(index, press)
    assert hub.sent("/cdn/") < missing_bytes(index) / 2
    assert not [name for name in files(tmp_path / "hub-cache") if name.endswith(".incomplete")]
    hub.pause = 0
    assert same(download(index), base, NEEDED)


def refused(base):
    with pytest.raises(BaseModelError) as caught:
        download(base)
    return str(caught.value)


def test_a_transfer_that_never_ends_is_refused(hub, base, tmp_path):
    hub.add("someone/tiny", base)
    index = hub_index("someone/tiny")
    hub.cut = 0
    assert refused(index) == (
        f"{hub.url} cannot be reached for someone/tiny (RemoteProtocolError); check the connection, or give the path "
        "of a folder"
    )
    assert not [name for name in files(tmp_path / "hub-cache") if name.endswith((".incomplete", ".safetensors"))]
    hub.cut = None
    assert same(download(index), base, NEEDED)


def test_a_licence_that_is_withdrawn_meanwhile_is_said(hub, base, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add("someone/tiny", base, gated=True, token="hf_secret")
    index = hub_index("someone/tiny")
    hub.repositories["someone/tiny"].token = "hf_other"
    assert refused(index) == (
        f"someone/tiny is gated; accept its licence at {hub.url}/someone/tiny and log in with `hf auth login`"
    )


def test_a_file_that_is_gone_is_said(hub, base, tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(base, folder)
    hub.add("someone/tiny", folder)
    index = hub_index("someone/tiny")
    (folder / UNET).unlink()
    assert refused(index) == f"someone/tiny has lost {UNET}, which it lists; try again, or another revision"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            errno.ENOSPC,
            "the disk is full: someone/tiny does not fit into the Hub's cache, CACHE; free some space, or na",
        ),
        (
            errno.EACCES,
            "the Hub's cache, CACHE, cannot be used for someone/tiny: Permission denied; HF_HOME",
        ),
    ],
)
def test_a_cache_that_takes_no_more_is_said(hub, base, tmp_path, monkeypatch, number, message):
    from huggingface_hub import file_download

    hub.add("someone/tiny", base)
    index = hub_index("someone/tiny")

    def fails(*_):
        raise OSError(number, "what the system says")

    monkeypatch.setattr(file_download, "_chmod_and_move", fails)
    assert refused(index).replace(str(tmp_path / "hub-cache"), "CACHE").startswith(message)


def test_a_file_of_another_size_is_refused(hub, base, monkeypatch):
    from tests import hub_server

    hub.add("someone/tiny", base)
    index = hub_index("someone/tiny")
    content = hub_server._Handler._content
    monkeypatch.setattr(
        hub_server._Handler, "_content", lambda self, _, headers: content(self, base / "unet/config.json", headers)
    )
    assert refused(index) == (
        "a file of someone/tiny did not arrive whole (OSError); try again, what is complete is kept"
    )
