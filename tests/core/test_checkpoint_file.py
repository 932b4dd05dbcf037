"""The file that components become under a checkpoint's names: what lies where, and what has no place."""

import re
from pathlib import Path

import pytest

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.checkpoint_file import checkpoint_file, kept_tensors
from lorakit_cli.core.checkpoint_wording import Wording
from lorakit_cli.core.match import Target
from lorakit_cli.core.tensor_file import parse_header
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.core.weights_file import Piece
from lorakit_cli.errors import UnsupportedError

NAMES = {"a": "one", "b": "two", "bare": "bare"}
STACK = Name("stack", ("q", "k"))


def native(modules):
    yield STACK
    yield from (Name(NAMES[module], (module,)) for module in modules if module in NAMES)


def index(class_name="Model", **tensors):
    """Make a base with one component, `unet`, of name=(dtype, *shape); `__` in a name stands for a dot."""
    held = {
        name.replace("__", "."): BaseTensor(TensorInfo(dtype, tuple(shape), 0, 0), Path("unet/w.safetensors"))
        for name, (dtype, *shape) in tensors.items()
    }
    return BaseIndex(Path("base"), "Pipeline", {"unet": BaseComponent("unet", class_name, {}, held)})


def described(base, dtype=None, metadata=None, **wording):
    tensors = kept_tensors(base, [Wording("unet", "m.", native, **wording)], dtype)
    file = checkpoint_file(tensors, "out.safetensors", metadata or {})
    header, found = parse_header(Path("out"), file.header[8:], file.size)
    assert found == (metadata or {})
    # The pieces cover the data in order, whatever tensor they are of.
    assert file.pieces[0].begin == len(file.header) == min(info.begin for info in header.values())
    assert [piece.begin for piece in file.pieces] == sorted({piece.begin for piece in file.pieces})
    return file, {name: (info.dtype, *info.shape) for name, info in header.items()}, header


def piece(tensor, dtype, begin, transposed=False):
    return Piece(Target("unet", tensor), dtype, begin, transposed)


def test_tensors_lie_by_width_and_name_from_the_end_of_the_header_on():
    base = index(b__weight=("F16", 3), a__weight=("F16", 1, 2), a__bias=("F32", 1), bare=("I64", 2))
    file, shapes, _ = described(base, metadata={"who": "wé"})
    start = len(file.header)
    assert start % 8 == 0
    assert list(shapes.items()) == [
        ("m.bare", ("I64", 2)),
        ("m.one.bias", ("F32", 1)),
        ("m.one.weight", ("F16", 1, 2)),
        ("m.two.weight", ("F16", 3)),
    ]
    assert file.pieces == (
        piece("bare", "I64", start),
        piece("a.bias", "F32", start + 16),
        piece("a.weight", "F16", start + 20),
        piece("b.weight", "F16", start + 24),
    )
    assert file.size == start + 30


def test_a_dtype_is_that_of_floats_alone():
    base = index(b__weight=("F8_E4M3", 3), a__weight=("BF16", 2), a__bias=("F64", 1), bare=("I64", 2))
    file, shapes, _ = described(base, "F16")
    assert shapes == {
        "m.bare": ("I64", 2),
        "m.one.bias": ("F16", 1),
        "m.one.weight": ("F16", 2),
        "m.two.weight": ("F16", 3),
    }
    assert [piece.dtype for piece in file.pieces] == ["I64", "F16", "F16", "F16"]
    assert file.size - len(file.header) == 16 + 2 + 4 + 6


def test_tensors_that_stand_stacked_are_pieces_in_a_row():
    base = index(k__weight=("F16", 1, 4), q__weight=("F16", 2, 4), k__bias=("F16", 1), q__bias=("F16", 2))
    file, shapes, header = described(base)
    assert shapes == {"m.stack.bias": ("F16", 3), "m.stack.weight": ("F16", 3, 4)}
    begin = header["m.stack.weight"].begin
    assert file.pieces[2:] == (piece("q.weight", "F16", begin), piece("k.weight", "F16", begin + 16))


def test_what_is_stacked_of_two_dtypes_is_kept_in_one_that_holds_both():
    file, shapes, _ = described(index(q__weight=("F16", 2, 4), k__weight=("BF16", 2, 4)))
    assert shapes == {"m.stack.weight": ("F32", 4, 4)}
    assert [(piece.dtype, piece.begin - len(file.header)) for piece in file.pieces] == [("F32", 0), ("F32", 32)]


def test_transposed_tensors_and_convolutions_have_the_shape_that_the_file_has():
    base = index(a__weight=("F32", 2, 3), b__weight=("F32", 4, 5), b__bias=("F32", 5))
    file, shapes, _ = described(
        base, transposed=frozenset({"one.weight"}), convolutions=re.compile(r"two\.(weight|bias)")
    )
    assert shapes == {"m.one.weight": ("F32", 3, 2), "m.two.weight": ("F32", 4, 5, 1, 1), "m.two.bias": ("F32", 5)}
    assert [piece.target.tensor for piece in file.pieces if piece.transposed] == ["a.weight"]


def test_a_name_of_ones_own_can_join_a_parameter_otherwise():
    base = index(q__weight=("F32", 1, 1), k__weight=("F32", 1, 1), a__weight=("F32", 1))
    _, shapes, _ = described(base, parameter=lambda text, parameter: f"{text}_{parameter}")
    assert shapes.keys() == {"m.stack_weight", "m.one_weight"}


def test_a_text_encoder_is_named_by_its_long_names():
    base = index("CLIPTextModel", a__weight=("F32", 1))
    wording = Wording("unet", "m.", lambda modules: (Name(module, (module,)) for module in modules))
    ((tensor),) = kept_tensors(base, [wording])
    assert (tensor.name, tensor.parameters) == ("m.text_model.a.weight", ("text_model.a.weight",))
    assert tensor.targets == (Target("unet", "a.weight"),)


def test_a_mark_is_a_tensor_without_elements():
    tensors = kept_tensors(index(a__weight=("F16", 3)), [Wording("unet", "m.", native)])
    file = checkpoint_file(tensors, "out.safetensors", {}, ["sign"])
    header, _ = parse_header(Path("out"), file.header[8:], file.size)
    assert {name: (info.dtype, info.shape) for name, info in header.items()} == {
        "sign": ("F32", (0,)),
        "m.one.weight": ("F16", (3,)),
    }
    assert file.pieces == (piece("a.weight", "F16", len(file.header)),)


def test_what_is_needless_is_not_kept():
    _, shapes, _ = described(index(a__weight=("F32", 1), position_ids=("I64", 1)), needless=re.compile("position_ids"))
    assert shapes.keys() == {"m.one.weight"}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a__weight": ("F32", 1), "c__weight": ("F32", 1)}, "its unet has c.weight, which the original code has not"),
        ({"c__bias": ("F32", 1), "c__weight": ("F32", 1)}, "its unet has c.bias and 1 more, which"),
        ({"q__weight": ("F32", 1, 2)}, "its unet has q.weight, "),
        ({"q__weight": ("F32", 1, 2), "k__weight": ("F32", 1, 3)}, "its unet has q.weight and 1 more"),
        ({"q__weight": ("F32", 1), "q__bias": ("F32", 1), "k__weight": ("F32", 1)}, "its unet has q.bias, "),
        ({"position_ids": ("I64", 1)}, "its unet has position_ids, "),
    ],
)
def test_a_tensor_without_a_name_is_refused(tensors, message):
    with pytest.raises(UnsupportedError, match=rf"^base makes no single file: {message}.*; --out a folder instead$"):
        described(index(**tensors))


def test_two_tensors_of_one_name_are_refused():
    wording = Wording("unet", "m.", lambda modules: (Name("same", (module,)) for module in modules))
    with pytest.raises(UnsupportedError, match=r"a.weight and unet.s b.weight would both be m.same.weight"):
        kept_tensors(index(a__weight=("F32", 1), b__weight=("F32", 1)), [wording])
