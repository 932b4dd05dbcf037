import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorakit_cli.core.adapter_spec import AdapterSpec, require_distinct
from lorakit_cli.errors import AdapterSpecError

NAMES = st.text("abcXYZ019_-", min_size=1, max_size=12)
WEIGHTS = st.floats(allow_nan=False, allow_infinity=False)
SOURCES = st.one_of(
    NAMES,
    NAMES.map("./{}.safetensors".format),
    NAMES.map("folder/with:colon/{}.bin".format),
    NAMES.map("owner/{}@main".format),
    NAMES.map("hf:owner/{}/file.safetensors".format),
    NAMES.map("https://host:8080/{}?x=1".format),
    st.integers(1, 10**9).map("civitai:{}".format),
    NAMES.map(r"C:\loras\{}.safetensors".format),
)


@pytest.mark.parametrize(
    ("text", "source", "weight", "name"),
    [
        ("toy", "toy", None, "toy"),
        ("toy:0.8", "toy", 0.8, "toy"),
        ("toy:-1", "toy", -1.0, "toy"),
        ("toy:0", "toy", 0.0, "toy"),
        ("toy:+.5", "toy", 0.5, "toy"),
        ("toy:1e-2", "toy", 0.01, "toy"),
        ("face=toy:2.", "toy", 2.0, "face"),
        ("./a b.safetensors:0.5", "./a b.safetensors", 0.5, "a_b"),
        ("loras/My.LoRA-v2.safetensors", "loras/My.LoRA-v2.safetensors", None, "My_LoRA-v2"),
        ("x=./a.safetensors", "./a.safetensors", None, "x"),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", None, "a"),
        (r"C:\loras\a.safetensors:0.5", r"C:\loras\a.safetensors", 0.5, "a"),
        ("C:/a.safetensors:1", "C:/a.safetensors", 1.0, "a"),
        ("owner/repo@v1:0.5", "owner/repo@v1", 0.5, "repo"),
        ("hf:owner/repo", "hf:owner/repo", None, "repo"),
        ("https://host:8080/a.safetensors", "https://host:8080/a.safetensors", None, "a"),
        ("https://host/a.safetensors?x=1:0.5", "https://host/a.safetensors?x=1", 0.5, "a"),
        ("https://host:8080", "https://host:8080", None, "host_8080"),
        ("civitai:12345", "civitai:12345", None, "civitai_12345"),
        ("civitai:12345:0.7", "civitai:12345", 0.7, "civitai_12345"),
        ("odd:name/file", "odd:name/file", None, "file"),
    ],
)
def test_parse(text, source, weight, name):
    spec = AdapterSpec.parse(text)
    assert (spec.source, spec.weight, spec.name) == (source, weight, name)
    assert str(spec) == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":1", "toy:", "toy:x", "toy:nan", "toy:inf", "toy:-inf", "toy:1e999", "toy:1_0", "toy:1,5", "toy:0x1",
        "toy:١", "toy:1:2:x", "a b", "töy", "=toy", "x=", "x=:1", "toy.v2", " toy", "toy ", "to\ny", "toy:\t1", "hf:",
        "civitai:",
        "./a.safetensors:nan", "./a.safetensors:", "owner/repo:main",
    ],
)  # fmt: skip
def test_malformed(text):
    with pytest.raises(AdapterSpecError):
        AdapterSpec.parse(text)


def test_the_message_says_how_it_is_written():
    with pytest.raises(AdapterSpecError) as caught:
        AdapterSpec.parse("toy:nan")
    assert str(caught.value) == (
        "the weight 'nan' of adapter 'toy:nan' is not a finite number; "
        "an adapter is written [NAME=]SOURCE[:WEIGHT], for example toy:0.8"
    )


@given(SOURCES, st.one_of(st.none(), WEIGHTS), st.one_of(st.none(), NAMES))
def test_text_and_value_round_trip(source, weight, alias):
    spec = AdapterSpec(source, weight, alias)
    again = AdapterSpec.parse(str(spec))
    assert again == spec
    assert str(again) == str(spec)


@given(st.text(max_size=30))
def test_any_text_is_refused_or_given_back(text):
    try:
        spec = AdapterSpec.parse(text)
    except AdapterSpecError:
        return
    assert str(spec) == text
    assert spec.weight is None or math.isfinite(spec.weight)
    assert spec.name


def test_a_replaced_weight_is_shown_instead_of_the_written_one():
    import dataclasses

    assert str(dataclasses.replace(AdapterSpec.parse("toy:0.50"), weight=2.0)) == "toy:2.0"


def test_two_adapters_of_one_name():
    with pytest.raises(AdapterSpecError, match="two adapters are called 'toy'"):
        require_distinct(["toy", "pixel", "toy"])
