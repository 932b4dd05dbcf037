import pytest
from safetensors.torch import load_file

from lorakit_cli.core.base_index import read_base_index
from lorakit_cli.formats import FORMATS


@pytest.mark.parametrize("key_format", FORMATS, ids=lambda key_format: key_format.name)
def test_a_name_written_for_a_module_is_read_as_its_component(base, key_format):
    for component in read_base_index(base).components.values():
        if component.name != "vae":
            for module in component.modules:
                stems = key_format.stems(component.name, module)
                assert {key_format.component_of(stem) for stem in stems} == {component.name}


def test_the_diffusers_layout_is_what_diffusers_writes(adapters):
    (diffusers,) = [known for known in FORMATS if known.name == "diffusers"]
    stems = {key.split(".lora")[0] for key in load_file(adapters / "ink.safetensors")}
    assert {diffusers.component_of(stem) for stem in stems} == {"unet", "text_encoder"}
    assert diffusers.stems("unet", "mid_block.attentions.0.proj_in")[0] in stems
    assert diffusers.component_of("lora_unet_mid_block_attentions_0_proj_in") is None
    assert diffusers.component_of("diffusion_model.x") is None
