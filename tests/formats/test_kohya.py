"""kohya's files: real key lists against full-size bases, and exact strengths where every module has its own alpha."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.families import adapter_family
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.plan import PlannedAdapter, build_plan
from lorakit_cli.errors import WrongBaseError
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.pipeline import open_pipeline
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.reading import open_adapter
from tests.sparse import sparse_base, write_sparse

KEYS = Path(__file__).parent.parent / "data" / "keys"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    return {
        family: read_base_index(sparse_base(folder / family, family), architectures=ARCHITECTURES)
        for family in ("sd15", "sdxl")
    }


def file_of(name, tmp_path):
    listed = json.loads((KEYS / f"{name}.json").read_text())
    tensors = {key: (dtype, tuple(shape)) for key, (dtype, shape) in entries(listed["tensors"])}
    return open_adapter(write_sparse(tmp_path / f"{name}.safetensors", tensors, listed["metadata"], alpha=4.0))


def entries(tensors):
    for key, value in tensors.items():
        yield key, (value["dtype"], value["shape"]) if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("name", "family", "made_for", "scales"),
    [
        ("kohya_sd15", "sd15", "SD1.x", {0.5}),
        ("kohya_sd15_locon", "sd15", "SD1.x", {0.5, 1.0}),
        ("kohya_sdxl", "sdxl", "SDXL", {0.5}),
        ("lycoris_sd15_locon_dora", "sd15", "SD1.x", {0.5}),
        ("lycoris_sd15_loha", "sd15", "SD1.x", {0.5}),
        ("lycoris_sd15_lokr", "sd15", "SD1.x", {0.5}),
    ],
)
def test_real_key_lists_match_completely(bases, tmp_path, name, family, made_for, scales):
    file = file_of(name, tmp_path)
    assert ([layout.name for layout in file.formats], file.unknown_keys) == (["kohya"], ())
    assert {layer.scale for layer in file.layers} == scales
    assert adapter_family(file) == made_for
    plan = build_plan(bases[family], [PlannedAdapter("k", file, 1.0)])
    assert plan.unmatched == ()
    assert sum(plan.matched("k").values()) == len(file.layers)
    other = bases["sdxl" if family == "sd15" else "sd15"]
    with pytest.raises(WrongBaseError, match=rf"this adapter is for {made_for} \(attn2 input \d+\); the base is SD"):
        build_plan(other, [PlannedAdapter("k", file, 1.0)])


def test_every_module_with_its_own_alpha_is_fused_at_its_own_scale(base, adapters, tmp_path):
    """What diffusers gets wrong: it takes one common alpha for the attention layers of such files."""
    source = load_file(adapters / "ink.safetensors")
    tensors, exact = {}, {}
    for number, key in enumerate(sorted(key for key in source if "lora_A" in key or "layer.down" in key)):
        component, module = key.split(".lora")[0].split(".", 1)
        up = source[key.replace("lora_A", "lora_B").replace("layer.down", "layer.up")]
        stem = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[component] + module.replace(".", "_")
        alpha = 1 + number % 7
        tensors |= {
            f"{stem}.lora_down.weight": source[key],
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": torch.tensor(float(alpha)),
        }
        delta = up.double().flatten(1) @ source[key].double().flatten(1) * (alpha / source[key].shape[0])
        exact[f"{component}.{module}.weight"] = delta
    save_file(tensors, tmp_path / "k.safetensors")
    plan = make_plan(str(base), [AdapterSpec.parse(f"{tmp_path}/k.safetensors:0.5")]).plan
    assert plan.unmatched == ()
    pipeline = open_pipeline(plan.base, torch.device("cpu"), torch.float32)
    assert FusedWeights(pipeline, plan.base).apply(plan) == 188
    for name, delta in exact.items():
        component, tensor = name.split(".", 1)
        (file,) = (base / component).glob("*.safetensors")
        stored = load_file(file)[tensor].double()
        live = dict(getattr(pipeline, component).named_parameters())[tensor]
        assert torch.allclose(live.double(), stored + 0.5 * delta.view(stored.shape), atol=1e-6), name
