import pytest
from PIL import Image

from lorakit_cli.errors import OutputExistsError
from lorakit_cli.service.strength import BlockStrength, LayerStrength, StrengthReport
from lorakit_cli.service.strength_plot import BACKGROUND, COLORS, plot


def report_of(rows, adapter="ink"):
    """Make a report of (component, block, norm, relative)."""
    blocks = tuple(
        BlockStrength(component, block, 1, int(norm is None), norm, None, relative)
        for component, block, norm, relative in rows
    )
    layers = tuple(LayerStrength(row[1], row[0], row[1], "lora", "weight", row[2], None, row[3], None) for row in rows)
    return StrengthReport(adapter, layers, blocks, ())


def plotted(report, path):
    plot(report, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def bars_of(picture, color):
    """Find the bars of a colour from top to bottom: for each, where it begins and how long it is."""
    found = []
    width, height = picture.size
    pixels = picture.load()
    above = []
    for y in range(height):
        runs, start = [], None
        for x in range(width + 1):
            inside = x < width and pixels[x, y] == color
            if inside and start is None:
                start = x
            elif not inside and start is not None:
                runs.append((start, x - start))
                start = None
        # Bars are solid for 14 rows; the letters of a heading are not.
        above.append(set(runs))
    for y in range(height - 13):
        solid = set.intersection(*above[y : y + 14])
        found += sorted(solid)
    return found


def test_bars_are_as_long_as_their_values_in_both_panels(tmp_path):
    rows = [
        ("unet", "down.block_0", 4.0, 0.01),
        ("unet", "mid", 1.0, 0.02),
        ("unet", "up.block_0", 0.0, 0.0),
        ("unet", "up.block_1", 1e-9, None),
        ("unet", "conv_out", None, None),
        ("text_encoder", "layers.0", 3.0, 0.005),
    ]
    picture = plotted(report_of(rows), tmp_path / "strength.png")
    unet, text = bars_of(picture, COLORS[0]), bars_of(picture, COLORS[1])
    lengths = [length for _, length in unet]
    # down.block_0 and mid in two panels, up.block_1 as a mark in the first.
    assert len(unet) == 5
    norm, ratio, mid, mid_ratio, mark = lengths
    assert norm > 400
    assert mid == pytest.approx(norm / 4, abs=1)
    assert mid_ratio == pytest.approx(2 * ratio, abs=2)
    assert mid_ratio > 400
    assert mark == 1
    assert [length for _, length in text] == [pytest.approx(norm * 3 / 4, abs=1), pytest.approx(ratio / 2, abs=1)]
    lefts = {left for left, _ in unet + text}
    assert len(lefts) == 2
    assert max(lefts) + mid_ratio < picture.width


def test_without_ratios_there_is_one_panel(tmp_path):
    rows = [("unet", "mid", 1.0, None), ("unet", "up.block_0", 2.0, None)]
    picture = plotted(report_of(rows), tmp_path / "strength.png")
    assert len({left for left, _ in bars_of(picture, COLORS[0])}) == 1
    rows = [("unet", "mid", 1.0, 0.1), ("unet", "up.block_0", 2.0, 0.1)]
    assert plotted(report_of(rows), tmp_path / "two.png").width > picture.width + 400


@pytest.mark.parametrize("largest", [1e-12, 0.0199, 0.02, 0.0201, 1.0, 7.3, 99999.0])
def test_the_longest_bar_uses_the_axis_and_stays_within_it(tmp_path, largest):
    picture = plotted(report_of([("unet", "mid", largest, largest)]), tmp_path / "strength.png")
    (_, norm), (_, ratio) = bars_of(picture, COLORS[0])
    assert 0.5 * 420 <= norm <= 420
    assert 0.5 * 420 <= ratio <= 420


def test_each_of_two_hundred_blocks_has_its_bar(tmp_path):
    rows = [("transformer", f"single_transformer_blocks.{n}", 1.0 + n, None) for n in range(200)]
    picture = plotted(report_of(rows), tmp_path / "strength.png")
    lengths = [length for _, length in bars_of(picture, COLORS[0])]
    assert len(lengths) == 200
    assert lengths == sorted(lengths)


def test_nothing_is_drawn_beyond_the_margins(tmp_path):
    name = "a_very_long_name_" * 20
    rows = [(name, name, 1.23456e-7, 1.23456e-7), (f"{name}2", f"日本{name}", None, 1.0)]
    picture = plotted(report_of(rows, adapter=f"{name}\n\x1b日本é"), tmp_path / "strength.png")
    width, height = picture.size
    for box in [(0, 0, 10, height), (width - 10, 0, width, height), (0, 0, width, 8), (0, height - 8, width, height)]:
        assert picture.crop(box).getcolors() == [((box[2] - box[0]) * (box[3] - box[1]), BACKGROUND)]
    assert width < 2000


def test_nothing_known_is_still_a_picture(tmp_path):
    picture = plotted(report_of([("unet", "mid", None, None), ("unet", "conv_in", 0.0, None)]), tmp_path / "none.png")
    assert bars_of(picture, COLORS[0]) == []


def test_the_same_report_gives_the_same_bytes(tmp_path):
    report = report_of([("unet", "mid", 1.0, 0.5)])
    plot(report, tmp_path / "one.png")
    plot(report, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_file_is_replaced_only_when_told(tmp_path):
    report = report_of([("unet", "mid", 1.0, None)])
    path = tmp_path / "strength.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        plot(report, path)
    assert path.read_bytes() == b"mine"
    plot(report, path, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == ["strength.png"]
