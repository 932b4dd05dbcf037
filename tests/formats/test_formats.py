import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.plan import PlannedAdapter, build_plan
from lorakit_cli.formats import FORMATS, formats_for
from lorakit_cli.service.reading import open_adapter


@pytest.mark.parametrize("layout", FORMATS, ids=lambda layout: layout.name)
def test_a_name_written_for_a_module_is_read_as_its_component(base, layout):
    for component in read_base_index(base).components.values():
        if component.name != "vae":
            for stem, _ in layout.write(component.name, component.names):
                claims = next(known for known in FORMATS if known.components(stem))
                assert component.name in claims.components(stem), stem
                assert component.name in layout.components(stem), stem


def test_the_diffusers_layout_is_what_diffusers_writes(adapters):
    (diffusers,) = [known for known in FORMATS if known.name == "diffusers"]
    stems = {key.split(".lora")[0] for key in load_file(adapters / "ink.safetensors")}
    assert {diffusers.components(stem) for stem in stems} == {("unet",), ("text_encoder",)}
    assert diffusers.components("lora_unet_mid_block_attentions_0_proj_in") == ()
    assert diffusers.components("diffusion_model.x") == ()


def attention_pairs(base):
    """Tensors for every attention projection of UNet and text encoder, by (component, module)."""
    found = {}
    for component in read_base_index(base).components.values():
        for module in component.modules if component.name != "vae" else ():
            if module.endswith((".to_q", ".to_k", ".to_v", ".to_out.0", "_proj")) and "attn" in module:
                out, width = component.tensors[f"{module}.weight"].info.shape
                found[component.name, module] = (torch.randn(2, width), torch.randn(out, 2))
    return found


@pytest.mark.parametrize(
    ("name", "unet", "text", "down", "up"),
    [
        ("peft", "unet.base_model.model.{}", "text_encoder.base_model.model.{}", "lora_A.weight", "lora_B.weight"),
        ("peft", "base_model.model.{}", None, "lora_A.weight", "lora_B.weight"),
        ("diffusers", "unet.{}", "text_encoder.{}", "lora_A", "lora_B"),
        ("diffusers", "unet.{}", "text_encoder.{}", "lora.down.weight", "lora.up.weight"),
        ("diffusers", "unet.{}", "text_encoder.{}", "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
        ("comfy", "diffusion_model.{}", "text_encoders.clip_l.transformer.{}", "lora_down.weight", "lora_up.weight"),
        ("comfy", "diffusion_model.{}", "clip_l.{}", "lora_A.weight", "lora_B.weight"),
        ("plain", "{}", None, "lora_A.default.weight", "lora_B.default.weight"),
        ("kohya", "lora_unet_{_}", "lora_te_{_}", "lora_down.weight", "lora_up.weight"),
        ("kohya", "lora_unet__{_}", "lora_te1_{_}", "lora_down.weight", "lora_up.weight"),
        ("lycoris", "lycoris_{_}", None, "lora_down.weight", "lora_up.weight"),
    ],
)
def test_every_layer_of_every_layout_finds_its_module(base, tmp_path, name, unet, text, down, up):
    tensors, modules = {}, {}
    for (component, module), (first, second) in attention_pairs(base).items():
        pattern = {"unet": unet, "text_encoder": text}[component]
        if pattern:
            stem = pattern.replace("{_}", module.replace(".", "_")).replace("{}", module)
            tensors |= {f"{stem}.{down}": first, f"{stem}.{up}": second}
            modules[stem] = f"{component}.{module}"
    save_file(tensors, tmp_path / "a.safetensors")
    file = open_adapter(tmp_path / "a.safetensors")
    assert (file.formats[0].name, file.unknown_keys) == (name, ())
    plan = build_plan(read_base_index(base), [PlannedAdapter("a", file, 1.0)])
    assert plan.unmatched == ()
    places = {m.layer.stem: f"{m.parts[0].target.component}.{m.name.parts[0]}" for m in plan.matches["a"]}
    assert places == modules


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_attention_processors_with_and_without_prefix(base, tmp_path, prefix):
    tensors, modules = {}, {}
    for (component, module), (first, second) in attention_pairs(base).items():
        block, _, part = module.removesuffix(".0").rpartition(".")
        stem = f"{prefix}{block}.processor.{part}_lora"
        if component == "text_encoder":
            stem = f"text_encoder.{block}.to_{part.removesuffix('_proj')}_lora"
        tensors |= {f"{stem}.down.weight": first, f"{stem}.up.weight": second}
        modules[stem] = f"{component}.{module}"
    save_file(tensors, tmp_path / "a.safetensors")
    file = open_adapter(tmp_path / "a.safetensors")
    assert [layout.name for layout in file.formats] == ["attn-procs"]
    plan = build_plan(read_base_index(base), [PlannedAdapter("a", file, 1.0)])
    assert plan.unmatched == ()
    places = {m.layer.stem: f"{m.parts[0].target.component}.{m.name.parts[0]}" for m in plan.matches["a"]}
    assert places == modules


@pytest.mark.parametrize(
    "key", ["lora_unet_a.lora_down.weight", "lora_te_a.alpha", "lora_te1_a.b.c", "lora_te2_a", "lora_unet__a.diff"]
)
def test_kohyas_keys_are_of_no_layout_before_its_own(key):
    (alone,) = formats_for([key])
    stem = key.partition(".")[0]
    assert next(known for known in FORMATS if known.components(stem)) is alone
    assert not any(known.split(key) for known in FORMATS)


@pytest.mark.parametrize("key", ["unet.a.lora_A.weight", "lora_te3_a.alpha", "unet:0:up", "x"])
def test_other_keys_may_be_of_any_layout(key):
    assert formats_for([key, "lora_unet_a.alpha"]) == formats_for([key]) == FORMATS
