"""References to adapters on the Hub, as text and as values."""

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.hub_file import HubFile
from lorakit_cli.errors import AdapterSpecError

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("text", "repo", "revision", "path", "name"),
    [
        ("owner/repo", "owner/repo", None, "", "repo"),
        ("owner/repo/", "owner/repo", None, "", "repo"),
        ("hf:owner/My.Repo-v2", "owner/My.Repo-v2", None, "", "My_Repo-v2"),
        ("owner/repo@v1.0", "owner/repo", "v1.0", "", "repo"),
        ("owner/repo@refs/pr/3", "owner/repo", "refs/pr/3", "", "repo"),
        ("owner/repo@feature%2Fx", "owner/repo", "feature/x", "", "repo"),
        ("owner/repo/a b.safetensors", "owner/repo", None, "a b.safetensors", "a_b"),
        ("owner/repo/sub/deep/a.safetensors", "owner/repo", None, "sub/deep/a.safetensors", "a"),
        ("owner/repo/sub@2/a@2.bin", "owner/repo", None, "sub@2/a@2.bin", "a_2"),
        ("owner/repo@main/sub", "owner/repo", "main", "sub", "sub"),
        ("hf:owner/repo@refs/pr/3/sub/a.safetensors", "owner/repo", "refs/pr/3", "sub/a.safetensors", "a"),
        (f"hf:owner/repo@{COMMIT}/a.safetensors", "owner/repo", COMMIT, "a.safetensors", "a"),
    ],
)
def test_what_is_a_reference(text, repo, revision, path, name):
    found = HubFile.parse(text)
    assert (found.repo, found.revision, found.path, found.forced) == (repo, revision, path, text.startswith("hf:"))
    assert str(found) == text.rstrip("/")
    assert HubFile.parse(str(found)) == found
    for weight, value in (("", None), (":-0.5", -0.5)):
        spec = AdapterSpec.parse(f"{text}{weight}")
        assert (spec.source, spec.weight, str(spec)) == (text, value, text + weight)
        assert AdapterSpec.parse(f"x={text}{weight}").name == "x"
    if "@2" not in text:
        assert AdapterSpec.parse(text).name == name


@pytest.mark.parametrize(
    "text", ["owner", "owner/../a", "owner/repo/../../etc", "owner/repo//a", "a/b@", ".a/b", "a b/c"]
)
def test_what_is_none(text):
    assert HubFile.parse(text) is None
    with pytest.raises(AdapterSpecError, match="names no adapter on the Hub, which is written hf:owner/repo or"):
        HubFile.parse(f"hf:{text}")


def test_other_files_are_spelled_like_the_one_asked_for():
    assert HubFile.parse("hf:owner/repo@v1/sub").spelled("sub/a.safetensors") == "hf:owner/repo@v1/sub/a.safetensors"
