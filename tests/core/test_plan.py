import json

import pytest
import torch
from safetensors.torch import load_file

from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.plan import PlannedAdapter, Target, build_plan
from lorakit_cli.errors import BaseModelError, NothingMatchedError, UnmatchedLayersError, WrongBaseError
from lorakit_cli.service.reading import open_adapter
from tests.tiny import build_pipeline, rewrite, save_adapter


@pytest.fixture
def index(base):
    return read_base_index(base)


def plan_of(index, path, weight=1.0, scale=1.0, scales=None):
    return build_plan(index, [PlannedAdapter("ink", open_adapter(path), weight, scales)], scale)


def test_the_index_knows_what_the_files_hold(base):
    index = read_base_index(base)
    assert index.class_name == "StableDiffusionPipeline"
    assert set(index.components) == {"unet", "text_encoder", "vae"}
    for name, component in index.components.items():
        (file,) = (base / name).glob("*.safetensors")
        tensors = load_file(file)
        assert {key: t.info.shape for key, t in component.tensors.items()} == {
            key: tuple(value.shape) for key, value in tensors.items()
        }


def test_every_layer_finds_its_tensor(index, adapters):
    plan = plan_of(index, adapters / "ink.safetensors", 0.5, 0.5)
    assert plan.unmatched == ()
    assert plan.matched("ink") == {"text_encoder": 8, "unet": 180}
    terms = plan.terms[Target("unet", "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight")]
    assert [(term.layer.stem, term.strength) for term in terms] == [
        ("unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 0.25)
    ]


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoders_go_by_both_names(index, adapters, tmp_path, prefix):
    def rename(tensors):
        return {key.replace("text_encoder.", f"text_encoder.{prefix}"): value for key, value in tensors.items()}

    path = rewrite(adapters / "ink.safetensors", tmp_path / "renamed.safetensors", rename)
    assert plan_of(index, path).matched("ink") == {"text_encoder": 8, "unet": 180}


def test_older_text_encoder_files(base, adapters, tmp_path):
    import shutil

    from safetensors.torch import save_file

    old = tmp_path / "old"
    shutil.copytree(base, old)
    file = old / "text_encoder" / "model.safetensors"
    save_file({f"text_model.{key}": value for key, value in load_file(file).items()}, file, {"format": "pt"})
    plan = plan_of(read_base_index(old), adapters / "ink.safetensors")
    assert plan.matched("ink") == {"text_encoder": 8, "unet": 180}


def test_what_does_not_match_is_named_with_reason_and_neighbour(index, adapters, tmp_path):
    def damage(tensors):
        tensors = {
            k.replace("mid_block.attentions.0.proj_in", "mid_block.attentions.0.proj_on"): v for k, v in tensors.items()
        }
        wide = "unet.down_blocks.1.resnets.0.conv1.lora_A.weight"
        tensors[wide] = torch.ones(4, 99, 3, 3)
        tensors["text_encoder_2.x.lora_A.weight"] = torch.ones(1, 1)
        tensors["text_encoder_2.x.lora_B.weight"] = torch.ones(1, 1)
        return tensors | {"odd": torch.ones(1)}

    path = rewrite(adapters / "ink.safetensors", tmp_path / "damaged.safetensors", damage)
    plan = plan_of(index, path)
    assert {(part.stem, part.reason, part.nearest) for part in plan.unmatched} == {
        (
            "unet.down_blocks.1.resnets.0.conv1",
            "wrong shape: the layer changes [16, 99, 3, 3], the base has [16, 8, 3, 3]",
            None,
        ),
        ("unet.mid_block.attentions.0.proj_on", "no such module in the base", "unet.mid_block.attentions.0.proj_in"),
        ("text_encoder_2.x", "the base has no text_encoder_2", None),
        ("odd", "not a known part of an adapter", None),
    }
    with pytest.raises(UnmatchedLayersError, match="4 layers or keys do not fit the base, first"):
        plan.require_all_matched()


def test_an_adapter_of_another_family_is_refused_though_some_layers_would_fit(index, tmp_path):
    path = save_adapter(tmp_path / "other.safetensors", seed=1, width=96, text=False)
    with pytest.raises(WrongBaseError) as caught:
        plan_of(index, path)
    assert str(caught.value) == (
        "adapter ink does not fit tiny-base: this adapter is for lorakit demo (attn2 input 96); "
        "the base is another UNet (32); try another --base"
    )


def test_nothing_matched(index, adapters, tmp_path):
    def move(tensors):
        return {key.replace("unet.", "transformer.transformer_blocks.0."): value for key, value in tensors.items()}

    path = rewrite(adapters / "wash.safetensors", tmp_path / "moved.safetensors", move)
    with pytest.raises(NothingMatchedError) as caught:
        plan_of(index, path)
    assert str(caught.value).startswith(
        "adapter ink does not fit tiny-base: this adapter is for a diffusion transformer; the base is another UNet; "
        "nothing matches (transformer.transformer_blocks.0."
    )


def test_strength_is_weight_times_block_scale_times_scale(index, adapters):
    scales = parse_block_scales(['ink={"unet": {"down": 0.5, "mid": 0}}'])["ink"]
    plan = plan_of(index, adapters / "ink.safetensors", -2.0, 3.0, scales)
    strengths = {target: terms[0].strength for target, terms in plan.terms.items()}
    assert strengths[Target("unet", "down_blocks.0.resnets.0.conv1.weight")] == -3.0
    assert strengths[Target("unet", "up_blocks.0.resnets.0.conv1.weight")] == -6.0
    assert strengths[Target("unet", "mid_block.resnets.0.conv1.weight")] == 0.0
    changed = {target for target, _ in plan.changes()}
    assert not any(target.tensor.startswith("mid_block") for target in changed)
    assert len(changed) == sum(strength != 0 for strength in strengths.values())


def test_variants_and_shards(tmp_path, adapters):
    build_pipeline().save_pretrained(tmp_path / "sharded", variant="fp16", max_shard_size="100KB")
    index = read_base_index(tmp_path / "sharded")
    assert index.variant == "fp16"
    assert len({tensor.file for tensor in index.components["unet"].tensors.values()}) > 1
    assert plan_of(index, adapters / "ink.safetensors").unmatched == ()
    shard = next((tmp_path / "sharded" / "unet").glob("*-00002-of-*.safetensors"))
    shard.unlink()
    with pytest.raises(BaseModelError, match=f"incomplete: {shard.name} is missing"):
        read_base_index(tmp_path / "sharded")


def test_no_base(tmp_path):
    with pytest.raises(BaseModelError, match=r"has no model_index\.json"):
        read_base_index(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(BaseModelError, match=r"model_index\.json cannot be read"):
        read_base_index(tmp_path)
    index = {"unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match="names no pipeline class"):
        read_base_index(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(BaseModelError, match="is incomplete: its unet is missing"):
        read_base_index(tmp_path)
    (tmp_path / "unet").mkdir()
    with pytest.raises(BaseModelError, match="holds no safetensors weights"):
        read_base_index(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(BaseModelError, match=r"diffusion_pytorch_model\.bin is a pickle, and only safetensors"):
        read_base_index(tmp_path)
    for weight_map in ([], {"a": 3}, {"a": "../other.safetensors"}):
        text = json.dumps({"weight_map": weight_map})
        (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
        with pytest.raises(BaseModelError, match="weight_map does not map tensors to files beside it"):
            read_base_index(tmp_path)
    (tmp_path / "model_index.json").write_text("[" * 100_000)
    with pytest.raises(BaseModelError, match=r"model_index\.json cannot be read"):
        read_base_index(tmp_path)


def test_one_tensor_under_two_names_is_changed_once(index, adapters, tmp_path):
    def double(tensors):
        return tensors | {k.replace("text_encoder.", "text_encoder.text_model."): v for k, v in tensors.items()}

    plan = plan_of(index, rewrite(adapters / "ink.safetensors", tmp_path / "double.safetensors", double))
    assert all(len(terms) == 1 for terms in plan.terms.values())
    assert len(plan.unmatched) == 8
    assert all("changes the same tensor as text_encoder.encoder.layers" in part.reason for part in plan.unmatched)
