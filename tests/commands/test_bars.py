import re

import pytest

from lorakit_cli.commands._bars import bars
from lorakit_cli.service.strength import BlockStrength

EIGHTHS = " ▏▎▍▌▋▊▉█"


def block(name, norm, relative=None, component="unet"):
    base_norm = None if relative is None else norm / relative if relative else 1.0
    return BlockStrength(component, name, 3, 0, norm, base_norm, relative)


def lengths(lines, plain=False):
    """Measure the bars in cells, by the name of the block in front."""
    found = {}
    for line in lines:
        if line.startswith("  "):
            bar = re.search(r"#+" if plain else f"[{EIGHTHS[1:]}]+", line)
            cells = 0.0
            if bar:
                cells = len(bar[0]) if plain else sum(EIGHTHS.index(cell) / 8 for cell in bar[0])
            found[line.split()[0]] = cells
    return found


@pytest.mark.parametrize("plain", [False, True])
def test_bars_are_as_long_as_their_norms(plain):
    norms = {"down.block_0": 4.0, "mid": 1.0, "up.block_1": 3.0, "conv_out": 0.0, "conv_in": 1e-9}
    found = lengths(bars([block(name, norm) for name, norm in norms.items()], 100, plain=plain), plain)
    longest = found["down.block_0"]
    assert longest > 70
    step = 1 if plain else 0.125
    assert found["mid"] == pytest.approx(longest / 4, abs=step / 2)
    assert found["up.block_1"] == pytest.approx(longest * 3 / 4, abs=step / 2)
    assert found["conv_out"] == 0
    assert found["conv_in"] == step


def test_with_a_base_the_ratios_decide_and_both_numbers_are_shown():
    lines = bars([block("mid", 10.0, 0.001), block("conv_in", 1.0, 0.004), block("conv_out", 5.0)], 80)
    found = lengths(lines)
    assert found["mid"] == pytest.approx(found["conv_in"] / 4, abs=0.07)
    assert found["conv_out"] == 0
    assert [line.split()[-3:] for line in lines[1:3]] == [["10", "0.1", "%"], ["1", "0.4", "%"]]
    assert lines[3].split() == ["conv_out", "5", "-"]


def test_what_is_not_known_is_a_dash_without_a_bar():
    assert bars([block("mid", None)], 60)[1].split() == ["mid", "-"]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("width", [40, 57, 80, 200])
def test_no_line_is_wider_than_asked(width, plain):
    long = "a_block_with_a_name_that_takes_more_room_than_a_terminal_line_has.17"
    lines = bars([block("mid", 123.456, 0.0123456), block(long, 1e-5, 1e-9)], width, plain=plain)
    assert max(map(len, lines)) <= width
    assert lines[2].split()[0].endswith(".17")
    assert plain == all(line.isascii() for line in lines)


def test_the_longest_bar_ends_where_the_numbers_begin():
    (_, line) = bars([block("mid", 2.0)], 60)
    assert line == "  mid  " + "█" * 50 + "  2"


def test_components_are_headings():
    blocks = [block("mid", 1.0), block("conv_out", 1.0), block("layers.0", 1.0, component="text_encoder")]
    lines = bars(blocks, 60)
    assert [line for line in lines if not line.startswith(" ")] == ["unet", "text_encoder"]
    assert len(lines) == 5


def test_names_from_a_file_cannot_steer_the_terminal():
    lines = bars([block("mid\x1b[2J", 1.0, component="unet\r")], 60)
    assert all(line.isprintable() for line in lines)


def test_of_no_blocks_nothing_is_shown():
    assert bars([], 80) == []
