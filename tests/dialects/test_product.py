"""Fused in memory by the program, a pipeline draws what the trainer's own network draws."""

import copy

import pytest
import torch
from peft import LoHaConfig, LoraConfig, OFTConfig

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.pipeline import open_pipeline
from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import plan_of, write
from tests.dialects.trained import adapted, network

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]
CPU = torch.device("cpu")


def inputs():
    torch.manual_seed(9)
    return torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 5, 32)


@torch.no_grad()
def compare(pipeline, file, base, wrapped):
    """Hold the fused UNet's output against that of the UNet with the network around it, neither being the base's."""
    plan = plan_of(base, file)
    assert plan.unmatched == ()
    before = pipeline.unet(*inputs()).sample
    fused = FusedWeights(pipeline, plan.base)
    fused.apply(plan)
    ours, theirs = pipeline.unet(*inputs()).sample, wrapped(*inputs()).sample
    assert float((theirs - before).abs().max()) > 0.1 * float(before.abs().max())
    assert float((theirs - ours).abs().max()) < 1e-4 * float(theirs.abs().max())
    fused.restore()
    assert torch.equal(pipeline.unet(*inputs()).sample, before)


@pytest.fixture
def pipeline(base):
    return open_pipeline(read_base_index(base, architectures=ARCHITECTURES), CPU, torch.float32)


def test_a_lycoris_network_of_mixed_algorithms(base, pipeline, tmp_path):
    wrapped = copy.deepcopy(pipeline.unet)
    made = network(
        tmp_path,
        wrapped,
        ["Transformer2DModel", "ResnetBlock2D", "Downsample2D"],
        linear_dim=2,
        linear_alpha=1,
        train_norm=True,
        algorithms={
            "Attention": {"algo": "lokr", "dim": 1, "factor": 2},
            "FeedForward": {"algo": "loha"},
            "ResnetBlock2D": {"algo": "full"},
        },
    )
    file = open_adapter(write(tmp_path / "a.safetensors", made.state_dict()))
    assert {"lokr", "loha", "full", "norm", "norm-bias", "lora"} <= set(file.kinds)
    compare(pipeline, file, base, wrapped)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=TARGETS),
        LoHaConfig(r=4, alpha=2, target_modules=TARGETS),
        OFTConfig(r=0, oft_block_size=4, target_modules=TARGETS[:8]),
        OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=False, target_modules=TARGETS[:8]),
    ],
    ids=lambda config: f"{config.peft_type}",
)
def test_a_peft_network(base, pipeline, tmp_path, config):
    made = adapted(pipeline.unet, config).eval()
    made.save_pretrained(tmp_path / "saved")
    compare(pipeline, open_adapter(tmp_path / "saved" / "adapter_model.safetensors"), base, made)
