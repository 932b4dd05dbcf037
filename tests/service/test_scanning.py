import json
import math
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit_cli.core.kind import Kind, unscaled
from lorakit_cli.core.lora_file import Reading, read_lora_file
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.formats import FORMATS
from lorakit_cli.kinds.lora import LORA
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.scanning import scan
from tests.tiny import rewrite

STEM = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP = f"{STEM}.lora_A.weight", f"{STEM}.lora_B.weight"


@pytest.fixture
def spoiled(adapters, tmp_path):
    """Rewrite `ink` with some of its tensors changed, and scan it; what is found must fit into JSON."""

    def spoil(change):
        path = rewrite(adapters / "ink.safetensors", tmp_path / "bad.safetensors", lambda tensors: change(tensors))
        report = scan(open_adapter(path))
        json.dumps(asdict(report), allow_nan=False)
        return report

    return spoil


def test_a_sound_adapter_is_read_whole_and_without_findings(adapters):
    path = adapters / "ink.safetensors"
    calls = []
    report = scan(open_adapter(path), lambda done, total: calls.append((done, total)))
    count = len(load_file(path))
    assert (report.tensors, report.layers, report.unjudged) == (count, count // 2, 0)
    assert report.problems == ()
    assert calls[-1] == (count, count)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nan_and_infinity_are_counted_and_placed(spoiled, dtype):
    def spoil(tensors):
        up = tensors[UP].to(dtype)
        up[3, 1], up[3, 2], up[5, 0] = math.nan, -math.inf, math.nan
        return tensors | {UP: up}

    report = spoiled(spoil)
    (found,) = report.non_finite
    assert (found.key, found.stem, found.nan, found.inf, found.first) == (UP, STEM, 2, 1, (3, 1))
    assert found.text == f"{UP} holds 2 NaN and 1 infinite of 64 values, the first at [3, 1]"
    assert report.problems == (found.text,)


def test_nan_of_eight_bits_is_found_too(spoiled):
    def spoil(tensors):
        tensors = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in tensors.items()}
        down = tensors[DOWN].float()
        down[0, 2] = math.nan
        return tensors | {DOWN: down.to(torch.float8_e4m3fn)}

    (found,) = spoiled(spoil).non_finite
    assert (found.key, found.nan, found.inf, found.first) == (DOWN, 1, 0, (0, 2))


def test_a_tensor_outside_all_layers_is_read_too(spoiled):
    report = spoiled(lambda tensors: tensors | {"stray": torch.tensor([0.0, math.inf]), "other": torch.zeros(0)})
    (found,) = report.non_finite
    assert (found.key, found.stem, found.inf, found.first) == ("stray", None, 1, (1,))


@pytest.mark.parametrize("role", [DOWN, UP])
def test_a_factor_of_zeros_makes_a_dead_layer(spoiled, role):
    report = spoiled(lambda tensors: tensors | {role: torch.zeros_like(tensors[role])})
    (found,) = report.zero
    assert (found.stem, found.algorithm, found.parameter, found.zero_keys) == (STEM, "lora", "weight", (role,))
    assert report.problems == (f"{STEM} changes nothing: {role} is all zero",)


def test_zeros_times_nan_are_not_called_dead(spoiled):
    nan = torch.full((4, 16), math.nan)
    report = spoiled(lambda tensors: tensors | {UP: torch.zeros_like(tensors[UP]), DOWN: nan})
    assert report.zero == ()
    assert [found.key for found in report.non_finite] == [DOWN]


def test_an_alpha_of_zero_makes_a_dead_layer(spoiled):
    (found,) = spoiled(lambda tensors: tensors | {f"{STEM}.alpha": torch.tensor(0.0)}).zero
    assert found.text == f"{STEM} changes nothing: its scale is 0"
    assert found.zero_keys == ()


def test_factors_that_cancel_exactly_make_a_dead_layer(spoiled):
    def spoil(tensors):
        down, up = torch.zeros(4, 16), torch.zeros(16, 4)
        down[:2] = torch.arange(1.0, 33).view(2, 16)
        up[:, 2:] = 3
        return tensors | {DOWN: down, UP: up}

    (found,) = spoiled(spoil).zero
    assert found.text == f"{STEM} changes nothing: its factors cancel"


def test_factors_that_nearly_cancel_are_alive(spoiled):
    def spoil(tensors):
        down, up = torch.ones(4, 16), torch.ones(16, 4)
        up[:, :2] = -1
        up[7, 3] += 2.0**-20
        return tensors | {DOWN: down, UP: up}

    assert spoiled(spoil).problems == ()


def test_a_value_that_fp16_cannot_hold_is_named(spoiled):
    def spoil(tensors):
        down, up = tensors[DOWN].clone(), tensors[UP] * 1e-6
        down[2, 3] = -70000
        return tensors | {DOWN: down, UP: up}

    (found,) = spoiled(spoil).too_large
    assert (found.stem, found.key, found.largest) == (STEM, DOWN, 70000)
    assert found.text == f"{DOWN} holds 7e+04, more than fp16 can hold (65504)"


def test_a_change_that_fp16_cannot_hold_is_named(spoiled):
    tensors = {DOWN: torch.full((4, 16), 130.0), UP: torch.full((16, 4), -126.0)}
    (found,) = spoiled(lambda old: old | tensors).too_large
    assert (found.stem, found.key, found.largest) == (STEM, None, 4 * 130 * 126)
    # The norm is over the bound, but no single value is.
    tensors[UP] = torch.full((16, 4), -125.0)
    assert spoiled(lambda old: old | tensors).problems == ()


def test_a_change_beyond_all_numbers_stays_out_of_json(spoiled):
    tensors = {
        DOWN: torch.full((4, 16), 1e200, dtype=torch.float64),
        UP: torch.full((16, 4), 1e200, dtype=torch.float64),
    }
    report = spoiled(lambda old: old | tensors)
    assert [(found.key, found.largest) for found in report.too_large] == [(DOWN, 1e200), (UP, 1e200), (None, None)]


SCALED_ROWS = Kind(
    "rows",
    {"rows": "rows"},
    frozenset({"rows"}),
    lambda shapes: (shapes["rows"][0], -1),
    lambda factors, scale, base, settings: base * (factors["rows"] - 1),
    scale=unscaled,
    needs_base=True,
)
DIFF = Kind(
    "full",
    {"diff": "diff", "count": "count"},
    frozenset({"diff"}),
    lambda shapes: shapes["diff"],
    lambda factors, scale, base, settings: factors["diff"],
    scale=unscaled,
    optional=frozenset({"count"}),
)


@pytest.fixture
def other_kinds(tmp_path):
    """Scan a file with layers that are measured by their delta, and with one that depends on the base."""

    def scan_tensors(tensors):
        save_file({f"unet.{key}": tensor for key, tensor in tensors.items()}, tmp_path / "kinds.safetensors")
        reading = Reading(lambda keys: FORMATS, lambda keys: (LORA, SCALED_ROWS, DIFF))
        return scan(read_lora_file(tmp_path / "kinds.safetensors", reading))

    return scan_tensors


def test_layers_without_a_norm_are_judged_by_their_delta(other_kinds):
    report = other_kinds(
        {
            "a.diff": torch.zeros(3, 4),
            "b.diff": torch.tensor([[0.0, -1e5]]),
            "c.diff": torch.ones(2, 2),
            "c.count": torch.tensor(10**6),
        }
    )
    assert [found.stem for found in report.zero] == ["unet.a"]
    assert [(found.key, found.largest) for found in report.too_large] == [("unet.b.diff", 1e5), (None, 1e5)]


def test_layers_that_depend_on_the_base_are_counted_as_unjudged(other_kinds):
    report = other_kinds({"a.rows": torch.zeros(3, 1), "b.rows": torch.full((3, 1), math.nan)})
    assert (report.unjudged, report.zero) == (2, ())
    assert [found.key for found in report.non_finite] == ["unet.b.rows"]


def test_a_file_that_has_changed_since_is_refused(adapters, tmp_path):
    path = rewrite(adapters / "ink.safetensors", tmp_path / "moving.safetensors", lambda tensors: tensors)
    file = open_adapter(path)
    rewrite(path, path, lambda tensors: tensors | {UP: torch.zeros(17, 4)})
    with pytest.raises(CorruptFileError, match=r"has changed since its header was read: .*to_q\.lora_B"):
        scan(file)
