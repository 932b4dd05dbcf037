"""Adapters of several layouts for the tiny pipeline, and what a saved folder is held against."""

import json

import torch
from safetensors.torch import save_file

from tests.conversions import as_kohya, expected, random_adapter, write
from tests.tiny import build_pipeline

KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_"}


def kohya_adapter(path):
    """Write an adapter as sd-scripts does, with a rank and an alpha for each layer, and give its changes."""
    adapter = random_adapter(build_pipeline(), flat=True)
    write(path, as_kohya(adapter, KOHYA), {"ss_network_module": "networks.lora"})
    return expected(adapter)


def loha_adapter(path, stem="lora_unet_{}", ends="", alpha=True):
    """Write a LoHa of the self-attention, as LyCORIS does or, with other stems and ends, as peft does."""
    torch.manual_seed(3)
    tensors = {}
    for name, module in build_pipeline().unet.named_modules():
        if name.endswith(("attn1.to_q", "attn1.to_v")):
            rows, columns = module.weight.shape
            own = stem.format(name if "." in stem else name.replace(".", "_"))
            for part in ("hada_w1", "hada_w2"):
                tensors[f"{own}.{part}_a{ends}"] = torch.randn(rows, 2) * 0.3
                tensors[f"{own}.{part}_b{ends}"] = torch.randn(2, columns) * 0.3
            if alpha:
                tensors[f"{own}.alpha"] = torch.tensor(1.0)
    save_file(tensors, path)
    return path


def peft_loha(folder):
    """Write a LoHa in a folder of peft's, whose alpha stands in adapter_config.json alone."""
    folder.mkdir()
    loha_adapter(folder / "adapter_model.safetensors", "base_model.model.{}", alpha=False)
    settings = {"peft_type": "LOHA", "r": 2, "alpha": 5.0, "alpha_pattern": {"mid_block.*to_q": 3.0}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def files(folder):
    """Give all files of a folder by their names in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder):
    """Give the files of weights of a pipeline."""
    return {
        name: data for name, data in files(folder).items() if name.endswith(".safetensors") and "adapters/" not in name
    }
