"""Write the layers of a new adapter where they belong: a file, or for peft a folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.output_folder import new_folder
from lorakit_cli.core.output_place import require_place
from lorakit_cli.core.source import Source
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError
from lorakit_cli.service.carried_metadata import carried
from lorakit_cli.service.converted_file import by_component, write_adapter, write_checked

PEFT = "peft"
_PEFT_WEIGHTS = "adapter_model.safetensors"
_PEFT_CONFIG = "adapter_config.json"


def require_adapter_place(out: Path, layout: str, inputs: Sequence[Path], base: str | None, *, overwrite: bool) -> None:
    """Refuse an output before work is done for it. `base` is that of the command line.

    Raises OptionError for a name under which nobody would look for what is written, OutputError for what is read or
    holds it, or cannot be written, OutputExistsError.
    """
    as_file = out.suffix.lower() == ".safetensors"
    if as_file == (layout == PEFT):
        wanted = "a folder, so no name in .safetensors" if as_file else "a file, so a name in .safetensors"
        raise OptionError(f"--out {out}: the {layout} layout is {wanted}")
    sources = [*inputs, user_path(base)] if base else inputs
    require_place(out, sources, folder=layout == PEFT, overwrite=overwrite)


def write_layers(
    out: Path,
    target: TargetLayout,
    base: BaseIndex,
    layers: Sequence[NewLayer],
    metadata: Mapping[str, str],
    source: Source,
    *,
    overwrite: bool = False,
) -> int:
    """Write an adapter in a layout, read back and compared before it appears, and give its size.

    `source` is what layers have runs of bytes of. Raises OutputError.
    """
    if target.name == PEFT:
        return _write_folder(out, base, layers, carried(metadata), source, overwrite=overwrite)
    with new_file(out, overwrite=overwrite, parents=True) as file:
        return write_adapter(file, out, target, base, layers, metadata, source)


def _write_folder(
    out: Path,
    base: BaseIndex,
    layers: Sequence[NewLayer],
    metadata: Mapping[str, str],
    source: Source,
    *,
    overwrite: bool,
) -> int:
    """Write a folder for peft, with one folder inside for each component where there are several."""
    from lorakit_cli.core.peft_config import peft_config

    components = by_component(layers)
    size = 0
    with new_folder(out, overwrite=overwrite, parents=True) as folder:
        for name, own in components.items():
            inner = folder / name if len(components) > 1 else folder
            inner.mkdir(exist_ok=True)
            component = base.components[name]
            config = json.dumps(peft_config(own, component), indent=2) + "\n"
            (inner / _PEFT_CONFIG).write_text(config, encoding="utf-8")
            only = BaseIndex(base.path, base.class_name, {name: component}, base.variant)
            with (inner / _PEFT_WEIGHTS).open("xb") as file:
                size += write_checked(file, inner / _PEFT_WEIGHTS, only, own, metadata, source)
    return size
