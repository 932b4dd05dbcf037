"""Networks of LyCORIS and of peft around models, with random factors instead of trained ones."""

import copy

import toml
import torch
from lycoris.wrapper import create_lycoris
from peft import get_peft_model


def network(folder, model, classes, algorithms=None, **options):
    """Put a network around a model: all of its factors random, in single precision, as they are saved."""
    preset = {"target_module": classes, "unet_target_module": classes, "module_algo_map": algorithms or {}}
    (folder / "preset.toml").write_text(toml.dumps({**preset, "name_algo_map": {}, "enable_conv": True}))
    made = create_lycoris(model, 1.0, preset=str(folder / "preset.toml"), **options)
    made.apply_to()
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in made.named_parameters():
            near = "dora_scale" in name or "rescale" in name
            value.copy_(value * torch.randn_like(value).mul(0.3).exp() if near else torch.randn_like(value) * 0.2)
    return made.eval()


def randomise(model):
    """Move whatever is trained; what multiplies stays near where it starts."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.requires_grad or "ranknum" in name:
                continue
            near = any(part in name for part in ("magnitude", "ia3_l", "boft_s"))
            value.copy_(value * torch.randn_like(value).mul(0.3).exp() if near else torch.randn_like(value) * 0.3)


def adapted(model, config):
    made = get_peft_model(copy.deepcopy(model), copy.deepcopy(config))
    randomise(made)
    return made
