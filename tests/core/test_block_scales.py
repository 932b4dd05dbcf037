import json
from pathlib import Path

import pytest

from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.errors import BlockScalesError

GUIDE = '{"pixel": {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}}'


@pytest.fixture
def index(base):
    return read_base_index(base)


def bind(index, text):
    return parse_block_scales([text])["pixel"].bind(index, "pixel")


@pytest.mark.parametrize(
    ("module", "scale"),
    [
        ("down_blocks.0.resnets.1.conv1", 0.9),
        ("down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q", 0.9),
        ("down_blocks.1.downsamplers.0.conv", 0.9),
        ("mid_block.attentions.0.proj_in", 1.0),
        ("up_blocks.0.attentions.2.proj_out", 0.6),
        ("up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 0.4),
        ("up_blocks.1.attentions.1.proj_in", 0.8),
        ("up_blocks.1.resnets.1.conv2", 0.8),
        ("up_blocks.1.attentions.2.proj_in", 1.0),
        ("up_blocks.1.upsamplers.0.conv", 1.0),
        ("up_blocks.2.resnets.0.conv1", 1.0),
        ("conv_in", 1.0),
        ("time_embedding.linear_1", 1.0),
    ],
)
def test_the_example_of_the_guides(index, module, scale):
    assert bind(index, GUIDE).scale_of("unet", module) == scale


def test_other_components_stay_at_one(index):
    assert bind(index, GUIDE).scale_of("text_encoder", "encoder.layers.0.mlp.fc1") == 1.0


def test_a_component_takes_one_number(index):
    bound = bind(index, '{"pixel": {"unet": 0.25, "text_encoder": 0}}')
    assert bound.scale_of("unet", "conv_in") == 0.25
    assert bound.scale_of("text_encoder", "encoder.layers.0.mlp.fc1") == 0


def test_mid_takes_a_number_or_a_list_of_its_length(index):
    assert bind(index, '{"pixel": {"unet": {"mid": 0.5}}}').scale_of("unet", "mid_block.resnets.1.conv1") == 0.5
    assert bind(index, '{"pixel": {"unet": {"mid": [0.5]}}}').scale_of("unet", "mid_block.resnets.1.conv1") == 0.5


def test_named_json_and_files(index, here):
    Path("scales.json").write_text(GUIDE)
    Path("bare.json").write_text(json.dumps(json.loads(GUIDE)["pixel"]))
    written = parse_block_scales([GUIDE])
    assert parse_block_scales(["scales.json"]) == written
    assert parse_block_scales(["pixel=bare.json"]) == written
    assert (
        parse_block_scales(['pixel={"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1]}}}'])
        == written
    )
    assert written["pixel"].as_json() == {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": (0.4, 0.8, 1.0)}}}


def test_resolved_says_every_place(index):
    rows = {row.place: row.scale for row in bind(index, GUIDE).resolved()}
    assert rows == {
        "unet.down.block_0": 0.9,
        "unet.down.block_1": 0.9,
        "unet.down.block_2": 0.9,
        "unet.mid": 1.0,
        "unet.up.block_0": 0.6,
        "unet.up.block_1.0": 0.4,
        "unet.up.block_1.1": 0.8,
        "unet.up.block_1.2": 1.0,
        "unet.up.block_2": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"pixel": {"unett": 1}}', "no component 'unett'; did you mean unet?"),
        ('{"pixel": {"unet": {"dwn": 1}}}', "no part 'dwn'; it has down, mid, up"),
        (
            '{"pixel": {"unet": {"up": {"block_7": 1}}}}',
            "up has no block_7; it has block_0 (3 transformer layers), block_1",
        ),
        ('{"pixel": {"unet": {"mid": {"block_0": 1}}}}', "the mid block takes one number or one list"),
        ('{"pixel": {"unet": {"up": {"block_1": [1, 2]}}}}', "takes one number or a list of 3, but the list has 2"),
        ('{"pixel": {"unet": {"down": {"block_0": [1, 2]}}}}', "has no transformer layers, so takes one number"),
        ('{"pixel": {"unet": {"up": [1, 2, 3]}}}', "a list belongs to one block"),
        ('{"pixel": {"text_encoder": {"down": 1}}}', "has no down, mid and up blocks; give it one number"),
    ],
)
def test_what_the_base_does_not_have(index, text, message):
    with pytest.raises(BlockScalesError) as caught:
        bind(index, text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", "{}x", "missing.json", "pixel=", "pixel=[1]", '{"pixel": 3}', '{"pixel": {"unet": "1"}}',
        '{"pixel": {"unet": true}}', '{"pixel": {"unet": NaN}}',
        '{"pixel": {"unet": Infinity}}', '{"pixel": {"unet": 1e999}}',
        '{"pixel": {"unet": {"up": {"1": 0.5}}}}', '{"pixel": {"unet": {"up": {"block_x": 0.5}}}}',
        '{"pixel": {"unet": {"up": {"block_1": [0.5, null]}}}}', '{"pixel": {"unet": 1}, "pixel": {"unet": 2}}',
        '{"pixel": {"unet": {"up": {"block_1": {"0": 1}}}}}', '{"pixel": {"unet": 1' + "0" * 400 + "}}",
        '{"pixel": {"unet": {"up": {"block_' + "9" * 5000 + '": 1}}}}', "~nobody-here/x.json",
    ],
)  # fmt: skip
def test_malformed(here, text):
    with pytest.raises(BlockScalesError):
        parse_block_scales([text])


def test_one_adapter_twice():
    with pytest.raises(BlockScalesError, match="given twice"):
        parse_block_scales([GUIDE, 'pixel={"unet": 1}'])
