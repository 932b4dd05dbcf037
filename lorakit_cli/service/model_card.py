"""The model card, README.md, of an output: what it is based on, what is in it, and how it was made."""

from collections.abc import Iterator, Sequence
from pathlib import PureWindowsPath

from lorakit_cli.core.recipe import Recipe
from lorakit_cli.core.shown import shown

_HOW = {"fuse": "fused into the weights", "save": "kept beside the base, to be applied when it is used"}
_FOLDER = "path/to/this/folder"


def model_card(recipe: Recipe, loaded: Sequence[str] = (), *, file: str | None = None, elsewhere: bool = False) -> str:
    """Write a model card with the front matter that the Hub reads, for a folder or for a single file of this name.

    `loaded` are the adapters beside the base that diffusers can load; `elsewhere`: the base is not in this folder.
    """
    base = recipe.base.remote.partition("@")[0] if recipe.base.remote else None
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-image"]
    relation = "merge" if recipe.verb == "fuse" else "adapter"
    lines += [f"base_model: {base}", f"base_model_relation: {relation}"] if base else []
    lines += ["tags:", "- lora", "- lorakit", "---", "", f"# {_name(recipe)}", ""]
    lines += [f"{_base(recipe)} with these adapters {_HOW[recipe.verb]}:", ""]
    lines += ["| adapter | weight | trigger words | file | sha256 |", "|---|---|---|---|---|"]
    for adapter in (*recipe.all_adapters, *(() if recipe.verb == "fuse" else recipe.adapters)):
        words = ", ".join(_text(word) for word in adapter.triggers)
        lines.append(
            f"| {adapter.name} | {adapter.weight:g} | {words} | {_text(adapter.file)} | `{adapter.sha256[:16]}…` |"
        )
    lines += ["", *(() if recipe.scale == 1 else (f"All weights were multiplied by {recipe.scale:g}.", ""))]
    code = _file_code(recipe.base.class_name, file) if file else _folder_code(recipe, loaded, elsewhere=elsewhere)
    lines += ["```python", *code, "```", ""]
    where = "the file's header" if file else "`lorakit.json`"
    lines += [f"Made by lorakit {recipe.versions.get('lorakit', '')}; {where} says how, to the last bit.", ""]
    return "\n".join(lines)


def _file_code(class_name: str, file: str) -> Iterator[str]:
    """Write how diffusers opens a single file."""
    # A base may name a class of any name, and only one that is a word is code.
    known = class_name if class_name.isidentifier() else "StableDiffusionPipeline"
    yield from (f"from diffusers import {known}", "")
    yield f'pipeline = {known}.from_single_file("path/to/{_text(file)}")'


def _folder_code(recipe: Recipe, loaded: Sequence[str], *, elsewhere: bool) -> Iterator[str]:
    """Write how diffusers opens a pipeline, and the adapters beside it."""
    yield from ("from diffusers import DiffusionPipeline", "")
    place = _elsewhere(recipe) if elsewhere else f'"{_FOLDER}"'
    yield f"pipeline = DiffusionPipeline.from_pretrained({place})"
    for name in loaded:
        file = f'"{_FOLDER}/adapters", weight_name="{name}.safetensors"'
        yield f'pipeline.load_lora_weights({file}, adapter_name="{name}")'
    weights = [adapter.weight * recipe.scale for adapter in recipe.adapters if adapter.name in loaded]
    if loaded:
        yield f"pipeline.set_adapters({list(loaded)}, {weights})"


def _elsewhere(recipe: Recipe) -> str:
    """Write where a base is loaded from that is not in this folder."""
    if recipe.base.remote is None:
        return '"path/to/the/base"'
    repo, _, revision = recipe.base.remote.partition("@")
    return f'"{repo}"' + (f', revision="{revision}"' if revision else "")


def _name(recipe: Recipe) -> str:
    names = [adapter.name for adapter in (*recipe.all_adapters, *recipe.adapters)]
    return " + ".join(dict.fromkeys([_base(recipe), *names]))


def _base(recipe: Recipe) -> str:
    """Name the base: on the Hub its repository, elsewhere its folder or file, but not where that lies."""
    remote = recipe.base.remote
    return _text(remote.partition("@")[0] if remote else PureWindowsPath(recipe.base.source).name or recipe.base.source)


def _text(text: str) -> str:
    """Show text from strangers so that it stays in its cell."""
    return shown(text, 80).replace("|", "\\|").replace("`", "'")
