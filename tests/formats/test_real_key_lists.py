"""The keys and shapes of published files, of layouts that nobody writes any more, against full-size models."""

import json
from collections import Counter
from pathlib import Path

import pytest

from lorakit_cli.architectures import possible
from lorakit_cli.architectures.unet import SD1, SD2
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.recognition import published, recognise
from lorakit_cli.formats.pickled_list import list_keys
from lorakit_cli.service.reading import open_adapter
from tests.sparse import write_sparse

KEYS = Path(__file__).parent.parent / "data" / "keys"


def read(name, path):
    listed = json.loads((KEYS / f"{name}.json").read_text())
    tensors = listed["tensors"]
    if isinstance(tensors, list):
        tensors = dict(zip(list_keys("unet", len(tensors)), tensors, strict=True))
    entries = {key: (dtype, tuple(shape)) for key, (dtype, shape) in tensors.items()}
    return open_adapter(write_sparse(path / f"{name}.safetensors", entries, listed["metadata"]))


@pytest.mark.parametrize(
    ("name", "model", "layout", "layers", "rank"),
    [
        ("attn_procs_sd15", SD1, "attn-procs", {"unet": 128}, 4),
        ("cloneofsimo_sd15_disney", SD1, "cloneofsimo", {"unet": 144, "text_encoder": 48}, 1),
        ("cloneofsimo_sd2_pop_list", SD2, "cloneofsimo", {"unet": 128}, 4),
    ],
)
def test_every_layer_of_a_published_file_finds_its_module(tmp_path, name, model, layout, layers, rank):
    file = read(name, tmp_path)
    assert ([known.name for known in file.formats], file.unknown_keys, file.problems) == ([layout], (), ())
    assert (file.ranks, {layer.scale for layer in file.layers}) == ((rank,), {1.0})
    found, missed = match_layers(published(model, model.name), "a", file)
    assert (missed, Counter(match.parts[0].target.component for match in found)) == ((), layers)
    assert recognise(file, possible).name == model.name


def test_words_in_a_published_file_are_set_apart(tmp_path):
    assert set(read("cloneofsimo_sd15_disney", tmp_path).embeddings) == {"<s1>", "<s2>"}
