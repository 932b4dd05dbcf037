"""One layout of key names: which stems are of it, and how a module of the base is written in it."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lorakit_cli.core.architecture import Name, Shape
from lorakit_cli.core.late import late
from lorakit_cli.core.record import Record

# What the modules of a UNet start with, in diffusers' names and in those of the original code, flattened or not.
_BLOCKS = ("down_blocks", "up_blocks", "mid_block")
_UNET = tuple(
    name + mark
    for name in (
        *_BLOCKS, "time_embedding", "add_embedding", "class_embedding", "input_blocks", "middle_block", "output_blocks",
        "time_embed", "label_emb", "out",
    )
    for mark in "._"
)  # fmt: skip
_UNET_ENDS = ("conv_in", "conv_out", "conv_norm_out")
# And what those of other denoisers do that also have blocks down and up.
_OTHER = ("blocks.", "blocks_", "layers.", "layers_")

_CLIP = ("text_model.", "encoder.layers.", "embeddings.", "final_layer_norm", "text_projection")
# Gemma, Qwen and their like; no denoiser that lorakit knows calls its attention so.
_LANGUAGE_MODEL = late(r"(?:model\.)?(?:language_model\.)?layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.\w+_proj)")
_T5 = ("encoder.block.", "encoder.final_layer_norm", "encoder.embed_tokens", "shared")


def by_dots(key: str) -> tuple[str, str] | None:
    """Take no key without dots: they alone part stem and suffix."""
    return None


class KeyFormat(Record):
    """One layout of key names.

    `components` lists those a stem (a key without its suffix) can belong to, likeliest first, none where the stem
    is not of this layout. `write` gives the stems that the names of a component have in it, each with its name.
    Names are only ever written, never taken apart: flattened ones cannot be split back. `body` is a stem without
    what the layout adds, as far as that is needed to recognise the architecture. `split` parts a key without
    dots into stem and suffix. `settle` chooses the very layout among several of one name, given the shapes of each
    stem's tensors. `keeps_runs`: whatever stands between the dots of a name, `write` takes it over.
    """

    name: str
    components: Callable[[str], tuple[str, ...]]
    write: Callable[[str, Sequence[Name]], Iterable[tuple[str, Name]]]
    body: Callable[[str], str]
    split: Callable[[str], tuple[str, str] | None] = by_dots
    settle: "Callable[[Mapping[str, Sequence[Shape]]], KeyFormat] | None" = None
    keeps_runs: bool = False


def denoisers(body: str) -> tuple[str, ...]:
    """List the components that a module of a denoiser can belong to, from how its name starts."""
    if body.startswith(_UNET):
        return ("transformer", "unet") if _is_other(body) else ("unet", "transformer")
    return ("unet", "transformer") if body in _UNET_ENDS else ("transformer", "unet")


def _is_other(body: str) -> bool:
    """Tell whether a name is none of a UNet although it starts like one: `down_blocks.0.blocks.…`."""
    if not body.startswith(_BLOCKS):
        return False
    rest = body.partition("_block")[2].lstrip("s")[1:]
    behind = rest.lstrip("0123456789")
    numbered = behind != rest and behind[:1] in (".", "_")
    return rest.startswith(_OTHER) or (numbered and behind.startswith(_OTHER, 1))


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

    def body(stem: str) -> str:
        if stem.startswith(any_of_them):
            for prefix in longest_first:
                if stem.startswith(prefix):
                    return stem[len(prefix) :]
        return stem

    def components(stem: str) -> tuple[str, ...]:
        # Asked of every stem of every file, so that most are done with at once.
        if stem.startswith(any_of_them):
            for prefix in longest_first:
                if stem.startswith(prefix):
                    return prefixes[prefix] or denoisers(stem[len(prefix) :])
        return ()

    def write(component: str, names: Sequence[Name]) -> Iterable[tuple[str, Name]]:
        own = [p for p, parts in prefixes.items() if component in (parts or ("unet", "transformer"))]
        texts = [entry.text.replace(".", "_") for entry in names] if flat else [entry.text for entry in names]
        return zip([p + text for text in texts for p in own], [entry for entry in names for _ in own], strict=True)

    return KeyFormat(name, components, write, body, keeps_runs=True)
