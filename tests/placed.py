"""Read single-file checkpoints, and hold every parameter against what lies at its place."""

import torch
from safetensors import safe_open

from lorakit_cli.architectures.single_files import LAYOUTS, STRANGERS
from lorakit_cli.core.single_file import read_single_file
from lorakit_cli.kinds import KINDS

SUFFIXES = frozenset(suffix for kind in KINDS for suffix in kind.suffixes)


def read(path):
    return read_single_file(path, LAYOUTS, STRANGERS, SUFFIXES)


def value(file, place):
    """Read a parameter at its place, by the words that describe a place and no others."""
    tensor = file.get_tensor(place.tensor)
    if place.rows:
        tensor = tensor[place.rows[0] : place.rows[1]]
    if place.swapped:
        tensor = torch.cat([tensor[len(tensor) // 2 :], tensor[: len(tensor) // 2]])
    return tensor.T if place.transposed else tensor


def require_every_parameter(path, models):
    """Hold every parameter of the models against what lies at its place in the file; none may be left over."""
    index = read(path)
    assert list(index.components) == list(models)
    with safe_open(path, "pt") as file:
        for name, model in models.items():
            component = index.components[name]
            assert component.class_name == type(model).__name__
            places = dict(component.places)
            for parameter, expected in model.named_parameters():
                (spelling,) = [known for known in component.spellings(parameter) if known in places]
                place = places.pop(spelling)
                assert torch.equal(value(file, place), expected), parameter
                assert place.shape(component.tensors[place.tensor].info.shape) == tuple(expected.shape)
            assert places == {}
    return index
