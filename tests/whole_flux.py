"""A tiny FLUX pipeline that draws: with tokenizers that know a few words, and an autoencoder."""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

from lorakit_cli.demo.training.tokens import build_tokenizer


def build_whole_flux(double: int = 1, single: int = 1) -> FluxPipeline:
    """Build a pipeline of random values with these numbers of double and single blocks."""
    torch.manual_seed(3)
    tokenizer, words = build_tokenizer(), [(f"▁{word}", -1.0) for word in ("a", "red", "heart", "blue")]
    letters = [(letter, -2.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,"]
    sentences = T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *words, *letters], model_max_length=512
    )
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=8, bos_token_id=len(tokenizer) - 2, eos_token_id=len(tokenizer) - 1,
    )  # fmt: skip
    t5 = T5Config(vocab_size=len(sentences), d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL(block_out_channels=(4,), norm_num_groups=4, latent_channels=1, shift_factor=0),
        text_encoder=CLIPTextModel(clip),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=sentences,
        transformer=FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=double, num_single_layers=single, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=12, pooled_projection_dim=8, axes_dims_rope=[4, 4, 8],
        ),
    )  # fmt: skip
