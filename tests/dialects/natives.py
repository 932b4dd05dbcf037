"""What modules of the tiny models are called in the code they were published with, and whose rows they stack.

Written out by hand from those codes; a name followed by ~ has its halves the other way round in diffusers.
"""

from torch import nn

from tests.checkpoints import unet_tensors

_FLUX = """
img_in = x_embedder
txt_in = context_embedder
time_in.in_layer = time_text_embed.timestep_embedder.linear_1
time_in.out_layer = time_text_embed.timestep_embedder.linear_2
vector_in.in_layer = time_text_embed.text_embedder.linear_1
vector_in.out_layer = time_text_embed.text_embedder.linear_2
guidance_in.in_layer = time_text_embed.guidance_embedder.linear_1
guidance_in.out_layer = time_text_embed.guidance_embedder.linear_2
double_blocks.[01].img_mod.lin = transformer_blocks.#.norm1.linear
double_blocks.[01].txt_mod.lin = transformer_blocks.#.norm1_context.linear
double_blocks.[01].img_attn.qkv = transformer_blocks.#.attn.to_q transformer_blocks.#.attn.to_k transformer_blocks.#.attn.to_v
double_blocks.[01].txt_attn.qkv = transformer_blocks.#.attn.add_q_proj transformer_blocks.#.attn.add_k_proj transformer_blocks.#.attn.add_v_proj
double_blocks.[01].img_attn.proj = transformer_blocks.#.attn.to_out.0
double_blocks.[01].txt_attn.proj = transformer_blocks.#.attn.to_add_out
double_blocks.[01].img_mlp.0 = transformer_blocks.#.ff.net.0.proj
double_blocks.[01].img_mlp.2 = transformer_blocks.#.ff.net.2
double_blocks.[01].txt_mlp.0 = transformer_blocks.#.ff_context.net.0.proj
double_blocks.[01].txt_mlp.2 = transformer_blocks.#.ff_context.net.2
single_blocks.0.linear1 = single_transformer_blocks.0.attn.to_q single_transformer_blocks.0.attn.to_k single_transformer_blocks.0.attn.to_v single_transformer_blocks.0.proj_mlp
single_blocks.0.linear2 = single_transformer_blocks.0.proj_out
single_blocks.0.modulation.lin = single_transformer_blocks.0.norm.linear
final_layer.linear = proj_out
final_layer.adaLN_modulation.1 = norm_out.linear ~
"""  # noqa: E501
_SD3 = """
x_embedder.proj = pos_embed.proj
context_embedder = context_embedder
t_embedder.mlp.0 = time_text_embed.timestep_embedder.linear_1
t_embedder.mlp.2 = time_text_embed.timestep_embedder.linear_2
y_embedder.mlp.0 = time_text_embed.text_embedder.linear_1
y_embedder.mlp.2 = time_text_embed.text_embedder.linear_2
joint_blocks.[01].x_block.attn.qkv = transformer_blocks.#.attn.to_q transformer_blocks.#.attn.to_k transformer_blocks.#.attn.to_v
joint_blocks.[01].x_block.attn.proj = transformer_blocks.#.attn.to_out.0
joint_blocks.[01].x_block.mlp.fc1 = transformer_blocks.#.ff.net.0.proj
joint_blocks.[01].x_block.mlp.fc2 = transformer_blocks.#.ff.net.2
joint_blocks.[01].x_block.adaLN_modulation.1 = transformer_blocks.#.norm1.linear
joint_blocks.[01].context_block.attn.qkv = transformer_blocks.#.attn.add_q_proj transformer_blocks.#.attn.add_k_proj transformer_blocks.#.attn.add_v_proj
joint_blocks.0.x_block.attn2.qkv = transformer_blocks.0.attn2.to_q transformer_blocks.0.attn2.to_k transformer_blocks.0.attn2.to_v
joint_blocks.0.x_block.attn2.proj = transformer_blocks.0.attn2.to_out.0
joint_blocks.0.context_block.attn.proj = transformer_blocks.0.attn.to_add_out
joint_blocks.0.context_block.mlp.fc1 = transformer_blocks.0.ff_context.net.0.proj
joint_blocks.0.context_block.mlp.fc2 = transformer_blocks.0.ff_context.net.2
joint_blocks.0.context_block.adaLN_modulation.1 = transformer_blocks.0.norm1_context.linear
joint_blocks.1.context_block.adaLN_modulation.1 = transformer_blocks.1.norm1_context.linear ~
final_layer.linear = proj_out
final_layer.adaLN_modulation.1 = norm_out.linear ~
"""  # noqa: E501
_WAN = """
patch_embedding = patch_embedding
text_embedding.0 = condition_embedder.text_embedder.linear_1
text_embedding.2 = condition_embedder.text_embedder.linear_2
time_embedding.0 = condition_embedder.time_embedder.linear_1
time_embedding.2 = condition_embedder.time_embedder.linear_2
time_projection.1 = condition_embedder.time_proj
blocks.0.self_attn.q = blocks.0.attn1.to_q
blocks.0.self_attn.k = blocks.0.attn1.to_k
blocks.0.self_attn.v = blocks.0.attn1.to_v
blocks.0.self_attn.o = blocks.0.attn1.to_out.0
blocks.0.cross_attn.q = blocks.0.attn2.to_q
blocks.0.cross_attn.k = blocks.0.attn2.to_k
blocks.0.cross_attn.v = blocks.0.attn2.to_v
blocks.0.cross_attn.o = blocks.0.attn2.to_out.0
blocks.0.ffn.0 = blocks.0.ffn.net.0.proj
blocks.0.ffn.2 = blocks.0.ffn.net.2
head.head = proj_out
"""
_WAN_IMAGE = """
img_emb.proj.1 = condition_embedder.image_embedder.ff.net.0.proj
img_emb.proj.3 = condition_embedder.image_embedder.ff.net.2
blocks.0.cross_attn.k_img = blocks.0.attn2.add_k_proj
blocks.0.cross_attn.v_img = blocks.0.attn2.add_v_proj
"""
_Z_IMAGE = """
x_embedder = all_x_embedder.2-1
final_layer.linear = all_final_layer.2-1.linear
final_layer.adaLN_modulation.1 = all_final_layer.2-1.adaLN_modulation.1
cap_embedder.1 = cap_embedder.1
t_embedder.mlp.0 = t_embedder.mlp.0
t_embedder.mlp.2 = t_embedder.mlp.2
layers.0.adaLN_modulation.0 = layers.0.adaLN_modulation.0
noise_refiner.0.adaLN_modulation.0 = noise_refiner.0.adaLN_modulation.0
"""
_LUMINA2 = """
x_embedder = x_embedder
cap_embedder.1 = time_caption_embed.caption_embedder.1
t_embedder.mlp.0 = time_caption_embed.timestep_embedder.linear_1
t_embedder.mlp.2 = time_caption_embed.timestep_embedder.linear_2
final_layer.linear = norm_out.linear_2
final_layer.adaLN_modulation.1 = norm_out.linear_1
layers.0.adaLN_modulation.1 = layers.0.norm1.linear
noise_refiner.0.adaLN_modulation.1 = noise_refiner.0.norm1.linear
"""
for _stack in ("layers", "noise_refiner", "context_refiner"):
    _attention = f"{_stack}.0.attention"
    _Z_IMAGE += f"{_attention}.qkv = {_attention}.to_q {_attention}.to_k {_attention}.to_v\n"
    _Z_IMAGE += f"{_attention}.out = {_attention}.to_out.0\n"
    _diffusers = f"{_stack}.0.attn"
    _LUMINA2 += f"{_attention}.qkv = {_diffusers}.to_q {_diffusers}.to_k {_diffusers}.to_v\n"
    _LUMINA2 += f"{_attention}.out = {_diffusers}.to_out.0\n"
    for _number in "123":
        _Z_IMAGE += f"{_stack}.0.feed_forward.w{_number} = {_stack}.0.feed_forward.w{_number}\n"
        _LUMINA2 += f"{_stack}.0.feed_forward.w{_number} = {_stack}.0.feed_forward.linear_{_number}\n"
_HUNYUAN = """
img_in.proj = x_embedder.proj
txt_in.input_embedder = context_embedder.proj_in
txt_in.t_embedder.mlp.0 = context_embedder.time_text_embed.timestep_embedder.linear_1
txt_in.t_embedder.mlp.2 = context_embedder.time_text_embed.timestep_embedder.linear_2
txt_in.c_embedder.linear_1 = context_embedder.time_text_embed.text_embedder.linear_1
txt_in.c_embedder.linear_2 = context_embedder.time_text_embed.text_embedder.linear_2
txt_in.individual_token_refiner.blocks.0.self_attn_qkv = context_embedder.token_refiner.refiner_blocks.0.attn.to_q context_embedder.token_refiner.refiner_blocks.0.attn.to_k context_embedder.token_refiner.refiner_blocks.0.attn.to_v
txt_in.individual_token_refiner.blocks.0.self_attn_proj = context_embedder.token_refiner.refiner_blocks.0.attn.to_out.0
txt_in.individual_token_refiner.blocks.0.mlp.fc1 = context_embedder.token_refiner.refiner_blocks.0.ff.net.0.proj
txt_in.individual_token_refiner.blocks.0.mlp.fc2 = context_embedder.token_refiner.refiner_blocks.0.ff.net.2
txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1 = context_embedder.token_refiner.refiner_blocks.0.norm_out.linear
time_in.mlp.0 = time_text_embed.timestep_embedder.linear_1
time_in.mlp.2 = time_text_embed.timestep_embedder.linear_2
vector_in.in_layer = time_text_embed.text_embedder.linear_1
vector_in.out_layer = time_text_embed.text_embedder.linear_2
guidance_in.mlp.0 = time_text_embed.guidance_embedder.linear_1
guidance_in.mlp.2 = time_text_embed.guidance_embedder.linear_2
double_blocks.0.img_mod.linear = transformer_blocks.0.norm1.linear
double_blocks.0.txt_mod.linear = transformer_blocks.0.norm1_context.linear
double_blocks.0.img_attn_qkv = transformer_blocks.0.attn.to_q transformer_blocks.0.attn.to_k transformer_blocks.0.attn.to_v
double_blocks.0.txt_attn_qkv = transformer_blocks.0.attn.add_q_proj transformer_blocks.0.attn.add_k_proj transformer_blocks.0.attn.add_v_proj
double_blocks.0.img_attn_proj = transformer_blocks.0.attn.to_out.0
double_blocks.0.txt_attn_proj = transformer_blocks.0.attn.to_add_out
double_blocks.0.img_mlp.fc1 = transformer_blocks.0.ff.net.0.proj
double_blocks.0.img_mlp.fc2 = transformer_blocks.0.ff.net.2
double_blocks.0.txt_mlp.fc1 = transformer_blocks.0.ff_context.net.0.proj
double_blocks.0.txt_mlp.fc2 = transformer_blocks.0.ff_context.net.2
single_blocks.0.linear1 = single_transformer_blocks.0.attn.to_q single_transformer_blocks.0.attn.to_k single_transformer_blocks.0.attn.to_v single_transformer_blocks.0.proj_mlp
single_blocks.0.linear2 = single_transformer_blocks.0.proj_out
single_blocks.0.modulation.linear = single_transformer_blocks.0.norm.linear
final_layer.linear = proj_out
final_layer.adaLN_modulation.1 = norm_out.linear ~
"""  # noqa: E501
_FLUX2 = """
img_in = x_embedder
txt_in = context_embedder
time_in.in_layer = time_guidance_embed.timestep_embedder.linear_1
time_in.out_layer = time_guidance_embed.timestep_embedder.linear_2
guidance_in.in_layer = time_guidance_embed.guidance_embedder.linear_1
guidance_in.out_layer = time_guidance_embed.guidance_embedder.linear_2
double_stream_modulation_img.lin = double_stream_modulation_img.linear
double_stream_modulation_txt.lin = double_stream_modulation_txt.linear
single_stream_modulation.lin = single_stream_modulation.linear
double_blocks.0.img_attn.qkv = transformer_blocks.0.attn.to_q transformer_blocks.0.attn.to_k transformer_blocks.0.attn.to_v
double_blocks.0.txt_attn.qkv = transformer_blocks.0.attn.add_q_proj transformer_blocks.0.attn.add_k_proj transformer_blocks.0.attn.add_v_proj
double_blocks.0.img_attn.proj = transformer_blocks.0.attn.to_out.0
double_blocks.0.txt_attn.proj = transformer_blocks.0.attn.to_add_out
double_blocks.0.img_mlp.0 = transformer_blocks.0.ff.linear_in
double_blocks.0.img_mlp.2 = transformer_blocks.0.ff.linear_out
double_blocks.0.txt_mlp.0 = transformer_blocks.0.ff_context.linear_in
double_blocks.0.txt_mlp.2 = transformer_blocks.0.ff_context.linear_out
single_blocks.0.linear1 = single_transformer_blocks.0.attn.to_qkv_mlp_proj
single_blocks.0.linear2 = single_transformer_blocks.0.attn.to_out
final_layer.linear = proj_out
final_layer.adaLN_modulation.1 = norm_out.linear ~
"""  # noqa: E501
_LTX = """
patchify_proj = proj_in
adaln_single.emb.timestep_embedder.linear_1 = time_embed.emb.timestep_embedder.linear_1
adaln_single.emb.timestep_embedder.linear_2 = time_embed.emb.timestep_embedder.linear_2
adaln_single.linear = time_embed.linear
"""
_TABLES = {
    "flux": _FLUX, "sd3": _SD3, "wan": _WAN, "wan i2v": _WAN + _WAN_IMAGE, "z_image": _Z_IMAGE, "lumina2": _LUMINA2,
    "hunyuan_video": _HUNYUAN, "flux2": _FLUX2, "ltx_video": _LTX, "qwen_image": "",
}  # fmt: skip


def native_names(family: str, model: nn.Module) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Give for each original name the modules that it stacks and whether it is swapped; with no other name, its own."""
    if family in ("sd1", "sdxl"):
        return _unet_names(model)
    names: dict[str, tuple[tuple[str, ...], bool]] = {}
    for line in filter(None, _TABLES[family].splitlines()):
        text, _, meaning = line.partition(" = ")
        for number in "01" if "[01]" in text else "-":
            parts = tuple(meaning.replace("#", number).removesuffix(" ~").split())
            names[text.replace("[01]", number)] = (parts, meaning.endswith("~"))
    known = {part for parts, _ in names.values() for part in parts}
    weights = {name: value for name, value in model.state_dict().items() if name.endswith(".weight") and value.ndim > 1}
    own = [name.removesuffix(".weight") for name in weights]
    return names | {name: ((name,), False) for name in own if name not in known}


def _unet_names(model: nn.Module) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Read a UNet's original names off a checkpoint that diffusers' own converter takes back."""
    modules = {id(value): name.removesuffix(".weight") for name, value in model.named_parameters()}
    held = {value.data_ptr(): modules[id(value)] for value in model.parameters()}
    written = unet_tensors(model)
    return {
        name.removesuffix(".weight"): ((held[value.data_ptr()],), False)
        for name, value in written.items()
        if name.endswith(".weight") and value.ndim > 1
    }
