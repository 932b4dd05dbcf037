"""LyCORIS networks around the tiny models, each of its modules held against the same module with changed weights."""

import copy

import pytest
import torch
from torch import nn

from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import changes, plan_of, require_read_completely, write
from tests.dialects.trained import network

UNET = ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"]
BLOCKS = {
    "sd1 small": UNET,
    "flux": ["FluxTransformerBlock", "FluxSingleTransformerBlock"],
    "wan i2v": ["WanTransformerBlock"],
    "qwen_image": ["QwenImageTransformerBlock"],
    "lumina2": ["Lumina2TransformerBlock"],
    "ltx_video": ["LTXVideoTransformerBlock"],
}
ALGORITHMS = {
    "lora": {"algo": "lora", "linear_dim": 3, "linear_alpha": 2, "conv_dim": 2, "conv_alpha": 3},
    "lora, tucker": {"algo": "lora", "linear_dim": 2, "use_tucker": True},
    "lora, dora": {"algo": "lora", "linear_dim": 2, "dora_wd": True},
    "lora, dora of columns": {"algo": "lora", "linear_dim": 2, "dora_wd": True, "wd_on_output": False},
    "lora, rank-stabilised": {"algo": "lora", "linear_dim": 3, "linear_alpha": 2, "rs_lora": True},
    "loha": {"algo": "loha", "linear_dim": 2, "linear_alpha": 3},
    "loha, tucker": {"algo": "loha", "linear_dim": 2, "use_tucker": True},
    "loha, dora": {"algo": "loha", "linear_dim": 2, "linear_alpha": 3, "dora_wd": True},
    "lokr": {"algo": "lokr", "linear_dim": 1, "linear_alpha": 0.5, "factor": 2},
    "lokr, whole": {"algo": "lokr", "linear_dim": 10000, "linear_alpha": 1, "factor": 4},
    "lokr, both": {"algo": "lokr", "linear_dim": 1, "linear_alpha": 0.5, "decompose_both": True, "factor": 4},
    "lokr, dora": {"algo": "lokr", "linear_dim": 1, "linear_alpha": 0.5, "factor": 2, "dora_wd": True},
    "glora": {"algo": "glora", "linear_dim": 2, "linear_alpha": 3},
    "full": {"algo": "full"},
    "diag-oft": {"algo": "diag-oft", "linear_dim": 2},
    "diag-oft, constrained": {"algo": "diag-oft", "linear_dim": 2, "constraint": 0.01, "rescaled": True},
    "boft": {"algo": "boft", "linear_dim": 2},
    "ia3": {"algo": "ia3"},
    "norms": {"algo": "lora", "linear_dim": 2, "train_norm": True},
}  # fmt: skip
NETWORKS = [("sd1 small", algorithm) for algorithm in ALGORITHMS] + [
    *(("flux", algorithm) for algorithm in ("lokr", "loha, dora", "full", "diag-oft")),
    *((name, "lora") for name in ("wan i2v", "qwen_image", "lumina2", "ltx_video")),
]


def outputs(module, plain, change, dtype):
    """Give what a module puts out with its LyCORIS module around it, and what it does with changed parameters."""
    if isinstance(plain, nn.Linear):
        inputs = torch.randn(3, plain.in_features, dtype=dtype)
    elif isinstance(plain, nn.Conv2d):
        inputs = torch.randn(1, plain.in_channels, 5, 5, dtype=dtype)
    else:
        inputs = torch.randn(2, plain.weight.shape[0], 4, dtype=dtype)
        inputs = inputs if isinstance(plain, nn.GroupNorm) else inputs.transpose(1, 2)
    plain = copy.deepcopy(plain).to(dtype)
    with torch.no_grad():
        for name, value in change.items():
            getattr(plain, name).add_(value)
        return module(inputs), plain(inputs)


@pytest.mark.parametrize(("name", "algorithm"), NETWORKS)
def test_a_network_changes_every_module_as_its_trainer_runs_it(family, tmp_path, name, algorithm):
    folder, parts = family(name)
    component, *_ = parts
    model = copy.deepcopy(parts[component])
    made = network(tmp_path, model, BLOCKS[name], **ALGORITHMS[algorithm])
    file = open_adapter(write(tmp_path / "a.safetensors", made.state_dict()))
    require_read_completely(file)
    plan = plan_of(folder, file)
    assert plan.unmatched == ()
    found = changes(plan)
    # Rotations it reckons in single precision alone.
    dtype = torch.float32 if "oft" in algorithm else torch.float64
    model.to(dtype), made.to(dtype)
    modules = {id(module): path for path, module in model.named_modules()}
    assert len(made.loras) > 9
    for lora in made.loras:
        path = modules[id(lora.org_module[0])]
        own = {part: found.pop((component, f"{path}.{part}")) for part in ("weight", "bias")
               if (component, f"{path}.{part}") in found}  # fmt: skip
        theirs, ours = outputs(lora.org_module[0], parts[component].get_submodule(path), own, dtype)
        apart = float((theirs - ours).abs().max()) / float(theirs.abs().max())
        assert apart <= (1e-5 if dtype is torch.float32 else 1e-6), (path, type(lora).__name__)
    assert not found
