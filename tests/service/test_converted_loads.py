"""What diffusers and peft themselves make of converted adapters: the effective change of every layer."""

import copy
import logging
import warnings

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service.converting import ConvertRequest, convert
from tests.conversions import (
    BUILDERS,
    as_kohya,
    expected,
    flux_native,
    layer_delta,
    loaded_deltas,
    modules_of,
    random_adapter,
    require_close,
    sdxl_native,
    write,
)
from tests.service.test_converting import KOHYA_PREFIXES

NOT_LOADED = r"^(?!text_encoder_3|text_encoder_2\.(encoder\.block|shared))"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    for name, build in BUILDERS.items():
        build().save_pretrained(folder / name)
    return folder


@pytest.fixture
def run(bases, tmp_path):
    def convert_to(source, to, family):
        out = tmp_path / ("out" if to == "peft" else "out.safetensors")
        convert(ConvertRequest(str(source), to, out, str(bases / family)))
        return out

    return convert_to


@pytest.fixture
def loaded(caplog):
    """Load a file with diffusers, which may warn of nothing."""

    def load(family, path):
        pipeline = BUILDERS[family]()
        # diffusers' loggers hand nothing on by themselves.
        logging.getLogger("diffusers").addHandler(caplog.handler)
        caplog.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipeline.load_lora_weights(path.parent, weight_name=path.name)
        logging.getLogger("diffusers").removeHandler(caplog.handler)
        complaints = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        # It says so of every component that an adapter leaves alone.
        assert [text for text in complaints if "safe to ignore" not in text] == []
        return pipeline

    return load


@pytest.mark.parametrize("family", BUILDERS)
def test_diffusers_gives_every_layer_its_own_strength(run, loaded, tmp_path, family):
    adapter = random_adapter(BUILDERS[family](), only=NOT_LOADED, flat=True)
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    pipeline = loaded(family, run(source, "diffusers", family))
    require_close(loaded_deltas(pipeline), expected(adapter), 1e-6)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "flux"])
@pytest.mark.parametrize("only", [r"text_encoder\..*(fc1|v_proj)", r"(attn|self_attn).*(to_k|k_proj)", r"proj_out$"])
def test_diffusers_touches_no_other_layer(run, loaded, tmp_path, family, only):
    """One name may be the end of another: `proj_out` of FLUX and of each of its blocks."""
    adapter = random_adapter(BUILDERS[family](), only=NOT_LOADED + ".*" + only)
    adapter = {key: factors for key, factors in adapter.items() if key != ("transformer", "proj_out")} or adapter
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    pipeline = loaded(family, run(source, "diffusers", family))
    require_close(loaded_deltas(pipeline), expected(adapter), 1e-6)


@pytest.mark.parametrize(("family", "native"), [("flux", flux_native), ("sdxl", sdxl_native)])
def test_diffusers_reads_what_was_split(run, loaded, tmp_path, family, native):
    tensors, wanted = native()
    out = run(write(tmp_path / "in.safetensors", tensors), "diffusers", family)
    require_close(loaded_deltas(loaded(family, out)), wanted, 1e-6)


@pytest.mark.parametrize("family", BUILDERS)
def test_peft_gives_every_layer_of_a_folder_its_own_strength(run, tmp_path, family):
    pipeline = BUILDERS[family]()
    adapter = random_adapter(pipeline, flat=True)
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    folder = run(source, "peft", family)
    components = sorted({component for component, _ in adapter})
    found = {}
    for component in components:
        own = folder / component if len(components) > 1 else folder
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            model = PeftModel.from_pretrained(getattr(pipeline, component), own)
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                found[component, name.removeprefix("base_model.model.")] = layer_delta(layer)
    require_close(found, expected(adapter), 1e-6)


@pytest.mark.parametrize("name", ["proj_out", "single_transformer_blocks.1.proj_out"])
def test_peft_tells_a_module_from_one_whose_name_ends_alike(run, tmp_path, name):
    pipeline = BUILDERS["flux"]()
    adapter = random_adapter(pipeline, only=rf"^transformer\.{name}$")
    assert len(adapter) == 1
    source = write(tmp_path / "in.safetensors", as_kohya(adapter, KOHYA_PREFIXES["flux"]))
    model = PeftModel.from_pretrained(pipeline.transformer, run(source, "peft", "flux"))
    layers = [name for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]
    assert layers == [f"base_model.model.{name}"]


def dora(adapter, pipeline, prefixes):
    """Add magnitudes as LyCORIS writes them, one for each row."""
    tensors = as_kohya(adapter, prefixes)
    modules, wanted = modules_of(pipeline), {}
    generator = torch.Generator().manual_seed(9)
    for key, factors in adapter.items():
        weight = modules[key].weight.detach().double()
        rows = weight.flatten(1)
        magnitude = rows.norm(dim=1).float() * torch.linspace(0.5, 2, len(rows))
        magnitude *= torch.rand(len(rows), generator=generator) + 0.5
        changed = rows + factors.delta.flatten(1)
        changed *= (magnitude.double() / changed.norm(dim=1))[:, None]
        wanted[key] = (changed - rows).reshape(weight.shape)
        stem = next(
            name.removesuffix(".lora_down.weight") for name, tensor in tensors.items() if tensor is factors.down
        )
        tensors[f"{stem}.dora_scale"] = magnitude.reshape(-1, *[1] * (weight.ndim - 1))
    return tensors, wanted


@pytest.mark.parametrize("to", ["diffusers", "peft"])
@pytest.mark.parametrize("family", ["sd1", "sdxl", "flux"])
def test_dora_by_row_is_what_peft_makes_of_it(run, loaded, tmp_path, family, to):
    pipeline = BUILDERS[family]()
    adapter = random_adapter(pipeline, only=NOT_LOADED)
    tensors, wanted = dora(adapter, pipeline, KOHYA_PREFIXES[family])
    out = run(write(tmp_path / "in.safetensors", tensors), to, family)
    parts = {component: getattr(pipeline, component) for component, _ in adapter}
    before = {
        (component, name): module.weight.detach().clone()
        for component, model in parts.items()
        for name, module in model.named_modules()
        if (component, name) in adapter
    }
    if to == "diffusers":
        adapted = loaded(family, out)
        models = {component: getattr(adapted, component) for component in parts}
    else:
        models = {
            component: PeftModel.from_pretrained(copy.deepcopy(model), out / component)
            for component, model in parts.items()
        }
    found = {}
    for component, model in models.items():
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                layer.merge()
                key = component, name.removeprefix("base_model.model.")
                found[key] = layer.get_base_layer().weight.detach().double() - before[key].double()
    # A difference of fp32 weights, some of them larger than what changes.
    require_close(found, wanted, 1e-5)


def test_peft_has_dora_everywhere_or_nowhere(run, tmp_path):
    pipeline = BUILDERS["sd1"]()
    adapter = random_adapter(pipeline, only="^unet.*(to_q|to_k)$")
    tensors, _ = dora(adapter, pipeline, KOHYA_PREFIXES["sd1"])
    del tensors[next(name for name in tensors if name.endswith("dora_scale"))]
    source = write(tmp_path / "in.safetensors", tensors)
    for to in ("diffusers", "peft"):
        with pytest.raises(UnsupportedError, match="cannot hold DoRA beside other layers of one component, and l"):
            run(source, to, "sd1")


def test_peft_has_no_dora_by_column(run, tmp_path):
    pipeline = BUILDERS["sd1"]()
    adapter = random_adapter(pipeline, only=r"^unet.*mid_block.*attn1\.to_q$")
    tensors, _ = dora(adapter, pipeline, KOHYA_PREFIXES["sd1"])
    # Of a square layer only the shape tells them apart.
    (name,) = (name for name in tensors if name.endswith("dora_scale"))
    tensors[name] = tensors[name].reshape(1, -1)
    source = write(tmp_path / "in.safetensors", tensors)
    with pytest.raises(UnsupportedError, match="cannot hold DoRA with a magnitude for each column, which "):
        run(source, "diffusers", "sd1")
    assert run(source, "kohya", "sd1").is_file()
