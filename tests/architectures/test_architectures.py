"""The list of architectures: what marks them, and how light it is to have them."""

import re
import subprocess
import sys
from functools import cache
from itertools import combinations

import pytest
from diffusers import QwenImageTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from lorakit_cli.architectures import ARCHITECTURES, possible, qwen_image
from lorakit_cli.architectures.clip import clip, open_clip
from lorakit_cli.core.recognition import name_text, published
from tests.architectures.checkpoints import modules_of, state_of
from tests.architectures.models import TRANSFORMERS, UNETS, build

IN_BLOCKS = re.compile(r"(blocks?|layers|refiner)[._]\d")
HEAVY = ("torch", "diffusers", "transformers", "peft", "numpy", "safetensors", "huggingface_hub")


@cache
def flat_names(name):
    """List every name of a model's modules, diffusers' and original, flattened."""
    model = build(name)
    modules = modules_of(model.state)
    texts = [*modules, *(meaning.text for meaning in model.architecture.native(modules))]
    return [text.replace(".", "_") for text in texts]


@pytest.mark.parametrize("name", [*UNETS, *TRANSFORMERS])
def test_marks_recognise_every_module_of_a_block(name):
    marks = build(name).architecture.marks
    in_blocks = [text for text in flat_names(name) if IN_BLOCKS.search(text)]
    assert len(in_blocks) > 30
    assert [text for text in in_blocks if not marks.search(text)] == []


def test_marks_recognise_every_module_of_a_block_of_qwen_image():
    flat = [name.replace(".", "_") for name in modules_of(state_of(QwenImageTransformer2DModel, num_layers=1))]
    in_blocks = [name for name in flat if IN_BLOCKS.search(name)]
    assert len(in_blocks) > 10
    assert [name for name in in_blocks if not qwen_image.QWEN_IMAGE.marks.search(name)] == []


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_marks_tell_unets_transformers_and_text_encoders_apart(architecture):
    others = TRANSFORMERS if architecture.denoiser == "unet" else UNETS
    config = CLIPTextConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    texts = modules_of(state_of(CLIPTextModelWithProjection, config))
    texts += [name.text for name in (*clip(texts), *open_clip(texts))]
    foreign = [text.replace(".", "_") for text in texts] + [text for name in others for text in flat_names(name)]
    assert [text for text in foreign if architecture.marks.search(text)] == []


def test_names_of_architectures_and_sizes_are_distinct():
    names = [architecture.name for architecture in ARCHITECTURES]
    assert len(names) == len(set(names))
    sizes = [size for architecture in ARCHITECTURES for size in architecture.variants]
    assert len(sizes) == len(set(sizes))
    assert all(models for architecture in ARCHITECTURES for models in architecture.variants.values())


def test_no_heavy_library_is_loaded_for_the_names():
    code = "import sys, lorakit_cli.architectures as a, lorakit_cli.architectures.clip\n" + (
        "list(a.ARCHITECTURES[4].native(['transformer_blocks.0.attn.to_q']))\nprint(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "lorakit_cli.architectures.flux" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_variants_are_of_published_sizes():
    for architecture in ARCHITECTURES:
        assert architecture.variants.keys() <= architecture.parameters().keys(), architecture.name


def test_architectures_of_one_class_write_the_same_names():
    """A base knows the class of its denoiser alone, and takes the first architecture that claims it."""
    for one, other in combinations(ARCHITECTURES, 2):
        if one.classes & other.classes:
            assert (one.native, one.denoiser) == (other.native, other.denoiser), (one.name, other.name)


SIZES = [(architecture, size) for architecture in ARCHITECTURES for size in architecture.parameters()]


@pytest.mark.parametrize(("architecture", "size"), SIZES, ids=[size for _, size in SIZES])
def test_names_are_written_for_the_modules_that_a_base_lists(architecture, size):
    """Norms and bare parameters are among them; every part that a name has must be found in the base again."""
    component = published(architecture, size).components[architecture.denoiser]
    modules = set(component.modules)
    own = {parameter for parameter in component.tensors if not parameter.endswith((".weight", ".bias"))}
    assert own <= modules
    meant = {}
    for name in component.names:
        assert set(name.parts) <= modules
        assert any(component.place(name.parts[0] + end) for end in (".weight", ".bias", ""))
        for text in {name.text, name.text.replace(".", "_")}:
            assert meant.setdefault(text, name.parts) == name.parts
    assert modules <= {name.text for name in component.names}
    written = {part for name in component.names if name.text not in modules for part in name.parts}
    if any(architecture.native(component.modules)):
        # Most modules of a family that has names of its own go by them.
        assert len(written) > len(modules) / 4
        assert any("norm" in part for part in written)


@pytest.mark.parametrize("name", [*UNETS, *TRANSFORMERS])
def test_hints_leave_no_architecture_out_that_marks_would_find(name):
    for text in flat_names(name):
        for written in (text, f"transformer_{text}"):
            lines = name_text([written])
            marked = [known.name for known in ARCHITECTURES if known.marks.search(lines)]
            assert [known.name for known in possible(lines)] == marked, written


def test_only_the_family_that_is_meant_is_loaded():
    code = (
        "import sys\nfrom lorakit_cli.architectures import possible\n"
        "from lorakit_cli.core.recognition import name_text\n"
        "found = possible(name_text(['input_blocks_4_1_transformer_blocks_0_attn2_to_k', 'encoder_layers_0_mlp']))\n"
        "print(*(known.name for known in found), '|', *(name for name in sys.modules if 'architectures.' in name))"
    )
    found, _, loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.partition("|")
    assert found.split() == ["SD1.x", "SD2.x", "SDXL", "lorakit", "demo"]
    assert {name.rpartition(".")[2] for name in loaded.split()} == {"unet", "demo", "tables"}
