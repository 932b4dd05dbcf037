"""`lorakit fuse --block-scales` on tiny models of several families: every weight against an fp64 sum made apart.

What each block is scaled by is written out by hand, by the beginning of a module's name; the first that fits holds.
"""

import copy
import json
from types import SimpleNamespace

import diffusers
import pytest
import torch
from peft.tuners.lora import LoraLayer

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.service.planning import make_plan
from tests.commands.test_fuse_families import require_sums
from tests.conversions import BUILDERS, build_wan, loaded_deltas, random_adapter, write
from tests.dialects import models
from tests.fused import fused
from tests.originals import build as build_original
from tests.outputs import weights


def qwen_image():
    """Build one of eleven blocks, so that one's number is the beginning of another's."""
    class_name, config = models.TRANSFORMERS["qwen_image"]
    return {"transformer": getattr(diffusers, class_name)(**config | {"num_layers": 11})}


def wan():
    first = build_wan().transformer
    return {"transformer": first, "transformer_2": copy.deepcopy(first)}


def save(folder, family):
    """Save the pipeline of a family; give its models by component."""
    if family in BUILDERS and family != "wan":
        pipeline = BUILDERS[family]()
        pipeline.save_pretrained(folder)
        return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    parts = {"qwen_image": qwen_image, "wan": wan}.get(family, lambda: models.components(family))()
    models.save(folder, family, parts)
    return parts


def adapter_for(parts):
    """Make random factors of scale 1 for every layer of these models."""
    adapter = random_adapter(SimpleNamespace(**parts), scale=1.0)
    second = SimpleNamespace(transformer=parts.get("transformer_2"))
    renamed = {("transformer_2", name): factors for (_, name), factors in random_adapter(second, scale=1.0).items()}
    return adapter | renamed


def peft_keys(adapter):
    """Write factors in diffusers' layout, which has no alpha: every scale is 1."""
    tensors = {}
    for (component, name), factors in adapter.items():
        tensors[f"{component}.{name}.lora_A.weight"] = factors.down
        tensors[f"{component}.{name}.lora_B.weight"] = factors.up
    return tensors


CASES = {
    "flux": (
        {
            "transformer": {
                "transformer_blocks": {"0": 0.5, "1": 0}, "single_transformer_blocks": [1.2, -1, 0.25],
                "x_embedder": 0.3, "other": 2,
            },
            "text_encoder": {"layers": {"0": 0}},
            "text_encoder_2": {"block": {"1": 0.5}, "other": 0},
        },
        {
            "transformer.transformer_blocks.0.": 0.5, "transformer.transformer_blocks.1.": 0,
            "transformer.single_transformer_blocks.0.": 1.2, "transformer.single_transformer_blocks.1.": -1,
            "transformer.single_transformer_blocks.2.": 0.25, "transformer.x_embedder": 0.3,
            "transformer.context_embedder": 2, "transformer.time_text_embed.": 2, "transformer.norm_out.": 2,
            "transformer.proj_out": 2, "text_encoder.encoder.layers.0.": 0, "text_encoder.encoder.layers.1.": 1,
            "text_encoder_2.encoder.block.0.": 1, "text_encoder_2.encoder.block.1.": 0.5,
        },
    ),
    "sd3": (
        {
            "transformer": {"transformer_blocks": {"0-1": 0.25}, "context_embedder": 0},
            "text_encoder": {"text_model.encoder.layers": [0, 2], "text_projection": 0.5},
            "text_encoder_2": 0, "text_encoder_3": {"encoder.block": {"0-1": 3}},
        },
        {
            "transformer.transformer_blocks.0.": 0.25, "transformer.transformer_blocks.1.": 0.25,
            "transformer.transformer_blocks.2.": 1, "transformer.context_embedder": 0, "transformer.": 1,
            "text_encoder.text_model.encoder.layers.0.": 0, "text_encoder.text_model.encoder.layers.1.": 2,
            "text_encoder.text_projection": 0.5, "text_encoder_2.": 0, "text_encoder_3.encoder.block.": 3,
        },
    ),
    "wan": (
        {"transformer": {"blocks": {"1": 0}, "condition_embedder": 0.5}, "transformer_2": {"blocks": 2, "other": 0}},
        {
            "transformer.blocks.0.": 1, "transformer.blocks.1.": 0, "transformer.condition_embedder.": 0.5,
            "transformer.patch_embedding": 1, "transformer.proj_out": 1, "transformer_2.blocks.": 2,
            "transformer_2.": 0,
        },
    ),
    "qwen_image": (
        {"transformer": {"transformer_blocks": {"1": 0, "2-9": 0.25, "10": 0.5}, "txt_in": 0}},
        {
            "transformer.transformer_blocks.0.": 1, "transformer.transformer_blocks.10.": 0.5,
            "transformer.transformer_blocks.1.": 0, "transformer.transformer_blocks.": 0.25,
            "transformer.txt_in": 0, "transformer.": 1,
        },
    ),
    "z_image": (
        {"transformer": {"noise_refiner": 0, "context_refiner": {"0": 0.5}, "layers": [0.25], "cap_embedder": 2}},
        {
            "transformer.noise_refiner.0.": 0, "transformer.context_refiner.0.": 0.5, "transformer.layers.0.": 0.25,
            "transformer.cap_embedder.": 2, "transformer.all_x_embedder.": 1, "transformer.all_final_layer.": 1,
            "transformer.t_embedder.": 1,
        },
    ),
    "sdxl": (
        {
            "unet": {"down": {"block_0-1": 0.5}, "up": {"block_1": [0.4, 0.8, 1.0]}, "time_embedding": 0, "other": 2},
            "text_encoder_2": {"layers": {"1": 0}},
        },
        {
            "unet.down_blocks.0.": 0.5, "unet.down_blocks.1.": 0.5, "unet.down_blocks.2.": 1, "unet.mid_block.": 1,
            "unet.up_blocks.1.attentions.0.": 0.4, "unet.up_blocks.1.resnets.0.": 0.4,
            "unet.up_blocks.1.attentions.1.": 0.8, "unet.up_blocks.1.resnets.1.": 0.8, "unet.up_blocks.": 1,
            "unet.time_embedding.": 0, "unet.conv_in": 2, "unet.conv_out": 2, "unet.add_embedding.": 2,
            "text_encoder.": 1, "text_encoder_2.text_model.encoder.layers.1.": 0, "text_encoder_2.": 1,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", CASES)
def test_every_weight_is_the_sum_it_should_be(lorakit, here, tmp_path, family):
    scales, by_beginning = CASES[family]
    adapter = adapter_for(save(tmp_path / "base", family))
    write(tmp_path / "a.safetensors", peft_keys(adapter))
    wanted = {}
    for (component, name), factors in adapter.items():
        whole = f"{component}.{name}"
        scale = next(scale for beginning, scale in by_beginning.items() if whole.startswith(beginning))
        if scale:
            wanted[component, name] = 0.75 * scale * factors.delta
    for beginning in by_beginning:
        assert any(f"{component}.{name}".startswith(beginning) for component, name in adapter), beginning
    spec = f"{tmp_path}/a.safetensors:0.75"
    said = f"a={json.dumps(scales)}"
    report = fused(lorakit, "--base", tmp_path / "base", "--lora", spec, "--block-scales", said, "--out", "out")
    assert sum(report["changed"].values()) == len(wanted)
    require_sums(here / "out", tmp_path / "base", wanted, torch.float32)


LBW = {"flux": "0,0.5,2,0.25,1,0,0.5,-1,3", "sdxl": "0.5,0,0.25,1,0,0,1,2,3,0.5,0,1"}


@pytest.mark.parametrize("text", [*CASES["flux"][:1], LBW["flux"], "te=0.5:unet=0.25:lbw=ALL0.5"], ids=str)
def test_what_is_recorded_makes_the_same_bits_is_proved_and_undone(lorakit, here, tmp_path, text):
    adapter = adapter_for(save(tmp_path / "base", "flux"))
    write(tmp_path / "a.safetensors", peft_keys(adapter))
    said = text if isinstance(text, str) else json.dumps(text)
    first = ("--base", tmp_path / "base", "--lora", f"{tmp_path}/a.safetensors:0.75", "--block-scales", f"a={said}")
    fused(lorakit, *first, "--out", "out")
    (made_with,) = json.loads((here / "out" / "lorakit.json").read_text())["adapters"]
    assert made_with["block_scales"] == text
    verified = lorakit("verify", "out", "--json")
    assert verified.exit_code == 0, verified.stderr
    assert json.loads(verified.stdout)["sound"]
    fused(lorakit, "--recipe", "out", "--out", "again")
    assert weights(here / "again") == weights(here / "out") != weights(tmp_path / "base")
    assert lorakit("unfuse", "out", "--out", "back").exit_code == 0
    assert weights(here / "back") == weights(tmp_path / "base")


def test_block_weights_of_flux_scale_what_they_name(lorakit, here, tmp_path):
    adapter = adapter_for(save(tmp_path / "base", "flux"))
    write(tmp_path / "a.safetensors", peft_keys(adapter))
    # CLIP, T5, IN, D00, D01, S00, S01, S02, OUT
    by_beginning = {
        "text_encoder.": 0, "text_encoder_2.": 0.5, "transformer.x_embedder": 2, "transformer.context_embedder": 2,
        "transformer.time_text_embed.": 2, "transformer.transformer_blocks.0.": 0.25,
        "transformer.transformer_blocks.1.": 1, "transformer.single_transformer_blocks.0.": 0,
        "transformer.single_transformer_blocks.1.": 0.5, "transformer.single_transformer_blocks.2.": -1,
        "transformer.norm_out.": 3, "transformer.proj_out": 3,
    }  # fmt: skip
    wanted = {}
    for (component, name), factors in adapter.items():
        whole = f"{component}.{name}"
        scale = next(scale for beginning, scale in by_beginning.items() if whole.startswith(beginning))
        wanted |= {(component, name): scale * factors.delta} if scale else {}
    spec, said = f"{tmp_path}/a.safetensors", f"a={LBW['flux']}"
    fused(lorakit, "--base", tmp_path / "base", "--lora", spec, "--block-scales", said, "--out", "out")
    require_sums(here / "out", tmp_path / "base", wanted, torch.float32)


GUIDE = [
    {"unet": {"down": 1, "mid": 0, "up": 0}},
    {"unet": {"down": 0, "mid": 1, "up": 0}},
    {"unet": {"down": 0, "mid": 0, "up": 1}},
    {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}},
]
ATTENTION = r"^unet\..*\.attentions\.|^text_encoder\..*self_attn"


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_guides_examples_are_what_diffusers_makes_of_them(lorakit, here, tmp_path, family):
    pipeline = build_original("sd1") if family == "sd1" else BUILDERS["sdxl"]()
    pipeline.save_pretrained(tmp_path / "base")
    adapter = random_adapter(pipeline, only=ATTENTION, scale=1.0)
    file = write(tmp_path / "a.safetensors", peft_keys(adapter))
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name="a")
    for number, scales in enumerate(GUIDE):
        pipeline.set_adapters("a", copy.deepcopy(scales))
        theirs = {
            (component, name): layer.scaling["a"]
            for component in ("unet", "text_encoder")
            for name, layer in getattr(pipeline, component).named_modules()
            if isinstance(layer, LoraLayer)
        }
        said = parse_block_scales([f"a={json.dumps(scales)}"])
        plan = make_plan(str(tmp_path / "base"), [AdapterSpec.parse(str(file))], block_scales=said).plan
        ours = {
            (target.component, target.tensor.removesuffix(".weight")): terms[0].strength
            for target, terms in plan.terms.items()
        }
        assert ours == pytest.approx(theirs, rel=1e-15)
        assert len(ours) == len(adapter) > 50
        assert (0 in ours.values()) == (number < 3)
    # The last of them, down to the weights.
    said = f"a={json.dumps(GUIDE[-1])}"
    fused(lorakit, "--base", tmp_path / "base", "--lora", file, "--block-scales", said, "--no-verify", "--out", "out")
    require_sums(here / "out", tmp_path / "base", loaded_deltas(pipeline), torch.float32)
