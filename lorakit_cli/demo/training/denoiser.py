"""Train the denoising UNet together with its text encoder, from scratch, on the plain pictures."""

import copy
import random
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from lorakit_cli.demo.training import pair
from lorakit_cli.demo.training.pictures import training_set
from lorakit_cli.demo.training.tokens import build_tokenizer
from lorakit_cli.demo.training.words import base_caption

STEPS = 3200
BATCH = 32
PEAK = 1e-3
EMA = 0.999
KEEP_EVERY = 250

NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
}


def build() -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Build the untrained UNet and text encoder; blocks are laid out as in SDXL, two layers each."""
    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 64, 80),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=96,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            projection_dim=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return unet, text_encoder


class Examples:
    """Draw random batches of latents, captions and noise."""

    def __init__(self, work: Path, seed: int) -> None:
        self.latents = torch.load(work / "latents.pt", weights_only=True, mmap=True)
        self.rng, self.noise = random.Random(seed), torch.Generator().manual_seed(seed)
        self.tokenizer = build_tokenizer()
        scheduler = DDPMScheduler(**NOISE_SCHEDULE)
        self.signal, self.sigma = scheduler.alphas_cumprod.sqrt(), (1 - scheduler.alphas_cumprod).sqrt()

    def latent(self, style: str, indices: list[int]) -> torch.Tensor:
        """Sample latents `[count, 4, 16, 16]` of the pictures at these places of a style's training set."""
        mean, std = self.latents[style][indices].float().unbind(1)
        return mean + std * torch.randn(mean.shape, generator=self.noise)

    def tokens(self, captions: list[str]) -> torch.Tensor:
        """Tokenise captions to `[count, 77]`."""
        return self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids

    def loss(
        self, unet: torch.nn.Module, text_encoder: torch.nn.Module, clean: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Give the plain v-prediction loss (Salimans and Ho, 2022) at uniform random times."""
        times = torch.randint(0, len(self.signal), (len(clean),), generator=self.noise)
        noise = torch.randn(clean.shape, generator=self.noise)
        signal, sigma = (table[times].view(-1, 1, 1, 1) for table in (self.signal, self.sigma))
        context = text_encoder(tokens).last_hidden_state
        predicted = unet(signal * clean + sigma * noise, times, context).sample
        return functional.mse_loss(predicted, signal * noise - sigma * clean)


def _stage(rank: int, work: Path) -> None:
    unet, text_encoder = build()
    model = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    average = copy.deepcopy(model).requires_grad_(False)
    scenes, _ = training_set("base", work)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    log = pair.Log(rank, work / "denoiser.log")
    kept, first = work / "denoiser_state.pt", 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    examples = Examples(work, 300 + 2 * first + rank)
    for step in range(first, STEPS):
        for group in optimizer.param_groups:
            group["lr"] = pair.learning_rate(step, STEPS, PEAK, decay=0.5)
        indices = examples.rng.choices(range(len(scenes)), k=BATCH)
        tokens = examples.tokens([base_caption(scenes[k], examples.rng) for k in indices])
        loss = examples.loss(unet, text_encoder, examples.latent("base", indices), tokens)
        optimizer.zero_grad()
        loss.backward()
        pair.average_gradients(model.parameters())
        optimizer.step()
        share = min(EMA, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - share)
        log.add(step, loss=loss.item())
        if rank == 0 and ((step + 1) % KEEP_EVERY == 0 or step + 1 == STEPS):
            state = {"model": model.state_dict(), "average": average.state_dict(), "step": step + 1}
            torch.save(state | {"optimizer": optimizer.state_dict()}, work / "denoiser_state.tmp")
            (work / "denoiser_state.tmp").replace(kept)


def load(work: Path) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Load the averaged weights."""
    unet, text_encoder = build()
    model = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    model.load_state_dict(torch.load(work / "denoiser_state.pt", weights_only=True)["average"])
    return unet.eval(), text_encoder.eval()


def train(work: Path) -> None:
    """Train until `STEPS`, going on from the last kept state where there is one."""
    begin = time.monotonic()
    pair.run(_stage, work)
    with (work / "denoiser.log").open("a") as file:
        file.write(f"done in {(time.monotonic() - begin) / 60:.1f} minutes\n")
