"""Tiny pipelines of several families, random adapters for them, and what an adapter does, read in several ways."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.loaders import single_file_utils
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.delta import delta
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.plan import PlannedAdapter, build_plan
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.tensors import TensorReader
from tests.checkpoints import (
    DENOISER,
    _flux_converter,
    build_flux,
    build_text_encoder,
    build_unet,
    flux_tensors,
    prefixed,
    unet_tensors,
)
from tests.tiny import build_pipeline

Tensors = dict[str, Tensor]
Deltas = dict[tuple[str, str], Tensor]
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")


def build_t5(width: int = 6) -> nn.Module:
    torch.manual_seed(4)
    config = T5Config(
        vocab_size=9, d_model=width, d_kv=2, d_ff=8, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config)


def build_sdxl() -> DiffusionPipeline:
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=build_text_encoder(16),
        text_encoder_2=build_text_encoder(8, projected=True),
        tokenizer=None,
        tokenizer_2=None,
        unet=build_unet(24, levels=3, xl=True),
        scheduler=DDIMScheduler(),
    )


def build_flux_pipeline() -> DiffusionPipeline:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=build_text_encoder(16),
        tokenizer=None,
        text_encoder_2=build_t5(),
        tokenizer_2=None,
        transformer=build_flux(),
    )


def build_sd3() -> DiffusionPipeline:
    torch.manual_seed(5)
    transformer = SD3Transformer2DModel(
        sample_size=4,
        patch_size=1,
        in_channels=4,
        num_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=6,
        caption_projection_dim=8,
        pooled_projection_dim=24,
        out_channels=4,
        pos_embed_max_size=4,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=build_text_encoder(16, projected=True),
        tokenizer=None,
        text_encoder_2=build_text_encoder(8, projected=True),
        tokenizer_2=None,
        text_encoder_3=build_t5(),
        tokenizer_3=None,
    )


def build_wan() -> DiffusionPipeline:
    torch.manual_seed(6)
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=6,
        freq_dim=8,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=8,
    )
    return WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=transformer,
    )


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd1": build_pipeline,
    "sdxl": build_sdxl,
    "flux": build_flux_pipeline,
    "sd3": build_sd3,
    "wan": build_wan,
}


@dataclass(frozen=True)
class Factors:
    """One layer of an adapter: its two factors in fp32, and its alpha, None for none."""

    down: Tensor
    up: Tensor
    alpha: float | None

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.down.shape[0]

    @property
    def delta(self) -> Tensor:
        """The change in fp64, in the shape of the weight."""
        product = self.up.double().flatten(1) @ self.down.double().flatten(1)
        return (product * self.scale).reshape(self.up.shape[0], *self.down.shape[1:])


def modules_of(pipeline: DiffusionPipeline) -> dict[tuple[str, str], nn.Module]:
    """List the linear layers and convolutions of what adapters change, by component and name."""
    found: dict[tuple[str, str], nn.Module] = {}
    for component in COMPONENTS:
        model = getattr(pipeline, component, None)
        for name, module in model.named_modules() if model is not None else ():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                found[component, name] = module
    return found


def random_factors(weight: Tensor, number: int, *, flat: bool = False, scale: float | None = None) -> Factors:
    """Make factors for a weight: ranks of 1 to 3, alphas of several sizes, each fifth without one, or of one scale.

    `flat`: of a 1x1 convolution in two dimensions, as some trainers write them.
    """
    generator = torch.Generator().manual_seed(number)
    rank = 1 + number % 3
    rows, columns, *kernel = weight.shape
    kernel = [] if flat and set(kernel) == {1} else kernel
    down = torch.randn(rank, columns, *kernel, generator=generator)
    up = torch.randn(rows, rank, *(1 for _ in kernel), generator=generator)
    alpha = (None, 1.0, 0.5, float(rank), 3.0)[number % 5] if scale is None else scale * rank
    return Factors(down, up, alpha)


def random_adapter(
    pipeline: DiffusionPipeline, *, only: str = "", flat: bool = False, scale: float | None = None
) -> dict[tuple[str, str], Factors]:
    """Make factors for every module whose `component.name` the expression finds."""
    modules = {key: module for key, module in modules_of(pipeline).items() if re.search(only, ".".join(key))}
    return {
        key: random_factors(module.weight, number, flat=flat, scale=scale)
        for number, (key, module) in enumerate(modules.items())
    }


def as_kohya(adapter: Mapping[tuple[str, str], Factors], prefixes: Mapping[str, str]) -> Tensors:
    """Write factors as sd-scripts does, under diffusers' names for the denoiser."""
    tensors: Tensors = {}
    for (component, name), factors in adapter.items():
        if (
            component.startswith("text")
            and "text_model" not in name
            and not name.startswith(("text_proj", "encoder.block"))
        ):
            name = f"text_model.{name}"
        stem = prefixes[component] + name.replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": factors.down, f"{stem}.lora_up.weight": factors.up}
        if factors.alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(factors.alpha)
    return tensors


def expected(adapter: Mapping[tuple[str, str], Factors]) -> Deltas:
    """Give the changes of an adapter, by component and name of the live module."""
    return {key: factors.delta for key, factors in adapter.items()}


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, dict(metadata or {}))
    return path


def our_deltas(base: Path | BaseIndex, path: Path) -> Deltas:
    """Give what lorakit itself would apply, in fp64, by component and live name of the parameter's module."""
    index = base if isinstance(base, BaseIndex) else read_base_index(base, architectures=ARCHITECTURES)
    plan = build_plan(index, [PlannedAdapter("a", open_adapter(path), 1.0)])
    assert plan.unmatched == ()
    found: Deltas = {}
    with TensorReader(torch.device("cpu")) as reader:
        for target, terms in plan.terms.items():
            component = index.components[target.component]
            shape = component.tensors[target.tensor].info.shape
            change = delta(terms, shape, reader.factors, lambda part: _whole(index, reader, part), torch.float64)
            found[target.component, component.live_name(target.tensor.removesuffix(".weight"))] = change
    return found


def _whole(index: BaseIndex, reader: TensorReader, part: object) -> Tensor:
    file = index.components[part.target.component].tensors[part.target.tensor].local_file
    return reader.read(file, part.target.tensor)


def loaded_deltas(pipeline: DiffusionPipeline) -> Deltas:
    """Give the changes that the adapter layers in a pipeline make, in fp64, as peft scales them."""
    found: Deltas = {}
    for component in COMPONENTS:
        model = getattr(pipeline, component, None)
        for name, layer in model.named_modules() if model is not None else ():
            if isinstance(layer, LoraLayer):
                found[component, name.removeprefix("base_model.model.")] = layer_delta(layer)
    return found


def layer_delta(layer: nn.Module) -> Tensor:
    (adapter,) = layer.lora_A
    down, up = layer.lora_A[adapter].weight.detach().double(), layer.lora_B[adapter].weight.detach().double()
    change = (up.flatten(1) @ down.flatten(1)) * layer.scaling[adapter]
    return change.reshape(layer.get_base_layer().weight.shape)


def require_close(found: Deltas, wanted: Deltas, limit: float = 1e-12) -> None:
    """Hold two sets of changes against each other: the same modules, and every value."""
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())[:5]
    for key, change in wanted.items():
        assert found[key].numel() == change.numel(), key
        apart = (found[key].double().reshape(change.shape) - change).abs().max()
        assert apart <= limit * max(float(change.abs().max()), 1e-30), (key, float(apart))


def flux_native(adapter_seed: int = 0) -> tuple[Tensors, Deltas]:
    """Make an adapter for all of the tiny FLUX in BFL's names, and its changes as diffusers' converter places them."""
    transformer = build_flux()
    return _native(
        flux_tensors(transformer),
        lambda deltas: _flux_converter(transformer)(deltas),
        "transformer",
        adapter_seed,
    )


def sdxl_native(adapter_seed: int = 0) -> tuple[Tensors, Deltas]:
    """Make an adapter for all of the tiny SDXL's UNet in sgm's names, and its changes as the converter places them."""
    unet = build_unet(24, levels=3, xl=True)
    return _native(
        unet_tensors(unet),
        lambda deltas: single_file_utils.convert_ldm_unet_checkpoint(prefixed(deltas, DENOISER), dict(unet.config)),
        "unet",
        adapter_seed,
    )


def _native(
    checkpoint: Tensors, converter: Callable[[Tensors], Tensors], component: str, seed: int
) -> tuple[Tensors, Deltas]:
    tensors: Tensors = {}
    deltas = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in checkpoint.items()}
    weights = [name for name, tensor in checkpoint.items() if name.endswith(".weight") and tensor.ndim > 1]
    for number, name in enumerate(weights):
        factors = random_factors(checkpoint[name], number + seed)
        stem = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": factors.down, f"{stem}.lora_up.weight": factors.up}
        if factors.alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(factors.alpha)
        deltas[name] = factors.delta.reshape(deltas[name].shape)
    placed = {name.removesuffix(".weight"): value for name, value in converter(deltas).items() if value.any()}
    return tensors, {(component, name): value for name, value in placed.items()}


def metadata_of(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def read(path: Path) -> Tensors:
    return load_file(path)
