"""Train the autoencoder: 64x64 pixels to a 16x16 latent with four channels."""

import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from lorakit_cli.demo.training import pair
from lorakit_cli.demo.training.pictures import STYLES, to_tensor, training_set

STEPS = 2600
BATCH = 12
PEAK = 2e-3


def build() -> AutoencoderKL:
    """Build the autoencoder with weights that keep the variance of their input.

    The default initialisation shrinks the signal at every convolution while the biases stay, so that group
    norm sees little but bias and nothing is learnt.
    """
    torch.manual_seed(1)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
    )
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            torch.nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                module.weight.data.mul_(0.2)
    vae.quant_conv.bias.data[4:] = -4.0
    return vae


def _edges(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.l1_loss(x.diff(dim=-1), y.diff(dim=-1)) + functional.l1_loss(x.diff(dim=-2), y.diff(dim=-2))


def _stage(rank: int, work: Path) -> None:
    vae = build()
    sets = [training_set(style, work)[1] for style in STYLES]
    rng = np.random.default_rng(100 + rank)
    torch.manual_seed(200 + rank)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    log = pair.Log(rank, work / "autoencoder.log")
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = pair.learning_rate(step, STEPS, PEAK)
        shares = rng.choice(len(sets), BATCH, p=(0.3, 0.35, 0.1, 0.25))
        x = to_tensor(np.stack([sets[k][rng.integers(len(sets[k]))] for k in shares]))
        with torch.autocast("cpu", torch.bfloat16):
            latent = vae.encode(x).latent_dist
            y = vae.decode(latent.sample()).sample.float()
        mean, logvar = latent.mean.float(), latent.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = functional.l1_loss(y, x) + 2 * functional.mse_loss(y, x) + 0.5 * _edges(y, x) + 5e-4 * divergence
        optimizer.zero_grad()
        loss.backward()
        pair.average_gradients(vae.parameters())
        optimizer.step()
        log.add(step, loss=loss.item(), mse=functional.mse_loss(y, x).item())
    if rank == 0:
        torch.save(vae.state_dict(), work / "autoencoder.pt")


def load(work: Path) -> AutoencoderKL:
    """Load the trained autoencoder, its scaling factor set."""
    vae = build()
    vae.load_state_dict(torch.load(work / "autoencoder.pt", weights_only=True))
    scale = work / "scaling_factor.txt"
    if scale.exists():
        vae.register_to_config(scaling_factor=float(scale.read_text()))
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode_sets(work: Path) -> None:
    """Encode every training picture, write means and deviations, and set the scaling factor to unit variance."""
    vae = load(work)
    latents: dict[str, torch.Tensor] = {}
    for style in STYLES:
        pictures = training_set(style, work)[1]
        parts = [vae.encode(to_tensor(pictures[k : k + 250])).latent_dist for k in range(0, len(pictures), 250)]
        latents[style] = torch.cat([torch.stack((p.mean, p.std), 1) for p in parts])
        error = functional.mse_loss(vae.decode(parts[0].mean).sample, to_tensor(pictures[:250])) / 4
        with (work / "autoencoder.log").open("a") as file:
            file.write(f"PSNR {style} {-10 * error.log10().item():.1f} dB\n")
    factor = 1 / latents["base"][:, 0].std().item()
    (work / "scaling_factor.txt").write_text(f"{factor:.4f}")
    torch.save({name: (value * factor).half() for name, value in latents.items()}, work / "latents.pt")


def train(work: Path) -> None:
    """Train the autoencoder and encode the training pictures; skips what `work` already holds."""
    begin = time.monotonic()
    for style in STYLES:
        training_set(style, work)
    if not (work / "autoencoder.pt").exists():
        pair.run(_stage, work)
    if not (work / "latents.pt").exists():
        encode_sets(work)
    with (work / "autoencoder.log").open("a") as file:
        file.write(f"done in {(time.monotonic() - begin) / 60:.1f} minutes\n")
