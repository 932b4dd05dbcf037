"""Adapters of several families converted to every layout and back: the same changes, literal names, the same bytes."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from lorakit_cli.errors import UnmatchedLayersError, UnsupportedError
from lorakit_cli.service.converting import ConvertRequest, convert
from tests.conversions import (
    BUILDERS,
    as_kohya,
    expected,
    flux_native,
    our_deltas,
    random_adapter,
    require_close,
    sdxl_native,
    write,
)
from tests.tiny import save_adapter

KOHYA_PREFIXES = {
    "sd1": {"unet": "lora_unet_", "text_encoder": "lora_te_"},
    "sdxl": {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
    "flux": {"transformer": "lora_transformer_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te3_"},
    "sd3": {
        "transformer": "lora_transformer_",
        "text_encoder": "lora_te1_",
        "text_encoder_2": "lora_te2_",
        "text_encoder_3": "lora_te3_",
    },
    "wan": {"transformer": "lora_transformer_"},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    for name, build in BUILDERS.items():
        build().save_pretrained(folder / name)
    return folder


@pytest.fixture
def run(bases, tmp_path):
    """Convert for one of the tiny bases; gives the file, or of several peft folders each."""

    def convert_to(source, to, family, name="out", **options):
        out = tmp_path / (name if to == "peft" else f"{name}.safetensors")
        convert(ConvertRequest(str(source), to, out, str(bases / family), **options))
        return out

    return convert_to


def deltas(bases, family, out):
    """Read what was written, peft's folders one by one."""
    files = sorted(out.rglob("*.safetensors")) if out.is_dir() else [out]
    found = {}
    for file in files:
        found |= our_deltas(bases / family, file)
    return found


@pytest.mark.parametrize("to", ["diffusers", "peft", "kohya", "comfy"])
@pytest.mark.parametrize("family", BUILDERS)
def test_every_layer_of_a_family_survives_every_layout_and_the_way_back(bases, run, tmp_path, family, to):
    # T5 is no part of what diffusers loads.
    only = r"^(?!text_encoder_3|text_encoder_2\.(encoder\.block|shared))" if to == "diffusers" else ""
    adapter = random_adapter(BUILDERS[family](), only=only, scale=0.75)
    assert len(adapter) > 20
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    out = run(source, to, family)
    wanted = expected(adapter)
    require_close(deltas(bases, family, out), wanted)
    if to != "peft":
        require_close(deltas(bases, family, run(out, "kohya", family, "back")), wanted)


@pytest.mark.parametrize("to", ["diffusers", "peft", "kohya", "comfy"])
@pytest.mark.parametrize("family", ["sd1", "sdxl", "wan"])
def test_mixed_ranks_alphas_and_missing_alphas_survive(bases, run, tmp_path, family, to):
    adapter = random_adapter(BUILDERS[family](), flat=True)
    assert len({factors.scale for factors in adapter.values()}) > 4
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    require_close(deltas(bases, family, run(source, to, family)), expected(adapter))


@pytest.mark.parametrize("to", ["diffusers", "peft", "kohya", "comfy"])
@pytest.mark.parametrize(("family", "native"), [("flux", flux_native), ("sdxl", sdxl_native)])
def test_native_names_become_every_layout(bases, run, tmp_path, family, native, to):
    tensors, wanted = native()
    out = run(write(tmp_path / "in.safetensors", tensors), to, family)
    require_close(deltas(bases, family, out), wanted)


@pytest.mark.parametrize(("family", "native"), [("flux", flux_native), ("sdxl", sdxl_native)])
def test_kohya_through_diffusers_or_comfy_and_back_is_the_same_to_the_last_byte(run, tmp_path, family, native):
    """Fused query, key and value are split and joined again; what had no alpha gets the one that it meant."""
    tensors, _ = native()
    for name in [name for name in tensors if name.endswith(".lora_down.weight")]:
        tensors.setdefault(name.replace("lora_down.weight", "alpha"), torch.tensor(float(tensors[name].shape[0])))
    source = write(tmp_path / "in.safetensors", tensors)
    for to in ("diffusers", "comfy"):
        back = load_file(run(run(source, to, family, to), "kohya", family, f"{to}-back"))
        assert back.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert back[name].dtype == tensor.dtype
            assert torch.equal(back[name], tensor.reshape(back[name].shape)), name


def test_parts_with_factors_of_their_own_are_joined_along_the_diagonal(bases, run, tmp_path):
    adapter = random_adapter(BUILDERS["flux"](), only=r"r\.transformer_blocks\.0\.attn\.(to_q|to_v)$", scale=0.5)
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES["flux"]))
    out = run(source, "kohya", "flux")
    tensors = load_file(out)
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    query, value = (adapter["transformer", f"transformer_blocks.0.attn.to_{part}"] for part in "qv")
    ranks = [query.down.shape[0], value.down.shape[0]]
    up = torch.zeros(24, sum(ranks))
    up[:8, : ranks[0]], up[16:, ranks[0] :] = query.up, value.up
    assert torch.equal(tensors[f"{stem}.lora_up.weight"], up)
    assert torch.equal(tensors[f"{stem}.lora_down.weight"], torch.cat([query.down, value.down]))
    assert float(tensors[f"{stem}.alpha"]) == 0.5 * sum(ranks)
    found = deltas(bases, "flux", out)
    assert not found.pop(("transformer", "transformer_blocks.0.attn.to_k")).any()
    require_close(found, expected(adapter))


@pytest.mark.parametrize(
    ("family", "to", "key"),
    [
        ("sd1", "kohya", "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"),
        ("sd1", "kohya", "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"),
        ("sd1", "comfy", "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_down.weight"),
        ("sd1", "comfy", "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.alpha"),
        ("sd1", "diffusers", "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight"),
        ("sd1", "diffusers", "text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_B.weight"),
        ("sdxl", "kohya", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight"),
        ("sdxl", "kohya", "lora_unet_input_blocks_1_0_in_layers_2.alpha"),
        ("sdxl", "kohya", "lora_unet_middle_block_1_proj_in.lora_up.weight"),
        ("sdxl", "kohya", "lora_unet_label_emb_0_0.lora_up.weight"),
        ("sdxl", "kohya", "lora_te1_text_model_encoder_layers_0_mlp_fc2.lora_down.weight"),
        ("sdxl", "kohya", "lora_te2_text_model_encoder_layers_0_mlp_fc2.lora_down.weight"),
        ("sdxl", "kohya", "lora_te2_text_projection.lora_down.weight"),
        ("sdxl", "comfy", "diffusion_model.output_blocks.0.1.transformer_blocks.0.attn2.to_k.lora_up.weight"),
        ("sdxl", "comfy", "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc2.alpha"),
        ("sdxl", "diffusers", "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj.lora_A.weight"),
        ("flux", "kohya", "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"),
        ("flux", "kohya", "lora_unet_single_blocks_2_linear1.lora_up.weight"),
        ("flux", "kohya", "lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"),
        ("flux", "kohya", "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"),
        ("flux", "kohya", "lora_te3_encoder_block_0_layer_0_SelfAttention_q.alpha"),
        ("flux", "comfy", "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight"),
        ("flux", "comfy", "diffusion_model.single_blocks.1.modulation.lin.alpha"),
        ("flux", "comfy", "diffusion_model.time_in.in_layer.lora_up.weight"),
        ("flux", "comfy", "text_encoders.t5xxl.transformer.encoder.block.0.layer.1.DenseReluDense.wi_0.alpha"),
        ("flux", "diffusers", "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"),
        ("sd3", "kohya", "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"),
        ("sd3", "kohya", "lora_unet_joint_blocks_0_x_block_attn2_qkv.lora_up.weight"),
        ("sd3", "kohya", "lora_unet_joint_blocks_1_context_block_mlp_fc1.alpha"),
        ("sd3", "kohya", "lora_te3_encoder_block_1_layer_0_SelfAttention_o.alpha"),
        ("sd3", "comfy", "diffusion_model.joint_blocks.1.context_block.adaLN_modulation.1.alpha"),
        ("sd3", "diffusers", "transformer.transformer_blocks.0.attn2.to_q.lora_A.weight"),
        ("wan", "kohya", "lora_unet_blocks_0_self_attn_q.lora_down.weight"),
        ("wan", "comfy", "diffusion_model.blocks.0.cross_attn.k.lora_up.weight"),
        ("wan", "comfy", "diffusion_model.head.head.alpha"),
        ("wan", "diffusers", "transformer.blocks.1.ffn.net.0.proj.lora_B.weight"),
    ],
)
def test_key_names_are_those_that_the_other_programs_look_for(bases, run, tmp_path, family, to, key):
    only = r"^(?!text_encoder_3|text_encoder_2\.(encoder\.block|shared))" if to == "diffusers" else ""
    adapter = random_adapter(BUILDERS[family](), only=only, scale=1.5)
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    assert key in load_file(run(source, to, family))


def attn_procs(adapter):
    """Write the attention of a UNet as diffusers did before 0.24: no alphas."""
    tensors = {}
    for (component, name), factors in adapter.items():
        module, part = re.fullmatch(r"(.+)\.(to_\w+)(?:\.0)?", name).groups()
        stem = f"{component}.{module}.processor.{part}_lora"
        tensors |= {f"{stem}.down.weight": factors.down, f"{stem}.up.weight": factors.up}
    return tensors


def cloneofsimo(adapter):
    """Write the attention of a UNet as lora_diffusion numbers it: the middle block comes last."""
    order = ("to_q", "to_k", "to_v", "to_out.0")

    def place(name):
        side, rest = ("down", "up", "mid").index(name.split("_")[0]), re.findall(r"\d+", name.rsplit(".attn", 1)[0])
        attention, part = re.search(r"attn(\d)\.(.+)", name).groups()
        return side, *map(int, rest), int(attention), order.index(part)

    names = sorted((name for _, name in adapter), key=place)
    tensors = {}
    for number, name in enumerate(names):
        factors = adapter["unet", name]
        tensors |= {f"unet:{number}:down": factors.down, f"unet:{number}:up": factors.up}
    return tensors


@pytest.mark.parametrize("to", ["diffusers", "peft", "kohya", "comfy"])
@pytest.mark.parametrize("layout", [attn_procs, cloneofsimo])
def test_old_layouts_without_alphas(bases, run, tmp_path, layout, to):
    adapter = random_adapter(BUILDERS["sd1"](), only=r"unet.*attn[12]\.to_", scale=1.0)
    source = write(tmp_path / "in.safetensors", layout(adapter))
    require_close(deltas(bases, "sd1", run(source, to, "sd1")), expected(adapter))


@pytest.mark.parametrize("to", ["diffusers", "peft", "kohya", "comfy"])
def test_xlabs_processors(bases, run, tmp_path, to):
    """Of `linear1` only query, key and value: the rest of its rows stays as it is."""
    generator = torch.Generator().manual_seed(0)
    tensors, wanted = {}, {}
    places = {
        "double_blocks.0.processor.qkv_lora1": [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"],
        "double_blocks.1.processor.qkv_lora2": [f"transformer_blocks.1.attn.add_{part}_proj" for part in "qkv"],
        "double_blocks.1.processor.proj_lora1": ["transformer_blocks.1.attn.to_out.0"],
        "single_blocks.2.processor.qkv_lora": [f"single_transformer_blocks.2.attn.to_{part}" for part in "qkv"],
    }
    for stem, modules in places.items():
        down = torch.randn(2, 8, generator=generator)
        up = torch.randn(8 * len(modules), 2, generator=generator)
        tensors |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
        rows = (up.double() @ down.double()).chunk(len(modules))
        wanted |= {("transformer", module): part for module, part in zip(modules, rows, strict=True)}
    out = run(write(tmp_path / "in.safetensors", tensors), to, "flux")
    found = deltas(bases, "flux", out)
    # Rows that were filled with zeros count as parts in a fused layer.
    filled = {key for key, change in found.items() if not change.any()}
    assert filled <= {("transformer", "single_transformer_blocks.2.proj_mlp")}
    require_close({key: change for key, change in found.items() if key not in filled}, wanted)


@pytest.mark.parametrize("to", ["kohya", "comfy", "peft", "diffusers"])
@pytest.mark.parametrize(
    "options", [{"alpha": 3, "use_rslora": True}, {"alpha": 8, "rank_pattern": {"to_q": 7}, "text": False}]
)
def test_what_peft_trained_and_diffusers_saved(bases, run, tmp_path, options, to):
    source = save_adapter(tmp_path / "in.safetensors", seed=3, rank=5, **options)
    found = deltas(bases, "sd1", run(source, to, "sd1"))
    require_close(found, our_deltas(bases / "sd1", source))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_a_peft_folder_converts_like_a_file(bases, run, tmp_path, family):
    adapter = random_adapter(BUILDERS[family](), only="^(unet|transformer)", scale=0.25)
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    folder = run(source, "peft", family, "folder")
    assert sorted(file.name for file in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for to in ("kohya", "comfy", "diffusers"):
        require_close(deltas(bases, family, run(folder, to, family, to)), expected(adapter))


def test_one_folder_for_each_component_where_there_are_several(bases, run, tmp_path):
    adapter = random_adapter(BUILDERS["sdxl"]())
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES["sdxl"]))
    folder = run(source, "peft", "sdxl")
    assert sorted(file.name for file in folder.iterdir()) == ["text_encoder", "text_encoder_2", "unet"]
    config = json.loads((folder / "text_encoder_2" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert set(config["target_modules"]) >= {"encoder.layers.0.self_attn.q_proj", "text_projection"}


def test_different_scales_in_a_fused_layer_are_refused_for_layouts_that_fuse(run, tmp_path):
    adapter = random_adapter(BUILDERS["flux"](), only=r"r\.transformer_blocks\.0\.attn\.to_[qkv]$")
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES["flux"]))
    for to in ("kohya", "comfy"):
        with pytest.raises(UnsupportedError, match=r"have different scales, and double_blocks\.0\.img_attn\.qkv has"):
            run(source, to, "flux")
    assert run(source, "diffusers", "flux").is_file()


def test_components_that_a_layout_has_no_name_for(run, tmp_path):
    adapter = random_adapter(BUILDERS["flux"](), only=r"text_encoder_2\.encoder\.block\.0", scale=1.0)
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES["flux"]))
    with pytest.raises(UnsupportedError, match="load_lora_weights loads nothing into a text_encoder_2 of class T5Enc"):
        run(source, "diffusers", "flux")
    assert run(source, "peft", "flux").is_dir()


def test_a_base_that_the_layers_are_not_for(run, tmp_path):
    adapter = random_adapter(BUILDERS["wan"](), scale=1.0)
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES["wan"]))
    with pytest.raises(UnmatchedLayersError, match=r"layers of .* are no modules of .*flux, first .*; try another"):
        run(source, "kohya", "flux")


def full_size(modules, rank=2):
    """Make layers under kohya's names, zero-filled but for a mark, in the shapes given."""
    tensors = {}
    for name, (rows, columns) in modules.items():
        tensors[f"{name}.lora_down.weight"] = torch.full((rank, columns), 0.5, dtype=torch.float16)
        tensors[f"{name}.lora_up.weight"] = torch.full((rows, rank), 0.25, dtype=torch.float16)
        tensors[f"{name}.alpha"] = torch.tensor(1.0)
    return tensors


def test_the_model_is_recognised_without_a_base(tmp_path):
    names = {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768),
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (768, 768),
    }
    source = write(tmp_path / "in.safetensors", full_size(names))
    report = convert(ConvertRequest(str(source), "comfy", tmp_path / "out.safetensors"))
    assert (report.architecture, report.dialect, report.exact) == ("SD1.x", "kohya", True)
    assert set(load_file(tmp_path / "out.safetensors")) == {
        f"{stem}.{part}"
        for stem in (
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k",
            "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj",
        )
        for part in ("alpha", "lora_down.weight", "lora_up.weight")
    }


def test_models_that_give_the_same_result_need_not_be_told_apart(tmp_path):
    """Self attention of Wan 14B is the same in text and image to video."""
    source = write(tmp_path / "in.safetensors", full_size({"lora_unet_blocks_0_self_attn_q": (5120, 5120)}))
    report = convert(ConvertRequest(str(source), "diffusers", tmp_path / "out.safetensors"))
    assert report.architecture == "Wan T2V 14B or Wan 2.1 I2V 14B or Wan 2.2 I2V 14B"
    assert set(load_file(tmp_path / "out.safetensors")) == {
        f"transformer.blocks.0.attn1.to_q.lora_{part}.weight" for part in "AB"
    }


def test_models_that_give_different_results_are_to_be_named(tmp_path):
    """FLUX and HunyuanVideo have one flattened name for this, and two where dots are dots."""
    source = write(tmp_path / "in.safetensors", full_size({"lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072)}))
    with pytest.raises(UnmatchedLayersError, match=r"fit FLUX\.1 and .*HunyuanVideo.*; --base BASE says which model's"):
        convert(ConvertRequest(str(source), "comfy", tmp_path / "out.safetensors"))
    assert not (tmp_path / "out.safetensors").exists()
