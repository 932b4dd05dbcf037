"""Index a base on the Hub without downloading its weights: JSON files and the headers of safetensors only."""

import json

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.pipeline_folder import index_pipeline
from lorakit_cli.core.recipe import RECIPE_FILE, Recipe, parse_recipe
from lorakit_cli.sources.hub_repo import HubRepo


def hub_index(repo: str, revision: str | None = None, variant: str | None = None) -> BaseIndex:
    """Index the diffusers pipeline of a repository, at a branch, tag or commit, with a variant of its weights.

    Paths in the index are pure, `owner/repo/unet/diffusion_pytorch_model.safetensors`, and `remote` says at which
    commit they were read. Raises BaseModelError.
    """
    folder = HubRepo(repo, revision)
    return index_pipeline(folder, variant)._replace(remote=f"{repo}@{folder.commit}")


def hub_recipe(base: BaseIndex) -> Recipe | None:
    """Read the recipe of a base that was indexed on the Hub, None where it has none.

    Raises RecipeError for one that cannot be read, BaseModelError.
    """
    name, commit = base.repository
    folder = HubRepo(name, commit)
    if RECIPE_FILE not in (folder.files() or ()):
        return None
    return parse_recipe(json.dumps(folder.json(RECIPE_FILE)), folder.path / RECIPE_FILE)
