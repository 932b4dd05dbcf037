"""Resized adapters: as close as their ranks allow, by dense arithmetic on what was read and what was written."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.errors import CorruptFileError, OptionError, UnsupportedError
from lorakit_cli.service.resizing import ResizeRequest, resize
from tests.conversions import BUILDERS, as_kohya, expected, flux_native, metadata_of, our_deltas, write
from tests.kohya_metadata import KOHYA as TRAINED
from tests.merging import KOHYA, adapter, best, distance, read

SD1 = BUILDERS["sd1"]


@pytest.fixture(scope="module")
def ink():
    return adapter(SD1(), 1, 6, alpha=3.0)


@pytest.fixture
def run(base, tmp_path):
    """Resize a kohya file of these factors for the tiny base."""

    def resize_factors(factors, metadata=None, more=None, on=base, prefixes=KOHYA, **options):
        tensors = factors if isinstance(next(iter(factors)), str) else as_kohya(factors, prefixes)
        source = write(tmp_path / "in.safetensors", tensors | (more or {}), metadata)
        out = tmp_path / ("out" if options.get("to") == "peft" else "out.safetensors")
        rule = RankRule(**{name: options.pop(name) for name in RankRule._fields if name in options})
        return out, resize(ResizeRequest(str(source), out, rule, base=str(on), **options))

    return resize_factors


@pytest.mark.parametrize("rank", [1, 4, 6])
def test_every_layer_is_as_close_as_its_rank_allows(run, base, ink, rank):
    out, report = run(ink, rank=rank)
    found = read(base, out)
    lost = whole = 0.0
    for key, factors in ink.items():
        close, tail = best(factors.delta, rank)
        norm = float(factors.delta.norm())
        assert float((found[key].reshape(close.shape) - close).norm()) < 1e-6 * norm, key
        error = float((found[key].reshape(close.shape) - factors.delta).norm())
        assert error == pytest.approx(tail, rel=1e-5, abs=2e-7 * norm)
        lost, whole = lost + tail**2, whole + norm**2
    assert report.energy == pytest.approx(1 - lost / whole, abs=1e-12)
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4, abs=1e-6)
    assert report.rank_before == (6, 6)
    assert report.rank_after[1] == rank
    assert report.layers == len(ink)
    assert report.size == out.stat().st_size
    parts = {part.component: part for part in report.components}
    assert parts.keys() == {"unet", "text_encoder"}
    own = {key: factors.delta for key, factors in ink.items() if key[0] == "text_encoder"}
    assert parts["text_encoder"].error == pytest.approx(distance({key: found[key] for key in own}, own), rel=1e-4)
    assert {block.block for block in report.blocks} >= {"down.block_0", "mid", "up.block_2", "layers.0"}


@pytest.mark.parametrize(("rule", "value"), [("energy", 0.9), ("error", 0.2), ("ratio", 2.0)])
def test_each_layer_gets_the_least_rank_that_does(run, base, ink, rule, value):
    out, report = run(ink, **{rule: value})
    tensors = load_file(out)
    ranks = set()
    for key, factors in ink.items():
        values = torch.linalg.svdvals(factors.delta.flatten(1))[:6]
        rest = [float(values[rank:].square().sum() / values.square().sum()) for rank in range(7)]
        if rule == "ratio":
            wanted = int((values > values[0] / value).sum())
        else:
            lost = 1 - value if rule == "energy" else value**2
            wanted = next(rank for rank in range(7) if rest[rank] <= lost)
        name = key[1] if key[0] == "unet" else f"text_model.{key[1]}"
        stem = KOHYA[key[0]] + name.replace(".", "_")
        assert tensors[f"{stem}.lora_down.weight"].shape[0] == wanted
        # Where there is none, all programs take the rank for it.
        assert f"{stem}.alpha" not in tensors
        ranks.add(wanted)
    assert report.rank_after == (min(ranks), max(ranks))
    assert len(ranks) > 1


@pytest.mark.parametrize("to", ["kohya", "diffusers"])
def test_a_size_is_kept_to_and_used_up(run, base, to):
    factors = adapter(SD1(), 2, 6)
    for number, (key, each) in enumerate(factors.items()):
        factors[key] = type(each)(each.down, each.up * (1 + number % 7), None)
    even, evenly = run(factors, rank=4, to=to)
    budget = even.stat().st_size
    out, report = run(factors, size=budget, to=to, overwrite=True)
    assert budget - 1500 < out.stat().st_size <= budget
    assert report.rank_after[0] >= 1
    # The same bytes spent evenly leave more out.
    assert report.error < 0.9 * evenly.error
    assert distance(read(base, out), expected(factors)) == pytest.approx(report.error, rel=1e-5)


def test_a_size_that_is_too_small_names_the_least(run, ink, tmp_path):
    with pytest.raises(OptionError, match=r"with rank 1 in every layer the file has (\d+)") as caught:
        run(ink, size=5000)
    least = int(str(caught.value).split("file has ")[1].split(";")[0])
    assert not (tmp_path / "out.safetensors").exists()
    out, report = run(ink, size=least)
    assert (out.stat().st_size, report.rank_after) == (least, (1, 1))
    with pytest.raises(OptionError, match=rf"file has {least}; ask for at least 0\.\d\dMB, or store it in fp16$"):
        run(ink, size=least - 1, overwrite=True)
    with pytest.raises(OptionError, match=r"ask for at least 0\.\d\dMB$"):
        run(ink, size=5000, overwrite=True, dtype="fp16")


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_the_error_includes_rounding(run, base, ink, dtype):
    out, report = run(ink, rank=6, dtype=dtype)
    assert report.error == pytest.approx(distance(read(base, out), expected(ink)), rel=1e-3, abs=1e-12)
    assert report.error < {"fp16": 2**-10, "bf16": 2**-7, "fp32": 2**-23}[dtype]
    assert load_file(out).keys() == {name for name in as_kohya(ink, KOHYA) if not name.endswith(".alpha")}


def test_the_dtype_stays_and_scales_go_into_the_factors(run, ink):
    tensors = {name: tensor.half() for name, tensor in as_kohya(ink, KOHYA).items()}
    out, _ = run(tensors, rank=2)
    for name, tensor in load_file(out).items():
        if name.endswith(".alpha"):
            assert (tensor.dtype, float(tensor)) == (torch.float32, 2.0)
        else:
            assert tensor.dtype == torch.float16


@pytest.mark.parametrize("to", ["diffusers", "comfy", "peft"])
def test_another_layout(run, base, ink, to):
    out, report = run(ink, energy=0.9, to=to)
    assert report.layout == to
    files = sorted(out.rglob("*.safetensors")) if out.is_dir() else [out]
    found = {}
    for file in files:
        found |= read(base, file)
    assert distance(found, expected(ink)) == pytest.approx(report.error, rel=1e-5)


def test_fused_rows(run, tmp_path):
    """What kohya trained as one over query, key and value is reduced as one, or part by part for diffusers."""
    folder = tmp_path / "flux"
    BUILDERS["flux"]().save_pretrained(folder)
    tensors, wanted = flux_native()
    for to in ("kohya", "diffusers"):
        out, report = run(tensors, on=folder, rank=1, to=to, overwrite=True)
        assert report.rank_after == (1, 1)
        found = our_deltas(folder, out)
        assert distance(found, wanted) == pytest.approx(report.error, rel=1e-4)
        qkv = [("transformer", f"transformer_blocks.0.attn.to_{part}") for part in "qkv"]
        if to == "kohya":
            close = best(torch.cat([wanted[key] for key in qkv]), 1)[0]
        else:
            close = torch.cat([best(wanted[key], 1)[0] for key in qkv])
        assert torch.allclose(torch.cat([found[key] for key in qkv]), close, atol=1e-5)


def test_what_kohya_states_of_ranks_becomes_true_and_the_rest_stays(run, ink):
    out, _ = run(ink, TRAINED, rank=2)
    found = metadata_of(out)
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("2", "2.0")
    assert json.loads(found["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "2.0"}
    assert found["ss_training_comment"] == "dimension is resized from 6 to 2; third try"
    changed = {"ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_training_comment"}
    changed |= {"sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"}
    assert {key: value for key, value in found.items() if key not in changed} == {
        key: value for key, value in TRAINED.items() if key not in changed
    }
    data = out.read_bytes()
    import hashlib

    begin = 8 + int.from_bytes(data[:8], "little")
    assert found["sshs_model_hash"] == hashlib.sha256(data[begin:]).hexdigest()
    out, _ = run(ink, TRAINED, energy=0.9, overwrite=True)
    assert metadata_of(out)["ss_network_dim"] == metadata_of(out)["ss_network_alpha"] == "Dynamic"


def test_norms_and_biases_stay_and_dead_layers_go(run, base, ink):
    stem = "lora_unet_down_blocks_0_resnets_0_norm1"
    more = {f"{stem}.w_norm": torch.randn(8), f"{stem}.b_norm": torch.randn(8)}
    dead = next(key for key in ink if key[1].endswith("to_q"))
    factors = ink | {dead: type(ink[dead])(ink[dead].down, torch.zeros_like(ink[dead].up), 1.0)}
    out, report = run(factors, more=more, rank=2)
    assert (report.unchanged, report.zero, report.layers) == (2, 1, len(ink) + 1)
    tensors = load_file(out)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in more.items())
    with pytest.raises(
        UnsupportedError, match="is norm of a vector, which the diffusers layout cannot hold; --to kohya"
    ):
        run(factors, more=more, rank=2, to="diffusers", overwrite=True)


def loha(stem, rows, columns, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"w1_a": (rows, rank), "w1_b": (rank, columns), "w2_a": (rows, rank), "w2_b": (rank, columns)}
    tensors = {f"{stem}.hada_{name}": torch.randn(size, generator=generator) for name, size in sizes.items()}
    w1, w2 = (tensors[f"{stem}.hada_w{n}_a"].double() @ tensors[f"{stem}.hada_w{n}_b"].double() for n in (1, 2))
    return tensors, w1 * w2


STEM = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_"


def test_other_algorithms_become_the_closest_lora(run, base):
    """A LoHa has factors of its own, of rank 2 x 2; a LoKr and a whole difference are decomposed whole."""
    generator = torch.Generator().manual_seed(5)
    tensors, hada = loha(f"{STEM}q", 16, 16, 2)
    first, second = torch.randn(4, 4, generator=generator), torch.randn(4, 4, generator=generator)
    full = torch.randn(16, 16, generator=generator)
    tensors |= {f"{STEM}k.lokr_w1": first, f"{STEM}k.lokr_w2": second, f"{STEM}v.diff": full}
    changes = {"q": hada, "k": torch.kron(first.double(), second.double()), "v": full.double()}
    stated = {"ss_network_module": "lycoris.kohya", "ss_network_dim": "2", "ss_network_args": '{"algo": "loha"}'}
    out, report = run(tensors, stated, rank=3)
    found = read(base, out)
    assert json.loads(metadata_of(out)["ss_network_args"]) == {"algo": "lora"}
    assert set(load_file(out)) == {
        f"{STEM}{part}.{name}" for part in "qkv" for name in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    tails = {}
    for part, change in changes.items():
        close, tails[part] = best(change, 3)
        key = "unet", f"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_{part}"
        assert torch.allclose(found[key], close, atol=1e-4)
    lost = sum(tail**2 for tail in tails.values()) / sum(float(change.norm()) ** 2 for change in changes.values())
    assert report.error == pytest.approx(lost**0.5, rel=1e-4)


def test_the_rank_of_a_loha_is_the_square_of_its_own(run, base):
    tensors, hada = loha(f"{STEM}q", 16, 16, 2)
    out, report = run(tensors, rank=4)
    key = "unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    assert torch.allclose(read(base, out)[key].double(), hada, atol=1e-5)
    assert report.rank_after == (4, 4)
    with pytest.raises(OptionError, match=r"no layer of .* has a rank above 4; ask for 4 or less"):
        run(tensors, rank=5, overwrite=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(run, ink, value, tmp_path):
    tensors = as_kohya(ink, KOHYA)
    key = f"{STEM}q.lora_up.weight"
    tensors[key] = tensors[key].clone()
    tensors[key][3, 1] = value
    with pytest.raises(
        CorruptFileError, match=rf"{key} of .*/in\.safetensors holds NaN or infinity; `lorakit inspect --scan` says"
    ):
        run(tensors, rank=2)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_what_needs_a_base_is_refused_with_the_way_there(run, ink):
    tensors = as_kohya(ink, KOHYA) | {f"{STEM}q.dora_scale": torch.ones(16, 1)}
    with pytest.raises(
        UnsupportedError, match="is dora, whose change depends on the base's values; two commands make plain LoRA of it"
    ):
        run(tensors, rank=2)


def test_norms_alone_have_no_rank(run, tmp_path):
    with pytest.raises(OptionError, match=r"in\.safetensors has no layer with a rank, only norms, biases and the like"):
        run({"lora_unet_down_blocks_0_resnets_0_norm1.w_norm": torch.randn(8)}, rank=2)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_rank_above_all_there_are_is_refused(run, ink):
    with pytest.raises(OptionError, match=r"--rank 7: no layer of .* has a rank above 6; ask for 6 or less"):
        run(ink, rank=7)


def test_values_that_a_dtype_cannot_hold(run):
    factors = adapter(SD1(), 1, 2, only="attn1.to_q", size=1e12)
    with pytest.raises(UnsupportedError, match=r"has values that fp16 cannot hold; choose --dtype bf16 or fp32"):
        run(factors, rank=1, dtype="fp16")
    assert run(factors, rank=1, dtype="bf16")[1].error < 1


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", id="the way to a gpu"), pytest.param("cuda", marks=pytest.mark.cuda)]
)
def test_a_gpu_comes_to_the_same(run, base, ink, monkeypatch, device):
    rules = ({"rank": 2}, {"error": 0.3}, {"size": 200_000})
    before = [(read(base, out), report) for out, report in (run(ink, **rule, overwrite=True) for rule in rules)]
    # There is too little to do here for one to be worth it.
    monkeypatch.setattr("lorakit_cli.service.decomposing._gpu", lambda slots, total: torch.device(device))
    for rule, (wanted, expected_report) in zip(rules, before, strict=True):
        out, report = run(ink, **rule, overwrite=True)
        assert distance(read(base, out), wanted) < 1e-6
        assert report.error == pytest.approx(expected_report.error, rel=1e-6)
        assert report.blocks[0].rank_after == expected_report.blocks[0].rank_after


@pytest.mark.cuda
def test_much_work_goes_to_a_gpu(run, ink, monkeypatch):
    monkeypatch.setattr("lorakit_cli.service.decomposing._WORTH_A_GPU", 0)
    torch.cuda.reset_peak_memory_stats()
    run(ink, rank=2)
    assert torch.cuda.max_memory_allocated() > 0
