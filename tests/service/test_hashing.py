"""The judge is a literal retelling of what kohya's tools do: save to memory, cut the header off, hash."""

import hashlib
import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service import hashing
from lorakit_cli.service.hashing import AddnetHashes, StatedHash, addnet_hashes, hashes


def tensors(megabytes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "lora_unet_b.lora_up.weight": torch.randn(megabytes * 131072, 4, generator=generator).half(),
        "lora_unet_a.lora_down.weight": torch.randn(4, 77, generator=generator).half(),
        "lora_unet_a.alpha": torch.tensor(4.0),
        'odd "name"\n\x01ü': torch.ones(3, dtype=torch.uint8),
        "nothing": torch.ones(0, 3),
    }


def addnet(content, metadata):
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    saved = safetensors.torch.save(content, training)
    data = saved[8 + int.from_bytes(saved[:8], "little") :]
    window = saved[0x100000 : 0x100000 + 0x10000]
    return AddnetHashes(hashlib.sha256(data).hexdigest(), hashlib.sha256(window).hexdigest()[:8])


METADATA = {
    "ss_network_dim": "4",
    "ss_tag_frequency": json.dumps({"10_ü": {"tag": 3}}, ensure_ascii=False) + "\t\x7f/",
    "sshs_model_hash": "0" * 64,
    "modelspec.title": "left out of the legacy hash " * 100,
}


@pytest.mark.parametrize("megabytes", [0, 1, 3, 9])
@pytest.mark.parametrize("metadata", [{}, {"modelspec.title": "x"}, METADATA])
def test_every_hash_by_its_definition(tmp_path, megabytes, metadata):
    path, content = tmp_path / "a.safetensors", tensors(megabytes)
    safetensors.torch.save_file(content, path, metadata)
    found, data = hashes(path), path.read_bytes()
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.auto_v2 == found.sha256[:10].upper()
    assert found.auto_v1 == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8].upper()
    assert found.addnet == addnet(content, metadata)
    assert found.auto_v3 == found.addnet.model[:12].upper()


@pytest.mark.parametrize("block", [1000, 65536, 100_001, 10**8])
def test_a_file_in_the_making_has_the_hashes_it_will_have(tmp_path, block):
    path, content = tmp_path / "a.safetensors", tensors(2)
    safetensors.torch.save_file(content, path, METADATA)
    header, saved = read_header(path), path.read_bytes()
    data = memoryview(saved)[8 + int.from_bytes(saved[:8], "little") :]
    blocks = (data[start : start + block] for start in range(0, len(data), block))
    assert addnet_hashes(header.tensors, METADATA, blocks) == addnet(content, METADATA)


def test_stated_hashes_are_compared(tmp_path):
    path, content = tmp_path / "a.safetensors", tensors(2)
    right = addnet(content, {"ss_x": "1"})
    metadata = {"ss_x": "1", "sshs_model_hash": right.model.upper(), "sshs_legacy_hash": right.legacy}
    safetensors.torch.save_file(content, path, metadata | {"modelspec.hash_sha256": "0x" + right.model})
    assert hashes(path).stated == (
        StatedHash("sshs_model_hash", right.model, True),
        StatedHash("sshs_legacy_hash", right.legacy, True),
        StatedHash("modelspec.hash_sha256", right.model, True),
    )
    safetensors.torch.save_file(tensors(2, seed=1), path, metadata)
    assert [each.matches for each in hashes(path).stated] == [False, False]


def test_a_hash_of_the_tensors_by_name_is_one_too(tmp_path):
    # safetensors puts float32 before float16.
    path, content = tmp_path / "a.safetensors", tensors(1) | {"a": torch.ones(3).half()}
    digest = hashlib.sha256(b"".join(content[name].numpy().tobytes() for name in sorted(content))).hexdigest()
    assert digest != addnet(content, {}).model
    safetensors.torch.save_file(content, path, {"modelspec.hash_sha256": f"0x{digest}"})
    assert [each.matches for each in hashes(path).stated] == [True]
    safetensors.torch.save_file(content, path, {"modelspec.hash_sha256": "0x" + "1" * 64})
    assert [each.matches for each in hashes(path).stated] == [False]


def test_a_legacy_hash_of_the_header_is_not_known(tmp_path):
    path, content = tmp_path / "a.safetensors", tensors(1)
    metadata = {"ss_tag_frequency": "x" * 0x100000, "sshs_legacy_hash": "0123abcd"}
    safetensors.torch.save_file(content, path, metadata)
    found = hashes(path)
    assert found.addnet == AddnetHashes(addnet(content, metadata).model, None)
    assert found.stated == (StatedHash("sshs_legacy_hash", "0123abcd", None),)


@pytest.mark.parametrize("megabytes", [1, 5])
def test_progress_ends_at_the_size_of_the_file(tmp_path, megabytes):
    path, seen = tmp_path / "a.safetensors", []
    safetensors.torch.save_file(tensors(megabytes), path)
    hashes(path, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_broken_and_changing_files(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(tensors(5), path)
    monkeypatch.setattr(hashing, "_BLOCK", 4096)
    with pytest.raises(CorruptFileError, match="changed while it was read"):
        hashes(path, lambda done, total: path.open("r+b").truncate(total - 10_000))
    with pytest.raises(CorruptFileError, match="is truncated"):
        hashes(path)


def test_hashing_needs_no_torch():
    code = "import sys, lorakit_cli.service.hashing, lorakit_cli.sources.sidecar; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
