"""What of an address is asked for, and what of it may be seen."""

import pytest

from lorakit_cli.sources.web_address import web_address, without_secret


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("https://host/a.safetensors", "https://host/a.safetensors"),
        ("https://host:8443/a%20b.safetensors?download=true", "https://host:8443/a%20b.safetensors?download=true"),
        ("https://me:secret@host/a", "https://host/a"),
        ("https://t0ken@host/a#part", "https://host/a"),
        ("https://host/a?token=1&x=2&x=3", "https://host/a?x=2&x=3"),
        ("https://host/a?API-Key=1&access_token=2&sessionId=3&my.password=4", "https://host/a"),
        ("https://host/a?X-Amz-Credential=1&X-Amz-Date=2&X-Goog-Signature=3&Expires=4", "https://host/a"),
        ("https://host/a?sv=2024&sig=x%2F&se=1", "https://host/a?sv=2024&se=1"),
        ("https://host/a?monkey=1&keyboard=2&design=3", "https://host/a?monkey=1&keyboard=2&design=3"),
        ("https://[::1/a?token=1", "https://[::1/a"),
        ("https://me:secret@[::1/a?token=1", "https://[::1/a"),
        ("loras/a@token=1?token=2.safetensors", "loras/a@token=1?token=2.safetensors"),
        ("civitai:12", "civitai:12"),
        ("https://civitai.com/api/download/models/12?token=secret", "civitai:12"),
    ],
)
def test_what_may_be_written_down(text, public):
    assert without_secret(text) == public


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("https://host/a.safetensors?x=1#there", "https://host/a.safetensors?x=1"),
        ("https://me:pw@host/a", "https://me:pw@host/a"),
        # The page about a file, as copied from a browser, means the file.
        (
            "https://huggingface.co/o/r/blob/main/d/a.safetensors",
            "https://huggingface.co/o/r/resolve/main/d/a.safetensors",
        ),
        (
            "https://huggingface.co/o/r/resolve/main/a.safetensors",
            "https://huggingface.co/o/r/resolve/main/a.safetensors",
        ),
        ("https://host/o/r/blob/main/a.safetensors", "https://host/o/r/blob/main/a.safetensors"),
    ],
)
def test_what_is_asked_for(text, asked):
    assert web_address(text) == asked
