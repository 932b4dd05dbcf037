"""Hold what lorakit makes of an adapter against changes that were computed without it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.delta import delta
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.plan import Plan, PlannedAdapter, build_plan
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.tensors import TensorReader

Changes = dict[tuple[str, str], Tensor]
Tensors = dict[str, Tensor]


def plan_of(folder: Path, file: LoraFile) -> Plan:
    return build_plan(read_base_index(folder, architectures=ARCHITECTURES), [PlannedAdapter("a", file, 1.0)])


def changes(plan: Plan) -> Changes:
    """Compute every change of a plan in fp64, by component and live name."""
    found: Changes = {}
    with TensorReader(torch.device("cpu")) as reader:

        def stored(target) -> Tensor:
            return reader.read(plan.base.components[target.component].tensors[target.tensor].local_file, target.tensor)

        for target, terms in plan.changes():
            base = stored(target)
            value = delta(terms, base.shape, reader.factors, lambda part: stored(part.target), torch.float64)
            found[target.component, target.tensor] = value
    return found


def require_read_completely(file: LoraFile) -> None:
    """Require that each key is part of a layer or its alpha, and that nothing is wrong but settings left behind."""
    assert file.unknown_keys == ()
    assert [problem for problem in file.problems if "no adapter_config.json beside it" not in problem.text] == []
    alphas = {f"{layer.stem}.alpha" for layer in file.layers}
    assert set(file.tensors) - alphas == {key for layer in file.layers for key in layer.keys.values()}


def require_equal(found: Mapping[tuple[str, str], Tensor], wanted: Changes, tolerance: float = 1e-12) -> None:
    """Require the same changed parameters and the same values, measured by the largest of each."""
    assert sorted(found) == sorted(wanted)
    for key, value in wanted.items():
        assert found[key].shape == value.shape, key
        apart = float((found[key] - value).abs().max())
        assert apart <= tolerance * max(float(value.abs().max()), 1e-300), (key, apart)


def judge(folder: Path, path: Path, wanted: Changes, tolerance: float = 1e-12) -> LoraFile:
    """Read an adapter, require that all of it matches and changes what it should, and give it."""
    file = open_adapter(path)
    require_read_completely(file)
    plan = plan_of(folder, file)
    assert plan.unmatched == ()
    require_equal(changes(plan), wanted, tolerance)
    return file


def write(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, path, metadata)
    return path


def cut(whole: Tensor, parts: tuple[str, ...], swapped: bool, component: str, model: nn.Module) -> Changes:
    """Cut the change of a module of the original code into those of the modules it stacks."""
    found: Changes = {}
    start = 0
    for part in parts:
        shape = model.get_submodule(part).weight.shape
        rows = whole[start : start + shape[0]]
        found[component, f"{part}.weight"] = (torch.cat(rows.chunk(2)[::-1]) if swapped else rows).reshape(shape)
        start += shape[0]
    assert start == whole.shape[0]
    return found


def pair(shape: tuple[int, ...], rank: int) -> tuple[Tensor, Tensor]:
    """Make random factors for a module of a shape; a convolution's kernel is in the first of them."""
    ones = (1,) * (len(shape) - 2)
    return torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *ones)


def product(down: Tensor, up: Tensor, scale: float) -> Tensor:
    return scale * torch.tensordot(up.double().flatten(1), down.double(), 1)
