"""Strengths against deltas built densely in fp64 from the files, without lorakit."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.kind import Kind, unscaled
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.lora_file import Reading, read_lora_file
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.place import Place
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.formats import FORMATS
from lorakit_cli.kinds.lora import LORA
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.strength import measure
from tests.tiny import rewrite

DEAD = "unet.mid_block.attentions.0.proj_in"
BLOCKS = {
    "unet": ["down.block_0", "down.block_1", "down.block_2", "mid", "up.block_0", "up.block_1", "up.block_2"],
    "text_encoder": ["layers.0", "layers.1"],
}


def report_of(file, base=None, **options):
    matches = match_layers(base, "one", file)[0] if base else ()
    report = measure(file, base=base, matches=matches, **options)
    json.dumps(asdict(report), allow_nan=False)
    return report


def dense_norms(path, scale):
    """Recompute the norm of every delta of an adapter, by stem."""
    tensors = load_file(path)
    norms = {}
    for key, down in tensors.items():
        if ".lora_A." not in key and "lora_linear_layer.down" not in key:
            continue
        up = tensors[key.replace(".lora_A.", ".lora_B.").replace("layer.down", "layer.up")]
        delta = up.double().flatten(1) @ down.double().flatten(1) * scale
        norms[key.split(".lora_")[0]] = math.sqrt(float(delta.square().sum()))
    return norms


def base_norms(base):
    norms = {}
    for name in ("unet", "text_encoder"):
        (file,) = (base / name).glob("*.safetensors")
        for key, value in load_file(file).items():
            norms[f"{name}.{key.removesuffix('.weight')}"] = math.sqrt(float(value.double().square().sum()))
    return norms


def literal_block(stem):
    component, *path = stem.split(".")
    if component == "text_encoder":
        return component, "layers." + stem.split("layers.")[1].split(".")[0]
    return component, "mid" if path[0] == "mid_block" else f"{path[0].split('_')[0]}.block_{path[1]}"


def close(exact):
    return pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("name", "scale"), [("ink", 1.0), ("wash", 0.25)])
def test_every_norm_and_ratio_equals_the_dense_one(base, adapters, name, scale):
    path = adapters / f"{name}.safetensors"
    report = report_of(open_adapter(path), read_base_index(base))
    exact, theirs = dense_norms(path, scale), base_norms(base)
    assert {layer.stem for layer in report.layers} == exact.keys()
    assert report.adapter == name
    assert report.problems == ()
    for layer in report.layers:
        assert layer.norm == close(exact[layer.stem])
        assert layer.base_norm == close(theirs[layer.stem])
        assert layer.relative == close(exact[layer.stem] / theirs[layer.stem])
        assert (layer.component, layer.block) == literal_block(layer.stem)
        assert (layer.algorithm, layer.parameter, layer.reason) == ("lora", "weight", None)


def test_blocks_are_roots_of_summed_squares_in_the_order_of_the_model(base, adapters):
    path = adapters / "ink.safetensors"
    report = report_of(open_adapter(path), read_base_index(base))
    exact, theirs = dense_norms(path, 1.0), base_norms(base)
    assert [(block.component, block.block) for block in report.blocks] == [
        (component, block) for component, blocks in BLOCKS.items() for block in blocks
    ]
    assert sum(block.layers for block in report.blocks) == len(exact)
    for block in report.blocks:
        stems = [stem for stem in exact if literal_block(stem) == (block.component, block.block)]
        norm = math.sqrt(sum(exact[stem] ** 2 for stem in stems))
        base_norm = math.sqrt(sum(theirs[stem] ** 2 for stem in stems))
        assert (block.layers, block.unknown) == (len(stems), 0)
        assert (block.norm, block.base_norm, block.relative) == (
            close(norm),
            close(base_norm),
            close(norm / base_norm),
        )


def test_without_a_base_the_norms_and_blocks_are_the_same(base, adapters):
    file = open_adapter(adapters / "ink.safetensors")
    alone, beside = report_of(file), report_of(file, read_base_index(base))
    assert alone.layers == tuple(replace(layer, base_norm=None, relative=None) for layer in beside.layers)
    assert alone.blocks == tuple(replace(block, base_norm=None, relative=None) for block in beside.blocks)


def test_flattened_stems_find_their_block_by_base_or_module_or_go_by_their_beginning(base, adapters, tmp_path):
    def flatten(tensors):
        flat = {}
        for key, tensor in tensors.items():
            if key.startswith("unet."):
                stem, side = key.removeprefix("unet.").split(".lora_")
                suffix = "lora_down.weight" if side.startswith("A") else "lora_up.weight"
                flat[f"lora_unet_{stem.replace('.', '_')}.{suffix}"] = tensor
        return flat

    path = rewrite(adapters / "ink.safetensors", tmp_path / "flat.safetensors", flatten)
    file, index = open_adapter(path), read_base_index(base)
    dotted = {block.block: block.norm for block in report_of(open_adapter(adapters / "ink.safetensors"), index).blocks}
    matches, _ = match_layers(index, "one", file)
    modules = {match.layer.stem: match.name.parts[0] for match in matches}
    for report in (report_of(file, index), report_of(file, modules=modules)):
        assert [block.block for block in report.blocks] == BLOCKS["unet"]
        assert all(block.norm == close(dotted[block.block]) for block in report.blocks)
    alone = [block.block for block in report_of(file).blocks]
    assert alone == [f"down_blocks_{n}" for n in range(3)] + ["mid_block"] + [f"up_blocks_{n}" for n in range(3)]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_what_is_not_finite_is_none_with_a_reason_and_the_block_is_the_rest(base, adapters, tmp_path, value):
    key = f"{DEAD}.lora_B.weight"

    def spoil(tensors):
        up = torch.full(tensors[key].shape, value, dtype=torch.float64)
        return {name: tensor.clone() for name, tensor in tensors.items()} | {key: up}

    path = rewrite(adapters / "ink.safetensors", tmp_path / "bad.safetensors", spoil)
    report = report_of(open_adapter(path), read_base_index(base))
    (bad,) = (layer for layer in report.layers if layer.stem == DEAD)
    assert (bad.norm, bad.relative) == (None, None)
    assert bad.base_norm == close(base_norms(base)[DEAD])
    assert report.problems == (f"{DEAD}: the adapter holds NaN, infinity or values too large to square",)
    (mid,) = (block for block in report.blocks if block.block == "mid")
    rest = {
        stem: norm for stem, norm in dense_norms(path, 1.0).items() if stem != DEAD and stem.startswith("unet.mid_")
    }
    assert (mid.layers, mid.unknown) == (len(rest) + 1, 1)
    assert mid.norm == close(math.hypot(*rest.values()))
    theirs = math.hypot(*(base_norms(base)[stem] for stem in rest))
    assert (mid.base_norm, mid.relative) == (close(theirs), close(math.hypot(*rest.values()) / theirs))


def test_a_dead_layer_has_norm_zero(base, adapters, tmp_path):
    key = f"{DEAD}.lora_A.weight"
    path = rewrite(
        adapters / "ink.safetensors", tmp_path / "dead.safetensors", lambda old: old | {key: torch.zeros_like(old[key])}
    )
    report = report_of(open_adapter(path), read_base_index(base))
    (dead,) = (layer for layer in report.layers if layer.stem == DEAD)
    assert (dead.norm, dead.relative, dead.reason) == (0.0, 0.0, None)


def test_layers_that_fit_nowhere_are_measured_and_kept_out_of_ratios(base, adapters, tmp_path):
    def move(tensors):
        return {
            key.replace(f"{DEAD}.", "unet.mid_block.attentions.9.proj_in."): value for key, value in tensors.items()
        }

    path = rewrite(adapters / "ink.safetensors", tmp_path / "moved.safetensors", move)
    report = report_of(open_adapter(path), read_base_index(base))
    (moved,) = (layer for layer in report.layers if layer.base_norm is None)
    assert moved.norm == close(dense_norms(adapters / "ink.safetensors", 1.0)[DEAD])
    (mid,) = (block for block in report.blocks if block.block == "mid")
    placed = [layer for layer in report.layers if layer.block == "mid" and layer.base_norm is not None]
    assert mid.layers == len(placed) + 1
    assert mid.norm > math.hypot(*(layer.norm for layer in placed))
    assert mid.relative == close(
        math.hypot(*(layer.norm for layer in placed)) / math.hypot(*(layer.base_norm for layer in placed))
    )


def test_progress_counts_layers(adapters):
    calls = []
    file = open_adapter(adapters / "ink.safetensors")
    measure(file, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, len(file.layers)) for n in range(1, len(file.layers) + 1)]


# Multiplies the rows of the base: which row meets which factor matters.
ROWS = Kind(
    "rows",
    {"rows": "rows"},
    frozenset({"rows"}),
    lambda shapes: (shapes["rows"][0], -1),
    lambda factors, scale, base, settings: base * (factors["rows"] - 1),
    scale=unscaled,
    needs_base=True,
)
READING = Reading(lambda keys: FORMATS, lambda keys: (LORA, ROWS))


@pytest.fixture
def fused_base(tmp_path):
    """Index a transformer whose file keeps q and k as rows of one tensor, and `out` with its halves swapped."""

    def index(**changed):
        generator = torch.Generator().manual_seed(5)
        tensors = {
            "qk.weight": torch.randn(10, 6, generator=generator),
            "out.weight": torch.randn(8, 6, generator=generator),
        } | changed
        path = tmp_path / "base.safetensors"
        save_file(tensors, path)
        places = {
            "layers.0.q.weight": Place("qk.weight", (0, 4)),
            "layers.0.k.weight": Place("qk.weight", (4, 10)),
            "layers.1.out.weight": Place("out.weight", None, True),
        }
        infos = {name: BaseTensor(info, path) for name, info in read_header(path).tensors.items()}
        component = BaseComponent("transformer", "Any", {}, infos, places)
        return tensors, BaseIndex(Path(tmp_path), "Pipeline", {"transformer": component})

    return index


def save_layers(path, tensors):
    save_file({f"transformer.layers.{key}": tensor for key, tensor in tensors.items()}, path)
    return read_lora_file(path, READING)


def test_of_a_fused_tensor_only_the_own_rows_count(tmp_path, fused_base):
    tensors, base = fused_base()
    factors = {"0.q.lora_A.weight": torch.ones(1, 6), "0.q.lora_B.weight": torch.ones(4, 1)}
    factors |= {"0.k.lora_A.weight": torch.ones(1, 6), "0.k.lora_B.weight": torch.ones(6, 1)}
    report = report_of(save_layers(tmp_path / "qk.safetensors", factors), base)
    q, k = sorted(report.layers, key=lambda layer: layer.norm)
    fused = tensors["qk.weight"].double()
    assert (q.norm, q.base_norm) == (close(math.sqrt(24)), close(float(fused[:4].norm())))
    assert (k.norm, k.base_norm) == (close(6.0), close(float(fused[4:].norm())))
    (block,) = report.blocks
    assert (block.block, block.base_norm) == ("layers.0", close(float(fused.norm())))
    assert block.relative == close(math.sqrt(60) / float(fused.norm()))


def test_a_kind_that_needs_the_base_is_measured_on_its_rows_in_the_layers_order(tmp_path, fused_base):
    tensors, base = fused_base()
    rows = torch.arange(8.0).view(8, 1)
    file = save_layers(tmp_path / "rows.safetensors", {"1.out.rows": rows, "0.k.rows": rows[:6].clone()})
    by_stem = {layer.stem: layer for layer in report_of(file, base).layers}
    swapped = torch.cat([tensors["out.weight"][4:], tensors["out.weight"][:4]]).double()
    out = by_stem["transformer.layers.1.out"]
    assert out.norm == close(float((swapped * (rows - 1)).norm()))
    assert out.norm != pytest.approx(float((tensors["out.weight"].double() * (rows - 1)).norm()), rel=1e-3)
    assert out.base_norm == close(float(swapped.norm()))
    k = tensors["qk.weight"][4:].double() * (rows[:6] - 1)
    assert by_stem["transformer.layers.0.k"].norm == close(float(k.norm()))


def test_a_kind_that_needs_the_base_is_not_known_without_it(tmp_path, fused_base):
    rows = {"1.out.rows": torch.ones(8, 1), "0.k.rows": torch.ones(6, 1), "7.lost.rows": torch.ones(6, 1)}
    file = save_layers(tmp_path / "rows.safetensors", rows)
    alone = report_of(file)
    assert [layer.norm for layer in alone.layers] == [None] * 3
    assert alone.problems == (
        f"{file.layers[0].stem} and 2 more: its change follows from the base's values and needs --base",
    )
    assert [(block.norm, block.unknown) for block in alone.blocks] == [(None, 1)] * 3
    _, base = fused_base()
    beside = report_of(file, base)
    assert beside.problems == (
        "transformer.layers.7.lost: its change follows from the base's values, and it fits nothing in the base",
    )
    # Rows times one: nothing changes, and that is known.
    assert sorted(layer.norm for layer in beside.layers if layer.norm is not None) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("value", "base_norm", "reason"),
    [
        (0.0, 0.0, "the base is all zero there, so that there is no ratio"),
        (math.nan, None, "the base holds NaN or infinity there"),
    ],
)
def test_a_base_that_gives_no_ratio_is_named(tmp_path, fused_base, value, base_norm, reason):
    _, base = fused_base(**{"out.weight": torch.full((8, 6), value)})
    factors = {"1.out.lora_A.weight": torch.ones(1, 6), "1.out.lora_B.weight": torch.ones(8, 1)}
    report = report_of(save_layers(tmp_path / "out.safetensors", factors), base)
    (layer,) = report.layers
    assert (layer.norm, layer.base_norm, layer.relative) == (close(math.sqrt(48)), base_norm, None)
    assert report.problems == (f"transformer.layers.1.out: {reason}",)
    assert report.blocks[0].relative is None


def test_a_parameter_that_two_layers_change_counts_once(tmp_path, fused_base):
    tensors, base = fused_base()
    factors = {
        "1.out.lora_A.weight": torch.ones(1, 6),
        "1.out.lora_B.weight": torch.ones(8, 1),
        "1.out.rows": torch.full((8, 1), 3.0),
    }
    report = report_of(save_layers(tmp_path / "two.safetensors", factors), base)
    (block,) = report.blocks
    theirs = float(tensors["out.weight"].double().norm())
    assert (block.layers, block.base_norm) == (2, close(theirs))
    assert block.norm == close(math.hypot(math.sqrt(48), 2 * theirs))
