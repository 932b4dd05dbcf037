"""A lorakit.toml that is written reads as it was meant."""

import pytest

from lorakit_cli.core.block_scales import read_block_scales
from lorakit_cli.sources.config import read_config
from lorakit_cli.sources.config_text import config_text
from lorakit_cli.sources.library import LibraryEntry

SCALES = {"unet": {"down": 0.5, "up": {"block_0": [0.5, 1e-7, -2.0]}}, "text encoder.2": 0}


@pytest.mark.parametrize("text", ['a "quoted" word', "back\\slash", "line\nbreak\x00\x1f\x7f", "墨\U0001f5a4", "'"])
def test_any_text(here, text):
    entries = [LibraryEntry("ink", f"adapters/{text}.safetensors", "", 1e-9, (text, "other"), text)]
    (here / "lorakit.toml").write_text(config_text(text, entries), encoding="utf-8", newline="")
    config = read_config(here / "lorakit.toml")
    entry = config.adapters["ink"]
    assert (config.base, entry.base, entry.triggers) == (text, text, (text, "other"))
    assert (entry.source, entry.weight) == (f"adapters/{text}.safetensors", 1e-9)


def test_several_with_block_scales(here):
    scales = read_block_scales("ink", SCALES)
    entries = [
        LibraryEntry("ink", "i.safetensors", "", 1.0, (), None, scales),
        LibraryEntry("a-b_1", "b.safetensors", ""),
    ]
    (here / "lorakit.toml").write_text(config_text("demo", entries))
    config = read_config(here / "lorakit.toml")
    assert [str(spec) for spec in config.use] == ["ink", "a-b_1"]
    assert config.adapters["ink"].block_scales == scales
    assert (config.adapters["a-b_1"].weight, config.adapters["a-b_1"].base) == (None, None)
