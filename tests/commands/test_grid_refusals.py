"""What `lorakit grid` refuses, before anything is drawn, and what it says."""

from pathlib import Path

import pytest


@pytest.fixture
def refused(lorakit, base, adapters, here):
    def run(*arguments, prompt=("x",)):
        lora = ("-l", f"{adapters}/ink.safetensors")
        result = lorakit("grid", "--base", base, "--steps", 2, "--out", "out", *lora, *arguments, *prompt)
        assert result.stdout == ""
        assert not Path("out").exists()
        (line,) = result.stderr.splitlines()
        return result.exit_code, line

    return run


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            ["sceed=1"],
            "there is no axis 'sceed'; did you mean seed or scale or scheduler? The axes are seed, prompt",
        ),
        (["inc=1"], "there is no axis 'inc'; did you mean ink or guidance?"),
        (["ink"], "--axis 'ink': an axis is written NAME=VALUES, for example toy=0,0.5,1"),
        (["ink=0,,1"], "--axis ink=0,,1: a value is missing; values are written ink=A,B,C"),
        (["ink=0,nan"], "--axis ink: 'nan' is neither a number nor a range FIRST:LAST:STEP such as 0:1:0.25"),
        (["ink=0:1:-0.5"], "--axis ink: 0:1:-0.5 never arrives; the step must lead from 0 to 1"),
        (["ink=0:1:0.00001"], "--axis ink: 0:1:0.00001 has more than 10000 values"),
        (["ink=0.5,1,0.50"], "--axis ink has the value 0.5 twice"),
        (["steps=1.5"], "--axis steps: 1.5 is not a whole number"),
        (["seed=5-3"], "--axis seed '5-3' is neither a whole number from 0 nor a range such as 1-4"),
        (["seed=1-200", "ink=0:1:0.01"], "the grid would have 20200 cells; 10000 are the most"),
        (["seed=1", "seed=2"], "--axis seed is given twice; put all its values into one"),
        (["seed=1", "ink=1", "steps=1", "scale=1"], "4 axes are given; a grid has columns, rows and sections"),
        (["negative=@none.txt"], "--axis negative: none.txt cannot be read: No such file or directory"),
        (["prompt=a|b"], "an axis gives the prompts; leave PROMPT out"),
        (["width=15,16"], "--width 15: this base makes pictures in multiples of 8 pixels"),
        (["scheduler=ddim,eulr"], "there is no scheduler 'eulr'; did you mean euler"),
        (["block:ink=0,1"], "--axis block:ink: a block is written block:ADAPTER.BLOCK, for example block:pixel.up"),
        (["block:inc.up=0,1"], "--axis block:inc.up: no adapter is called 'inc'; did you mean ink?"),
        (["block:ink.upp=0,1"], "block scales of ink: unet has no part 'upp'; did you mean up? It has down, mid, up"),
        (["block:ink.up.block_7=0"], "block scales of ink: unet.up has no block_7; it has block_0"),
        ([], "a grid needs an axis, for example --axis toy=0,0.5,1, or --ablate"),
    ],
)
def test_axes(refused, axes, message):
    code, line = refused(*(part for axis in axes for part in ("--axis", axis)))
    assert code == 2
    assert line.startswith(f"error: {message}")


def test_what_contradicts_itself_or_is_missing(refused, adapters):
    assert refused("--axis", "lora=none-*.safetensors") == (1, "error: no file is called none-*.safetensors")
    assert refused("--axis", f"lora={adapters}/wash.safetensors", "--ablate")[0] == 2
    assert refused("--axis", "seed=1", prompt=())[1].startswith("error: what is to be drawn? give a PROMPT")
    two = refused("-l", f"{adapters}/wash.safetensors", "--axis", "weight=0,1")
    assert (
        two[1] == "error: --axis weight is for one adapter, or for the lora axis, and there are ink, wash; "
        "write NAME=VALUES"
    )
    scales = refused("--block-scales", 'ink={"unet": 0.5}', "--axis", "block:ink.up=0,1")
    assert scales[1].startswith("error: block scales of ink: unet has one scale already")


def test_a_cell_that_fails_is_named_and_the_others_stay(lorakit, base, adapters):
    run = ("grid", "--base", base, "--steps", 2, "--out", "out", "-l", f"{adapters}/ink.safetensors")
    result = lorakit(*run, "--axis", "ink=0,1e38", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ink=")
    assert result.stderr.rstrip().endswith("1 of 2 pictures are in out")
    assert [path.name for path in Path("out/cells").iterdir()] == ["ink=0.png"]
