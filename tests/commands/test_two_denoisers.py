"""A pipeline of two denoisers, as Wan 2.2 has them: which of them an adapter goes to is said."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.architectures.checkpoints import state_of
from tests.architectures.models import TINY
from tests.sparse import write_sparse


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    """Give a function that writes the headers of a Wan pipeline with these denoisers."""
    from diffusers import WanTransformer3DModel

    state = state_of(WanTransformer3DModel, **TINY, num_layers=1)
    tensors = {name: ("F16", tuple(tensor.shape)) for name, tensor in state.items()}

    def write(*components):
        folder = tmp_path_factory.mktemp("wan")
        index = {"_class_name": "WanPipeline", "transformer_2": [None, None]}
        for name in components:
            write_sparse(folder / name / "diffusion_pytorch_model.safetensors", tensors)
            index[name] = ["diffusers", "WanTransformer3DModel"]
        (folder / "model_index.json").write_text(json.dumps(index))
        return folder, tensors["blocks.0.attn1.to_q.weight"][1]

    return write


REMARK = (
    "the base has two denoisers, transformer and transformer_2; this adapter's keys name {}: applied to transformer"
)


@pytest.mark.parametrize(
    ("stems", "named"),
    [
        (["lora_unet_blocks_0_self_attn_q"], "neither"),
        (["diffusion_model.blocks.0.self_attn.q"], "neither"),
        (["transformer.blocks.0.attn1.to_q"], "only transformer"),
        (["transformer_2.blocks.0.attn1.to_q"], None),
        (["transformer.blocks.0.attn1.to_q", "transformer_2.blocks.0.attn1.to_q"], None),
    ],
)
def test_which_denoiser_an_adapter_goes_to_is_said(lorakit, wan, here, stems, named):
    folder, (rows, columns) = wan("transformer", "transformer_2")
    tensors = {}
    for stem in stems:
        down, up = ("lora_down", "lora_up") if stem.startswith("lora_unet") else ("lora_A", "lora_B")
        tensors |= {f"{stem}.{down}.weight": torch.ones(2, columns), f"{stem}.{up}.weight": torch.ones(rows, 2)}
    save_file(tensors, "a.safetensors")
    remark = named and REMARK.format(named)
    dry = ("generate", "-b", folder, "-l", "./a.safetensors", "--dry-run", "x")
    report = json.loads(lorakit(*dry, "--json", "-q").stdout)
    (adapter,) = report["plan"]["adapters"]
    expected = {stem.partition(".")[0] for stem in stems} if stems[0].startswith("transformer") else {"transformer"}
    assert adapter["matched"] == dict.fromkeys(expected, 1)
    assert adapter["remark"] == remark
    assert report["warnings"] == ([f"a: {remark}"] if remark else [])
    assert (f"  {REMARK.format(named)}" in lorakit(*dry, "-q").stdout.splitlines()) == bool(named)
    inspected = lorakit("inspect", "a.safetensors", "--base", folder, "--json")
    assert (REMARK.format(named) in json.loads(inspected.stdout)["problems"]) == bool(named)
    assert inspected.exit_code == 0


def test_of_one_denoiser_nothing_is_said(lorakit, wan, here):
    folder, (rows, columns) = wan("transformer")
    stem = "diffusion_model.blocks.0.self_attn.q"
    save_file(
        {f"{stem}.lora_A.weight": torch.ones(2, columns), f"{stem}.lora_B.weight": torch.ones(rows, 2)}, "a.safetensors"
    )
    result = lorakit("generate", "-b", folder, "-l", "./a.safetensors", "--dry-run", "x")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "denoisers" not in result.stdout
