import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lorakit_cli.core.kind import ALPHA
from lorakit_cli.kinds import KINDS, kinds_for
from lorakit_cli.kinds.lora import LORA
from tests.kinds.apply import kinds_of


def test_every_algorithm_has_a_name_of_its_own():
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)


def test_a_suffix_means_the_same_to_every_algorithm():
    roles: dict[str, str] = {}
    for kind in KINDS:
        for suffix, role in kind.suffixes.items():
            assert roles.setdefault(suffix, role) == role, suffix
    assert ALPHA not in roles


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_algorithm_names_a_suffix_for_every_part(kind):
    assert kind.required | kind.optional == set(kind.suffixes.values())
    assert not kind.required & kind.optional


def test_an_algorithm_that_needs_more_comes_before_one_that_needs_less():
    for place, kind in enumerate(KINDS):
        for later in KINDS[place + 1 :]:
            parts = dict.fromkeys(later.required, (2, 2))
            takes = bool(kind.required) and kind.required < later.required and kind.when(parts)
            assert not takes, f"{kind.name} takes what {later.name} is made of"


SHAPES = {
    "lora-tucker": {"up": (6, 2), "mid": (2, 2, 3, 3), "down": (2, 5)},
    "adalora": {"up": (6, 2), "down": (2, 5), "singular": (2, 1)},
    "loha": {"hada_w1_a": (6, 2), "hada_w1_b": (2, 5), "hada_w2_a": (6, 2), "hada_w2_b": (2, 5)},
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.thin], ids=lambda kind: kind.name)
def test_two_thin_factors_are_the_delta(kind):
    generator = torch.Generator().manual_seed(0)
    shapes = SHAPES[kind.name]
    factors = {role: torch.randn(size, generator=generator, dtype=torch.float64) for role, size in shapes.items()}
    left, right = kind.thin.factors(factors, 0.7)
    assert left.shape[1] == right.shape[0] == kind.thin.inner(shapes)
    change = kind.delta(factors, 0.7, None, {}).flatten(1)
    assert torch.allclose(left @ right, change, rtol=1e-12, atol=1e-12)
    assert not kind.needs_base


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not LORA], ids=lambda kind: kind.name)
@pytest.mark.parametrize("roles", [("down",), ("up",), ("down", "up")])
def test_no_other_algorithm_is_made_of_plain_factors(kind, roles):
    parts = dict.fromkeys(roles, (2, 2))
    taken = kind.required <= parts.keys() and kind.when(parts)
    assert not taken or (len(roles) == 2 and KINDS.index(kind) > KINDS.index(LORA))
    assert not any(suffix.endswith((".lora_down.weight", ".lora_B.weight", ".alpha")) for suffix in kind.suffixes)


@pytest.mark.parametrize(
    ("keys", "plain"),
    [
        (["a.lora_down.weight", "a.lora_up.weight", "a.alpha"], True),
        (["a.lora_A.weight", "a.lora_B.weight"], True),
        (["a.lora_A.weight", "a.lora_B.weight", "b.diff"], False),
        (["a.lora_A.weight", "a.lora_B.weight", "a.dora_scale"], False),
        (["a.lora_A.weight", "a.lora_B.bias"], False),
        (["a.alpha\nb.alpha", "b.diff"], False),
        (["a.lora_A.default.weight"], False),
        (["lora_A.weight"], False),
    ],
)
def test_files_of_plain_lora_need_no_other_algorithm(keys, plain):
    assert kinds_for(keys) == ((LORA,) if plain else KINDS)


def test_no_tensor_library_is_loaded_to_know_the_algorithms():
    script = "import sys, lorakit_cli.kinds; print([m for m in ('torch', 'numpy', 'safetensors') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_the_tensors_of_one_module_can_be_of_several_algorithms():
    tensors = {
        "lora_down.weight": torch.ones(2, 4),
        "lora_up.weight": torch.ones(6, 2),
        "diff_b": torch.ones(6),
        "bias_indices": torch.zeros(2, 1),
        "bias_values": torch.ones(1),
        "bias_size": torch.tensor([6, 4]),
    }
    assert [kind.name for kind in kinds_of(tensors)] == ["lora", "bias", "sparse"]


def test_a_part_that_is_missing_leaves_the_others_without_an_algorithm():
    whole = {"lokr_w1": torch.ones(2, 2), "lokr_w2_a": torch.ones(4, 2), "lokr_w2_b": torch.ones(2, 4)}
    assert [kind.name for kind in kinds_of(whole)] == ["lokr"]
    for missing in whole:
        with pytest.raises(StopIteration):
            kinds_of({suffix: tensor for suffix, tensor in whole.items() if suffix != missing})


def test_a_magnitude_without_a_direction_is_no_algorithm():
    with pytest.raises(StopIteration):
        kinds_of({"dora_scale": torch.ones(4, 1)})


def test_two_magnitudes_are_not_one_of_them():
    tensors = {
        "lora_A.weight": torch.ones(2, 4),
        "lora_B.weight": torch.ones(4, 2),
        "dora_scale": torch.ones(4, 1),
        "lora_magnitude_vector": torch.ones(4),
    }
    with pytest.raises(StopIteration):
        kinds_of(tensors)
