"""Adapters to merge and resize, and what should come of it by dense arithmetic in fp64."""

import json
import re

import torch

from tests.conversions import Factors, modules_of, our_deltas

KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_"}


def adapter(pipeline, seed, rank, *, only="", alpha=None, size=1.0):
    """Make factors of one rank for every module that the expression finds."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for key, module in modules_of(pipeline).items():
        if re.search(only, ".".join(key)):
            rows, columns, *kernel = module.weight.shape
            down = torch.randn(rank, columns, *kernel, generator=generator) * size
            up = torch.randn(rows, rank, *(1 for _ in kernel), generator=generator)
            made[key] = Factors(down, up, alpha)
    return made


def as_diffusers(factors):
    """Write factors, which have no alphas, as diffusers does."""
    tensors = {}
    for (component, name), each in factors.items():
        assert each.alpha is None
        stem = f"{component}.{'text_model.' if component == 'text_encoder' else ''}{name}"
        tensors |= {f"{stem}.lora_A.weight": each.down, f"{stem}.lora_B.weight": each.up}
    return tensors


def weighted(*terms):
    """Add up changes at weights, each a pair of changes by module and a number."""
    total = {}
    for deltas, weight in terms:
        for key, change in deltas.items():
            total[key] = total.get(key, 0) + change.double() * weight
    return total


def best(change, rank):
    """Give the closest matrix of a rank, by dense decomposition, and the norm of what it leaves out."""
    left, values, right = torch.linalg.svd(change.double().flatten(1), full_matrices=False)
    close = (left[:, :rank] * values[:rank]) @ right[:rank]
    return close.reshape(change.shape), float(values[rank:].norm())


def distance(found, wanted):
    """Give the relative Frobenius distance of two sets of changes of the same modules."""
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())[:5]
    apart = sum(float((found[key].reshape(change.shape) - change).norm()) ** 2 for key, change in wanted.items())
    return (apart / sum(float(change.norm()) ** 2 for change in wanted.values())) ** 0.5


def done(result):
    """Read the report of a command that went well."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(result, message, code=1):
    """Check that a command was refused with one line, and printed nothing."""
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line, line


def read(base, path):
    """Read what a file changes."""
    return our_deltas(base, path)
