"""What a picture says its adapters were asked for by."""

from pathlib import Path

import pytest

from lorakit_cli.service.public_source import public_source

SOURCES = {
    "toy": "toy",
    "": "",
    "civitai:12345": "civitai:12345",
    "hf:owner/repo@main": "hf:owner/repo@main",
    "owner/repo": "hf:owner/repo",
    "owner/repo/file.safetensors": "hf:owner/repo/file.safetensors",
    "https://example.org/a.safetensors?token=secret#part": "https://example.org/a.safetensors",
    "https://me:secret@example.org/a.safetensors": "https://example.org/a.safetensors",
    "/home/me/a.safetensors": "",
    "./a.safetensors": "",
    "~/a.safetensors": "",
    r"C:\Users\me\a.safetensors": "",
    r"\\server\a.safetensors": "",
    "folder/a.safetensors": "",
    "a.safetensors": "",
    "gone.safetensors": "",
}


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_of_this_machine_is_told(source, here):
    (here / "folder").mkdir()
    for name in ("folder/a.safetensors", "a.safetensors"):
        Path(name).touch()
    assert public_source(source) == SOURCES[source]
