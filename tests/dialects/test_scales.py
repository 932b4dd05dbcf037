"""Every algorithm that has a scale x what it may change x every way in which its alpha is stored or left out."""

import math

import pytest
import torch

from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import judge, write

# (rows, columns, kernel) by a module of the tiny SD1 UNet.
LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
POINT = "mid_block.attentions.0.proj_in"
KERNEL = "mid_block.resnets.0.conv1"
RANK = 2
ALPHAS = {
    "absent": None,
    "fp32": torch.tensor(3.0),
    "fp16": torch.tensor(0.5, dtype=torch.float16),
    "bf16": torch.tensor(1.5, dtype=torch.bfloat16),
    "fp64": torch.tensor(1.1, dtype=torch.float64),
    "int64": torch.tensor(3),
    "list": torch.tensor([4.0], dtype=torch.float16),
    "zero": torch.tensor(0.0),
    "negative": torch.tensor(-1.0),
}
ENDS = {
    "kohya": ("lora_unet_{_}", "lora_down.weight", "lora_up.weight"),
    "comfy": ("diffusion_model.{}", "lora_down.weight", "lora_up.weight"),
    "diffusers": ("unet.{}", "lora_A.weight", "lora_B.weight"),
}


def random(*shape):
    return torch.randn(shape)


def matrix(tensor):
    return tensor.double().flatten(1)


def tucker(core, left, right):
    return torch.einsum("mnkl,mo,ni->oikl", core.double(), left.double(), right.double())


def factors(kind, weight, flat):
    """Give an algorithm's tensors for a weight and its change at scale 1, written out with einsum, kron and products.

    `flat`: with two dimensions where a convolution has four.
    """
    rows, columns, *kernel = weight.shape
    width = columns * math.prod(kernel)
    ones = () if flat else (1,) * len(kernel)
    if kind in ("lora", "sparse"):
        shape = (RANK, width) if flat else (RANK, columns, *kernel)
        down, up = random(*shape), random(rows, RANK, *ones)
        return {"down": down, "up": up}, matrix(up) @ matrix(down)
    if kind == "lora-tucker":
        down, mid, up = random(RANK, columns, 1, 1), random(RANK, RANK, *kernel), random(rows, RANK, 1, 1)
        change = tucker(mid, matrix(up).T, matrix(down))
        return {"down": down, "up": up, "lora_mid.weight": mid}, change
    if kind == "loha":
        parts = [random(rows, RANK), random(RANK, width), random(rows, RANK), random(RANK, width)]
        change = (matrix(parts[0]) @ matrix(parts[1])) * (matrix(parts[2]) @ matrix(parts[3]))
        return dict(zip(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), parts, strict=True)), change
    if kind == "loha-tucker":
        names = ("hada_t1", "hada_w1_a", "hada_w1_b", "hada_t2", "hada_w2_a", "hada_w2_b")
        parts = [random(RANK, RANK, *kernel), random(RANK, rows), random(RANK, columns)]
        parts += [random(RANK, RANK, *kernel), random(RANK, rows), random(RANK, columns)]
        return dict(zip(names, parts, strict=True)), tucker(*parts[:3]) * tucker(*parts[3:])
    if kind == "lokr":
        first, a, b = random(2, 2), random(rows // 2, RANK), random(RANK, width // 2)
        second = (matrix(a) @ matrix(b)).reshape(rows // 2, columns // 2, *kernel)
        left = first.double().reshape(2, 2, *[1] * len(kernel))
        return {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b}, torch.kron(left, second)
    assert kind == "glora"
    a1, a2, b1, b2 = random(columns, RANK), random(RANK, columns), random(rows, RANK), random(RANK, columns, *kernel)
    by_weight = torch.einsum("oi...,ir,rj->oj...", weight, a1.double(), a2.double())
    change = by_weight + (b1.double() @ matrix(b2)).reshape(weight.shape)
    return {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2}, change


CASES = [
    *((kind, module, False) for kind in ("lora", "loha", "lokr", "glora") for module in (LINEAR, POINT, KERNEL)),
    *((kind, KERNEL, False) for kind in ("lora-tucker", "loha-tucker")),
    # Two-dimensional factors for a convolution of 1x1.
    ("lora", POINT, True),
]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("kind", "module", "flat"), CASES)
def test_scale_is_alpha_over_rank_however_it_is_stored(family, tmp_path, kind, module, flat, alpha):
    folder, parts = family("sd1 small")
    torch.manual_seed(6)
    weight = parts["unet"].get_submodule(module).weight.detach().double()
    made, change = factors(kind, weight, flat)
    scale = 1.0 if ALPHAS[alpha] is None else float(ALPHAS[alpha]) / RANK
    wanted = {("unet", f"{module}.weight"): scale * change.reshape(weight.shape)}
    for layout, (stem, down, up) in ENDS.items():
        name = stem.replace("{_}", module.replace(".", "_")).replace("{}", module)
        ends = {"down": down, "up": up}
        tensors = {f"{name}.{ends.get(end, end)}": value for end, value in made.items()}
        if ALPHAS[alpha] is not None:
            tensors[f"{name}.alpha"] = ALPHAS[alpha]
        file = judge(folder, write(tmp_path / f"{layout}.safetensors", tensors), wanted)
        assert {(found.kind.name, found.rank, found.scale) for found in file.layers} == {(kind, RANK, scale)}


@pytest.mark.parametrize("alpha", ALPHAS)
def test_what_has_no_rank_has_no_scale(family, tmp_path, alpha):
    """Whole LoKr, whole differences, norms and biases: LyCORIS writes an alpha beside them that means nothing."""
    folder, parts = family("sd1 small")
    torch.manual_seed(6)
    unet, tensors, wanted = parts["unet"], {}, {}
    first, second = random(2, 2), random(*(size // 2 for size in unet.get_submodule(LINEAR).weight.shape))
    norm = "mid_block.resnets.0.norm1"
    values = {end: random(*unet.get_parameter(name).shape) for end, name in (
        ("diff", f"{KERNEL}.weight"), ("diff_b", f"{KERNEL}.bias"), ("w_norm", f"{norm}.weight"),
        ("b_norm", f"{norm}.bias"))}  # fmt: skip
    for module, own in {
        LINEAR: {"lokr_w1": first, "lokr_w2": second},
        KERNEL: {end: values[end] for end in ("diff", "diff_b")},
        norm: {end: values[end] for end in ("w_norm", "b_norm")},
    }.items():
        stem = f"lora_unet_{module.replace('.', '_')}"
        tensors |= {f"{stem}.{end}": value for end, value in own.items()}
        if ALPHAS[alpha] is not None:
            tensors[f"{stem}.alpha"] = ALPHAS[alpha]
    wanted["unet", f"{LINEAR}.weight"] = torch.kron(first.double(), second.double())
    wanted["unet", f"{KERNEL}.weight"], wanted["unet", f"{KERNEL}.bias"] = values["diff"], values["diff_b"]
    wanted["unet", f"{norm}.weight"], wanted["unet", f"{norm}.bias"] = values["w_norm"], values["b_norm"]
    judge(folder, write(tmp_path / "a.safetensors", tensors), {key: value.double() for key, value in wanted.items()})


def test_sparse_values_are_added_and_scaled_with_the_pair_beside_them(family, tmp_path):
    folder, parts = family("sd1 small")
    torch.manual_seed(6)
    weight = parts["unet"].get_submodule(LINEAR).weight
    made, change = factors("lora", weight.double(), False)
    stem = f"lora_unet_{LINEAR.replace('.', '_')}"
    tensors = {f"{stem}.lora_down.weight": made["down"], f"{stem}.lora_up.weight": made["up"],
               f"{stem}.alpha": torch.tensor(3.0), f"{stem}.bias_indices": torch.tensor([[0, 5], [1, 2]]),
               f"{stem}.bias_values": torch.tensor([7.0, 9.0]),
               f"{stem}.bias_size": torch.tensor(weight.shape)}  # fmt: skip
    change[0, 1] += 7
    change[5, 2] += 9
    judge(folder, write(tmp_path / "a.safetensors", tensors), {("unet", f"{LINEAR}.weight"): 1.5 * change})


@pytest.mark.parametrize("alpha", [torch.ones(2), torch.tensor(torch.nan), torch.tensor(torch.inf)])
def test_an_alpha_that_is_no_number_is_refused(tmp_path, alpha):
    tensors = {"unet.a.lora_A.weight": random(2, 4), "unet.a.lora_B.weight": random(4, 2), "unet.a.alpha": alpha}
    with pytest.raises(CorruptFileError, match=r"unet\.a\.alpha"):
        open_adapter(write(tmp_path / "a.safetensors", tensors))
