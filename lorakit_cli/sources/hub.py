"""Index a base on the Hub without downloading its weights: JSON files and the headers of safetensors only."""

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.pipeline_folder import index_pipeline
from lorakit_cli.sources.hub_repo import HubRepo


def hub_index(repo: str, revision: str | None = None, variant: str | None = None) -> BaseIndex:
    """Index the diffusers pipeline of a repository, at a branch, tag or commit, with a variant of its weights.

    Paths in the index are pure, `owner/repo/unet/diffusion_pytorch_model.safetensors`, and `remote` says at which
    commit they were read. Raises BaseModelError.
    """
    folder = HubRepo(repo, revision)
    return index_pipeline(folder, variant)._replace(remote=f"{repo}@{folder.commit}")
