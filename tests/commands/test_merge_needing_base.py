"""What depends on a base's values cannot be merged; the two commands that the refusal names make plain LoRA of it."""

import re
import shlex

import pytest
import torch

from tests.conversions import modules_of, write
from tests.exact_weights import folder_weights
from tests.merging import distance, done, read, refused, weighted
from tests.tiny import build_pipeline


def made(kind):
    """Make an adapter of an algorithm for the attention of UNet and text encoder."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for (component, name), module in modules_of(build_pipeline()).items():
        if not re.search(r"attn[12]\.to_[qv]$|self_attn\.q_proj$", name):
            continue
        rows, columns = module.weight.shape
        stem = ("lora_unet_" if component == "unet" else "lora_te_text_model_") + name.replace(".", "_")
        if kind == "dora":
            tensors |= {
                f"{stem}.lora_down.weight": torch.randn(2, columns, generator=generator),
                f"{stem}.lora_up.weight": torch.randn(rows, 2, generator=generator) * 0.1,
                f"{stem}.dora_scale": torch.rand(rows, 1, generator=generator) + 0.5,
                f"{stem}.alpha": torch.tensor(2.0),
            }
        elif kind == "ia3":
            tensors |= {
                f"{stem}.weight": torch.randn(rows, 1, generator=generator) * 0.2,
                f"{stem}.on_input": torch.tensor(False),
            }
        else:
            blocks = torch.randn(rows // 4, 4, 4, generator=generator)
            tensors |= {f"{stem}.oft_blocks": blocks - blocks.mT, f"{stem}.alpha": torch.tensor(0.02)}
    return tensors


def exact(kind, tensors, base):
    """Give what IA3 changes, in fp64 from its definition; of the others nothing."""
    if kind != "ia3":
        return {}
    found = {}
    for name, value in folder_weights(base).items():
        component, module = name.removesuffix(".weight").replace("text_model.", "").split(".", 1)
        prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}.get(component, "")
        factor = tensors.get(f"{prefix}{module.replace('.', '_')}.weight")
        if factor is not None:
            found[component, module] = value.double() * factor.double()
    return found


@pytest.mark.parametrize("kind", ["dora", "ia3", "oft"])
def test_the_two_commands_make_what_can_be_merged(lorakit, base, adapters, here, kind):
    source = write(here / "my look.safetensors", tensors := made(kind))
    wash = "--lora", f"{adapters}/wash.safetensors:0.5"
    asked = "merge", "--lora", f"look=./{source.name}:0.75", *wash, "--base", base, "--out", "both.safetensors"
    result = lorakit(*asked)
    refused(result, f" of my look.safetensors is {'diag-oft' if kind == 'oft' else kind}, whose change depends on ")
    first, second = result.stderr.rstrip().split("two commands make plain LoRA of it: ")[1].split(" and then ")
    assert lorakit("resize", source.name, "--rank", 2, "--base", base, "--out", "x.safetensors").stderr == result.stderr
    for command in (first, second):
        program, *words = shlex.split(command)
        result = lorakit(*words)
        assert (program, result.exit_code) == ("lorakit", 0), result.stderr
    before, after = folder_weights(base), folder_weights(here / "my look-fused")
    changes = {name: after[name].double() - value.double() for name, value in before.items()}
    whole = {
        (name.split(".")[0], name.removesuffix(".weight").split(".", 1)[1].replace("text_model.", "")): change
        for name, change in changes.items()
        if change.any()
    }
    plain = read(base, here / "my look-lora.safetensors")
    assert distance(plain, whole) < 0.1
    for key, change in exact(kind, tensors, base).items():
        assert float((whole[key] - change).norm()) < 1e-6 * float(change.norm())
    done(lorakit("merge", "--lora", "look=./my look-lora.safetensors:0.75", *asked[3:], "--dtype", "fp32", "--json"))
    wanted = weighted((plain, 0.75), (read(base, adapters / "wash.safetensors"), 0.5))
    assert distance(read(base, here / "both.safetensors"), wanted) < 1e-6


def test_without_a_base_its_place_is_left(lorakit, here):
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{stem}.lora_down.weight": torch.randn(2, 768),
        f"{stem}.lora_up.weight": torch.randn(320, 2),
        f"{stem}.dora_scale": torch.ones(320, 1),
    }
    write(here / "a.safetensors", tensors)
    result = lorakit("merge", "--lora", "./a.safetensors", "--out", "x.safetensors")
    commands = "lorakit fuse --base BASE --lora ./a.safetensors --dtype fp32 --out a-fused and then lorakit extract"
    refused(result, f"{commands} --base BASE --tuned a-fused --energy 0.99 --out a-lora.safetensors")
    result = lorakit("merge", "--lora", "./a.safetensors", "--base", "b.safetensors", "--out", "x.safetensors")
    refused(result, "--out a-fused.safetensors and then ")
