"""What the Hub's own client has downloaded already."""

from pathlib import Path

_MODEL_INDEX = "model_index.json"


def hub_snapshot(repo: str, revision: str | None = None) -> Path | None:
    """Give the folder in which the client keeps a repository at a revision, None where it does not have it.

    Nothing is asked or downloaded; the folder may lack files that were never wanted.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(repo, _MODEL_INDEX, revision=revision)
    except HFValidationError:
        return None
    return Path(file).parent if isinstance(file, str) else None


def snapshot_folder(repo: str, commit: str) -> Path:
    """Give the folder in which the client keeps what it has of a commit, which need not exist."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots" / commit
