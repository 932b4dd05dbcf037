"""What adapters have in common, held against their dense changes in fp64."""

import json
import re
from itertools import combinations

import pytest
import torch
from PIL import Image

from lorakit_cli.core.block_names import block_of
from lorakit_cli.service.overlap_plot import AGAINST, SAME, color_of
from tests.conversions import BUILDERS, Factors, as_kohya, expected, write
from tests.merging import KOHYA, adapter, as_diffusers, done, refused
from tests.service.test_resizing import STEM, loha

SD1 = BUILDERS["sd1"]


@pytest.fixture
def three(here):
    """Two adapters and one that is half the first and half its own, all at other ranks, in two layouts."""
    one = adapter(SD1(), 1, 3, alpha=1.5)
    two = adapter(SD1(), 2, 2, only=r"^unet")
    own = adapter(SD1(), 3, 1, only=r"^unet.*(mid|up)_block")
    mixed = {
        key: Factors(torch.cat([each.down, one[key].down]), torch.cat([each.up, one[key].up * -2], 1), None)
        for key, each in own.items()
    }
    write(here / "one.safetensors", as_kohya(one, KOHYA))
    write(here / "two.safetensors", as_diffusers(two))
    write(here / "mixed.safetensors", as_kohya(mixed, KOHYA))
    return {"one": (expected(one), 0.5), "two": (expected(two), 1.0), "mixed": (expected(mixed), 2.0)}


@pytest.fixture
def analyze(lorakit, base):
    """Analyze adapters of this folder for the tiny base."""

    def run(*specs, options=("--analyze", "--json")):
        words = [word for spec in specs for word in ("--lora", f"./{spec}")]
        return lorakit("merge", *words, "--base", base, *options)

    return run


SPECS = ("one.safetensors:0.5", "two.safetensors", "mixed.safetensors:2")


def cosine(one, other, keys):
    inner, first, second = (
        sum(float((a[key] * b[key]).sum()) for key in keys) for a, b in ((one, other), (one, one), (other, other))
    )
    return inner / (first * second) ** 0.5


def shared_space(one, other):
    """Give the mean squared cosine of the angles between two column spaces."""
    bases = []
    for change in (one, other):
        left, values, _ = torch.linalg.svd(change)
        bases.append(left[:, : int((values > 1e-9 * values[0]).sum())])
    values = torch.linalg.svdvals(bases[0].T @ bases[1])
    return float(values.square().sum()) / min(bases[0].shape[1], bases[1].shape[1])


def test_cosines_angles_and_norms_are_those_of_the_dense_changes(analyze, three):
    report = done(analyze(*SPECS))
    norms = {each["name"]: each["norm"] for each in report["adapters"]}
    total = {}
    for name, (changes, weight) in three.items():
        assert norms[name] == pytest.approx(
            weight * sum(float(c.norm()) ** 2 for c in changes.values()) ** 0.5, rel=1e-6
        )
        for key, change in changes.items():
            total[key] = total.get(key, 0) + weight * change
    together = sum(float(change.norm()) ** 2 for change in total.values()) ** 0.5
    assert report["together"] == pytest.approx(together, rel=1e-6)
    assert report["independent"] == pytest.approx(sum(norm**2 for norm in norms.values()) ** 0.5, rel=1e-9)
    for each in report["adapters"]:
        factor = report["independent"] / report["together"]
        assert each["suggested"] == pytest.approx(each["weight"] * factor, rel=1e-9)
    parts = [*report["pairs"], *report["components"], *report["blocks"]]
    seen = 0
    for part in parts:
        one, other = (three[part[name]][0] for name in ("one", "other"))
        keys = [
            key
            for key in one.keys() & other.keys()
            if part["component"] in (None, key[0]) and part["block"] in (None, block_of(*key))
        ]
        assert part["layers"] == len(keys)
        if not keys:
            assert part["cosine"] is part["outputs"] is part["inputs"] is part["by_chance"] is None
            continue
        seen += 1
        assert part["cosine"] == pytest.approx(cosine(one, other, keys), abs=1e-6)
        flat = [(one[key].flatten(1), other[key].flatten(1)) for key in sorted(keys)]
        assert part["outputs"] == pytest.approx(sum(shared_space(a, b) for a, b in flat) / len(flat), abs=1e-6)
        assert part["inputs"] == pytest.approx(sum(shared_space(a.T, b.T) for a, b in flat) / len(flat), abs=1e-6)
    assert seen > 20
    assert {(part["one"], part["other"]) for part in report["pairs"]} == set(combinations(three, 2))


def test_adapters_that_undo_each_other_are_named_with_the_blocks(analyze, three):
    (warning,) = [text for text in done(analyze(*SPECS))["warnings"] if "undo" in text]
    assert warning.startswith("one and mixed undo each other in part: unet ")
    assert "up.block_" in warning
    turned = done(analyze(SPECS[0], "mixed.safetensors:-2"))
    (warning,) = [text for text in turned["warnings"] if "overdoes" in text]
    assert warning.startswith("one and mixed change the same, so that their sum overdoes it: unet ")
    assert turned["together"] > turned["independent"]
    assert all(abs(each["suggested"]) < abs(each["weight"]) for each in turned["adapters"])
    drowned = done(analyze("two.safetensors", "one.safetensors:0.001"))["warnings"]
    assert [text for text in drowned if text.startswith("at these weights two changes ")]


def test_the_same_adapter_twice_and_nothing_in_common(analyze, three, here):
    write(here / "text.safetensors", as_kohya(adapter(SD1(), 9, 2, only="^text"), KOHYA))
    (pair,) = done(analyze("two.safetensors", "text.safetensors"))["pairs"]
    assert (pair["layers"], pair["cosine"]) == (0, None)
    (here / "twin.safetensors").write_bytes((here / "two.safetensors").read_bytes())
    (pair,) = done(analyze("two.safetensors:0.5", "twin.safetensors:3"))["pairs"]
    assert pair["cosine"] == pytest.approx(1, abs=1e-9)
    assert pair["outputs"] == pytest.approx(1, abs=1e-6)
    # Sums of what cancels have no length to bring back.
    gone = done(analyze("two.safetensors", "twin.safetensors:-1"))
    assert [each["suggested"] for each in gone["adapters"]] == [1, -1]


def test_changes_without_factors_are_compared_whole(analyze, three, here):
    tensors, hada = loha(f"{STEM}q", 16, 16, 2)
    full = torch.randn(16, 16, generator=torch.Generator().manual_seed(4))
    write(here / "other.safetensors", tensors | {f"{STEM}v.diff": full})
    (pair,) = done(analyze("one.safetensors", "other.safetensors"))["pairs"]
    module = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_"
    changes = {("unet", f"{module}q"): hada, ("unet", f"{module}v"): full.double()}
    assert pair["cosine"] == pytest.approx(cosine(three["one"][0], changes, changes), abs=1e-6)
    # Angles are those of the layer that has factors.
    assert 0 < pair["outputs"] < 1


def test_the_tables_the_picture_and_the_merge_beside_it(analyze, three, here):
    result = analyze(*SPECS, options=("--plot", "map.png"))
    assert result.exit_code == 0
    first, head, *rows = result.stdout.splitlines()
    assert first == "overlap of one:0.5, two:1, mixed:2 in StableDiffusionPipeline"
    assert head.split() == ["weight", "norm", "suggested"]
    assert len([row for row in rows if row.strip().startswith("unet ")]) == 3
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines())
    with Image.open(here / "map.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}
    report = done(analyze(*SPECS))
    cosines = [part["cosine"] for part in (*report["pairs"], *report["blocks"])]
    assert SAME in colors
    assert all(color_of(value) in colors for value in cosines)
    refused(analyze(*SPECS, options=("--plot", "map.png")), "map.png exists already")
    merged = done(analyze(*SPECS, options=("--analyze", "--out", "out.safetensors", "--json")))
    assert merged["schema"] == "lorakit/merge/1"
    assert merged["overlap"] == {key: value for key, value in report.items() if key != "schema"}
    assert json.dumps(merged["overlap"])


def test_the_report_has_these_keys(analyze, three):
    report = done(analyze(*SPECS[:2]))
    assert report.keys() == {
        "schema", "architecture", "adapters", "pairs", "components", "blocks", "together", "independent", "rule",
        "warnings",
    }  # fmt: skip
    assert report["schema"] == "lorakit/overlap/1"
    assert report["adapters"][0].keys() == {"name", "weight", "norm", "suggested"}
    keys = {"one", "other", "component", "block", "layers", "cosine", "outputs", "inputs", "by_chance"}
    assert report["pairs"][0].keys() == report["blocks"][0].keys() == keys


def test_colours_run_from_one_over_none_to_the_other():
    assert (color_of(1.0), color_of(-1.0)) == (SAME, AGAINST)
    assert color_of(None) not in (color_of(0.0), SAME, AGAINST)
    assert sum(color_of(0.0)) > sum(color_of(0.5)) > sum(color_of(1.0))


@pytest.mark.parametrize("name", ["one", "mixed"])
def test_weights_whose_squares_no_number_holds(analyze, three, name):
    result = analyze(f"{name}.safetensors:1e308", "two.safetensors")
    assert result.exit_code == 1
    assert re.fullmatch(r"error: the change of \S+ is too large to be decomposed; try smaller weights\n", result.stderr)


def test_an_adapter_whose_own_terms_cancel_is_none(analyze, three, here):
    """What rounding leaves of its squares may be less than nothing."""
    for seed in range(6):
        one = adapter(SD1(), seed, 2, only=r"^unet.*attn1")
        null = {
            key: Factors(torch.cat([each.down, each.down]), torch.cat([each.up, -each.up], 1), None)
            for key, each in one.items()
        }
        write(here / "null.safetensors", as_kohya(null, KOHYA))
        result = analyze("null.safetensors", "one.safetensors")
        assert result.exit_code == 0, result.stderr
        report = json.loads(result.stdout)
        norms = {each["name"]: each["norm"] for each in report["adapters"]}
        assert norms["null"] == 0 < norms["one"]
        assert all(pair["cosine"] is None for pair in report["pairs"])
        assert not report["warnings"]
