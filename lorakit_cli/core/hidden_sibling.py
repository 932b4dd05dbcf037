"""Files that stand beside an output while it is written, out of sight and on the same disk."""

from pathlib import Path

from lorakit_cli.errors import OutputError


def hidden_sibling(path: Path, ending: str) -> Path:
    """Name a hidden sibling of an output. Raises OutputError where the output itself has no name of its own."""
    if path.name in ("", "..") or "\0" in path.name:
        raise OutputError(f"{path} is no name for an output; name something new inside it")
    return path.with_name(f".{path.name}.{ending}")
