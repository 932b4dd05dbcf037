"""Read adapter files with every layout and algorithm lorakit knows."""

from pathlib import Path

from lorakit_cli.core.lora_file import LoraFile, Reading, read_lora_file
from lorakit_cli.errors import CorruptFileError, LoraFileError, PickleError
from lorakit_cli.formats import formats_for
from lorakit_cli.formats.embeddings import embeddings
from lorakit_cli.formats.foreign import foreign
from lorakit_cli.kinds import kinds_for

# A buffer that older versions of transformers saved with a text encoder.
READING = Reading(formats_for, kinds_for, embeddings, foreign, ignorable=("position_ids",))


def look_at(path: Path, *, allow_pickle: bool = False) -> LoraFile:
    """Read an adapter file's header, whatever is wrong with its layers. Raises LoraFileError.

    With `allow_pickle` also the tensors of a pickle, copied into a safetensors file first; never by falling back from
    one to the other: a file called .safetensors is one.
    """
    try:
        data = path if path.suffix.lower() == ".safetensors" else _unpickled(path, allow_pickle=allow_pickle)
        return read_lora_file(path, READING, data)
    except OSError as error:
        raise CorruptFileError(f"{path} cannot be read: {error.strerror}") from error


def open_adapter(path: Path, *, allow_pickle: bool = False) -> LoraFile:
    """Read an adapter file that is to be applied. Raises LoraFileError, also for a layer that is not whole."""
    file = look_at(path, allow_pickle=allow_pickle)
    file.require_sound()
    return file


def _unpickled(path: Path, *, allow_pickle: bool) -> Path:
    from lorakit_cli.service.unpickling import is_pickle, unpickled

    if not is_pickle(path):
        raise LoraFileError(f"{path}: only .safetensors adapters are read; if it is one, name it so")
    if not allow_pickle:
        raise PickleError(
            f"{path} is a pickle file, which can run code when opened; pass --allow-pickle to read its tensors only "
            "(weights_only), or convert it to safetensors"
        )
    return unpickled(path)
