"""Block scales that lorakit.toml gives an adapter."""

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import BlockScales, read_block_scales
from lorakit_cli.errors import LibraryError
from lorakit_cli.service.planning import make_plan
from lorakit_cli.sources.library import open_library

SCALES = "{ unet = { down = 0.5, up = { block_0 = [0.5, 0.25, 0] } }, text_encoder = 0 }"


def write(here, adapters, scales):
    (here / "lorakit.toml").write_text(
        f'[adapters.ink]\nsource = "{adapters}/ink.safetensors"\nblock_scales = {scales}\n'
        '[adapters.more]\nsource = "ink"\n'
    )


def strengths(base, text, **options):
    plan = make_plan(str(base), [AdapterSpec.parse(text)], **options).plan
    return {
        f"{target.component}.{target.tensor}": term.strength for target, terms in plan.terms.items() for term in terms
    }


@pytest.mark.parametrize("name", ["ink", "more"])
def test_they_hold_unless_others_are_given(here, base, adapters, name):
    write(here, adapters, SCALES)
    found = strengths(base, f"{name}:2")
    assert found["unet.down_blocks.1.resnets.0.conv1.weight"] == 1.0
    assert found["unet.mid_block.resnets.0.conv1.weight"] == 2.0
    assert {value for key, value in found.items() if key.startswith("text_encoder.")} == {0.0}
    given = {name: BlockScales({"unet": 3.0})}
    assert set(strengths(base, name, block_scales=given).values()) == {1.0, 3.0}


def test_they_read_as_json_does(here, adapters):
    write(here, adapters, SCALES)
    entries = {"unet": {"down": 0.5, "up": {"block_0": [0.5, 0.25, 0]}}, "text_encoder": 0}
    assert open_library().find("more").block_scales == read_block_scales("ink", entries)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ("0.5", "line 3: adapters.ink.block_scales: block scales of ink: expected components"),
        ('{ unet = "much" }', "block scales of ink: unet"),
        ("{ unet = { up = { first = 1 } } }", "'first' is no block"),
    ],
)
def test_what_they_cannot_be(here, adapters, scales, message):
    write(here, adapters, scales)
    with pytest.raises(LibraryError, match=message):
        open_library()
