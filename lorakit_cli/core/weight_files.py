"""Which files of a component's folder hold its weights, by the names diffusers and transformers give them."""

from collections.abc import Collection, Iterable, Mapping

from lorakit_cli.core.late import late

# The stems under which diffusers and transformers keep weights.
_STEMS = ("diffusion_pytorch_model", "model")
_VARIANT = late(
    rf"(?:{'|'.join(_STEMS)})\.(?:(?P<single>\w+)\.safetensors(?:\.index\.json)?|safetensors\.index\.(?P<index>\w+)\.json)"
)


def weight_file(names: Collection[str], variant: str | None) -> str | None:
    """Name the file of a folder that holds the weights, or the index of their shards (.json); None without any."""
    dotted = f".{variant}" if variant else ""
    for stem in _STEMS:
        for name in (
            f"{stem}{dotted}.safetensors",
            f"{stem}.safetensors.index{dotted}.json",
            f"{stem}{dotted}.safetensors.index.json",
        ):
            if name in names:
                return name
    return None


def shards(index: Mapping[str, object]) -> list[str] | None:
    """List the files an index names; None where it does not map tensors to files beside it.

    Only plain names pass, on every system, for an index must not reach out of its folder.
    """
    names = index.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) and is_plain(name) for name in names.values()):
        return None
    return sorted(set(names.values()))


def variants(folders: Iterable[Collection[str]]) -> set[str]:
    """Name the variants of weights that components' folders hold, such as fp16."""
    found = (_VARIANT.fullmatch(name) for names in folders for name in names)
    return {match["single"] or match["index"] for match in found if match}


def only_variant(folders: Collection[Collection[str]]) -> str | None:
    """Name the variant of a pipeline that has just that one and no plain weights, None for any other."""
    known = variants(folders)
    plain = any(weight_file(names, None) for names in folders)
    return known.pop() if len(known) == 1 and not plain else None


def is_plain(name: str) -> bool:
    """Tell whether a name is that of a file or folder here, on every system, and leads nowhere else."""
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")
