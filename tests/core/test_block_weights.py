"""Block weights of the web UIs: what each number acts on, held against the original names of every module."""

import json
import re

import pytest

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.core.block_weights import NAMES
from lorakit_cli.core.resolved_scales import resolve
from lorakit_cli.errors import AdapterSpecError, BlockScalesError
from tests.core.indexes import component, index, published

# What the web UI's extension calls the numbers of a row, by how many there are.
ROWS = {
    12: "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05",
    17: "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
    20: "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08",
    26: (
        "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 IN09 IN10 IN11 M00 "
        "OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
    ),
    61: " ".join(["CLIP", "T5", "IN", *(f"D{n:02}" for n in range(19)), *(f"S{n:02}" for n in range(38)), "OUT"]),
}


def native_block(size, name):
    """Give the number of the block that a module is in, by its original name; None for what is in none."""
    if size == "FLUX.1":
        if found := re.match(r"(d|s)(?:ouble|ingle)_blocks\.(\d+)\.", name):
            return f"{found[1].upper()}{int(found[2]):02}"
        return "OUT" if name.startswith("final_layer") else "IN"
    if found := re.match(r"(in|out)put_blocks\.(\d+)\.", name):
        return f"{found[1].upper()}{int(found[2]):02}"
    return "M00" if name.startswith("middle_block.") else None


def bind(text, base):
    return parse_block_scales([f"pixel={text}"])["pixel"].bind(base, "pixel")


@pytest.mark.parametrize(
    ("size", "count"),
    [("SD1.x", 17), ("SD1.x", 26), ("SD2.x", 17), ("SD2.x", 26), ("SDXL", 12), ("SDXL", 20), ("SDXL refiner", 26),
     ("FLUX.1", 61), ("lorakit demo", 12), ("lorakit demo", 20)],
)  # fmt: skip
def test_every_module_has_the_number_of_its_block_in_the_original_code(size, count):
    base = published(size)
    names = ROWS[count].split()
    given = {name: 0.5 + number for number, name in enumerate(names)}
    assert len(given) == count
    bound = bind(",".join(str(number) for number in given.values()), base)
    known = next(known for known in ARCHITECTURES if size in known.parameters())
    if size == "lorakit demo":
        known = next(known for known in ARCHITECTURES if known.name == "SD1.x")
    modules = base.components[known.denoiser].modules
    seen = set()
    for entry in known.native(modules):
        for module in entry.parts:
            block = native_block(size, entry.text)
            wanted = 1.0 if block is None else given.get(block, 0.0)
            assert bound.scale_of(known.denoiser, f"{module}.weight") == wanted, (module, entry.text)
            seen |= {block}
    assert seen >= set(names) - {"BASE", "CLIP", "T5"}
    encoders = {"text_encoder": given[names[0]], "text_encoder_2": given["T5" if size == "FLUX.1" else names[0]]}
    for name in base.components.keys() & encoders.keys():
        assert bound.scale_of(name, "text_model.encoder.layers.0.mlp.fc1") == encoders[name]


def test_a_row_of_the_wrong_length_says_which_there_are():
    row = ",".join(["1"] * 17)
    with pytest.raises(BlockScalesError) as caught:
        bind(row, published("SDXL"))
    assert str(caught.value) == (
        "block scales of pixel: 17 block weights for another kind of base; this one takes 12 (BASE, IN04-IN05, "
        "IN07-IN08, M00, OUT00-OUT05) or 20 (BASE, IN00-IN08, M00, OUT00-OUT08)"
    )
    with pytest.raises(BlockScalesError, match=r"takes 61 \(CLIP, T5, IN, D00-D18, S00-S37, OUT\)$"):
        bind(row, published("FLUX.1"))
    with pytest.raises(BlockScalesError, match="the preset MIDD for another kind of base; this one takes 26"):
        bind("MIDD", published("SDXL refiner"))


def test_a_base_that_nobody_numbers_is_told_what_to_write():
    with pytest.raises(BlockScalesError) as caught:
        bind("MIDD", published("Wan T2V 1.3B"))
    assert str(caught.value).endswith('for this base write JSON, such as {"transformer": {"blocks": {"0-29": 0.5}}}')
    with pytest.raises(BlockScalesError, match=r"SD1\.x, SD2\.x, SDXL and FLUX\.1 only"):
        bind("ALL", index(component("unet", ["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"])))


# From the extension's own presets for SD1.x.
SD_PRESETS = {
    "NONE": "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "ALL": "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
    "ALL0.5": "0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5",
}
XL_PRESETS = {
    "INS": "1,1,1,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,1,1,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,1,1,1,1,1,1,0,0,0",
    "OUTD": "1,0,0,0,0,0,1,1,1,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,1,1,1",
    "OUTALL": "1,0,0,0,0,0,1,1,1,1,1,1",
}


@pytest.mark.parametrize(
    ("size", "name", "row"),
    [("SD1.x", *entry) for entry in SD_PRESETS.items()] + [("SDXL", *entry) for entry in XL_PRESETS.items()],
)
def test_presets_stand_for_their_rows(size, name, row):
    base = published(size)
    preset, listed = bind(name, base), bind(row, base)
    attention = [module for module in base.components["unet"].modules if ".attentions." in module]
    for module in attention:
        assert preset.scale_of("unet", module) == listed.scale_of("unet", module), module
    assert preset.scale_of("text_encoder", "x.y") == listed.scale_of("text_encoder", "x.y")


@pytest.mark.parametrize(("name", "scale"), [("ALL", 1), ("NONE", 0), ("ALL0.5", 0.5)])
@pytest.mark.parametrize("size", ["SD1.x", "SDXL", "SDXL refiner", "FLUX.1"])
def test_presets_of_one_number_are_for_every_block_there_is(size, name, scale):
    bound = bind(name, published(size))
    outside = {"unet.other"} if size != "FLUX.1" else set()
    assert {row.scale for row in resolve(bound, {}) if row.place not in outside} == {scale}


def test_they_resolve_by_the_numbers_of_the_original_code():
    rows = {row.place: row.scale for row in resolve(bind("MIDD", published("SD1.x")), {})}
    assert rows == {
        "text_encoder": 1, "unet.IN.00-04": 0, "unet.IN.05": 1, "unet.IN.06": 0, "unet.IN.07-08": 1,
        "unet.IN.09-11": 0, "unet.M.00": 1, "unet.OUT.00-02": 0, "unet.OUT.03-06": 1, "unet.OUT.07-11": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["MIDD", "1,0,0.25,-1,0,1e-07,0,0,0,0,0,0", "te=0.5:unet=1", "te=0.5:unet=0:lbw=OUTS", "te=1:unet=1"],
)
def test_what_is_recorded_is_read_again(text):
    scales = parse_block_scales([f"pixel={text}"])["pixel"]
    assert scales.as_json() == text
    assert parse_block_scales([json.dumps({"pixel": scales.as_json()})])["pixel"] == scales


def test_a_list_is_a_row_too():
    row = [1, 0.5, *[0] * 10]
    listed = parse_block_scales([f"pixel={json.dumps(row)}"])
    assert listed == parse_block_scales([json.dumps({"pixel": row})])
    assert listed == parse_block_scales(["pixel=1, 0.5, 0,0,0,0,0,0,0,0,0,0"])


def test_text_encoders_and_the_rest_are_scaled_on_any_base():
    bound = bind("te=0.5:unet=2", published("SD3 Medium"))
    names = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer")
    assert [bound.scale_of(name, "x.y.weight") for name in names] == [0.5, 0.5, 0.5, 2]
    bound = bind("te=0.5:unet=2:lbw=" + ",".join(["3"] * 20), published("SDXL"))
    assert [bound.scale_of("text_encoder_2", "x.y"), bound.scale_of("unet", "conv_in.weight")] == [1.5, 6]
    assert bound.scale_of("unet", "time_embedding.linear_1.weight") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MIDDD", "neither JSON nor a file that can be read; did you mean MIDD"),
        ("lbw=MIDDD", "'MIDDD' is no preset of block weights; did you mean MIDD"),
        ("lbw=", f"'' is no preset of block weights; write the numbers, or a preset: {', '.join(NAMES)}"),
        ("1,R,0", "'R' stands for a number that is drawn or given elsewhere; write the number itself"),
        ("1,U,0", "'U' stands for"),
        ("lbw=1,X+0.5,0", "'X+0.5' stands for"),
        ("lbw=1,nan,0", "'nan' is no finite number"),
        ("1,,0", "'' is no finite number"),
        ("lbw=1,1_0", "'1_0' is no finite number"),
        ("lbw=MIDD:start=5", "'start=5' is not understood; there are lbw=, te= and unet="),
        ("lbw=MIDD:lbw=INS", "lbw= is given twice"),
        ("te=x", "'x' is no finite number"),
        ('[1, "R"]', "a block weight must be a finite number"),
        ("[]", "a list has a block weight for every block"),
    ],
)
def test_what_is_not_understood(here, text, message):
    with pytest.raises(BlockScalesError) as caught:
        parse_block_scales([f"pixel={text}"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "weight", "said"),
    [
        ("toy:0.8:lbw=MIDD", 0.8, "MIDD"),
        ("toy:lbw=1,0,0.5", None, "1,0,0.5"),
        ("toy:0.5:1", 1.0, "te=0.5:unet=1"),
        ("toy:0.5:0.5", 0.5, None),
        ("toy:0.5:0.5:lbw=MIDD", 0.5, "MIDD"),
        ("toy:0.5:1:lbw=MIDD", 1.0, "te=0.5:unet=1:lbw=MIDD"),
        ("toy:te=0.5", 0.5, None),
        ("toy:1:te=0.5", 0.5, None),
        ("toy:unet=0.5", 1.0, "te=1:unet=0.5"),
        ("toy:0.7:unet=0", 1.0, "te=0.7:unet=0"),
        ("soft=./a.safetensors:te=0:unet=2", 1.0, "te=0:unet=2"),
        ("civitai:123:0.5", 0.5, None),
        ("civitai:123:0.5:2", 1.0, "te=0.5:unet=2"),
        ("https://host:8080/a.safetensors?x=1:0.5:lbw=OUTS", 0.5, "OUTS"),
    ],
)
def test_behind_the_weight_of_an_adapter(text, weight, said):
    spec = AdapterSpec.parse(text)
    assert (spec.weight, spec.block_weights and spec.block_weights.text) == (weight, said)
    assert str(spec) == text


@pytest.mark.parametrize(
    ("text", "again"),
    [("toy:0.8:lbw=MIDD", "toy:2.0:lbw=MIDD"), ("toy:0.5:1", "toy:1:2"), ("toy:0.5:1:lbw=INS", "toy:1:2:lbw=INS")],
)
def test_a_replaced_weight_is_shown_with_what_stood_behind_it(text, again):
    import dataclasses

    spec = dataclasses.replace(AdapterSpec.parse(text), weight=2.0)
    assert str(spec) == again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("toy:0.8:lbw=MIDDD", "adapter 'toy:0.8:lbw=MIDDD': 'MIDDD' is no preset of block weights; did you mean MIDD"),
        ("toy:0.8:lbw=MIDD:stop=10", "'stop=10' is not understood"),
        ("toy:0.8:dyn=4", "'dyn=4' is not understood"),
        ("toy:0.8:lbw=1,R", "'R' stands for"),
        ("toy:1:MIDD", "'MIDD' of adapter 'toy:1:MIDD' is not a finite number; block weights are written lbw=MIDD"),
        ("toy:1:1,0,0", "block weights are written lbw=1,0,0"),
        ("toy:0.8:foo=1", "the weight 'foo=1'"),
    ],
)
def test_anything_else_behind_it_is_refused(text, message):
    with pytest.raises(AdapterSpecError) as caught:
        AdapterSpec.parse(text)
    assert message in str(caught.value)
