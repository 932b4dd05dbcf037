"""Block scales and block weights through the commands: dry runs, prompts, the library, single files, saved folders."""

import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from lorakit_cli.commands._block_tree import block_lines
from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.core.resolved_scales import ResolvedScale
from lorakit_cli.service.planning import make_plan
from tests.checkpoints import flux_tensors
from tests.commands.test_generate import chunks
from tests.conversions import build_flux_pipeline, flux_native, write
from tests.outputs import refused, weights

# For the tiny base, which has the blocks of SDXL: BASE, IN04, IN05, IN07, IN08, M00, OUT00 to OUT05.
ROW = "0.5,0,0.25,1,0,0.5,1,0,0,0,0.75,0"
KEYS = {"component", "group", "first", "last", "layer", "place", "scale", "strength", "layers"}


@pytest.fixture
def dry(lorakit, base, adapters):
    """Run a dry run that works; give what it prints."""

    def run(*arguments, lora="ink.safetensors:0.5"):
        result = lorakit("generate", "-b", base, "-l", f"{adapters}/{lora}", *arguments, "--dry-run", "--seed", 1, "x")
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return run


def shown(text):
    """Give the lines of block scales, single spaces between columns."""
    lines = text.splitlines()
    first = lines.index("  block scales")
    last = next(number for number, line in enumerate(lines) if line.startswith("changes "))
    return [re.sub(r" {2,}", " | ", line.strip()) for line in lines[first + 1 : last]]


def test_block_weights_are_shown_by_their_own_numbers(dry):
    assert shown(dry("--block-scales", f"ink={ROW}")) == [
        "text_encoder | 0.5 | strength 0.25 | 8 layers",
        "unet IN 00 | 0 | no layer of it here",
        "unet IN 01-04 | 0 | strength 0 | 20 layers",
        "unet IN 05 | 0.25 | strength 0.125 | 14 layers",
        "unet IN 06 | 0 | strength 0 | 1 layer",
        "unet IN 07 | 1 | strength 0.5 | 14 layers",
        "unet IN 08 | 0 | strength 0 | 14 layers",
        "unet M 00 | 0.5 | strength 0.25 | 16 layers",
        "unet OUT 00 | 1 | strength 0.5 | 15 layers",
        "unet OUT 01-03 | 0 | strength 0 | 46 layers",
        "unet OUT 04 | 0.75 | strength 0.375 | 15 layers",
        "unet OUT 05-08 | 0 | strength 0 | 25 layers",
    ]


def test_blocks_without_a_layer_of_the_adapter_are_marked(dry):
    said = ("--block-scales", 'wash={"unet": {"down": 0.5, "conv_out": 0}, "text_encoder": {"layers": {"1": 0}}}')
    (adapter,) = json.loads(dry(*said, "--json", lora="wash.safetensors:0.5"))["plan"]["adapters"]
    rows = adapter["block_scales"]
    assert all(row.keys() == KEYS for row in rows)
    assert [(row["place"], row["scale"], row["strength"], row["layers"]) for row in rows] == [
        ("unet.down.block_0", 0.5, None, 0),
        ("unet.down.block_1-2", 0.5, 0.25, 48),
        ("unet.mid", 1, 0.5, 12),
        ("unet.up.block_0-1", 1, 0.5, 72),
        ("unet.up.block_2", 1, None, 0),
        ("unet.conv_out", 0, None, 0),
        ("text_encoder.layers.0", 1, None, 0),
        ("text_encoder.layers.1", 0, None, 0),
    ]
    assert shown(dry(*said, lora="wash.safetensors:0.5"))[:2] == [
        "unet down block_0 | 0.5 | no layer of it here",
        "unet down block_1-2 | 0.5 | strength 0.25 | 48 layers",
    ]


def test_fuse_and_save_show_them_too(lorakit, base, adapters):
    for verb in ("fuse", "save"):
        said = ("-b", base, "-l", f"{adapters}/ink.safetensors", "--block-scales", "ink=NONE", "--dry-run")
        assert "text_encoder | 0 | strength 0 | 8 layers" in shown(lorakit(verb, *said).stdout)
        (adapter,) = json.loads(lorakit(verb, *said, "--json").stdout)["plan"]["adapters"]
        assert {row["scale"] for row in adapter["block_scales"]} == {0.0}


def test_on_a_terminal_it_is_a_tree(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    stack = "transformer_blocks"
    rows = [
        ResolvedScale("transformer", stack, 0, 9, None, f"transformer.{stack}.0-9", 0.5, 0.4, 90),
        ResolvedScale("transformer", stack, 10, 10, None, f"transformer.{stack}.10", 0.0, None, 0),
        ResolvedScale("transformer", "x_embedder", None, None, None, "transformer.x_embedder", 2.0, 1.6, 1),
        ResolvedScale("text_encoder", None, None, None, None, "text_encoder", 1.0, 0.8, 12),
    ]
    assert [line.rstrip() for line in block_lines(rows)] == [
        "  block scales",
        "  ├── transformer",
        "  │   ├── transformer_blocks",
        "  │   │   ├── 0-9  0.5  strength 0.4         90 layers",
        "  │   │   └── 10   0    no layer of it here",
        "  │   └── x_embedder  2  strength 1.6  1 layer",
        "  └── text_encoder",
        "      └── all of it  1  strength 0.8  12 layers",
    ]


@pytest.mark.parametrize(
    ("tail", "weight", "scales"),
    [
        (":0.8:lbw=MIDD", 0.8, "ink=1,0,0,1,1,1,1,1,1,0,0,0"),
        (":0.25:0.5", 1, 'ink={"text_encoder": 0.25, "unet": 0.5}'),
    ],
)
def test_a_tag_in_the_prompt_is_what_the_option_says(draw, adapters, tail, weight, scales):
    ink = f"{adapters}/ink.safetensors"
    assert draw("--seed", 1, "-o", "tag.png", prompt=f"a red heart <lora:{ink}{tail}>").exit_code == 0
    option = draw("--seed", 1, "-o", "option.png", "-l", f"{ink}:{weight}", "--block-scales", scales)
    assert option.exit_code == 0, option.stderr
    assert Image.open("tag.png").tobytes() == Image.open("option.png").tobytes()
    # What the picture says draws it again.
    said = json.dumps({"ink": chunks("tag.png")[0]["recipe"]["adapters"][0]["block_scales"]})
    assert draw("--seed", 1, "-o", "again.png", "-l", f"{ink}:{weight}", "--block-scales", said).exit_code == 0
    assert Image.open("again.png").tobytes() == Image.open("tag.png").tobytes()
    assert draw("--seed", 1, "-o", "plain.png", "-l", f"{ink}:{weight}").exit_code == 0
    assert Image.open("plain.png").tobytes() != Image.open("tag.png").tobytes()


@pytest.mark.parametrize(
    ("arguments", "prompt", "message"),
    [
        (("--block-scales", "ink=ALL"), "x <lora:{ink}:1:lbw=ALL>", "block scales of ink are given twice"),
        ((), "x <lora:{ink}:1:lbw=MID>", "'MID' is no preset of block weights; did you mean MIDD"),
        ((), "x <lora:{ink}:1:start=3>", "'start=3' is not understood"),
        ((), "x <lora:{ink}:1:lbw=1,R,0>", "'R' stands for a number that is drawn or given elsewhere"),
        (("-l", "{ink}:1:lbw=1,0,0"), "x", "ink: 3 block weights for another kind of base; this one takes 12 (BASE,"),
    ],
)
def test_what_a_tag_cannot_say(draw, adapters, here, arguments, prompt, message):
    ink = adapters / "ink.safetensors"
    result = draw(*(word.format(ink=ink) for word in arguments), prompt=prompt.format(ink=ink))
    assert message in refused(result, 2)
    assert list(here.iterdir()) == []


def test_the_library_may_hold_block_weights(lorakit, base, adapters, here):
    (here / "lorakit.toml").write_text(
        f'[adapters.ink]\nsource = "{adapters}/ink.safetensors"\nblock_scales = "MIDD"\n'
        f'[adapters.row]\nsource = "ink"\nblock_scales = [{ROW}]\n'
    )
    for name, wanted in (("ink", "MIDD"), ("row", ROW), ("row:1:lbw=OUTS", "OUTS")):
        plan = make_plan(str(base), [AdapterSpec.parse(name)]).plan
        assert plan.adapters[0].block_scales == parse_block_scales([f"x={wanted}"])["x"]
    (here / "lorakit.toml").write_text(f'[adapters.ink]\nsource = "{adapters}/ink.safetensors"\nblock_scales = "MID"\n')
    assert "line 3: adapters.ink.block_scales: block scales of ink: 'MID' is no preset" in refused(
        lorakit("list-adapters")
    )


def test_a_saved_folder_brings_its_block_weights_along(lorakit, base, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors:0.5:lbw=MIDD")
    assert lorakit("save", "-b", base, *lora, "-o", "set").exit_code == 0
    assert lorakit("fuse", "-b", "set", "-o", "from-set", "--no-verify").exit_code == 0
    assert lorakit("fuse", "-b", base, *lora, "-o", "direct", "--no-verify").exit_code == 0
    assert weights(Path("from-set")) == weights(Path("direct")) != weights(base)


def strengths(base, spec, scales):
    """Give the strength of every part of a plan, by component and the live name of its parameter."""
    plan = make_plan(str(base), [AdapterSpec.parse(str(spec))], block_scales=parse_block_scales([scales])).plan
    assert plan.unmatched == ()
    return {
        (target.component, plan.base.components[target.component].short_name(term.part.parameter)): term.strength
        for target, terms in plan.terms.items()
        for term in terms
    }


@pytest.mark.parametrize(
    "scales", [f"ink={ROW}", 'ink={"unet": {"up": {"block_1": [0, 2, 3]}}, "text_encoder": {"layers": {"1": 0}}}']
)
def test_a_single_file_has_the_blocks_of_its_folder(base, checkpoint, adapters, scales):
    ours, theirs = (strengths(one, adapters / "ink.safetensors", scales) for one in (checkpoint, base))
    assert ours == theirs
    assert len(set(ours.values())) > 2


@pytest.mark.parametrize(
    "scales",
    [
        'a={"transformer": {"transformer_blocks": {"1": 0}, "single_transformer_blocks": [1, 2, 3], "norm_out": 5}}',
        "a=0,0.5,2,0.25,1,0,0.5,-1,3",
    ],
)
def test_a_single_file_of_flux_has_the_blocks_of_its_folder(here, tmp_path, scales):
    pipeline = build_flux_pipeline()
    pipeline.save_pretrained(tmp_path / "base")
    write(here / "flux.safetensors", flux_tensors(pipeline.transformer))
    adapter = write(here / "a.safetensors", flux_native()[0])
    ours, theirs = (strengths(one, adapter, scales) for one in (here / "flux.safetensors", tmp_path / "base"))
    assert ours == theirs
    assert len(set(ours.values())) > 3
    qkv = {ours["transformer", f"transformer_blocks.1.attn.to_{part}.weight"] for part in "qkv"}
    assert qkv == ({0} if "{" in scales else {1})
