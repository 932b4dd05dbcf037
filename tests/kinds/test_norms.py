"""Norms from factors against the norm of the delta itself, built in fp64 by other means."""

import itertools
import math

import pytest
import torch

from lorakit_cli.kinds.lora import LORA
from lorakit_cli.kinds.norms import frobenius, loha_norm, lokr_norm, lora_norm, only_norm

SCALE = -0.375


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def assert_norm(actual, delta):
    assert actual.dtype == torch.float64
    assert actual.ndim == 0
    exact = math.sqrt(math.fsum((delta * SCALE).square().flatten().tolist()))
    assert exact > 0
    assert float(actual) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 4, 40])
def test_linear_lora(rank):
    factors = {"up": random(30, rank), "down": random(rank, 20)}
    assert_norm(lora_norm(factors, SCALE), torch.einsum("or,ri->oi", factors["up"], factors["down"]))


def test_convolution_lora():
    factors = {"up": random(7, 3, 1, 1), "down": random(3, 5, 3, 2)}
    assert_norm(lora_norm(factors, SCALE), torch.einsum("or,rikl->oikl", factors["up"][..., 0, 0], factors["down"]))


def test_tucker_lora():
    factors = {"up": random(7, 3, 1, 1), "down": random(4, 5, 1, 1), "mid": random(3, 4, 3, 2)}
    up, down = factors["up"][..., 0, 0], factors["down"][..., 0, 0]
    assert_norm(lora_norm(factors, SCALE), torch.einsum("mnkl,im,nj->ijkl", factors["mid"], up, down))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_factors_of_any_dtype_are_widened_before_any_product(dtype):
    # In fp16 the squares alone would overflow.
    factors = {"up": (random(9, 2) * 60).to(dtype), "down": (random(2, 8) * 60).to(dtype)}
    assert_norm(lora_norm(factors, SCALE), factors["up"].double() @ factors["down"].double())


def test_the_kind_of_plain_lora_names_its_norm():
    factors = {"up": random(6, 2), "down": random(2, 5)}
    delta = LORA.delta(factors, SCALE, None, {})
    assert float(LORA.norm(factors, SCALE)) == pytest.approx(float(torch.linalg.matrix_norm(delta)), rel=1e-12)


# Khatri-Rao factors, a matrix of a few rows at a time, and ranks that differ.
@pytest.mark.parametrize(("out", "width", "r", "s"), [(60, 50, 2, 2), (60, 50, 9, 9), (600, 900, 33, 32), (9, 8, 1, 3)])
def test_loha(out, width, r, s):
    factors = {
        "hada_w1_a": random(out, r),
        "hada_w1_b": random(r, width),
        "hada_w2_a": random(out, s, seed=1),
        "hada_w2_b": random(s, width, seed=1),
    }
    first, second = (factors[f"hada_w{n}_a"] @ factors[f"hada_w{n}_b"] for n in (1, 2))
    assert_norm(loha_norm(factors, SCALE), first * second)


def test_loha_with_kernels_of_one_in_its_factors():
    factors = {f"hada_w{n}_a": random(6, 2, 1, 1, seed=n) for n in (1, 2)}
    factors |= {f"hada_w{n}_b": random(2, 5, 1, 1, seed=n) for n in (1, 2)}
    first, second = (factors[f"hada_w{n}_a"][..., 0, 0] @ factors[f"hada_w{n}_b"][..., 0, 0] for n in (1, 2))
    assert_norm(loha_norm(factors, SCALE), first * second)


@pytest.mark.parametrize("rank", [3, 12])
def test_tucker_loha(rank):
    factors = {}
    sides = []
    for n in (1, 2):
        core, a, b = random(rank, rank, 3, 2, seed=n), random(rank, 7, seed=n), random(rank, 6, seed=n)
        factors |= {f"hada_t{n}": core, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        sides.append(torch.einsum("ijkl,jr,ip->prkl", core, b, a))
    assert_norm(loha_norm(factors, SCALE), sides[0] * sides[1])


LOKR_W1 = {
    "whole": {"lokr_w1": random(3, 2)},
    "product": {"lokr_w1_a": random(3, 2, seed=1), "lokr_w1_b": random(2, 2)},
}
LOKR_W2 = {
    "whole": {"lokr_w2": random(5, 4, 3, 3)},
    "product": {"lokr_w2_a": random(5, 2), "lokr_w2_b": random(2, 4 * 9)},
    "tucker": {"lokr_t2": random(2, 2, 3, 3), "lokr_w2_a": random(2, 5), "lokr_w2_b": random(2, 4)},
}


@pytest.mark.parametrize(("one", "two"), list(itertools.product(LOKR_W1, LOKR_W2)))
def test_lokr(one, two):
    factors = LOKR_W1[one] | LOKR_W2[two]
    first = factors["lokr_w1"] if one == "whole" else factors["lokr_w1_a"] @ factors["lokr_w1_b"]
    if two == "whole":
        second = factors["lokr_w2"]
    elif two == "product":
        second = (factors["lokr_w2_a"] @ factors["lokr_w2_b"]).view(5, 4, 3, 3)
    else:
        second = torch.einsum("ijkl,ip,jr->prkl", factors["lokr_t2"], factors["lokr_w2_a"], factors["lokr_w2_b"])
    assert_norm(lokr_norm(factors, SCALE), torch.kron(first[..., None, None], second.contiguous()))


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (7,), (), (700, 800)])
def test_a_tensor_that_is_its_delta(shape):
    tensor = random(*shape) + 1
    assert_norm(only_norm({"diff": tensor}, SCALE), tensor)


def test_millions_of_halves_are_summed_without_loss():
    tensor = torch.full((1500, 1000), 0.1).half()
    exact = float(tensor[0, 0]) * math.sqrt(1.5e6)
    assert float(frobenius(tensor)) == pytest.approx(exact, rel=1e-12)


def test_of_nothing_it_is_zero():
    assert float(frobenius(torch.zeros(0, 3))) == 0


def test_factors_that_cancel_come_out_near_zero_and_never_as_nan():
    for seed in range(20):
        up, down = random(50, 2, seed=seed), random(2, 40, seed=seed)
        up[:, 1], down[1] = up[:, 0], -down[0]
        norm = float(lora_norm({"up": up, "down": down}, 1.0))
        assert 0 <= norm < 1e-7 * float(up.norm() * down.norm())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("role", ["up", "down"])
def test_what_is_not_finite_is_not_hidden(value, role):
    factors = {"up": random(6, 2), "down": random(2, 5)}
    factors[role][1, 1] = value
    assert not math.isfinite(lora_norm(factors, 1.0))
