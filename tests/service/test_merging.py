"""Merged adapters: their change is the weighted sum, by dense arithmetic on what was read and what was written."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.core.merge_method import merge_settings
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.errors import (
    BlockScalesError,
    CorruptFileError,
    OptionError,
    OutputError,
    UnsupportedError,
    WrongBaseError,
)
from lorakit_cli.service.merge_request import MergeRequest, prepare_merge
from lorakit_cli.service.merging import merge
from tests.conversions import BUILDERS, as_kohya, expected, flux_native, metadata_of, our_deltas, write
from tests.kohya_metadata import KOHYA as TRAINED
from tests.merging import KOHYA, adapter, as_diffusers, best, distance, read, weighted
from tests.service.test_converting import full_size
from tests.service.test_resizing import STEM, loha

SD1 = BUILDERS["sd1"]
ATTENTION = r"^unet.*attn[12]\.to_"


@pytest.fixture(scope="module")
def ink():
    """For all of UNet and text encoder, rank 3, alpha 1.5."""
    return adapter(SD1(), 1, 3, alpha=1.5)


@pytest.fixture(scope="module")
def wash():
    """For the attention of the UNet, rank 5, without alphas."""
    return adapter(SD1(), 2, 5, only=ATTENTION)


@pytest.fixture
def files(ink, wash, tmp_path):
    """The first in fp32 under kohya's names, the second in fp16 under diffusers'."""
    write(tmp_path / "ink.safetensors", as_kohya(ink, KOHYA), TRAINED)
    write(tmp_path / "wash.safetensors", {name: tensor.half() for name, tensor in as_diffusers(wash).items()})
    return tmp_path


@pytest.fixture
def run(base, files):
    """Merge adapters of the folder for the tiny base."""

    def merge_specs(*specs, method=None, on=base, out="out.safetensors", scales=(), **options):
        rule = RankRule(**{name: options.pop(name) for name in RankRule._fields if name in options})
        chosen = {name: options.pop(name, None) for name in ("density", "majority_sign", "seed")}
        settings = merge_settings(method, reduces=bool(rule.given), **chosen)
        parsed = [AdapterSpec.parse(f"{files}/{spec}") for spec in specs]
        named = parse_block_scales(scales)
        request = MergeRequest(parsed, files / out, settings, rule, named, base=on and str(on), **options)
        return files / out, merge(prepare_merge(request))

    return merge_specs


@pytest.fixture(scope="module")
def halved(wash):
    """What is in the second file: rounded to fp16."""
    return {key: type(each)(each.down.half().float(), each.up.half().float(), None) for key, each in wash.items()}


def test_the_change_is_the_weighted_sum_and_ranks_add_up(run, base, ink, halved):
    out, report = run("ink.safetensors:0.7", "wash.safetensors:-1.3")
    wanted = weighted((expected(ink), 0.7), (expected(halved), -1.3))
    found = read(base, out)
    assert distance(found, wanted) < 1e-7
    assert report.error == pytest.approx(distance(found, wanted), rel=0.1)
    assert (report.method, report.layout, report.energy, report.zero) == ("cat", "kohya", 1.0, 0)
    assert report.rank_after == report.rank_before == (3, 8)
    tensors = load_file(out)
    assert tensors[f"{STEM}q.lora_down.weight"].shape[0] == 8
    assert f"{STEM}q.alpha" not in tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    one, two = report.adapters
    assert (one.layers, one.alone, two.layers, two.alone) == (len(ink), len(ink) - len(halved), len(halved), 0)
    assert report.remarks == ()


@pytest.mark.parametrize("to", ["kohya", "diffusers", "comfy"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_layouts_and_dtypes(run, base, ink, halved, to, dtype):
    out, report = run("ink.safetensors:0.7", "wash.safetensors", to=to, dtype=dtype)
    apart = distance(read(base, out), weighted((expected(ink), 0.7), (expected(halved), 1)))
    assert report.error == pytest.approx(apart, rel=0.05, abs=1e-9)
    assert apart < {"fp16": 2**-10, "bf16": 2**-7, "fp32": 2**-22}[dtype]


def test_ranks_above_a_side_of_a_layer_add_up_too(run, base, ink, files):
    """As with a trainer's one rank for all, where the last convolution has only 4 rows."""
    high = adapter(SD1(), 4, 6, only="conv_out$", alpha=3)
    write(files / "high.safetensors", as_kohya(high, KOHYA))
    out, report = run("ink.safetensors", "high.safetensors:0.5")
    assert distance(read(base, out), weighted((expected(ink), 1), (expected(high), 0.5))) < 1e-7
    assert (report.rank_after, report.error) == ((3, 9), pytest.approx(0, abs=1e-7))


def test_weights_that_are_powers_of_two_change_no_digit(run, base, halved, files):
    """Beside the factors there is nothing to round."""
    write(files / "other.safetensors", {k: v.half() for k, v in as_diffusers(adapter(SD1(), 3, 2)).items()})
    out, report = run("wash.safetensors:4", "other.safetensors:-2")
    assert report.error == 0
    other = {k: type(e)(e.down.half(), e.up.half(), None) for k, e in adapter(SD1(), 3, 2).items()}
    assert distance(read(base, out), weighted((expected(halved), 4), (expected(other), -2))) < 1e-15
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.float16}


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_svd_is_as_close_as_the_rank_allows(run, base, ink, halved, rank):
    out, report = run("ink.safetensors:0.7", "wash.safetensors:-1.3", rank=rank)
    found = read(base, out)
    wanted = weighted((expected(ink), 0.7), (expected(halved), -1.3))
    lost = 0.0
    for key, change in wanted.items():
        close, tail = best(change, rank)
        norm = float(change.norm())
        assert float((found[key].reshape(change.shape) - close).norm()) < 1e-6 * norm
        error = float((found[key].reshape(change.shape) - change).norm())
        assert error == pytest.approx(tail, rel=1e-5, abs=2e-7 * norm)
        lost += tail**2
    whole = sum(float(change.norm()) ** 2 for change in wanted.values())
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4, abs=1e-6)
    assert report.method == "svd"


def test_svd_without_a_rank_keeps_the_highest_that_went_in(run):
    out, report = run("ink.safetensors", "wash.safetensors", method="svd")
    tensors = load_file(out)
    assert tensors[f"{STEM}q.lora_down.weight"].shape[0] == 5
    assert tensors["lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"].shape[0] == 3
    assert report.rank_after == (3, 5)


def test_energy_and_size(run, base, ink, halved):
    wanted = weighted((expected(ink), 1), (expected(halved), 1))
    out, report = run("ink.safetensors", "wash.safetensors", energy=0.8)
    assert report.energy >= 0.8
    assert distance(read(base, out), wanted) == pytest.approx(report.error, rel=1e-4)
    out, report = run("ink.safetensors", "wash.safetensors", size=120_000, to="diffusers", overwrite=True, dtype="fp16")
    assert 118_000 < out.stat().st_size <= 120_000
    assert distance(read(base, out), wanted) == pytest.approx(report.error, rel=1e-4)
    with pytest.raises(
        OptionError, match=r"--size 9000 bytes is too little: with rank 1 in every layer the file has \d+"
    ):
        run("ink.safetensors", "wash.safetensors", size=9000, overwrite=True)


def test_linear_is_exact_where_one_factor_is_shared(run, base, ink, files):
    """What was trained with `down` frozen, or `up`."""
    other = {key: type(each)(each.down, each.up.flip(0), 3.0) for key, each in ink.items()}
    third = {key: type(each)(each.down.flip(1), each.up, None) for key, each in ink.items() if key[0] == "unet"}
    write(files / "other.safetensors", as_kohya(other, KOHYA))
    write(files / "third.safetensors", as_kohya(third, KOHYA))
    for name, factors in (("other", other), ("third", third)):
        out, report = run("ink.safetensors:0.7", f"{name}.safetensors:-0.4", method="linear", overwrite=True)
        wanted = weighted((expected(ink), 0.7), (expected(factors), -0.4))
        assert distance(read(base, out), wanted) < 1e-7
        assert report.rank_after == (3, 3)


def test_linear_is_refused_where_it_would_have_cross_terms(run, files):
    with pytest.raises(
        UnsupportedError, match=r"attn\d_to_\w+: ink and wash differ in both factors, .*--method cat is exact"
    ):
        run("ink.safetensors", "wash.safetensors", method="linear")
    assert not (files / "out.safetensors").exists()


def test_block_scales_count_like_weights(run, base, ink, halved):
    scales = ['ink={"unet": {"down": 0.5, "mid": 0}, "text_encoder": 0.25}', 'wash={"unet": 2}']
    out, _ = run("ink.safetensors:0.8", "wash.safetensors", scales=scales)

    def scale(key):
        if key[0] == "text_encoder":
            return 0.25
        return 0.5 if key[1].startswith("down") else 0 if key[1].startswith("mid") else 1

    one = {key: change * scale(key) for key, change in expected(ink).items() if scale(key) or key in halved}
    assert distance(read(base, out), weighted((one, 0.8), (expected(halved), 2))) < 1e-7
    # What the file says of itself is enough to make it again.
    said = json.loads(metadata_of(out)["lorakit.merge"])["adapters"]
    told = [json.dumps({each["name"]: each["block_scales"]}) for each in said]
    specs = [f"{each['name']}.safetensors:{each['weight']}" for each in said]
    assert run(*specs, scales=told, out="again.safetensors")[0].read_bytes() == out.read_bytes()
    with pytest.raises(BlockScalesError, match="block scales name the adapter 'inc'; did you mean ink"):
        run("ink.safetensors", "wash.safetensors", scales=['inc={"unet": 2}'], overwrite=True)


def test_fused_and_split_names_of_one_module_meet(run, tmp_path, files):
    """One adapter has query, key and value as one, the other each by itself, and one of them not at all."""
    folder = tmp_path / "flux"
    BUILDERS["flux"]().save_pretrained(folder)
    tensors, native = flux_native()
    parts = adapter(BUILDERS["flux"](), 4, 2, only=r"^transformer.*(to_q|to_v|add_k_proj|proj_mlp)$")
    write(files / "native.safetensors", tensors)
    write(files / "parts.safetensors", as_diffusers(parts))
    wanted = weighted((native, 0.5), (expected(parts), 2))
    for to in ("kohya", "diffusers"):
        out, _ = run("native.safetensors:0.5", "parts.safetensors:2", on=folder, to=to, overwrite=True)
        assert distance(our_deltas(folder, out), wanted) < 1e-7
        out, report = run("native.safetensors:0.5", "parts.safetensors:2", on=folder, to=to, rank=1, overwrite=True)
        assert distance(our_deltas(folder, out), wanted) == pytest.approx(report.error, rel=1e-4)


def test_other_algorithms_join_in_through_their_singular_values(run, base, ink, files):
    tensors, hada = loha(f"{STEM}q", 16, 16, 2)
    full = torch.randn(16, 16, generator=torch.Generator().manual_seed(9))
    write(files / "mixed.safetensors", tensors | {f"{STEM}v.diff": full})
    module = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_"
    changes = {("unet", f"{module}q"): hada, ("unet", f"{module}v"): full.double()}
    wanted = weighted((expected(ink), 1), (changes, 0.5))
    out, report = run("ink.safetensors", "mixed.safetensors:0.5", rank=6)
    found = read(base, out)
    assert distance(found, wanted) == pytest.approx(report.error, rel=1e-4)
    for key in changes:
        assert torch.allclose(found[key], best(wanted[key], 6)[0], atol=1e-4)
    with pytest.raises(
        UnsupportedError, match=r"to_v is lora \+ full, whose change has no factors.*--method svd --rank N"
    ):
        run("ink.safetensors", "mixed.safetensors", overwrite=True)


def test_norms_and_biases_are_summed(run, ink, files):
    name = "lora_unet_down_blocks_0_resnets_0_norm1"
    one, two = torch.randn(8), torch.randn(8)
    write(files / "a.safetensors", as_kohya(ink, KOHYA) | {f"{name}.w_norm": one})
    write(files / "b.safetensors", {f"{name}.w_norm": two, f"{name}.b_norm": one})
    out, report = run("a.safetensors:0.5", "b.safetensors:-2")
    tensors = load_file(out)
    assert torch.allclose(tensors[f"{name}.w_norm"], 0.5 * one - 2 * two)
    assert torch.allclose(tensors[f"{name}.b_norm"], -2 * one)
    assert report.unchanged == 2


def test_weights_that_cancel(run, files, ink):
    other = {key: each for key, each in ink.items() if key[0] == "text_encoder"}
    write(files / "text.safetensors", as_kohya(other, KOHYA))
    for options in ({}, {"method": "svd"}):
        out, report = run("ink.safetensors:0.7", "text.safetensors:-0.7", overwrite=True, **options)
        assert (report.zero, report.layers) == (len(other), len(ink) - len(other))
        assert not any("lora_te" in name for name in load_file(out))
        out.unlink()
        write(files / "twin.safetensors", as_kohya(ink, KOHYA))
        with pytest.raises(UnsupportedError, match="nothing would be left: at these weights the adapters cancel"):
            run("ink.safetensors:0.7", "twin.safetensors:-0.7", **options)
        assert not out.exists()


def test_norms_that_cancel_are_nothing_either(run, files):
    name = "lora_unet_down_blocks_0_resnets_0_norm1"
    for file in "ab":
        write(files / f"{file}.safetensors", {f"{name}.w_norm": torch.ones(8), f"{name}.b_norm": torch.ones(8)})
    with pytest.raises(UnsupportedError, match="nothing would be left"):
        run("a.safetensors", "b.safetensors:-1")
    _, report = run("a.safetensors", "b.safetensors:-1", "wash.safetensors")
    assert report.unchanged == 0


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_what_all_but_cancels_is_kept_as_far_as_the_dtype_holds_it(run, base, files, ink, halved, dtype):
    """Squares know nothing of what is left here; neither is it called nothing where a dtype has digits for it."""
    write(files / "twin.safetensors", as_kohya(ink, KOHYA))
    out, report = run("ink.safetensors", "twin.safetensors:-0.9999995", "wash.safetensors:1e-6", dtype=dtype)
    wanted = weighted((expected(ink), 5e-7), (expected(halved), 1e-6))
    found = {key: torch.zeros_like(change) for key, change in wanted.items()} | read(base, out)
    assert distance(found, wanted) == pytest.approx(report.error, rel=1e-3)
    assert (report.zero > 0, report.error > 0.2) == (dtype == "fp16", dtype == "fp16")


def test_weight_zero_is_left_out_and_said(run, base, ink):
    out, report = run("ink.safetensors", "wash.safetensors:0")
    assert distance(read(base, out), expected(ink)) < 1e-7
    assert report.remarks == ("wash has weight 0 and is left out",)
    with pytest.raises(OptionError, match="all weights are 0"):
        run("ink.safetensors:0", "wash.safetensors:0", overwrite=True)


def test_nothing_in_common_is_allowed_and_said(run, base, files):
    text = adapter(SD1(), 5, 2, only="^text")
    write(files / "text.safetensors", as_kohya(text, KOHYA))
    out, report = run("wash.safetensors", "text.safetensors")
    assert report.remarks == ("the adapters have no layer in common; each keeps its own",)
    assert {part.component for part in report.components} == {"unet", "text_encoder"}
    assert len(read(base, out)) == report.layers


def test_adapters_for_different_models_are_refused_with_both_and_their_shapes(run, files):
    sd1 = {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768)}
    sdxl = {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (640, 2048)}
    for name, modules in (("sd1", sd1), ("sdxl", sdxl)):
        write(files / f"{name}.safetensors", full_size(modules))
    with pytest.raises(
        WrongBaseError, match=r"different models cannot be merged: .*sd1\.safetensors is for SD1\.x "
    ) as caught:
        run("sd1.safetensors", "sdxl.safetensors", on=None)
    assert "sdxl.safetensors is for SDXL (layers of 640 x 2048)" in str(caught.value)
    with pytest.raises(WrongBaseError, match=r"sd1\.safetensors does not fit .*: this adapter is for SD1\.x"):
        run("ink.safetensors", "sd1.safetensors")


def test_a_published_model_is_recognised_without_a_base(run, files):
    modules = {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768)}
    write(files / "a.safetensors", full_size(modules))
    write(files / "b.safetensors", full_size(modules, rank=3))
    out, report = run("a.safetensors", "b.safetensors:0.5", on=None)
    assert report.architecture == "SD1.x"
    assert load_file(out)[next(iter(modules)) + ".lora_down.weight"].shape == (5, 768)


def test_rank_above_all_sums_and_values_that_are_not_finite(run, files, ink):
    with pytest.raises(OptionError, match="--rank 9: no layer of the sum has a rank above 8"):
        run("ink.safetensors", "wash.safetensors", rank=9)
    tensors = as_kohya(ink, KOHYA)
    tensors[f"{STEM}q.lora_up.weight"] = torch.full_like(tensors[f"{STEM}q.lora_up.weight"], float("nan"))
    write(files / "broken.safetensors", tensors)
    with pytest.raises(CorruptFileError, match=r"attn1_to_q.lora_up.weight of broken holds NaN"):
        run("wash.safetensors", "broken.safetensors")
    assert not (files / "out.safetensors").exists()


@pytest.mark.parametrize("weight", ["1e308", "-1e160"])
@pytest.mark.parametrize("kind", ["factors", "whole"])
def test_weights_whose_squares_no_number_holds(run, files, ink, weight, kind):
    """LAPACK looks for ever for the singular values of what is not finite."""
    if kind == "whole":
        write(files / "wash.safetensors", {f"{STEM}q.diff": torch.ones(16, 16)})
    with pytest.raises(UnsupportedError, match=r"the change of .* is too large to be decomposed; try smaller weights"):
        run(f"wash.safetensors:{weight}", "ink.safetensors", rank=2)
    assert not (files / "out.safetensors").exists()


def test_values_of_8_bits_that_are_not_finite(run, files, ink):
    """torch has no isfinite for them."""
    tensors = as_kohya(ink, KOHYA)
    tensors = {key: value.to(torch.float8_e4m3fn) if "lora_up" in key else value for key, value in tensors.items()}
    tensors[f"{STEM}q.lora_up.weight"].view(torch.uint8)[0, 0] = 0x7F
    write(files / "broken.safetensors", tensors)
    with pytest.raises(CorruptFileError, match=r"attn1_to_q.lora_up.weight of broken holds NaN"):
        run("wash.safetensors", "broken.safetensors")


def test_inputs_are_never_written_over(run, files):
    before = (files / "wash.safetensors").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"wash\.safetensors is .*, which is read"):
            run("ink.safetensors", "wash.safetensors", out="wash.safetensors", overwrite=overwrite)
    assert (files / "wash.safetensors").read_bytes() == before


def test_metadata_says_where_it_comes_from_and_nothing_that_is_not_so(run, files, ink):
    import hashlib

    second = TRAINED | {"ss_output_name": "sketch", "ss_base_model_version": "sdxl_base_v1-0", "ss_seed": "1"}
    second |= {"modelspec.trigger_phrase": "sketch style", "ss_learning_rate": "0.1"}
    write(files / "sketch.safetensors", as_kohya(ink, KOHYA), second)
    out, _ = run("ink.safetensors:0.75", "sketch.safetensors:0.5", rank=2)
    found = metadata_of(out)
    made = json.loads(found["lorakit.merge"])
    hashes = [hashlib.sha256((files / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("ink", "sketch")]
    assert made["adapters"] == [
        {"name": "ink", "weight": 0.75, "sha256": hashes[0]},
        {"name": "sketch", "weight": 0.5, "sha256": hashes[1]},
    ]
    assert (made["method"], made["rank"]) == ("svd", 2)
    assert found["modelspec.merged_from"] == "ink, sketch"
    assert found["modelspec.trigger_phrase"].split(", ")[-1] == "sketch style"
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("2", "2.0")
    # Facts about the base stay, those about one training go.
    assert found["ss_base_model_version"] == "sdxl_base_v1-0"
    gone = ("ss_seed", "ss_learning_rate", "ss_output_name", "ss_tag_frequency", "ss_num_train_images", "ss_epoch")
    assert not found.keys() & set(gone)
    data = out.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert found["sshs_model_hash"] == hashlib.sha256(data[8 + length :]).hexdigest()


def test_three_adapters_in_any_order_come_to_the_same(run, base, files, ink, halved):
    third = adapter(SD1(), 8, 2, only="^text")
    write(files / "third.safetensors", as_kohya(third, KOHYA))
    names = ["ink.safetensors:0.7", "wash.safetensors:-1.3", "third.safetensors:3"]
    wanted = weighted((expected(ink), 0.7), (expected(halved), -1.3), (expected(third), 3))
    for specs in (names, names[::-1]):
        out, _ = run(*specs, overwrite=True)
        assert distance(read(base, out), wanted) < 1e-6


def test_the_same_bytes_every_time(run):
    first = run("ink.safetensors:0.7", "wash.safetensors", rank=4)[0].read_bytes()
    assert run("ink.safetensors:0.7", "wash.safetensors", rank=4, overwrite=True)[0].read_bytes() == first
