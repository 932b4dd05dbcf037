"""The layouts of single-file checkpoints, and how to recognise the files that are mistaken for one.

The prefixes are those of the original code, of Stability's sgm and of ComfyUI, whose diffusion models also come
without any.
"""

import re

from lorakit_cli.architectures import clip_checkpoint as text
from lorakit_cli.architectures import flux_checkpoint, unet_checkpoint
from lorakit_cli.architectures.flux import native as flux_native
from lorakit_cli.architectures.unet import native as unet_native
from lorakit_cli.core.checkpoint_layout import CheckpointLayout, Section, Stranger

_DENOISER = ("model.diffusion_model.", "diffusion_model.", "")
_LAST_NORM = re.compile(r"(text_model\.)?final_layer_norm\.weight")
_OPEN_CLIP = re.compile(r"ln_final\.weight")
# Positions are counted, the logit scale belongs to training, and only a model with projection has one.
_NOT_IN_CLIP = re.compile(r"(text_model\.)?embeddings\.position_ids|logit_scale|text_projection(\.weight)?")
_NOT_IN_OPEN_CLIP = re.compile(r"attn_mask|logit_scale")
# SD2 reads the features before the last of 24 blocks, and diffusers leaves that one out.
_NOT_IN_SD2 = re.compile(r"attn_mask|logit_scale|text_projection(\.weight)?|transformer\.resblocks\.23\..+")

UNET = CheckpointLayout(
    Section(
        "unet",
        "UNet2DConditionModel",
        _DENOISER,
        # A ControlNet has the first half of a UNet only.
        re.compile(r"output_blocks\.0\.0\.in_layers\.0\.weight"),
        unet_checkpoint.modules,
        unet_native,
        optional=unet_checkpoint.OPTIONAL,
        config=unet_checkpoint.config,
    ),
    (
        Section(
            "text_encoder",
            "CLIPTextModel",
            ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."),
            _LAST_NORM,
            text.clip,
            text.clip_native,
            needless=_NOT_IN_CLIP,
        ),
        Section(
            "text_encoder",
            "CLIPTextModel",
            ("cond_stage_model.model.",),
            _OPEN_CLIP,
            text.open_clip,
            text.open_clip_native,
            needless=_NOT_IN_SD2,
            endings=text.OPEN_CLIP_ENDINGS,
        ),
        Section(
            "text_encoder_2",
            "CLIPTextModelWithProjection",
            ("conditioner.embedders.1.model.", "conditioner.embedders.0.model."),
            _OPEN_CLIP,
            text.open_clip,
            text.open_clip_native,
            needless=_NOT_IN_OPEN_CLIP,
            endings=text.OPEN_CLIP_ENDINGS,
            transposed=text.OPEN_CLIP_TRANSPOSED,
        ),
    ),
    unet_checkpoint.pipeline,
)

FLUX = CheckpointLayout(
    Section(
        "transformer",
        "FluxTransformer2DModel",
        _DENOISER,
        # Its relatives share the blocks but modulate them otherwise.
        re.compile(r"double_blocks\.0\.img_mod\.lin\.weight"),
        flux_checkpoint.modules,
        flux_native,
        optional=flux_checkpoint.OPTIONAL,
        endings={"weight": (".weight", ".scale"), "bias": (".bias",)},
        config=flux_checkpoint.config,
    ),
    (
        Section(
            "text_encoder",
            "CLIPTextModel",
            ("text_encoders.clip_l.transformer.",),
            _LAST_NORM,
            text.clip,
            text.clip_native,
            needless=_NOT_IN_CLIP,
        ),
        Section(
            "text_encoder_2",
            "T5EncoderModel",
            ("text_encoders.t5xxl.transformer.",),
            re.compile(r"encoder\.final_layer_norm\.weight"),
            text.same,
            text.same_native,
        ),
    ),
    flux_checkpoint.pipeline,
)

LAYOUTS = (UNET, FLUX)

# From the special to the general: the first whose mark is found says what a file is.
STRANGERS = tuple(
    Stranger(re.compile(mark), what)
    for mark, what in (
        (
            r"(^|[._])(scale_weight|weight_scale(_2)?|scale_input|input_scale|scaled_fp8|comfy_quant)$"
            r"|\.(absmax|quant_map|quant_state(\..+)?|qweight|qzeros)$",
            "is quantized with scales of its own, to which nothing can be added; take the file in 16 bit",
        ),
        (r"^control_model\.|input_hint_block\.|controlnet|^zero_convs\.", "is a ControlNet, not a base"),
        (r"^(string_to_param|emb_params|clip_l|clip_g)$", "is a textual inversion, not a base"),
        (r"motion_modules\.", "is a motion module, not a base"),
        (
            r"^(down_blocks|up_blocks|mid_block|(single_)?transformer_blocks)\.",
            "is one component of a diffusers pipeline; give the pipeline's folder, with its model_index.json",
        ),
        (
            r"^(model\.diffusion_model\.)?(joint_blocks|blocks|layers|double_stream_modulation_img"
            r"|distilled_guidance_layer|double_blocks)\.|^model\.diffusion_model\.transformer_blocks\.",
            "is a model of a family whose single files lorakit does not read; take its diffusers folder",
        ),
        (
            r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|mid|down|up|down_blocks|up_blocks)\.",
            "is a VAE alone; a base has a UNet or transformer too",
        ),
        (
            r"(^|\.)(text_model\.encoder|encoder\.layers|encoder\.block|resblocks)\.\d",
            "is a text encoder alone; a base has a UNet or transformer too",
        ),
    )
)
