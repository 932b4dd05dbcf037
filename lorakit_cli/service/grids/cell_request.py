"""What a cell of a grid asks for: the request of `generate` that makes the same picture, and its command line."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.axis import Axis, AxisKind
from lorakit_cli.core.axis_values import AxisValue
from lorakit_cli.core.loading import Loading
from lorakit_cli.errors import OptionError
from lorakit_cli.service.request import GenerateRequest, Prepared

# Options that go by another name than what they set.
_OPTIONS = {"compiled": "compile"}


@dataclass(frozen=True, slots=True)
class CellRequest:
    """A request for one cell; `blocks` holds the block scales of its axes, adapter -> dotted block -> scale.

    They are held against the base, which is not known yet.
    """

    request: GenerateRequest
    blocks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def cell_request(
    template: GenerateRequest, axes: Sequence[Axis], values: Sequence[AxisValue], seed: int
) -> CellRequest:
    """Put one value of each axis into a request. Raises OptionError."""
    request, blocks = replace(template, seeds=(str(seed),)), dict[str, dict[str, float]]()
    slot: AdapterSpec | None = None
    # The slot is filled before its weight is set.
    pairs = sorted(zip(axes, values, strict=True), key=lambda pair: pair[0].kind is not AxisKind.LORA)
    for axis, chosen in pairs:
        value: Any = chosen.value
        match axis.kind:
            case AxisKind.SEED:
                request = replace(request, seeds=(str(value),))
            case AxisKind.PROMPT:
                request = replace(request, prompt=value)
            case AxisKind.NEGATIVE:
                request = replace(request, negative=value or None)
            case AxisKind.SCALE:
                request = replace(request, scale=value)
            case AxisKind.SETTING:
                request = replace(request, settings=replace(request.settings, **{axis.target: value}))
            case AxisKind.LORA:
                slot = value
                request = replace(request, adapters=(*request.adapters, value))
            case AxisKind.ADAPTER:
                request = _weighted(request, {axis.target: value})
            case AxisKind.WEIGHT:
                request = _weighted(request, {_only(request, slot): value})
            case AxisKind.ABLATION:
                left_out = {spec.name: 0.0 for spec in request.adapters if spec.name not in value}
                request = _weighted(request, left_out)
            case AxisKind.BLOCK:
                adapter, _, block = axis.target.partition(".")
                if adapter == AxisKind.LORA.value and slot:
                    adapter = slot.name
                blocks.setdefault(adapter, {})[block] = value
    return CellRequest(request, blocks)


def command_line(prepared: Prepared) -> str:
    """Write the `lorakit generate` command that makes a prepared picture, all that its plan settled written out."""
    request, spec = prepared.request, prepared.pictures[0]
    words = ["lorakit", "generate"]
    if request.base is not None:
        words += ["--base", request.base]
    if request.variant is not None:
        words += ["--variant", request.variant]
    sources = {adapter.name: adapter for adapter in request.adapters}
    for adapter in prepared.plan.adapters:
        words += ["--lora", str(replace(sources[adapter.name], weight=adapter.weight))]
        if adapter.name in request.block_scales and adapter.block_scales:
            words += ["--block-scales", f"{adapter.name}={_compact(adapter.block_scales.as_json())}"]
    if request.scale != 1:
        words += ["--scale", repr(request.scale)]
    if spec.negative:
        words += ["--negative", spec.negative]
    for name, value in (_said(spec.settings) | _loading(request.loading)).items():
        option = _OPTIONS.get(name, name.replace("_", "-"))
        words += [f"--{option}", *([] if value is True else [str(value)])]
    for name, value in spec.settings.scheduler_options.items():
        words += ["--scheduler-option", f"{name}={value if isinstance(value, str) else _compact(value)}"]
    if request.literal:
        words += ["--literal-prompt"]
    words += ["--seed", str(spec.seed), *(["--"] if spec.prompt.startswith("-") else []), spec.prompt]
    return shlex.join(words)


def known_names(specs: Collection[AdapterSpec]) -> list[str]:
    """List what adapters are called."""
    return [spec.name for spec in specs]


def _compact(value: Any) -> str:
    import json

    return json.dumps(value, separators=(", ", ": "))


def _said(record: Any) -> dict[str, Any]:
    """Give the fields of a record that an option can say, without those that are left to others."""
    values = {part.name: getattr(record, part.name) for part in fields(record)}
    return {
        name: value for name, value in values.items() if isinstance(value, str | int | float) and value is not False
    }


def _loading(loading: Loading) -> dict[str, Any]:
    usual = _said(Loading())
    return {name: value for name, value in _said(loading).items() if usual.get(name) != value}


def _weighted(request: GenerateRequest, weights: Mapping[str, float]) -> GenerateRequest:
    specs = tuple(
        replace(spec, weight=weights[spec.name], weight_text=None) if spec.name in weights else spec
        for spec in request.adapters
    )
    return replace(request, adapters=specs)


def _only(request: GenerateRequest, slot: AdapterSpec | None) -> str:
    names = known_names(request.adapters)
    if slot:
        return slot.name
    if len(names) != 1:
        which = f"there are {', '.join(names)}" if names else "there is none"
        raise OptionError(f"--axis weight is for one adapter, or for the lora axis, and {which}; write NAME=VALUES")
    return names[0]
