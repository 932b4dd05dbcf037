import json
from pathlib import Path

import pytest

from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.resolved_scales import Touched, position_of, resolve
from lorakit_cli.errors import BlockScalesError
from tests.core.indexes import component, published
from tests.core.indexes import index as index_of

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


def places(bound, touched=None):
    return {row.place: row.scale for row in resolve(bound, touched or {})}


def test_resolved_says_every_place_and_joins_runs(index):
    assert places(bind(index, GUIDE)) == {
        "unet.down.block_0-2": 0.9,
        "unet.mid": 1.0,
        "unet.up.block_0": 0.6,
        "unet.up.block_1.0": 0.4,
        "unet.up.block_1.1": 0.8,
        "unet.up.block_1.2": 1.0,
        "unet.up.block_2": 1.0,
    }


def test_resolved_tells_blocks_with_layers_of_the_adapter_from_those_without(index):
    bound = bind(index, '{"pixel": {"unet": {"down": 0.5}}}')
    modules = ["down_blocks.1.resnets.0.conv1", "down_blocks.2.resnets.0.conv1", "conv_in"]
    touched = {("unet", position_of(bound, "unet", module)): Touched(2, 0.25) for module in modules}
    touched["text_encoder", None] = Touched(3, 0.5)
    rows = {row.place: (row.first, row.last, row.strength, row.layers) for row in resolve(bound, touched)}
    assert rows == {
        "unet.down.block_0": (0, 0, None, 0),
        "unet.down.block_1-2": (1, 2, 0.25, 4),
        "unet.mid": (0, 0, None, 0),
        "unet.up.block_0-2": (0, 2, None, 0),
        "unet.other": (None, None, 0.25, 2),
        "text_encoder": (None, None, 0.5, 3),
    }


FLUX = (
    '{"pixel": {"transformer": {"transformer_blocks": {"0-9": 0.5, "10": 0}, "single_transformer_blocks": 1.2, '
    '"x_embedder": 0.25, "other": 0}, "text_encoder": {"layers": {"0-5": 0}}, "text_encoder_2": {"encoder.block": 2}}}'
)


@pytest.mark.parametrize(
    ("name", "module", "scale"),
    [
        ("transformer", "transformer_blocks.0.attn.to_q.weight", 0.5),
        ("transformer", "transformer_blocks.1.attn.to_q", 0.5),
        ("transformer", "transformer_blocks.9.ff.net.2", 0.5),
        ("transformer", "transformer_blocks.10.attn.to_q", 0),
        ("transformer", "transformer_blocks.11.attn.to_q", 1),
        ("transformer", "transformer_blocks.18.attn.to_q", 1),
        ("transformer", "single_transformer_blocks.0.proj_mlp", 1.2),
        ("transformer", "single_transformer_blocks.10.proj_mlp", 1.2),
        ("transformer", "single_transformer_blocks.37.attn.to_k", 1.2),
        ("transformer", "x_embedder.weight", 0.25),
        ("transformer", "context_embedder", 0),
        ("transformer", "norm_out.linear", 0),
        ("transformer", "proj_out", 0),
        ("text_encoder", "encoder.layers.5.mlp.fc1", 0),
        ("text_encoder", "encoder.layers.6.mlp.fc1", 1),
        ("text_encoder", "text_model.encoder.layers.5.mlp.fc1", 0),
        ("text_encoder", "embeddings.token_embedding", 1),
        ("text_encoder_2", "encoder.block.23.layer.1.DenseReluDense.wo", 2),
        ("text_encoder_2", "shared", 1),
    ],
)
def test_stacks_of_blocks(name, module, scale):
    assert bind(published("FLUX.1"), FLUX).scale_of(name, module) == scale


def test_stacks_come_back_as_they_were_written_and_resolve_to_runs():
    scales = parse_block_scales([FLUX])["pixel"]
    assert scales.as_json() == json.loads(FLUX)["pixel"]
    assert parse_block_scales([json.dumps({"pixel": scales.as_json()})])["pixel"] == scales
    assert places(scales.bind(published("FLUX.1"), "pixel")) == {
        "transformer.transformer_blocks.0-9": 0.5,
        "transformer.transformer_blocks.10": 0,
        "transformer.transformer_blocks.11-18": 1,
        "transformer.single_transformer_blocks.0-37": 1.2,
        "transformer.x_embedder": 0.25,
        "transformer.other": 0,
        "text_encoder.layers.0-5": 0,
        "text_encoder.layers.6-11": 1,
        "text_encoder_2.block.0-23": 2,
    }


def test_a_list_for_a_stack_has_a_number_for_every_block():
    blocks = [f"layers.{n}.attn.to_q.weight" for n in (0, 1, 10, 2)]
    base = index_of(component("transformer", [*blocks, "proj_out.weight"]))
    bound = bind(base, '{"pixel": {"transformer": {"layers": [0.1, 0.2, 0.3, 0.4], "proj_out": 3}}}')
    found = {name: bound.scale_of("transformer", name) for name in base.components["transformer"].tensors}
    assert found == dict(zip([*blocks, "proj_out.weight"], [0.1, 0.2, 0.4, 0.3, 3], strict=True))


def test_two_denoisers_are_two_components():
    blocks = [f"blocks.{n}.attn1.to_q.weight" for n in range(3)]
    base = index_of(component("transformer", blocks), component("transformer_2", blocks))
    bound = bind(base, '{"pixel": {"transformer": {"blocks": {"1-2": 0}}, "transformer_2": 0.5}}')
    assert [bound.scale_of("transformer", name) for name in blocks] == [1, 0, 0]
    assert [bound.scale_of("transformer_2", name) for name in blocks] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("module", "scale"),
    [("conv_in", 0.3), ("time_embedding.linear_1", 0), ("conv_out", 0), ("mid_block.resnets.0.conv1", 1),
     ("up_blocks.0.resnets.0.conv1", 2), ("up_blocks.1.attentions.0.proj_in", 2), ("up_blocks.2.resnets.0.conv1", 1)],
)  # fmt: skip
def test_a_unet_has_names_outside_its_blocks_and_runs_of_them(index, module, scale):
    bound = bind(index, '{"pixel": {"unet": {"conv_in": 0.3, "other": 0, "up": {"block_0-1": 2}}}}')
    assert bound.scale_of("unet", module) == scale


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"pixel": {"unett": 1}}', "no component 'unett'; did you mean unet?"),
        (
            '{"pixel": {"unet": {"dwn": 1}}}',
            "no part 'dwn'; did you mean down? It has down, mid, up, and outside of them conv_in",
        ),
        ('{"pixel": {"unet": {"conv_inn": 1}}}', "no part 'conv_inn'; did you mean conv_in"),
        ('{"pixel": {"unet": {"conv_in": [1]}}}', "unet.conv_in is no block and has none, so takes one number"),
        ('{"pixel": {"unet": {"other": {"0": 1}}}}', "unet.other is no block and has none, so takes one number"),
        ('{"pixel": {"unet": {"up": {"1": 0.5}}}}', "unet.up has no 1; it has block_0 (3 transformer layers)"),
        (
            '{"pixel": {"unet": {"up": {"block_7": 1}}}}',
            "up has no block_7; it has block_0 (3 transformer layers), block_1",
        ),
        ('{"pixel": {"unet": {"mid": {"block_0": 1}}}}', "the mid block takes one number or one list"),
        ('{"pixel": {"unet": {"up": {"block_1": [1, 2]}}}}', "takes one number or a list of 3, but the list has 2"),
        ('{"pixel": {"unet": {"down": {"block_0": [1, 2]}}}}', "has no transformer layers, so takes one number"),
        ('{"pixel": {"unet": {"up": [1, 2, 3]}}}', "a list belongs to one block"),
        (
            '{"pixel": {"text_encoder": {"down": 1}}}',
            "text_encoder has no part 'down'. It has layers (0-1), and outside of them embeddings, final_layer_norm",
        ),
        ('{"pixel": {"text_encoder": {"layers": {"0-5": 1}}}}', "layers has no 2 of 0-5; it has the blocks 0-1"),
        ('{"pixel": {"text_encoder": {"layers": {"7": 1}}}}', "layers has no 7; it has the blocks 0-1"),
        ('{"pixel": {"text_encoder": {"layers": {"block_0": 1}}}}', "layers has no block_0; it has the blocks 0-1"),
        ('{"pixel": {"text_encoder": {"layers": [1]}}}', "takes one number or a list of 2, but the list has 1"),
        ('{"pixel": {"text_encoder": {"layers": {"0": [1]}}}}', "layers.0 is one block, so takes one number"),
        ('{"pixel": {"text_encoder": {"layers": 1, "encoder.layers": 2}}}', "given twice, once as encoder.layers"),
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
        '{"pixel": {"t": {"b": {"0-3": 1, "2": 1}}}}', '{"pixel": {"t": {"b": {"2": 1, "0-3": 1}}}}',
        '{"pixel": {"t": {"b": {"3-0": 1}}}}', '{"pixel": {"t": {"b": {"0-": 1}}}}', '{"pixel": {"t": {"b": {"": 1}}}}',
        '{"pixel": {"t": {"b": {"-1": 1}}}}', '{"pixel": {"t": {"b": {"1,2": 1}}}}',
        '{"pixel": {"t": {"b": {"*": 1}}}}',
        '{"pixel": {"t": {"b": {"\u0661": 1}}}}', '{"pixel": {"t": {"b": {"0-99999": 1}}}}',
        '{"pixel": {"unet": {"up": {"block_x": 0.5}}}}',
        '{"pixel": {"unet": {"up": {"block_1": [0.5, null]}}}}', '{"pixel": {"unet": 1}, "pixel": {"unet": 2}}',
        '{"pixel": {"unet": {"up": {"block_1": {"0": 1}}}}}', '{"pixel": {"unet": 1' + "0" * 400 + "}}",
        '{"pixel": {"unet": {"up": {"block_' + "9" * 5000 + '": 1}}}}', "~nobody-here/x.json",
    ],
)  # fmt: skip
def test_malformed(here, text):
    with pytest.raises(BlockScalesError):
        parse_block_scales([text])


def test_what_is_said_twice_of_a_block_is_named():
    with pytest.raises(BlockScalesError, match=r"transformer\.blocks: '0-9' and '4-20' both say something of block 4"):
        parse_block_scales(['pixel={"transformer": {"blocks": {"0-9": 1, "4-20": 0}}}'])


@pytest.mark.parametrize("text", ["MIDD", "1,0,0.5", "[1, 0, 0.5]"])
def test_block_weights_of_nobody(text):
    with pytest.raises(BlockScalesError) as caught:
        parse_block_scales([text])
    assert str(caught.value) == f"block scales {text!r} belong to an adapter; write for example pixel={text}"


def test_one_adapter_twice():
    with pytest.raises(BlockScalesError, match="given twice"):
        parse_block_scales([GUIDE, 'pixel={"unet": 1}'])
