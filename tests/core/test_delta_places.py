"""One adapter on two forms of a base: a file with fused, swapped and turned tensors changes as its folder does."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.architectures.single_files import LAYOUTS, STRANGERS
from lorakit_cli.core.base_index import with_architectures
from lorakit_cli.core.plan import PlannedAdapter, build_plan
from lorakit_cli.core.single_file import read_single_file
from lorakit_cli.service.reading import open_adapter
from tests import checkpoints
from tests.checkpoints import DENOISER, prefixed
from tests.dialects.judging import changes, plan_of, require_equal
from tests.dialects.models import save
from tests.dialects.natives import native_names


def flux():
    models = {"transformer": checkpoints.build_flux()}
    return models, prefixed(checkpoints.flux_tensors(models["transformer"]), DENOISER)


def sdxl():
    models = {
        "unet": checkpoints.build_unet(12, levels=3, xl=True),
        "text_encoder": checkpoints.build_text_encoder(8),
        "text_encoder_2": checkpoints.build_text_encoder(16, layers=2, projected=True),
    }
    text = prefixed(checkpoints.hugging_face_tensors(models["text_encoder"]), "conditioner.embedders.0.transformer.")
    text |= checkpoints.open_clip_tensors(models["text_encoder_2"], "conditioner.embedders.1.model.")
    return models, text | prefixed(checkpoints.unet_tensors(models["unet"]), DENOISER)


def factors(shape, number):
    """Make parts that add, parts that depend on the value of the base, and such as depend on all of its rows."""
    rows, columns, *kernel = shape
    down, up = torch.randn(2, columns, *kernel), torch.randn(rows, 2, *(1 for _ in kernel))
    ones = [1] * (len(shape) - 1)
    return (
        {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(3.0)},
        {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": torch.rand(rows, *ones) + 0.1},
        {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": torch.rand(1, columns, *ones[1:]) + 0.1},
        {"oft_blocks": torch.randn(1, rows, rows) / rows},
        {"diff": torch.randn(shape)},
    )[number % 5]


def modules(models, *, native):
    for component, model in models.items():
        names = native_names("flux", model) if native else {name: ((name,), False) for name, _ in model.named_modules()}
        for name, (parts, _) in names.items():
            layers = [model.get_submodule(part) for part in parts]
            if all(isinstance(layer, nn.Linear | nn.Conv2d) for layer in layers):
                rows = sum(layer.weight.shape[0] for layer in layers)
                yield f"{component}.{name}", (rows, *layers[0].weight.shape[1:])


def parameters(base, found):
    """Cut the changes of a file's tensors into those of the parameters that lie in them."""
    cut = {}
    for component in base.components.values():
        for parameter, place in component.places.items():
            whole = found.get((component.name, place.tensor))
            if whole is not None:
                rows = whole if place.rows is None else whole[slice(*place.rows)]
                rows = torch.cat(rows.chunk(2)[::-1]) if place.swapped else rows
                cut[component.name, parameter.removeprefix("text_model.")] = rows.T if place.transposed else rows
    return cut


@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize(("build", "native"), [(flux, False), (flux, True), (sdxl, False)])
def test_a_single_file_changes_as_its_folder_does(tmp_path, build, native, turn):
    torch.manual_seed(turn)
    models, tensors = build()
    folder = save(tmp_path, "flux" if build is flux else "sdxl", models)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, tmp_path / "base.safetensors")
    base = read_single_file(tmp_path / "base.safetensors", LAYOUTS, STRANGERS, ())
    stems = enumerate(modules(models, native=native), turn)
    parts = {f"{stem}.{end}": part for n, (stem, shape) in stems for end, part in factors(shape, n).items()}
    save_file(parts, tmp_path / "a.safetensors")
    file = open_adapter(tmp_path / "a.safetensors")
    plan = build_plan(with_architectures(base, ARCHITECTURES), [PlannedAdapter("a", file, 1.0)])
    expected = plan_of(folder, file)
    assert plan.unmatched == expected.unmatched == ()
    wanted = {(name, key.removeprefix("text_model.")): value for (name, key), value in changes(expected).items()}
    found = {key: value for key, value in parameters(base, changes(plan)).items() if key in wanted or value.any()}
    require_equal(found, wanted)
