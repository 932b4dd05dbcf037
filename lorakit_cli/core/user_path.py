"""Paths as people write them."""

from pathlib import Path

from lorakit_cli.errors import PathError


def user_path(text: str) -> Path:
    """Make a path of text, `~` expanded. Raises PathError for what this system cannot look up."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        shown = text if len(text) <= 80 else text[:80] + "…"
        raise PathError(f"the path {shown} cannot be used: {reason}") from error
    return path
