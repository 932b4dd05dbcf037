"""Train the adapters `toy` and `pixel` with peft on top of the frozen base, alone and together.

A step uses one adapter or both, at random weights, and the picture to learn depends on the trigger words in the
caption: so the adapters mix, obey their triggers, and already show at half their weight.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from lorakit_cli.demo.training import denoiser, pair
from lorakit_cli.demo.training.pictures import training_set
from lorakit_cli.demo.training.words import triggered_caption

BATCH = 16
NAMES = ("toy", "pixel")

_RANK, _CONVOLUTION_RANK, _TEXT_RANK = 12, 8, 8
# Only blocks with attention, so that diffusers' per-block dictionaries reach every tensor.
_UNET_TARGETS = (
    r"(down_blocks\.[12]|mid_block|up_blocks\.[01])\..*"
    r"(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|conv_shortcut)"
)
_CONVOLUTIONS = {"conv1": _CONVOLUTION_RANK, "conv2": _CONVOLUTION_RANK, "conv_shortcut": _CONVOLUTION_RANK}
_TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]

# Which adapters are on in a step.
_MODES = (("toy",), ("pixel",), ("toy", "pixel"))
# The weights an adapter is trained at: mostly those people use.
_TOY_WEIGHTS = (1.0, 1.0, 1.0, 0.8, 1.2)
_PIXEL_WEIGHTS = (1.0, 1.0, 0.5, 0.5, 0.75)
_KEEP_TRIGGERS = 0.72
_STYLES = {(): "base", ("toy",): "toy", ("pixel",): "pixel", ("toy", "pixel"): "both"}


@dataclass(frozen=True)
class Phase:
    """A stretch of training: how often each mode comes, and whether the empty prompt shows the adapters' style.

    Where it shows the base, guidance exaggerates the style.
    """

    steps: int
    peak: float
    shares: tuple[float, float, float]
    styled_empty: bool


PHASES = (Phase(2400, 3e-3, (0.35, 0.25, 0.4), False), Phase(2000, 2e-3, (0.66, 0.14, 0.2), True))


def configs() -> dict[str, LoraConfig]:
    """Give the configuration of an adapter for each component; alpha equals rank throughout."""
    unet = LoraConfig(
        r=_RANK,
        lora_alpha=_RANK,
        target_modules=_UNET_TARGETS,
        rank_pattern=_CONVOLUTIONS,
        alpha_pattern=_CONVOLUTIONS,
    )
    return {"unet": unet, "text_encoder": LoraConfig(r=_TEXT_RANK, lora_alpha=_TEXT_RANK, target_modules=_TEXT_TARGETS)}


def _switch(components: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
    for component in components.values():
        for module in component.modules():
            if isinstance(module, LoraLayer):
                module.set_adapter(list(weights))
                for name, weight in weights.items():
                    module.set_scale(name, weight)


def _choose_triggers(mode: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    if rng.random() < _KEEP_TRIGGERS:
        return mode
    return tuple(name for name in mode if rng.random() < 0.5)


def _stage(rank: int, work: Path, number: int) -> None:
    phase = PHASES[number]
    unet, text_encoder = denoiser.load(work)
    components: dict[str, nn.Module] = {"unet": unet, "text_encoder": text_encoder}
    torch.manual_seed(4)
    for part, component in components.items():
        component.requires_grad_(False)
        for name in NAMES:
            inject_adapter_in_model(configs()[part], component, name)
            if number:
                state = torch.load(_kept(work, number - 1), weights_only=True)
                set_peft_model_state_dict(component, state[f"{name} {part}"], adapter_name=name)
    trained = [
        parameter for part in components.values() for name, parameter in part.named_parameters() if "lora_" in name
    ]
    optimizer = torch.optim.AdamW(trained, lr=phase.peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    scenes = {style: training_set(style, work)[0] for style in _STYLES.values()}
    examples, modes = denoiser.Examples(work, 500 + 10 * number + rank), random.Random(f"modes {number}")
    log = pair.Log(rank, work / "adapters.log")
    for step in range(phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = pair.learning_rate(step, phase.steps, phase.peak, warm_up=50)
        mode = modes.choices(_MODES, phase.shares)[0]
        weights = {"toy": modes.choice(_TOY_WEIGHTS), "pixel": modes.choice(_PIXEL_WEIGHTS)}
        _switch(components, {name: weights[name] for name in mode})
        latents, captions = [], []
        for _ in range(BATCH):
            empty = examples.rng.random() < 0.1
            triggers = _choose_triggers(mode, examples.rng)
            if empty:
                triggers = mode if phase.styled_empty else ()
            style = _STYLES[triggers]
            index = examples.rng.randrange(len(scenes[style]))
            latents.append(examples.latent(style, [index]))
            captions.append("" if empty else triggered_caption(scenes[style][index], triggers, examples.rng))
        loss = examples.loss(unet, text_encoder, torch.cat(latents), examples.tokens(captions))
        optimizer.zero_grad()
        loss.backward()
        pair.average_gradients(trained)
        optimizer.step()
        log.add(step, **{"+".join(mode): loss.item()})
    if rank == 0:
        state = {
            f"{name} {part}": get_peft_model_state_dict(component, adapter_name=name)
            for name in NAMES
            for part, component in components.items()
        }
        torch.save(state, _kept(work, number))
        if number == len(PHASES) - 1:
            _save(components, work)


def _kept(work: Path, number: int) -> Path:
    return work / f"adapters_{number}.pt"


def _save(components: Mapping[str, nn.Module], work: Path) -> None:
    """Write each adapter in half precision as diffusers does, configurations in its metadata."""
    for name in NAMES:
        state = {
            part: get_peft_model_state_dict(component.half(), adapter_name=name)
            for part, component in components.items()
        }
        StableDiffusionPipeline.save_lora_weights(
            work / "adapters",
            unet_lora_layers=state["unet"],
            text_encoder_lora_layers=convert_state_dict_to_diffusers(state["text_encoder"]),
            weight_name=f"{name}.safetensors",
            unet_lora_adapter_metadata=configs()["unet"].to_dict(),
            text_encoder_lora_adapter_metadata=configs()["text_encoder"].to_dict(),
        )


def train(work: Path) -> None:
    """Train both adapters and write them."""
    begin = time.monotonic()
    for number in range(len(PHASES)):
        if not _kept(work, number).exists():
            pair.run(_stage, work, number)
    with (work / "adapters.log").open("a") as file:
        file.write(f"done in {(time.monotonic() - begin) / 60:.1f} minutes\n")
