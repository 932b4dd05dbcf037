"""One layout of key names: which stems are of it, and how a module of the base is written in it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lorakit_cli.core.architecture import Name, Shape
from lorakit_cli.core.late import late

# What the modules of a UNet start with, in diffusers' names and in those of the original code, flattened or not.
_UNET = late(
    r"(down_blocks|up_blocks|mid_block|time_embedding|add_embedding|class_embedding"
    r"|input_blocks|middle_block|output_blocks|time_embed|label_emb|out)[._]\d*|(conv_in|conv_out|conv_norm_out)$"
)
_NOT_UNET = late(r"(down_blocks|up_blocks|mid_block)[._](\d+[._])?(blocks|layers)[._]")

_CLIP = ("text_model.", "encoder.layers.", "embeddings.", "final_layer_norm", "text_projection")
# Gemma, Qwen and their like; no denoiser that lorakit knows calls its attention so.
_LANGUAGE_MODEL = late(r"(?:model\.)?(?:language_model\.)?layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.\w+_proj)")
_T5 = ("encoder.block.", "encoder.final_layer_norm", "encoder.embed_tokens", "shared")


def by_dots(key: str) -> tuple[str, str] | None:
    """Leave it to the dots where stem and suffix part."""
    return None


class KeyFormat(NamedTuple):
    """One layout of key names.

    `components` lists those a stem (a key without its suffix) can belong to, likeliest first, none where the stem
    is not of this layout. `write` gives the stems that the names of a component have in it, each with its name.
    Names are only ever written, never taken apart: flattened ones cannot be split back. `body` is a stem without
    what the layout adds, as far as that is needed to recognise the architecture. `split` parts a key into stem and
    suffix where a layout does not do it with dots. `settle` chooses the very layout among several of one name, given
    the shapes of each stem's tensors.
    """

    name: str
    components: Callable[[str], tuple[str, ...]]
    write: Callable[[str, Sequence[Name]], Iterable[tuple[str, Name]]]
    body: Callable[[str], str]
    split: Callable[[str], tuple[str, str] | None] = by_dots
    settle: "Callable[[Mapping[str, Sequence[Shape]]], KeyFormat] | None" = None


def denoisers(body: str) -> tuple[str, ...]:
    """List the components that a module of a denoiser can belong to, from how its name starts."""
    if _UNET.match(body) and not _NOT_UNET.match(body):
        return ("unet", "transformer")
    return ("transformer", "unet")


def anywhere(body: str) -> tuple[str, ...]:
    """List the components that a bare module name can belong to."""
    if body.startswith(_CLIP):
        return ("text_encoder", "text_encoder_2")
    if body.startswith(_T5):
        return ("text_encoder_3", "text_encoder_2", "text_encoder")
    if _LANGUAGE_MODEL.match(body):
        return ("text_encoder", *denoisers(body))
    return denoisers(body)


def prefixed(name: str, prefixes: Mapping[str, tuple[str, ...]], *, flat: bool) -> KeyFormat:
    """Make a layout of a prefix for the component and the module's name behind it, flattened with `_` or dotted.

    An empty tuple of components stands for the denoiser, whatever it is called.
    """
    longest_first = sorted(prefixes, key=len, reverse=True)
    any_of_them = tuple(longest_first)

    def prefix_of(stem: str) -> str | None:
        for prefix in longest_first:
            if stem.startswith(prefix):
                return prefix
        return None

    def body(stem: str) -> str:
        return stem[len(prefix_of(stem) or "") :]

    def components(stem: str) -> tuple[str, ...]:
        if not stem.startswith(any_of_them):
            return ()
        prefix = prefix_of(stem) or ""
        return prefixes[prefix] or denoisers(stem[len(prefix) :])

    def write(component: str, names: Sequence[Name]) -> Iterator[tuple[str, Name]]:
        own = [p for p, parts in prefixes.items() if component in (parts or ("unet", "transformer"))]
        for entry in names:
            text = entry.text.replace(".", "_") if flat else entry.text
            for prefix in own:
                yield prefix + text, entry

    return KeyFormat(name, components, write, body)
