"""Tell whether an adapter is read as it was: its file alone need not say it, peft keeps the alphas in another."""

import json

from lorakit_cli.core.lora_file import LoraFile


def scales_digest(file: LoraFile) -> str:
    """Digest the algorithm, the scale and the settings of every layer."""
    from xxhash import xxh3_128

    layers = sorted(
        [*sorted(layer.keys.values()), layer.kind.name, repr(layer.scale), *map(repr, sorted(layer.settings.items()))]
        for layer in file.layers
    )
    return xxh3_128(json.dumps(layers).encode()).hexdigest()
