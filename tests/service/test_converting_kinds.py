"""Every algorithm: renamed without loss where the layout holds it, refused where not, approximated when asked to."""

import copy

import pytest
import torch

from lorakit_cli.errors import UnsupportedError
from lorakit_cli.formats.targets import TARGETS
from lorakit_cli.kinds import KINDS
from lorakit_cli.service.converting import ConvertRequest, convert
from lorakit_cli.service.reading import open_adapter
from tests.conversions import BUILDERS, our_deltas, read, write

LINEAR = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
WIDE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_mid_block_resnets_0_conv1"
NORM = "lora_unet_mid_block_resnets_0_norm1"
# Rows and columns of the three; the kernel is 3x3.
N, WIDTH = 16, 32
PAIR = {"lora_down.weight": (2, N), "lora_up.weight": (N, 2), "alpha": 1.0}
TUCKER = {
    "lora_down.weight": (2, N, 1, 1),
    "lora_up.weight": (N, 2, 1, 1),
    "lora_mid.weight": (2, 2, 3, 3),
    "alpha": 3.0,
}
LOHA = {"hada_w1_a": (N, 2), "hada_w1_b": (2, N), "hada_w2_a": (N, 2), "hada_w2_b": (2, N), "alpha": 1.5}
HADA_TUCKER = {
    **{f"hada_w{n}_a": (2, N) for n in (1, 2)},
    **{f"hada_w{n}_b": (2, N) for n in (1, 2)},
    **{f"hada_t{n}": (2, 2, 3, 3) for n in (1, 2)},
    "alpha": 3.0,
}
LOKR = {"lokr_w1": (4, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4), "alpha": 1.5}
SPARSE = {"bias_indices": torch.tensor([[0, 3, 5], [1, 7, 2]]), "bias_values": (3,), "bias_size": torch.tensor([N, N])}
# What each algorithm is made of, on which module: shapes of random values, numbers, or tensors as they are.
LAYERS = {
    "lora": (LINEAR, PAIR),
    "lora-tucker": (CONV, TUCKER),
    "loha": (LINEAR, LOHA),
    "loha-tucker": (CONV, HADA_TUCKER),
    "lokr": (LINEAR, LOKR),
    "lokr whole": (LINEAR, {"lokr_w1": (4, 4), "lokr_w2": (4, 4), "alpha": 1e6}),
    "glora": (
        LINEAR,
        {"a1.weight": (N, 2), "a2.weight": (2, N), "b1.weight": (N, 2), "b2.weight": (2, N), "alpha": 1.0},
    ),
    "glora-old": (
        WIDE,
        {"a1.weight": (2, WIDTH), "a2.weight": (WIDTH, 2), "b1.weight": (2, WIDTH), "b2.weight": (N, 2), "alpha": 1.0},
    ),
    "dora": (LINEAR, PAIR | {"dora_scale": (N, 1)}),
    "dora by column": (LINEAR, PAIR | {"dora_scale": (1, N)}),
    "dora-tucker": (CONV, TUCKER | {"dora_scale": (N, 1, 1, 1)}),
    "dora-loha": (LINEAR, LOHA | {"dora_scale": (N, 1)}),
    "dora-loha-tucker": (CONV, HADA_TUCKER | {"dora_scale": (1, N, 1, 1)}),
    "dora-lokr": (LINEAR, LOKR | {"dora_scale": (N, 1)}),
    "diag-oft": (LINEAR, {"oft_blocks": (4, 4, 4), "rescale": (N, 1), "alpha": 0.02}),
    "boft": (LINEAR, {"oft_blocks": (2, 4, 4, 4), "alpha": 0.02}),
    "ia3": (LINEAR, {"weight": (N,), "on_input": torch.tensor(True)}),
    "full": (CONV, {"diff": (N, N, 3, 3)}),
    "bias": (CONV, {"diff_b": (N,)}),
    "norm": (NORM, {"w_norm": (N,)}),
    "norm-bias": (NORM, {"b_norm": (N,)}),
    "sparse": (LINEAR, PAIR | SPARSE),
    "replacement": (LINEAR, {"set_weight": (N, N)}),
}
# Algorithms that only peft or one trainer writes, which kohya's and ComfyUI's layouts have no form for.
ELSEWHERE = {"adalora", "boft-peft", "embedding", "ia3-peft", "oft"}
VECTORS = ("bias", "norm", "norm-bias")


def tensors_of(layer, stem=None):
    own, parts = LAYERS[layer]
    generator = torch.Generator().manual_seed(len(layer))
    made = {}
    for suffix, what in parts.items():
        if isinstance(what, tuple):
            what = torch.randn(what, generator=generator) * 0.3
            what = what.abs() + 1 if suffix in ("dora_scale", "rescale") else what
        made[f"{stem or own}.{suffix}"] = what if isinstance(what, torch.Tensor) else torch.tensor(what)
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / "sd1"
    BUILDERS["sd1"]().save_pretrained(folder)
    return folder


@pytest.fixture
def run(base, tmp_path):
    def convert_to(source, to, name="out", **options):
        out = tmp_path / (name if to == "peft" else f"{name}.safetensors")
        report = convert(ConvertRequest(str(source), to, out, str(base), **options))
        return report, out

    return convert_to


def test_every_algorithm_is_tried():
    known = {kind.name for kind in KINDS}
    tried = {name.removesuffix(" whole").removesuffix(" by column") for name in LAYERS} | ELSEWHERE | {"lora-bias"}
    assert known == tried
    for target in TARGETS.values():
        assert target.kinds <= known
        assert target.kinds.isdisjoint(ELSEWHERE)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("to", ["kohya", "comfy"])
def test_what_the_layout_holds_comes_back_to_the_last_byte(base, run, tmp_path, layer, to):
    tensors = tensors_of(layer)
    source = write(tmp_path / "in.safetensors", tensors)
    kinds = open_adapter(source).kinds
    assert layer.split(" ")[0] in kinds
    if not set(kinds) <= TARGETS[to].kinds:
        with pytest.raises(UnsupportedError, match=f"the {to} layout cannot hold {layer}, which {LINEAR} is; it holds"):
            run(source, to)
        return
    report, out = run(source, to)
    assert report.exact
    there, here = our_deltas(base, out), our_deltas(base, source)
    assert there.keys() == here.keys()
    assert all(torch.equal(there[key], here[key]) for key in here)
    if to == "comfy" and layer != "replacement":
        _, back = run(out, "kohya", "back")
        again = read(back)
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer not in ("lora", "dora")])
@pytest.mark.parametrize("to", ["diffusers", "peft"])
def test_what_peft_cannot_hold_is_refused_in_one_line(run, tmp_path, layer, to):
    source = write(tmp_path / "in.safetensors", tensors_of(layer))
    with pytest.raises(UnsupportedError) as error:
        run(source, to)
    text = str(error.value)
    assert "\n" not in text
    assert f"the {to} layout cannot hold" in text
    assert ("--to-lora --rank N" in text) == (layer not in VECTORS)
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("here", "config")] == ["in.safetensors"]


@pytest.mark.parametrize(
    "layer", [layer for layer in LAYERS if layer not in (*VECTORS, "lora", "dora", "dora by column")]
)
@pytest.mark.parametrize("rank", [3, 16])
def test_an_approximation_is_the_best_there_is_and_says_how_far_off(base, run, tmp_path, layer, rank):
    source = write(tmp_path / "in.safetensors", tensors_of(layer))
    report, out = run(source, "diffusers", rank=rank)
    ((_, change),) = our_deltas(base, source).items()
    ((_, approximation),) = our_deltas(base, out).items()
    # Eckart and Young: what is left out are the smallest singular values.
    values = torch.linalg.svdvals(change.flatten(1))
    best = float(values[rank:].norm() / values.norm())
    ((entry),) = report.approximated
    assert entry.error == pytest.approx(best, abs=1e-5)
    assert float((approximation - change).norm() / change.norm()) == pytest.approx(best, abs=1e-5)
    assert not report.exact
    # No more than the change itself has.
    assert entry.rank == min(rank, int((values > 1e-5 * values[0]).sum()))
    assert rank == 3 or entry.error < 1e-5


def test_layers_that_the_layout_holds_are_left_as_they_are(base, run, tmp_path):
    tensors = tensors_of("lora") | tensors_of("full")
    tensors[f"{LINEAR}.alpha"] = torch.tensor(0.3)
    source = write(tmp_path / "in.safetensors", tensors)
    report, out = run(source, "diffusers", rank=4)
    assert [entry.algorithm for entry in report.approximated] == ["full"]
    found = read(out)
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    assert torch.equal(found[f"{stem}.lora_A.weight"], tensors[f"{LINEAR}.lora_down.weight"])
    there, here = our_deltas(base, out), our_deltas(base, source)
    key = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    assert torch.equal(there[key], here[key])


@pytest.mark.parametrize("layer", VECTORS)
def test_vectors_are_no_product_of_factors(run, tmp_path, layer):
    source = write(tmp_path / "in.safetensors", tensors_of("lora") | tensors_of(layer))
    with pytest.raises(UnsupportedError, match=f"is {layer} on a vector, which no LoRA can stand for"):
        run(source, "diffusers", rank=4)


def test_what_depends_on_the_base_needs_its_values(tmp_path):
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{stem}.lora_down.weight": torch.randn(2, 768),
        f"{stem}.lora_up.weight": torch.randn(320, 2),
        f"{stem}.dora_scale": torch.ones(1, 768),
    }
    source = write(tmp_path / "in.safetensors", tensors)
    with pytest.raises(UnsupportedError, match="is dora, whose change depends on the base; give the base with --base"):
        convert(ConvertRequest(str(source), "diffusers", tmp_path / "out.safetensors", rank=4))


def test_a_large_layer_is_approximated_as_well_as_a_small_one(tmp_path):
    """Above a thousand rows and columns the decomposition is a randomised one."""
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj"
    generator = torch.Generator().manual_seed(0)
    rows, columns = 10240, 1280
    left, _ = torch.linalg.qr(torch.randn(rows, 40, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, 40, generator=generator))
    values = 2.0 ** -torch.arange(40)
    tensors = {f"{stem}.diff": (left * values) @ right.T}
    report = convert(
        ConvertRequest(
            str(write(tmp_path / "in.safetensors", tensors)), "diffusers", tmp_path / "out.safetensors", rank=4
        )
    )
    (entry,) = report.approximated
    assert entry.error == pytest.approx(float(values[4:].norm() / values.norm()), rel=1e-4)


def test_lokr_over_fused_rows_stays_fused_and_cannot_be_parted(tmp_path):
    folder = tmp_path / "flux"
    BUILDERS["flux"]().save_pretrained(folder)
    tensors = {
        "lora_unet_double_blocks_0_img_attn_qkv.lokr_w1": torch.randn(4, 4),
        "lora_unet_double_blocks_0_img_attn_qkv.lokr_w2": torch.randn(6, 2),
    }
    source = write(tmp_path / "in.safetensors", tensors)
    out = tmp_path / "out.safetensors"
    convert(ConvertRequest(str(source), "comfy", out, str(folder)))
    assert set(read(out)) == {f"diffusion_model.double_blocks.0.img_attn.qkv.lokr_w{n}" for n in (1, 2)}
    with pytest.raises(UnsupportedError, match="the diffusers layout cannot hold lokr"):
        convert(ConvertRequest(str(source), "diffusers", tmp_path / "no.safetensors", str(folder)))
    # Its approximation is a LoRA, and that can be parted.
    split = tmp_path / "split.safetensors"
    report = convert(ConvertRequest(str(source), "diffusers", split, str(folder), rank=8))
    assert (report.split, report.written) == (1, 3)
    here, there = our_deltas(folder, source), our_deltas(folder, split)
    assert all(torch.allclose(there[key], here[key], atol=1e-5) for key in here)
    # The other way round: three LoKr have no one form over their rows.
    parts = {f"lycoris_transformer_blocks_0_attn_to_{part}.lokr_w1": torch.randn(2, 2) for part in "qkv"}
    parts |= {f"lycoris_transformer_blocks_0_attn_to_{part}.lokr_w2": torch.randn(4, 4) for part in "qkv"}
    with pytest.raises(UnsupportedError, match=r"is lokr, which cannot be joined into double_blocks\.0\.img_attn\.qkv"):
        convert(
            ConvertRequest(
                str(write(tmp_path / "parts.safetensors", parts)), "kohya", tmp_path / "no.safetensors", str(folder)
            )
        )


def test_dora_over_fused_rows_is_split_and_joined_again(tmp_path):
    folder = tmp_path / "flux"
    BUILDERS["flux"]().save_pretrained(folder)
    stem = "lora_unet_double_blocks_1_txt_attn_qkv"
    tensors = {
        f"{stem}.alpha": torch.tensor(1.0),
        f"{stem}.dora_scale": torch.rand(24, 1) + 0.5,
        f"{stem}.lora_down.weight": torch.randn(2, 8),
        f"{stem}.lora_up.weight": torch.randn(24, 2),
    }
    source = write(tmp_path / "in.safetensors", tensors)
    split, back = tmp_path / "split.safetensors", tmp_path / "back.safetensors"
    convert(ConvertRequest(str(source), "diffusers", split, str(folder)))
    assert read(split)["transformer.transformer_blocks.1.attn.add_k_proj.lora_magnitude_vector"].shape == (8,)
    convert(ConvertRequest(str(split), "kohya", back, str(folder)))
    again = read(back)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    # What the rows of the others are to become, only the base knows.
    partial = copy.copy(read(split))
    for name in [name for name in partial if "add_k_proj" in name]:
        del partial[name]
    with pytest.raises(UnsupportedError, match=r"is dora of a part of double_blocks\.1\.txt_attn\.qkv, and what it is"):
        convert(
            ConvertRequest(
                str(write(tmp_path / "partial.safetensors", partial)), "kohya", tmp_path / "no.safetensors", str(folder)
            )
        )
