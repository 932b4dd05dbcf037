"""Published models are recognised by full-size adapters in their usual layouts; what fits several is said to."""

import re

import pytest

from lorakit_cli.architectures import ARCHITECTURES, possible
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.recognition import published, recognise
from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import write
from tests.dialects.layouts import LAYOUTS as TRAINED
from tests.dialects.layouts import adapter
from tests.dialects.models import components, save
from tests.sparse import write_sparse

SIZES = [(known, size) for known in ARCHITECTURES for size in known.parameters()]
LAYOUTS = {
    "kohya": ("lora_unet_{_}", "lora_down.weight", "lora_up.weight"),
    "diffusers": ("{component}.{}", "lora_A.weight", "lora_B.weight"),
    "comfy": ("diffusion_model.{}", "lora_A.weight", "lora_B.weight"),
}
# All of these is in others too: an image encoder more, or a table that no adapter changes.
WITHIN = {"Wan 2.2 I2V 14B": "Wan 2.1 I2V 14B or Wan 2.2 I2V 14B", "PixArt-Sigma": "PixArt-Sigma or PixArt-Alpha 1024"}


def header(component, layout, keep=""):
    """List the header of an adapter of rank 4 for every matrix whose name has `keep` in it, each written once."""
    pattern, down, up = LAYOUTS[layout]
    native = component.architecture.native(component.modules) if layout != "diffusers" else ()
    names = [(name.text, name.parts) for name in native] + [(module, (module,)) for module in component.modules]
    tensors, done = {}, set()
    for text, parts in names:
        shapes = [component.tensors[f"{p}.weight"].info.shape for p in parts if f"{p}.weight" in component.tensors]
        if len(shapes) < len(parts) or len(shapes[0]) < 2 or done & set(parts) or not re.search(keep, text):
            continue
        done |= set(parts)
        stem = pattern.replace("{component}", component.name).replace("{_}", text.replace(".", "_")).replace("{}", text)
        ones = (1,) * (len(shapes[0]) - 2)
        tensors[f"{stem}.{down}"] = ("F16", (4, *shapes[0][1:]))
        tensors[f"{stem}.{up}"] = ("F16", (sum(shape[0] for shape in shapes), 4, *ones))
    return tensors


def denoiser(name):
    known, size = next((known, size) for known, size in SIZES if size == name)
    return published(known, size).components[known.denoiser]


def recognised(path, tensors):
    found = recognise(open_adapter(write_sparse(path, tensors)), possible)
    return found.name, found.confidence


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [size for _, size in SIZES])
def test_an_adapter_of_every_matrix_names_its_model(tmp_path, size, layout):
    expected = (WITHIN[size], "ambiguous") if size in WITHIN else (size, "certain")
    assert recognised(tmp_path / "a.safetensors", header(denoiser(size), layout)) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("size", "keep"),
    [
        ("SD1.x", "attn[12]"),
        ("SD2.x", "attn[12]"),
        ("SDXL", "attn[12]"),
        ("SD3.5 Large", "attn"),
        ("FLUX.1", r"transformer_blocks.*(attn|ff)|(img|txt)_(attn|mlp)|linear"),
        ("FLUX.2 klein 9B", "attn|linear"),
        ("Wan T2V 1.3B", "attn|ffn"),
        ("Wan 2.2 TI2V 5B", "attn|ffn"),
        ("Qwen-Image", "attn"),
        ("Z-Image", "attention"),
        ("Lumina-Image 2.0", "attn|attention"),
        ("LTX-Video 2B", "attn"),
    ],
)
def test_what_trainers_take_by_default_is_enough(tmp_path, size, keep, layout):
    # Of FLUX, these are in HunyuanVideo too, in a few blocks more.
    confidence = "likely" if size == "FLUX.1" and layout == "diffusers" else "certain"
    assert recognised(tmp_path / "a.safetensors", header(denoiser(size), layout, keep)) == (size, confidence)


@pytest.mark.parametrize(
    ("size", "layout", "keep", "expected"),
    [
        # Of both stacks, but not to their ends.
        ("FLUX.1", "diffusers", r"blocks\.([0-9]|1[0-5])\.attn\.to_q", "FLUX.1 or HunyuanVideo or HunyuanVideo I2V"),
        # kohya's flattened names are the same: img_attn.qkv of the one, img_attn_qkv of the other.
        ("FLUX.1", "kohya", r"img_attn\.qkv", "FLUX.1 or HunyuanVideo or HunyuanVideo I2V"),
        # Two blocks deeper, it is no FLUX.
        ("HunyuanVideo", "kohya", "img_attn_qkv", "HunyuanVideo or HunyuanVideo I2V"),
        ("SD1.x", "kohya", r"attn1\.to_q", "SD1.x or SD2.x"),
        ("Wan T2V 14B", "kohya", "self_attn", "Wan T2V 14B or Wan 2.1 I2V 14B or Wan 2.2 I2V 14B"),
    ],
)
def test_names_and_shapes_of_several_models_are_ambiguous(tmp_path, size, layout, keep, expected):
    found = recognised(tmp_path / "a.safetensors", header(denoiser(size), layout, keep))
    assert found == (expected, "ambiguous")


def test_a_text_encoder_alone_names_no_model(tmp_path):
    """CLIP-L is SD1's text encoder, and the first of SDXL, SD3 and FLUX."""
    known, size = next(entry for entry in SIZES if entry[1] == "SD1.x")
    encoder = published(known, size).components["text_encoder"]
    tensors = {}
    for module in encoder.modules:
        if module.endswith("self_attn.q_proj"):
            name = "text_model." + module.removeprefix("text_model.")
            tensors[f"base_model.model.{name}.lora_A.weight"] = ("F16", (4, 768))
            tensors[f"base_model.model.{name}.lora_B.weight"] = ("F16", (768, 4))
    assert len(tensors) == 24
    assert recognised(tmp_path / "a.safetensors", tensors) == (None, "unknown")


def test_a_stem_that_fits_two_text_encoders_is_reported_and_not_guessed(family, tmp_path):
    """peft does not say which of two text encoders it wrapped; here both have a layer of that shape."""
    parts = components("sdxl")
    parts["text_encoder_2"] = components("sdxl")["text_encoder"]
    folder = save(tmp_path / "twins", "sdxl", parts)
    peft = next(layout for layout in TRAINED if layout.name == "PixArt's trainer")
    tensors, _ = adapter(peft, "sdxl", {"text_encoder": parts["text_encoder"]})
    bare = {key.removeprefix("text_encoder."): value for key, value in tensors.items()}
    file = open_adapter(write(tmp_path / "a.safetensors", bare))
    found, missed = match_layers(read_base_index(folder, architectures=ARCHITECTURES), "a", file)
    assert found == ()
    assert {part.reason.split(" ")[0] + " " + part.reason.split(" ")[1] for part in missed} == {"fits both"}
    named = open_adapter(write(tmp_path / "b.safetensors", tensors))
    found, missed = match_layers(read_base_index(folder, architectures=ARCHITECTURES), "a", named)
    assert (missed, {match.parts[0].target.component for match in found}) == ((), {"text_encoder"})
