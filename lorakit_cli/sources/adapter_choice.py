"""Choose the one adapter among the files of a folder or repository; where there are several, the user does."""

from collections.abc import Callable, Collection, Sequence
from pathlib import PurePosixPath

from lorakit_cli.core.adapter_spec import FILE_SUFFIXES
from lorakit_cli.errors import NotALoraError, PickleError, UnknownAdapterError

SAFE, *_PICKLES = FILE_SUFFIXES
_CUSTOMARY = "pytorch_lora_weights"
_PEFT, _PEFT_CONFIG = "adapter_model", "adapter_config.json"
# What trainers leave beside their adapters, pickled.
_TRAINING = ("optimizer", "scheduler", "scaler", "training_args", "random_states", "rng_state")
_MOST_NAMED = 20


def choose_file(
    names: Collection[str], folder: str, where: str, spelled: Callable[[str], str], *, allow_pickle: bool = False
) -> str:
    """Choose from names of files, seen from the top, the adapter in a folder ("": the top).

    Taken are the only file of weights, diffusers' customary one, or peft's with its config; what lies in folders
    further inside counts only where nothing else is. `where` is what messages call the folder, `spelled` writes a file
    as it is asked for. Raises UnknownAdapterError that lists several, PickleError where there are only pickles,
    NotALoraError for a pipeline.
    """
    prefix = folder + "/" if folder else ""
    inside = {PurePosixPath(name.removeprefix(prefix)) for name in names if name.startswith(prefix)}
    if PurePosixPath("model_index.json") in inside:
        raise NotALoraError(
            f"{where} is a diffusers pipeline, a base and no adapter; give it with --base, or name an adapter in it, "
            f"such as {spelled(prefix + 'adapter.safetensors')}"
        )
    found = _nearest(sorted(inside), (SAFE,))
    pickled = [] if found else _nearest(sorted(inside), tuple(_PICKLES))
    if pickled and not allow_pickle:
        raise PickleError(
            f"{where} holds only pickled adapters, {listed(pickled)}, which can run code when opened; pass "
            "--allow-pickle to read their tensors only (weights_only)"
        )
    candidates = found or pickled
    chosen = _chosen(candidates, inside)
    if chosen:
        return prefix + str(chosen)
    if not candidates:
        raise UnknownAdapterError(f"{where} holds no adapter file ({', '.join(FILE_SUFFIXES)})")
    asked = listed([spelled(prefix + str(file)) for file in candidates])
    raise UnknownAdapterError(f"{where} holds several adapters, name one: {asked}")


def _nearest(files: Sequence[PurePosixPath], suffixes: tuple[str, ...]) -> list[PurePosixPath]:
    """List the files of weights directly inside, or where there are none all that are further in."""
    weights = [file for file in files if file.name.lower().endswith(suffixes) and not file.stem.startswith(_TRAINING)]
    return [file for file in weights if len(file.parts) == 1] or weights


def _chosen(candidates: Sequence[PurePosixPath], inside: Collection[PurePosixPath]) -> PurePosixPath | None:
    if len(candidates) == 1:
        return candidates[0]
    direct = {file.stem: file for file in candidates if len(file.parts) == 1}
    if _CUSTOMARY in direct:
        return direct[_CUSTOMARY]
    return direct.get(_PEFT) if PurePosixPath(_PEFT_CONFIG) in inside else None


def listed(names: Sequence[object]) -> str:
    """Name some files, the first of very many."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(str(name) for name in names[:_MOST_NAMED]) + more
