"""The names that tell whether an adapter or a base is made for few steps, with where each stands."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit_cli.core.few_steps import FewSteps, few_steps_of
from lorakit_cli.core.hub_file import HubFile
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.stated import CARD, CIVITAI, Place, SideFiles, Statements
from lorakit_cli.sources.sidecar import read_side_files

if TYPE_CHECKING:
    from lorakit_cli.core.base_index import BaseIndex
    from lorakit_cli.service.planning import Planned

# What every adapter of its library is called.
_NAMELESS = ("pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model", "lora")
_STATED: tuple[tuple[str, Place], ...] = (
    ("its title", "modelspec.title"),
    ("its training", "ss_output_name"),
    ("what CivitAI says", (CIVITAI, "model", "name")),
    ("its card", (CARD, "title")),
)


def file_few_steps(file: LoraFile, remote: str | None = None, side: SideFiles | None = None) -> FewSteps | None:
    """Recognise an adapter by its file's name, its repository's, and what is stated in the file and beside it."""
    return few_steps_of(dict(_names(file, remote, side or read_side_files(file.path))))


def planned_few_steps(planned: "Planned") -> dict[str, FewSteps]:
    """Recognise the adapters of a plan, by their names there."""
    pairs = zip(planned.plan.adapters, planned.found, strict=True)
    kinds = {adapter.name: file_few_steps(adapter.file, found.remote) for adapter, found in pairs}
    return {name: kind for name, kind in kinds.items() if kind}


def base_names(base: "BaseIndex") -> dict[str, str]:
    """Give the name of a base's repository, or of its folder or file."""
    name = (base.remote or "").partition("@")[0].rpartition("/")[2] or base.path.name
    return {"its name": name.removesuffix(".safetensors")}


def _names(file: LoraFile, remote: str | None, side: SideFiles) -> Iterator[tuple[str, str]]:
    path: Path = file.path
    if path.stem not in _NAMELESS:
        yield "its file's name", path.stem
    reference = HubFile.parse(remote) if remote else None
    if reference:
        yield "its repository", reference.repo.rpartition("/")[2]
    elif path.stem in _NAMELESS:
        yield "its folder", path.absolute().parent.name
    stated = Statements(file.metadata, side)
    for where, place in _STATED:
        if text := stated.text(place, limit=200):
            yield where, text
