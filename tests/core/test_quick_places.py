"""The quick look finds what the close one does, and leaves to it whatever is in doubt."""

import json
from pathlib import Path

import pytest

from lorakit_cli.architectures.unet import SDXL
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.quick_places import quick_places
from lorakit_cli.core.recognition import published
from lorakit_cli.service.reading import look_at
from tests.sparse import write_sparse

LISTED = json.loads((Path(__file__).parents[1] / "data" / "keys" / "kohya_sdxl.json").read_text())
TENSORS = {name: (dtype, tuple(shape)) for name, (dtype, shape) in LISTED["tensors"].items()}
WHOLE = published(SDXL, "SDXL")
WITH_RUNS = published(SDXL, "SDXL", runs=True).components.values()


def test_every_layer_of_a_whole_file_is_where_the_close_look_sees_it(tmp_path: Path):
    file = look_at(write_sparse(tmp_path / "a.safetensors", TENSORS))
    matches, missed = match_layers(WHOLE, "a", file)
    assert not missed
    assert quick_places(WITH_RUNS, file) == tuple(match.component for match in matches)


FIRST = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


@pytest.mark.parametrize(
    "added",
    [
        {"lora_te_text_model_encoder_layers_0_mlp_fc1": (768, 3072)},
        {"lora_unet_no_such_module": (320, 320)},
        {"lora_unet_conv_out": (321, 4)},
    ],
    ids=["a module by two names", "a module that is not there", "a shape that does not fit"],
)
def test_what_is_in_doubt_is_left_to_the_close_look(added, tmp_path: Path):
    pairs = {FIRST: (768, 3072)} | added
    tensors = {}
    for stem, (inside, outside) in pairs.items():
        tensors |= {f"{stem}.lora_down.weight": ("F16", (4, inside)), f"{stem}.lora_up.weight": ("F16", (outside, 4))}
    file = look_at(write_sparse(tmp_path / "a.safetensors", tensors))
    assert quick_places(WITH_RUNS, file) is None
    assert match_layers(WHOLE, "a", file)[1]
