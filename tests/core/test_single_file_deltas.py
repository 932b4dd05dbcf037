"""A plan for a single file against the same plan for diffusers' model, which is then written as that file, in fp64."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.delta import delta
from lorakit_cli.core.plan import Plan, PlannedAdapter, build_plan
from lorakit_cli.service.bases import open_base
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.sources.library import Library
from tests import checkpoints
from tests.checkpoints import DENOISER, Tensors, prefixed

KOHYA = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
LIBRARY = Library({})


def sd1():
    return {"unet": checkpoints.build_unet(12, levels=3), "text_encoder": checkpoints.build_text_encoder(12)}


def sd2():
    return {"unet": checkpoints.build_unet(8, levels=3), "text_encoder": checkpoints.build_text_encoder(8)}


def sdxl():
    return {
        "unet": checkpoints.build_unet(24, levels=3, xl=True),
        "text_encoder": checkpoints.build_text_encoder(8),
        "text_encoder_2": checkpoints.build_text_encoder(16, layers=3, projected=True),
    }


def flux():
    return {"transformer": checkpoints.build_flux(), "text_encoder": checkpoints.build_text_encoder(8)}


# Where each family's file has its text encoders; those in OpenCLIP's names are kept in `model.`.
PREFIXES = {
    sd1: {"text_encoder": "cond_stage_model.transformer."},
    sd2: {"text_encoder": "cond_stage_model.model."},
    sdxl: {"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model."},
    flux: {"text_encoder": "text_encoders.clip_l.transformer."},
}


def as_file(family, models) -> Tensors:
    """Write the models in the names of the family's single files."""
    denoiser = models.get("unet") or models.get("transformer")
    write = checkpoints.unet_tensors if "unet" in models else checkpoints.flux_tensors
    tensors = prefixed(write(denoiser), DENOISER)
    for name, prefix in PREFIXES[family].items():
        if prefix.endswith(".model."):
            tensors |= checkpoints.open_clip_tensors(models[name], prefix)
        else:
            tensors |= prefixed(checkpoints.hugging_face_tensors(models[name]), prefix)
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def published(name: str, model: nn.Module) -> Tensors:
    """Give a component's tensors by the names of published folders."""
    return checkpoints.hugging_face_tensors(model) if name.startswith("text") else dict(model.state_dict())


def save(path: Path, tensors: Tensors) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture(scope="module", params=PREFIXES, ids=lambda family: family.__name__)
def pair(request, tmp_path_factory):
    """Give a family's models with the folder and the file they were written to, in fp64."""
    models = {name: model.double() for name, model in request.param().items()}
    root = tmp_path_factory.mktemp(request.param.__name__)
    index = {"_class_name": "Some"}
    for name, model in models.items():
        stem = "model" if name.startswith("text") else "diffusion_pytorch_model"
        save(root / "folder" / name / f"{stem}.safetensors", published(name, model))
        index[name] = ["some", type(model).__name__]
    (root / "folder" / "model_index.json").write_text(json.dumps(index))
    save(root / "file.safetensors", as_file(request.param, models))
    return request.param, models, root / "folder", root / "file.safetensors"


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(0)


def factors(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give a random down and up for a weight, a convolution's with its kernel in down."""
    ones = [1] * (weight.ndim - 2)
    return random(rank, *weight.shape[1:]), random(weight.shape[0], rank, *ones)


def kohya(models, file: Path, magnitude=None) -> Tensors:
    """Change every tensor of the denoiser under its name in the file, and the text encoders under transformers'."""
    named = {"lora_unet_" + n.removeprefix(DENOISER): t for n, t in load_file(file).items() if n.startswith(DENOISER)}
    for name, prefix in KOHYA.items():
        if name in models:
            named |= prefixed(published(name, models[name]), prefix)
    adapter: Tensors = {}
    norms = {name.rpartition(".")[0] for name, tensor in named.items() if tensor.ndim == 1 and "bias" not in name}
    for name, tensor in named.items():
        module, _, parameter = name.rpartition(".")
        stem = module.replace(".", "_")
        if parameter == "bias":
            adapter[f"{stem}.{'b_norm' if module in norms else 'diff_b'}"] = random(*tensor.shape)
        elif tensor.ndim == 1:
            adapter[f"{stem}.w_norm"] = random(*tensor.shape)
        else:
            rank = 1 + len(adapter) % 3
            down, up = factors(tensor, rank)
            adapter |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            adapter[f"{stem}.alpha"] = torch.tensor(1.5)
            if magnitude:
                adapter[f"{stem}.dora_scale"] = magnitude(tensor)
    return adapter


def diffusers(models, magnitude=None) -> Tensors:
    """Change every weight of more than one dimension under its name in diffusers and transformers."""
    adapter: Tensors = {}
    for component, model in models.items():
        for name, tensor in published(component, model).items():
            if name.endswith(".weight") and tensor.ndim > 1:
                stem = f"{component}.{name.removesuffix('.weight')}"
                down, up = factors(tensor, 2)
                adapter |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
                if magnitude:
                    adapter[f"{stem}.lora_magnitude_vector"] = magnitude(tensor)
    return adapter


def by_row(weight):
    return random(weight.shape[0], *[1] * (weight.ndim - 1)).abs()


def by_column(weight):
    return random(1, weight.shape[1], *[1] * (weight.ndim - 2)).abs()


def vector(weight):
    return random(weight.shape[0]).abs()


ADAPTERS = {
    "native": [lambda models, file: kohya(models, file)],
    "diffusers": [lambda models, file: diffusers(models)],
    "native-dora-by-row": [lambda models, file: kohya(models, file, by_row)],
    "native-dora-by-column": [lambda models, file: kohya(models, file, by_column)],
    "diffusers-dora": [lambda models, file: diffusers(models, vector)],
    "all": [
        lambda models, file: diffusers(models),
        lambda models, file: kohya(models, file, by_column),
        lambda models, file: kohya(models, file),
        lambda models, file: diffusers(models, vector),
    ],
}
WEIGHTS = (0.7, -1.3, 0.25, 1.0)


def changed(plan: Plan) -> Tensors:
    """Add a plan to the tensors of its base, in fp64; give those that it changes, by component and name."""
    tensors = {}
    load = cache(load_file)

    def read(target):
        return load(plan.base.components[target.component].tensors[target.tensor].local_file)[target.tensor]

    def read_factors(term):
        return {role: load(term.file)[key] for role, key in term.layer.keys.items()}

    for target, terms in plan.changes():
        base = read(target)
        change = delta(terms, base.shape, read_factors, lambda part: read(part.target), torch.float64)
        assert change.shape == base.shape
        tensors[target.component, target.tensor] = base + change
    return tensors


def plan_of(base: BaseIndex, paths: list[Path], weights=WEIGHTS) -> Plan:
    files = [PlannedAdapter(path.stem, open_adapter(path), w) for path, w in zip(paths, weights, strict=False)]
    plan = build_plan(base, files)
    assert plan.unmatched == ()
    return plan


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_file_changed_is_the_changed_model_written_as_a_file(pair, adapter, tmp_path):
    family, models, folder, file = pair
    made = [make(models, file) for make in ADAPTERS[adapter]]
    paths = [save(tmp_path / f"a{number}.safetensors", tensors) for number, tensors in enumerate(made)]
    after = {name: tensor for (_, name), tensor in changed(plan_of(open_base(str(file), LIBRARY), paths)).items()}
    before = {name: published(name, model) for name, model in models.items()}
    expected = before
    for (component, name), tensor in changed(plan_of(open_base(str(folder), LIBRARY), paths)).items():
        expected[component] = expected[component] | {name: tensor}
    other = family()
    for name, model in other.items():
        live = model.state_dict().keys()
        spelled = {key if key in live else key.removeprefix("text_model."): t for key, t in expected[name].items()}
        model.double().load_state_dict(spelled)
    expected = as_file(family, other)
    stored = load_file(file)
    assert after.keys() == {name for name, tensor in stored.items() if not torch.equal(tensor, expected[name])}
    assert len(after) > 20
    for name, tensor in after.items():
        assert (tensor - expected[name]).abs().max() <= 1e-12 * max(1, expected[name].abs().max()), name


def test_adapters_add_up_whichever_rows_each_of_them_changes(pair, tmp_path):
    _, models, _, file = pair
    made = [make(models, file) for make in ADAPTERS["all"]]
    paths = [save(tmp_path / f"a{number}.safetensors", tensors) for number, tensors in enumerate(made)]
    base, stored = open_base(str(file), LIBRARY), load_file(file)
    together = changed(plan_of(base, paths))
    alone = [changed(plan_of(base, [path], [weight])) for path, weight in zip(paths, WEIGHTS, strict=True)]
    assert together.keys() == set().union(*alone)
    for key, tensor in together.items():
        expected = stored[key[1]] + sum(one[key] - stored[key[1]] for one in alone if key in one)
        assert torch.allclose(tensor, expected, rtol=1e-12, atol=1e-12), key


def test_names_of_the_file_change_its_very_tensors(pair, tmp_path):
    """The sum by hand: nothing is mapped where an adapter names the file's own tensors."""
    _, models, _, file = pair
    adapter = kohya(models, file)
    path = save(tmp_path / "a.safetensors", adapter)
    after = changed(plan_of(open_base(str(file), LIBRARY), [path]))
    stored = {name: tensor for name, tensor in load_file(file).items() if name.startswith(DENOISER)}
    found = {name: tensor for (_, name), tensor in after.items() if name.startswith(DENOISER)}
    assert found.keys() == stored.keys()
    for name, tensor in stored.items():
        module, _, parameter = name.removeprefix(DENOISER).rpartition(".")
        stem = "lora_unet_" + module.replace(".", "_")
        if tensor.ndim > 1:
            down, up = adapter[f"{stem}.lora_down.weight"], adapter[f"{stem}.lora_up.weight"]
            change = torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).reshape(tensor.shape)
            change *= 1.5 / down.shape[0]
        else:
            (change,) = (
                adapter[key]
                for end in (("b_norm", "diff_b") if parameter == "bias" else ("w_norm",))
                if (key := f"{stem}.{end}") in adapter
            )
        assert torch.allclose(found[name], tensor + 0.7 * change, rtol=1e-12, atol=1e-12), name


@pytest.mark.parametrize("axis", [0, 1], ids=["by-row", "by-column"])
def test_a_fused_dora_has_the_lengths_it_says(pair, tmp_path, axis):
    """W' = m V / |V| with V of the whole fused tensor, by hand."""
    _, models, _, file = pair
    adapter = kohya(models, file, (by_row, by_column)[axis])
    plan = plan_of(open_base(str(file), LIBRARY), [save(tmp_path / "a.safetensors", adapter)], [1.0])
    after, stored, fused = changed(plan), load_file(file), 0
    for (_, name), tensor in after.items():
        if not name.startswith(DENOISER) or tensor.ndim < 2:
            continue
        stem = "lora_unet_" + name.removeprefix(DENOISER).removesuffix(".weight").replace(".", "_")
        down, up = adapter[f"{stem}.lora_down.weight"], adapter[f"{stem}.lora_up.weight"]
        whole = stored[name] + torch.einsum("or,r...->o...", up.flatten(1), down) * 1.5 / down.shape[0]
        across = [dimension for dimension in range(tensor.ndim) if dimension != axis]
        length = whole.square().sum(across, keepdim=True).sqrt()
        assert torch.allclose(tensor, adapter[f"{stem}.dora_scale"] * whole / length, rtol=1e-12, atol=1e-12), name
        fused += name.endswith(("qkv.weight", "linear1.weight"))
    assert fused == (7 if "transformer" in models else 0)
