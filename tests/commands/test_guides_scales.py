"""The guides' scales for parts of a model, as their own code and as one command: the same latents.

Attention-only adapters, of which diffusers scales every layer; where it takes no dict, an fp64 sum stands for it.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.guides import apart, assert_same, draw

NESTED = {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}
UNET = {
    "only down": {"unet": {"down": 1, "mid": 0, "up": 0}},
    "only mid": {"unet": {"down": 0, "mid": 1, "up": 0}},
    "only up": {"unet": {"down": 0, "mid": 0, "up": 1}},
    "nested": NESTED,
    "text encoder": {"unet": 1.0, "text_encoder": 0.3},
    "every part": {"text_encoder": 0.5, "unet": {"down": 0.9, "mid": 1.1, "up": {"block_1": -0.5}}},
}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_dict_for_one_adapter(guides, family, latents):
    guide = guides(family)
    pipeline = guide.pipeline("toy")
    whole = draw(pipeline)
    for scales in UNET.values():
        pipeline.set_adapters("toy", dict(scales))
        wanted = draw(pipeline)
        assert_same(latents(guide.base, "-l", guide.toy, "--block-scales", json.dumps({"toy": scales})), wanted, whole)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_number_for_one_and_a_dict_for_another(guides, family, latents):
    guide = guides(family)
    pipeline = guide.pipeline("toy", "pixel")
    pipeline.set_adapters(["toy", "pixel"], [0.5, NESTED])
    given = ("-l", f"{guide.toy}:0.5", "-l", guide.pixel, "--block-scales", f"pixel={json.dumps(NESTED)}")
    assert_same(latents(guide.base, *given), draw(pipeline), guide.bare)


def test_without_a_text_encoder_and_with_it_again(guide, latents):
    """What `disable_lora_for_text_encoder` and `set_adapters_for_text_encoder` did."""
    pipeline = guide.pipeline("toy")
    whole = draw(pipeline)
    for scale in (0, 0.3):
        pipeline.set_adapters("toy", {"text_encoder": scale} if scale else 1.0)
        if not scale:
            pipeline.text_encoder.disable_adapters()
        ours = latents(guide.base, "-l", guide.toy, "--block-scales", f'toy={{"text_encoder": {scale}}}')
        assert_same(ours, draw(pipeline), whole)
        pipeline.text_encoder.enable_adapters()


def test_a_dict_for_the_blocks_of_a_transformer(guides, latents):
    guide = guides("flux")
    scales = {"transformer_blocks": {"0": 0.6, "1": 0}, "single_transformer_blocks": [0.4, 0.8, 1.0]}
    strengths = {
        "transformer.transformer_blocks.0.": 0.6,
        "transformer.transformer_blocks.1.": 0,
        "transformer.single_transformer_blocks.0.": 0.4,
        "transformer.single_transformer_blocks.1.": 0.8,
    }
    pipeline = guide.pipeline()
    whole = draw(guide.pipeline("toy"))
    tensors = load_file(guide.toy)
    for key, down in tensors.items():
        if ".lora_A." not in key and ".lora_linear_layer.down." not in key:
            continue
        up = tensors[key.replace(".lora_A.", ".lora_B.").replace(".down.", ".up.")]
        module = key.split(".lora_")[0]
        strength = next((value for start, value in strengths.items() if module.startswith(start)), 1.0)
        weight = _weight(pipeline, module)
        weight.data = (weight.double() + strength * (up.double() @ down.double())).float()
    ours = latents(guide.base, "-l", guide.toy, "--block-scales", json.dumps({"toy": {"transformer": scales}}))
    assert_same(ours, draw(pipeline), guide.bare)
    assert apart(ours, whole) > 1e-3


def _weight(pipeline, module):
    component, name = module.split(".", 1)
    model = getattr(pipeline, component)
    # transformers 5 has no such level any more.
    if component == "text_encoder" and not hasattr(model, "text_model"):
        name = name.removeprefix("text_model.")
    layer = model.get_submodule(name)
    assert isinstance(layer, torch.nn.Linear)
    return layer.weight
