"""Write tiny diffusers models as single-file checkpoints, and hold them against diffusers' own converters."""

import inspect
import re
from collections.abc import Mapping

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

Tensors = dict[str, torch.Tensor]
DENOISER = "model.diffusion_model."


def build_unet(width: int, layers: int = 2, levels: int = 4, xl: bool = False, channels: int = 4) -> nn.Module:
    """Build a UNet of Stable Diffusion's layout (the last level without attention) or SDXL's (the first without)."""
    plain = 0 if xl else levels - 1
    sorts = ["" if level == plain and levels > 1 else "CrossAttn" for level in range(levels)]
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + 8,
        "transformer_layers_per_block": list(range(1, levels + 1)),
        "use_linear_projection": True,
    }
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        block_out_channels=[8 * 2 ** min(level, 2) for level in range(levels)],
        layers_per_block=layers,
        down_block_types=[f"{sort}DownBlock2D" for sort in sorts],
        up_block_types=[f"{sort}UpBlock2D" for sort in reversed(sorts)],
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **(more if xl else {}),
    )


def build_text_encoder(width: int, layers: int = 2, projected: bool = False) -> nn.Module:
    """Build a CLIP text encoder, with a projection to its own width or without."""
    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=9,
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def build_flux(guided: bool = True, channels: int = 4) -> nn.Module:
    """Build a FLUX.1 transformer of two double and three single blocks, 8 wide."""
    torch.manual_seed(3)
    return FluxTransformer2DModel(
        in_channels=channels,
        out_channels=4,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=6,
        pooled_projection_dim=5,
        guidance_embeds=guided,
        axes_dims_rope=(2, 1, 1),
    )


def unet_tensors(unet: nn.Module) -> Tensors:
    """Write a UNet's tensors in the original names; diffusers' converter must give the UNet back."""
    layers = unet.config.layers_per_block
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    count_in, count_out = 1, 0
    for number, block in enumerate(unet.down_blocks):
        for layer in range(layers):
            names[f"down_blocks.{number}.resnets.{layer}"] = f"input_blocks.{count_in}.0"
            names[f"down_blocks.{number}.attentions.{layer}"] = f"input_blocks.{count_in}.1"
            count_in += 1
        if block.downsamplers:
            names[f"down_blocks.{number}.downsamplers.0.conv"] = f"input_blocks.{count_in}.0.op"
            count_in += 1
    for number, block in enumerate(unet.up_blocks):
        attentive = bool(getattr(block, "attentions", None))
        for layer in range(layers + 1):
            names[f"up_blocks.{number}.resnets.{layer}"] = f"output_blocks.{count_out}.0"
            names[f"up_blocks.{number}.attentions.{layer}"] = f"output_blocks.{count_out}.1"
            count_out += 1
        names[f"up_blocks.{number}.upsamplers.0.conv"] = f"output_blocks.{count_out - 1}.{1 + attentive}.conv"
    inside = (
        (".norm1.", ".in_layers.0."),
        (".conv1.", ".in_layers.2."),
        (".time_emb_proj.", ".emb_layers.1."),
        (".norm2.", ".out_layers.0."),
        (".conv2.", ".out_layers.3."),
        (".conv_shortcut.", ".skip_connection."),
    )
    tensors = {}
    for name, tensor in unet.state_dict().items():
        stem = next(stem for stem in sorted(names, key=len, reverse=True) if name.startswith(stem + "."))
        rest = name.removeprefix(stem)
        if ".resnets." in name:
            for ours, theirs in inside:
                rest = rest.replace(ours, theirs)
        tensors[names[stem] + rest] = tensor
    back = single_file_utils.convert_ldm_unet_checkpoint(prefixed(tensors, DENOISER), dict(unet.config))
    require_equal(back, unet.state_dict())
    return tensors


def open_clip_tensors(encoder: nn.Module, prefix: str) -> Tensors:
    """Write a text encoder's tensors as OpenCLIP keeps them, under a prefix; the converter must give it back."""
    tensors: Tensors = {}
    state = hugging_face_tensors(encoder)
    for name, tensor in state.items():
        if found := re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            projections = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            tensors[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(projections)
        elif not re.search(r"[qkv]_proj", name.replace("out_proj", "")):
            for ours, theirs in (
                ("text_model.encoder.layers.", "transformer.resblocks."),
                ("self_attn", "attn"),
                ("layer_norm", "ln_"),
                ("fc1", "c_fc"),
                ("fc2", "c_proj"),
                ("text_model.final_ln_", "ln_final"),
                ("text_model.final_layer_norm", "ln_final"),
                ("ln_finalnorm", "ln_final"),
                ("text_model.embeddings.token_embedding", "token_embedding"),
                ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
                ("text_projection.weight", "text_projection"),
            ):
                name = name.replace(ours, theirs)
            tensors[name] = tensor.T if name == "text_projection" else tensor
    tensors = prefixed(tensors, prefix)
    require_equal(single_file_utils.convert_open_clip_checkpoint(encoder, dict(tensors), prefix=prefix), state)
    return tensors


def hugging_face_tensors(encoder: nn.Module) -> Tensors:
    """Give a text encoder's tensors under the names published files have, which the live module may lack."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else "text_model." + name: tensor
        for name, tensor in encoder.state_dict().items()
    }


def flux_tensors(transformer: nn.Module) -> Tensors:
    """Write a FLUX.1 transformer's tensors in the original names; the converter must give it back."""
    left = dict(transformer.state_dict())
    tensors = {}
    take = left.pop
    for ours, theirs in (
        ("x_embedder", "img_in"),
        ("context_embedder", "txt_in"),
        ("time_text_embed.timestep_embedder", "time_in"),
        ("time_text_embed.text_embedder", "vector_in"),
        ("time_text_embed.guidance_embedder", "guidance_in"),
        ("proj_out", "final_layer.linear"),
    ):
        for name in [name for name in left if name.startswith(ours + ".")]:
            inner = name.removeprefix(ours).replace("linear_1", "in_layer").replace("linear_2", "out_layer")
            tensors[theirs + inner] = take(name)
    for kind in ("weight", "bias"):
        scale, shift = take(f"norm_out.linear.{kind}").chunk(2)
        tensors[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    for number in range(transformer.config.num_layers):
        ours, theirs = f"transformer_blocks.{number}", f"double_blocks.{number}"
        for side, parts, context in (("img", ("to_{}",), ""), ("txt", ("add_{}_proj",), "_context")):
            added = "added_" if context else ""
            tensors[f"{theirs}.{side}_attn.norm.query_norm.scale"] = take(f"{ours}.attn.norm_{added}q.weight")
            tensors[f"{theirs}.{side}_attn.norm.key_norm.scale"] = take(f"{ours}.attn.norm_{added}k.weight")
            for kind in ("weight", "bias"):
                stacked = [take(f"{ours}.attn.{parts[0].format(part)}.{kind}") for part in "qkv"]
                tensors[f"{theirs}.{side}_attn.qkv.{kind}"] = torch.cat(stacked)
                out = "to_add_out" if context else "to_out.0"
                tensors[f"{theirs}.{side}_attn.proj.{kind}"] = take(f"{ours}.attn.{out}.{kind}")
                tensors[f"{theirs}.{side}_mlp.0.{kind}"] = take(f"{ours}.ff{context}.net.0.proj.{kind}")
                tensors[f"{theirs}.{side}_mlp.2.{kind}"] = take(f"{ours}.ff{context}.net.2.{kind}")
                tensors[f"{theirs}.{side}_mod.lin.{kind}"] = take(f"{ours}.norm1{context}.linear.{kind}")
    for number in range(transformer.config.num_single_layers):
        ours, theirs = f"single_transformer_blocks.{number}", f"single_blocks.{number}"
        tensors[f"{theirs}.norm.query_norm.scale"] = take(f"{ours}.attn.norm_q.weight")
        tensors[f"{theirs}.norm.key_norm.scale"] = take(f"{ours}.attn.norm_k.weight")
        for kind in ("weight", "bias"):
            parts = [take(f"{ours}.{part}.{kind}") for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
            tensors[f"{theirs}.linear1.{kind}"] = torch.cat(parts)
            tensors[f"{theirs}.linear2.{kind}"] = take(f"{ours}.proj_out.{kind}")
            tensors[f"{theirs}.modulation.lin.{kind}"] = take(f"{ours}.norm.linear.{kind}")
    assert not left
    require_equal(_flux_converter(transformer)(dict(tensors)), transformer.state_dict())
    return tensors


def _flux_converter(transformer: nn.Module):
    """Give diffusers' converter with the published width, which stands fixed in it, replaced by this model's."""
    source = inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    assert source.count("inner_dim = 3072") == 1
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    names = {"torch": torch}
    exec(source.replace("inner_dim = 3072", f"inner_dim = {width}"), names)
    return names["convert_flux_transformer_checkpoint_to_diffusers"]


def prefixed(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def require_equal(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """Hold two sets of tensors against each other: the same names, and every value where there are values."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
        assert tensor.is_meta or torch.equal(ours[name], tensor), name
