"""Bases on the Hub: indexed from headers alone, by the real client talking to a Hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.errors import BaseModelError
from lorakit_cli.sources.hub import hub_index
from tests.hub_server import HubServer
from tests.sparse import sparse_base, write_sparse

TOKEN = "hf_averysecrettoken"


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    """A pipeline of SDXL's full size, whose gigabytes nobody wrote."""
    return sparse_base(tmp_path_factory.mktemp("sdxl"), "sdxl")


def told(index):
    """Say what an index tells of each component, with files relative to the pipeline."""
    return {
        name: (component.class_name, component.config, _told(component.tensors, index.path))
        for name, component in index.components.items()
    }


def _told(tensors, path):
    return {name: (tensor.info, tensor.file.relative_to(path).as_posix()) for name, tensor in tensors.items()}


def test_the_index_of_a_hub_base_is_that_of_its_folder(hub, base):
    commit = hub.add("someone/tiny", base)
    index = hub_index("someone/tiny")
    local = read_base_index(base)
    assert told(index) == told(local)
    assert (index.class_name, index.variant) == (local.class_name, local.variant)
    assert (index.path, index.remote) == (PurePosixPath("someone/tiny"), f"someone/tiny@{commit}")


def test_tensors_on_the_hub_have_no_local_file(hub, base):
    hub.add("someone/tiny", base)
    tensor = hub_index("someone/tiny").components["unet"].tensors["conv_in.weight"]
    with pytest.raises(BaseModelError) as caught:
        _ = tensor.local_file
    assert str(caught.value) == (
        "someone/tiny/unet/diffusion_pytorch_model.safetensors is on the Hub and was not downloaded"
    )


def test_only_headers_of_weights_are_read(hub, sdxl):
    hub.add("someone/sdxl", sdxl)
    index = hub_index("someone/sdxl")
    assert told(index) == told(read_base_index(sdxl))
    weights = list(sdxl.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in weights) > 6_000_000_000
    for file in weights:
        with file.open("rb") as opened:
            header = 8 + int.from_bytes(opened.read(8), "little")
        assert hub.sent(file.relative_to(sdxl).as_posix()) <= max(header, 131_072)


def test_a_second_time_only_the_commit_is_asked_for(hub, base, offline):
    hub.add("someone/tiny", base)
    first = hub_index("someone/tiny")
    asked = len(hub.requests)
    assert hub_index("someone/tiny") == first
    assert [request.path for request in hub.requests[asked:]] == ["/api/models/someone/tiny"]
    offline()
    assert hub_index("someone/tiny") == first
    assert len(hub.requests) == asked + 1


def test_a_kept_header_that_was_damaged_is_read_anew(hub, base, tmp_path):
    hub.add("someone/tiny", base)
    first = hub_index("someone/tiny")
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file() and b"model_index.json" not in file.read_bytes():
            file.write_bytes(file.read_bytes()[:40])
    assert hub_index("someone/tiny") == first


def test_a_downloaded_base_needs_no_network(hub, base, offline):
    from huggingface_hub import snapshot_download

    hub.add("someone/tiny", base)
    snapshot_download("someone/tiny")
    offline()
    hub.requests.clear()
    assert told(hub_index("someone/tiny")) == told(read_base_index(base))
    assert hub.requests == []


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_indexed_like_one_file(hub, tmp_path, variant):
    from tests.tiny import build_pipeline

    folder = tmp_path / "sharded"
    build_pipeline().save_pretrained(folder, variant=variant, max_shard_size="100KB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 2
    hub.add("someone/sharded", folder)
    index = hub_index("someone/sharded")
    assert index.variant == variant
    unet = build_pipeline().unet
    tensors = index.components["unet"].tensors
    assert {name: tensor.info.shape for name, tensor in tensors.items()} == {
        name: tuple(value.shape) for name, value in unet.state_dict().items()
    }
    for name, tensor in tensors.items():
        local = folder / tensor.file.relative_to("someone/sharded")
        assert f'"{name}":'.encode() in local.read_bytes()[:100_000]


def test_the_variant_asked_for_is_taken(hub, tmp_path):
    import torch

    from tests.tiny import build_pipeline

    folder = tmp_path / "both"
    pipeline = build_pipeline()
    pipeline.save_pretrained(folder)
    pipeline.to(torch.float16).save_pretrained(folder, variant="fp16")
    hub.add("someone/both", folder)
    for variant, dtype in ((None, "F32"), ("fp16", "F16")):
        index = hub_index("someone/both", variant=variant)
        assert index.variant == variant
        assert {t.info.dtype for component in index.components.values() for t in component.tensors.values()} == {dtype}
    with pytest.raises(BaseModelError) as caught:
        hub_index("someone/both", variant="bf16")
    assert str(caught.value) == "someone/both has no weights of the variant bf16; it has fp16"


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, base, sdxl):
    old = hub.add("someone/base", base, "main", "v1")
    new = hub.add("someone/base", sdxl, "main")
    for revision, commit in ((None, new), ("main", new), ("v1", old), (old, old)):
        assert hub_index("someone/base", revision).remote == f"someone/base@{commit}"
    assert len(hub_index("someone/base").components["unet"].tensors) == 1680
    assert len(hub_index("someone/base", "v1").components["unet"].tensors) < 1000


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, base, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("someone/gated", base, gated=True, token=TOKEN)
    hub_index("someone/gated")
    tokens = {host: {r.token for r in hub.requests if r.host == host} for host in ("127.0.0.1", "localhost")}
    assert tokens == {"127.0.0.1": {TOKEN}, "localhost": {None}}


def test_a_server_that_knows_no_ranges_sends_little_more(hub, tmp_path):
    """The header of a gigabyte is read off the file's start; then the client hangs up."""
    folder = tmp_path / "wide"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "Some", "unet": ["diffusers", "UNet2DConditionModel"]}')
    names = {f"{'long' * 40}{number}.weight": ("F16", (1024, 1024)) for number in range(1000)}
    path = write_sparse(folder / "unet" / "diffusion_pytorch_model.safetensors", names)
    assert path.stat().st_size > 2_000_000_000
    hub.add("someone/wide", folder)
    hub.ranges = False
    assert len(hub_index("someone/wide").components["unet"].tensors) == 1000
    assert hub.sent("/cdn/") < 50_000_000


def refused(hub, name="someone/tiny", **options):
    """Ask for an index that cannot be had; give the message, in which there is no secret."""
    with pytest.raises(BaseModelError) as caught:
        hub_index(name, **options)
    assert TOKEN not in str(caught.value)
    return str(caught.value).replace(hub.url, "HUB")


def test_a_gated_base_names_where_to_accept_its_licence(hub, base, monkeypatch):
    hub.add("someone/tiny", base, gated=True, token="hf_other")
    advice = "someone/tiny is gated; accept its licence at HUB/someone/tiny and log in with `hf auth login`"
    assert refused(hub) == advice
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refused(hub) == advice


def test_a_private_base_and_none_at_all_look_alike(hub, base, monkeypatch):
    hub.add("someone/tiny", base, private=True, token="hf_other")
    message = "the Hub has no repository {}, or it is private; check its name, or log in with `hf auth login`"
    assert refused(hub) == message.format("someone/tiny")
    assert refused(hub, "someone/else") == message.format("someone/else")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refused(hub) == message.format("someone/tiny")


def test_a_revision_that_is_not_there_is_named(hub, base):
    hub.add("someone/tiny", base)
    message = "someone/tiny has no revision v9; its branches and tags are listed at HUB/someone/tiny/tree/main"
    assert refused(hub, revision="v9") == message
    assert refused(hub, revision="0" * 40) == message.replace("v9", "0" * 40)


def test_what_is_no_repository_name_is_refused(hub):
    assert refused(hub, "a/b/c") == "'a/b/c' is no name of a Hub repository, which is written owner/name"


def test_a_repository_without_a_pipeline_is_refused(hub, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"")
    hub.add("someone/adapter", folder)
    assert refused(hub, "someone/adapter") == (
        "someone/adapter is not a diffusers pipeline: it has no model_index.json"
    )


def test_offline_what_is_not_cached_is_refused_without_a_request(hub, base, offline):
    hub.add("someone/tiny", base)
    offline()
    assert refused(hub) == (
        "someone/tiny is not in the cache, and HF_HUB_OFFLINE forbids the network; unset it once, or give the path of "
        "a folder"
    )
    assert hub.requests == []


def test_a_hub_that_cannot_be_reached_is_said_so(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused(hub) == (
        "http://127.0.0.1:9 cannot be reached for someone/tiny (ConnectError); check the connection, or give the path "
        "of a folder"
    )


@pytest.mark.parametrize("mark", ["/api/models", "model_index.json", "/resolve/", "/cdn/"])
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the Hub refuses the token it was given for someone/tiny; log in with `hf auth login` again"),
        (403, "the token in use may not read someone/tiny; log in with `hf auth login` with one that may"),
        (
            429,
            "the Hub asks for fewer requests (HTTP 429) and does not give someone/tiny; wait some minutes, or log in "
            "with `hf auth login`",
        ),
        (503, "the Hub is in trouble (HTTP 503) and does not give someone/tiny; try again later"),
    ],
)
def test_a_refusal_is_explained_wherever_it_comes(hub, base, monkeypatch, mark, status, message):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("someone/tiny", base)
    more = {"X_Error_Message": "Invalid credentials in Authorization header"} if status == 401 else {}
    hub.refuse(mark, status, **more)
    assert refused(hub) == message


def test_trouble_that_passes_is_not_noticed(hub, base):
    hub.add("someone/tiny", base)
    hub.refuse("/cdn/", 503, times=2)
    hub.refuse("diffusion_pytorch_model", 429, times=1)
    assert told(hub_index("someone/tiny")) == told(read_base_index(base))


def broken(tmp_path, content):
    folder = tmp_path / "broken"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "Some", "unet": ["diffusers", "UNet2DConditionModel"]}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no complete safetensors file (0 bytes)"),
        ((500).to_bytes(8, "little") + b"{", "is no complete safetensors file (9 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 90, "is a Git LFS pointer, not the file itself"),
        (
            (60).to_bytes(8, "little")
            + b'{"a":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}'.ljust(60)
            + b"short",
            "is truncated: its header promises 84 bytes, the file has 73",
        ),
    ],
)
def test_a_broken_file_of_the_repository_is_called_so(hub, tmp_path, content, reason):
    hub.add("someone/tiny", broken(tmp_path, content))
    assert refused(hub) == (
        f"someone/tiny/unet/diffusion_pytorch_model.safetensors {reason}; the repository's own copy is broken, "
        "try another revision"
    )


def test_a_connection_that_breaks_off_is_said_so(hub, sdxl):
    hub.add("someone/tiny", sdxl)
    hub.cut = 1000
    assert refused(hub).startswith("HUB cannot be reached for someone/tiny (RemoteProtocolError)")


def test_an_index_of_shards_cannot_reach_out_of_its_folder(hub, tmp_path):
    folder = broken(tmp_path, b"")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    for name in ("../model_index.json", "/etc/passwd", "..", "a\\b", "C:x"):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        hub.add("someone/tiny", folder)
        assert refused(hub) == (
            f"someone/tiny/unet/{index.name}: its weight_map does not map tensors to files beside it"
        )
        assert not hub.sent("etc")


def test_a_missing_shard_is_named(hub, tmp_path):
    folder = broken(tmp_path, b"")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    hub.add("someone/tiny", folder)
    assert refused(hub) == "someone/tiny/unet is incomplete: part-1.safetensors is missing"


def test_the_client_is_led_by_its_usual_variables(base, tmp_path):
    """In a process of its own: endpoint, token, caches and offline mode, and no heavy library."""
    code = """
import sys
from lorakit_cli.errors import BaseModelError
from lorakit_cli.sources.hub import hub_index
assert "huggingface_hub" not in sys.modules
try:
    print(hub_index("someone/gated").remote)
except BaseModelError as error:
    print(error)
print([name for name in ("torch", "diffusers", "transformers", "safetensors", "numpy") if name in sys.modules])
"""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    variables |= {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN}

    def run(**more):
        done = subprocess.run([sys.executable, "-c", code], env=variables | more, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout.splitlines()

    with HubServer() as hub:
        commit = hub.add("someone/gated", base, gated=True, token=TOKEN)
        variables["HF_ENDPOINT"] = hub.url
        assert run(HF_TOKEN="hf_other")[0].startswith("someone/gated is gated; accept its licence at http://127.0.0.1")
        assert run() == [f"someone/gated@{commit}", "[]"]
        asked = len(hub.requests)
        assert run(HF_HUB_OFFLINE="1") == [f"someone/gated@{commit}", "[]"]
        assert len(hub.requests) == asked
    assert Path(tmp_path / "hf" / "hub" / "models--someone--gated").is_dir()
