"""What was written, and how it was refused."""

import hashlib
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_files import files_of, stored_tensors
from lorakit_cli.core.bytes_done import BytesDone
from lorakit_cli.core.file_digest import digest_files, digest_tensors
from lorakit_cli.core.header_metadata import with_metadata
from lorakit_cli.core.recipe import RECIPE_KEY
from lorakit_cli.service.baking import Output, bake_files
from lorakit_cli.service.fuse_request import FuseRequest, prepare_fuse
from lorakit_cli.service.recipes import make_recipe


def weights(folder):
    """Read all files of weights of a pipeline's folder, by their names in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.safetensors")}


def refused(result, code=1):
    """Give the one line that a refusal is."""
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    start, message = line.split(" ", 1)
    assert start == "error:"
    return message


def fuse_file(checkpoint, lora, out):
    """Fuse an adapter into a single file, with the recipe in its header."""
    request = FuseRequest(None, str(checkpoint), [AdapterSpec.parse(lora)], dry_run=True)
    prepared = prepare_fuse(request)
    base = prepared.plan.base
    stored = stored_tensors(base)
    sha256 = {found.path: hashlib.sha256(found.path.read_bytes()).hexdigest() for found in prepared.found}
    digests = digest_files(stored, digest_tensors(Path(checkpoint), stored), [Path(checkpoint)])
    recipe = make_recipe("fuse", prepared, sha256, digests, arithmetic={"device": "cpu"})
    (file,) = files_of(base, stored)
    output = Output(with_metadata(file, RECIPE_KEY, recipe.text()), out)
    bake_files(base, stored, dict(prepared.plan.changes()), [output], "cpu", BytesDone(0))
    return out
