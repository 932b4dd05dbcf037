"""Modules of the original code that are several in diffusers: every algorithm cut into their parts, and odd layouts."""

import pytest
import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import nn

from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import changes, cut, judge, plan_of, product, require_equal, write
from tests.dialects.natives import native_names
from tests.kinds.trainers import lycoris, randomise

ALGORITHMS = {
    "lora": (LoConModule, {"lora_dim": 2, "alpha": 3}),
    "dora": (LoConModule, {"lora_dim": 2, "alpha": 3, "weight_decompose": True, "wd_on_out": True}),
    "dora of columns": (LoConModule, {"lora_dim": 2, "weight_decompose": True, "wd_on_out": False}),
    "loha": (LohaModule, {"lora_dim": 2, "alpha": 3}),
    "loha dora": (LohaModule, {"lora_dim": 2, "weight_decompose": True}),
    "lokr": (LokrModule, {"lora_dim": 1, "alpha": 0.5, "factor": 4}),
    "lokr dora": (LokrModule, {"lora_dim": 1, "factor": 4, "weight_decompose": True}),
    "glora": (GLoRAModule, {"lora_dim": 2, "alpha": 3}),
    "full": (FullModule, {}),
    "diag-oft": (DiagOFTModule, {"lora_dim": 4, "constraint": 0.001, "rescaled": True}),
    "boft": (ButterflyOFTModule, {}),
    "ia3": (IA3Module, {}),
    "ia3 of columns": (IA3Module, {"train_on_input": True}),
}
PLACES = {
    "flux": ["double_blocks.1.txt_attn.qkv", "single_blocks.0.linear1", "final_layer.adaLN_modulation.1"],
    "sd3": ["joint_blocks.1.x_block.attn.qkv", "joint_blocks.1.context_block.adaLN_modulation.1"],
    # Three, one and one heads: parts of different heights.
    "lumina2": ["layers.0.attention.qkv", "context_refiner.0.attention.qkv"],
    "z_image": ["noise_refiner.0.attention.qkv"],
    "hunyuan_video": ["txt_in.individual_token_refiner.blocks.0.self_attn_qkv", "single_blocks.0.linear1"],
}


def fused(model, parts, swapped):
    """Make the linear layer that the original code has for modules of diffusers, in fp64."""
    weight = torch.cat([model.get_submodule(part).weight.detach().double() for part in parts])
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    layer.weight.data.copy_(torch.cat(weight.chunk(2)[::-1]) if swapped else weight)
    return layer


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", PLACES)
def test_an_algorithm_of_a_whole_module_changes_all_its_parts(family, tmp_path, name, algorithm):
    folder, parts = family(name)
    model = parts["transformer"]
    module_class, options = ALGORITHMS[algorithm]
    flat, dotted, wanted = {}, {}, {}
    for text in PLACES[name]:
        modules, swapped = native_names(name, model)[text]
        layer = fused(model, modules, swapped)
        before = layer.weight.detach().clone()
        if "oft" in algorithm:
            layer.float()
        # A butterfly of so many blocks.
        own = {"lora_dim": layer.out_features // 4} if algorithm == "boft" else {}
        made = lycoris(module_class, layer, **options, **own)
        if algorithm == "full":
            # Its weight starts as the layer's only now.
            made.apply_to()
            randomise(made)
        tensors = {suffix: value.detach().clone() for suffix, value in made.state_dict().items()}
        if algorithm != "full":
            made.apply_to()
        with torch.no_grad():
            after = layer(torch.eye(layer.in_features, dtype=torch.float32 if "oft" in algorithm else torch.float64)).T
        wanted |= cut(after.double() - before, modules, swapped, "transformer", model)
        for suffix, value in tensors.items():
            flat[f"lora_unet_{text.replace('.', '_')}.{suffix}"] = value
            dotted[f"diffusion_model.{text}.{suffix}"] = value
    # LyCORIS inverts matrices in single precision and keeps DoRA's length there.
    tolerance = 2e-5 if "oft" in algorithm else 1e-6 if "dora" in algorithm else 1e-12
    judge(folder, write(tmp_path / "flat.safetensors", flat), wanted, tolerance)
    judge(folder, write(tmp_path / "dotted.safetensors", dotted), wanted, tolerance)


@pytest.mark.parametrize("stem", ["transformer.{}", "lora_unet_{_}", "diffusion_model.{}"])
@pytest.mark.parametrize("name", ["flux", "sd3", "hunyuan_video"])
def test_parts_trained_apart_under_the_name_of_the_whole(family, tmp_path, name, stem):
    """So OneTrainer writes them: qkv.0, qkv.1, qkv.2, and linear1.3 for the feed forward."""
    folder, parts = family(name)
    model, tensors, wanted = parts["transformer"], {}, {}
    torch.manual_seed(3)
    for text, (modules, swapped) in native_names(name, model).items():
        for number, module in enumerate(modules if len(modules) > 1 else ()):
            shape = model.get_submodule(module).weight.shape
            down, up = torch.randn(2, shape[1]), torch.randn(shape[0], 2)
            own = f"{text}.{number}"
            key = stem.replace("{_}", own.replace(".", "_")).replace("{}", own)
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(3.0)}
            wanted |= cut(product(down, up, 1.5), (module,), swapped, "transformer", model)
    assert len(wanted) >= 10
    judge(folder, write(tmp_path / "a.safetensors", tensors), wanted)


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_xlabs_processors(family, tmp_path, prefix):
    folder, parts = family("flux")
    model, tensors, wanted = parts["transformer"], {}, {}
    torch.manual_seed(3)
    attention = "transformer_blocks.1.attn."
    single = "single_transformer_blocks.0."
    for key, modules, columns in (
        ("double_blocks.1.processor.qkv_lora1", [f"{attention}to_{part}" for part in "qkv"], 16),
        ("double_blocks.1.processor.qkv_lora2", [f"{attention}add_{part}_proj" for part in "qkv"], 16),
        ("double_blocks.1.processor.proj_lora1", [f"{attention}to_out.0"], 16),
        ("double_blocks.1.processor.proj_lora2", [f"{attention}to_add_out"], 16),
        ("single_blocks.0.processor.qkv_lora", [f"{single}attn.to_{part}" for part in "qkv"], 16),
        ("single_blocks.0.processor.proj_lora", [f"{single}proj_out"], 80),
    ):
        down, up = torch.randn(2, columns), torch.randn(16 * len(modules), 2)
        tensors |= {f"{prefix}{key}.down.weight": down, f"{prefix}{key}.up.weight": up}
        wanted |= cut(product(down, up, 1.0), tuple(modules), False, "transformer", model)
    file = judge(folder, write(tmp_path / "a.safetensors", tensors), wanted)
    assert [layout.name for layout in file.formats] == ["xlabs"]


def test_a_control_adapter_of_black_forest_labs(family, tmp_path):
    """Factors with biases, norms replaced, and a first layer that reads twice the channels of the plain model."""
    folder, parts = family("flux")
    model, tensors, wanted = parts["transformer"], {}, {}
    torch.manual_seed(3)
    for text, (modules, swapped) in native_names("flux", model).items():
        weights = [model.get_submodule(module).weight for module in modules]
        rows, columns = sum(len(weight) for weight in weights), weights[0].shape[1]
        down, up, bias = torch.randn(2, columns * (1 + (text == "img_in"))), torch.randn(rows, 2), torch.randn(rows)
        tensors |= {f"{text}.lora_A.weight": down, f"{text}.lora_B.weight": up, f"{text}.lora_B.bias": bias}
        if text != "img_in":
            wanted |= cut(product(down, up, 1.0), modules, swapped, "transformer", model)
        whole = torch.cat(bias.chunk(2)[::-1]) if swapped else bias
        for module, part in zip(modules, whole.double().split([len(weight) for weight in weights]), strict=True):
            wanted["transformer", f"{module}.bias"] = part
    for number in (0, 1):
        ours, theirs = f"transformer_blocks.{number}.attn", f"double_blocks.{number}"
        for side, added in (("img", ""), ("txt", "added_")):
            for long, short in (("query", "q"), ("key", "k")):
                scale = torch.randn(8)
                tensors[f"{theirs}.{side}_attn.norm.{long}_norm.scale"] = scale
                name = f"{ours}.norm_{added}{short}.weight"
                wanted["transformer", name] = scale.double() - model.get_parameter(name).detach().double()
    file = open_adapter(write(tmp_path / "a.safetensors", tensors))
    assert file.unknown_keys == ()
    plan = plan_of(folder, file)
    assert [(part.stem, part.reason) for part in plan.unmatched] == [
        ("img_in", "wrong shape: the layer changes [16, 8], the base has [16, 4]")
    ]
    require_equal(changes(plan), wanted)


@pytest.mark.parametrize("name", ["wan i2v", "flux"])
def test_whole_differences_and_replacements_as_comfyui_keeps_them(family, tmp_path, name):
    folder, parts = family(name)
    model, tensors, wanted = parts["transformer"], {}, {}
    torch.manual_seed(3)
    for number, (text, (modules, swapped)) in enumerate(native_names(name, model).items()):
        if len(modules) > 1 or swapped:
            continue
        module = model.get_submodule(modules[0])
        value, bias = torch.randn(module.weight.shape), torch.randn(module.bias.shape)
        tensors |= {f"diffusion_model.{text}.{'set_weight' if number % 2 else 'diff'}": value}
        before = module.weight.detach().double() if number % 2 else 0.0
        wanted["transformer", f"{modules[0]}.weight"] = value.double() - before
        if not number % 2:
            tensors[f"diffusion_model.{text}.diff_b"] = bias
            wanted["transformer", f"{modules[0]}.bias"] = bias.double()
    # Norms have one dimension.
    for ours, theirs in {
        "wan i2v": {"blocks.0.attn1.norm_q": "blocks.0.self_attn.norm_q", "blocks.0.norm2": "blocks.0.norm3",
                    "condition_embedder.image_embedder.norm1": "img_emb.proj.0"},
        "flux": {"transformer_blocks.0.attn.norm_added_k": "double_blocks.0.txt_attn.norm.key_norm"},
    }[name].items():  # fmt: skip
        value = torch.randn(model.get_submodule(ours).weight.shape)
        tensors[f"diffusion_model.{theirs}.diff"] = value
        wanted["transformer", f"{ours}.weight"] = value.double()
    judge(folder, write(tmp_path / "a.safetensors", tensors), wanted)


def test_factors_of_blocks_side_by_side_as_kohya_trains_them_apart(family, tmp_path):
    """With split_qkv: a down for each of three parts, stacked, and an up with zeros off its diagonal blocks."""
    folder, parts = family("flux")
    model, wanted = parts["transformer"], {}
    torch.manual_seed(3)
    names = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    downs, ups = [torch.randn(2, 16) for _ in names], [torch.randn(16, 2) for _ in names]
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{stem}.lora_down.weight": torch.cat(downs), f"{stem}.lora_up.weight": torch.block_diag(*ups),
               f"{stem}.alpha": torch.tensor(3.0)}  # fmt: skip
    for name, down, up in zip(names, downs, ups, strict=True):
        wanted |= cut(product(down, up, 0.5), (name,), False, "transformer", model)
    judge(folder, write(tmp_path / "a.safetensors", tensors), wanted)
