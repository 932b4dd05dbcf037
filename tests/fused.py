"""Run `lorakit fuse` and look at folders."""

import json


def files(folder):
    """Read every file of a folder, by its name in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def specs(folder, *texts):
    """Write `--lora` for adapters in a folder."""
    return [word for text in texts for word in ("--lora", f"{folder}/{text}")]


def fused(lorakit, *arguments):
    """Fuse, and give the report."""
    done = lorakit("fuse", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)
