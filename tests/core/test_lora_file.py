import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit_cli.core.lora_file import read_lora_file
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.errors import CorruptFileError, LoraFileError, NotALoraError, UnknownFormatError
from lorakit_cli.service.reading import READING, open_adapter
from tests.tiny import save_adapter


def write(path, tensors, metadata=None):
    save_file(tensors, path, metadata)
    return path


def pair(stem="unet.conv_in", rank=2, **extra):
    tensors = {f"{stem}.lora_A.weight": torch.ones(rank, 3), f"{stem}.lora_B.weight": torch.ones(5, rank)}
    return tensors | {f"{stem}.{name}": value for name, value in extra.items()}


def test_header_says_what_safetensors_says(adapters):
    path = adapters / "ink.safetensors"
    header = read_header(path)
    tensors = load_file(path)
    assert header.tensors.keys() == tensors.keys()
    for name, info in header.tensors.items():
        assert info.shape == tuple(tensors[name].shape)
        assert info.end - info.begin == tensors[name].nbytes
    data = path.read_bytes()
    name = next(iter(tensors))
    info = header.tensors[name]
    assert data[info.begin : info.end] == tensors[name].contiguous().numpy().tobytes()


def test_every_key_is_in_a_layer(adapters):
    file = open_adapter(adapters / "ink.safetensors")
    keys = {key for layer in file.layers for key in layer.keys.values()}
    assert keys == set(load_file(file.path))
    assert file.unknown_keys == ()
    assert [layout.name for layout in file.formats] == ["diffusers"]
    assert (file.kinds, file.ranks) == (("lora",), (4,))
    assert {layer.component for layer in file.layers} == {"unet", "text_encoder"}


def test_alpha_from_the_metadata(adapters):
    file = open_adapter(adapters / "wash.safetensors")
    assert {(layer.rank, layer.alpha, layer.scale) for layer in file.layers} == {(8, 2.0, 0.25)}


def test_patterns_and_rank_stabilised_scale(tmp_path):
    path = save_adapter(
        tmp_path / "a.safetensors",
        seed=1,
        rank=4,
        alpha=2,
        text=False,
        rank_pattern={"to_q": 9, r"^mid_block\.attentions\.0\.proj_in$": 16},
        alpha_pattern={"to_q": 6, r"^mid_block\.attentions\.0\.proj_in$": 8},
        use_rslora=True,
    )
    scales = {layer.stem: (layer.rank, layer.scale) for layer in open_adapter(path).layers}
    assert scales["unet.mid_block.attentions.0.proj_in"] == (16, 8 / 4)
    assert scales["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"] == (9, 6 / 3)
    assert scales["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_k"] == (4, 2 / 2)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]
)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_stored_alpha_in_any_dtype(tmp_path, dtype, shape):
    path = write(tmp_path / "a.safetensors", pair(alpha=torch.full(shape, 3, dtype=dtype)))
    (layer,) = open_adapter(path).layers
    assert (layer.alpha, layer.scale) == (3.0, 1.5)


def test_a_missing_alpha_is_scale_one_even_beside_others(tmp_path):
    tensors = pair("unet.a", alpha=torch.tensor(1.0)) | pair("unet.b")
    file = open_adapter(write(tmp_path / "a.safetensors", tensors))
    assert {layer.stem: layer.scale for layer in file.layers} == {"unet.a": 0.5, "unet.b": 1.0}


@pytest.mark.parametrize(
    "alpha", [torch.ones(2), torch.tensor(float("nan")), torch.tensor(float("inf")), torch.tensor(True)]
)
def test_impossible_alpha(tmp_path, alpha):
    with pytest.raises(CorruptFileError, match=r"unet.conv_in.alpha"):
        open_adapter(write(tmp_path / "a.safetensors", pair(alpha=alpha)))


def test_keys_that_are_no_part_of_an_adapter_are_named(tmp_path):
    tensors = pair() | {"extra": torch.ones(1), "unet.y.weight": torch.ones(2, 3)}
    file = open_adapter(write(tmp_path / "a.safetensors", tensors))
    assert [layer.stem for layer in file.layers] == ["unet.conv_in"]
    assert file.unknown_keys == ("extra", "unet.y.weight")


def test_no_adapter_at_all(tmp_path, base):
    with pytest.raises(NotALoraError, match="is the weights of a whole model, not a LoRA; give its folder"):
        open_adapter(base / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(NotALoraError, match=r"holds no adapter: it has 1 tensors, such as conv\.weight"):
        open_adapter(write(tmp_path / "part.safetensors", {"conv.weight": torch.ones(2)}))
    with pytest.raises(NotALoraError, match="it has 0 tensors"):
        open_adapter(write(tmp_path / "empty.safetensors", {}))


@pytest.mark.parametrize(
    ("down", "up", "message"),
    [
        ((2, 3), (5, 4), "its ranks differ"),
        ((2, 3, 3, 3, 3, 3), (5, 2), "no linear or convolution pair"),
        ((2, 3, 3, 3), (5, 2, 3, 3), "kernel must be 1x1"),
        ((0, 3), (5, 0), "holds no values"),
    ],
)
def test_contradicting_factors(tmp_path, down, up, message):
    tensors = {"unet.a.lora_A.weight": torch.ones(down), "unet.a.lora_B.weight": torch.ones(up)}
    with pytest.raises(CorruptFileError, match=message):
        open_adapter(write(tmp_path / "a.safetensors", tensors))


def _header(entries, data=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"\xff" * 200,
        _header(b"not json"),
        _header([]),
        _header({"a": 3}),
        _header({"a": {"dtype": "F32", "shape": [1]}}),
        _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        _header({"__metadata__": {"a": 1}}),
        _header(b"[" * 100_000),
    ],
)
def test_broken_files(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"a\.safetensors"):
        open_adapter(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "is a web page"),
        (b'{"error": "not found"}', "is a JSON text"),
        (b"PK\x03\x04" + bytes(100) + b"\xff" * 100, "a zip or PyTorch pickle file under another name"),
        (b"\x80\x02}q\x00X\x05\x00\x00\x00model", "is a pickle file"),
        # A header of 640 bytes, cut off: its length begins as a pickle does.
        (b"\x80\x02" + bytes(6) + b'{"unet', r"is no complete safetensors file \(14 bytes\)"),
        (b"ab", r"is no complete safetensors file \(2 bytes\)"),
        (_header(b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": 1}'), "a name stands in it twice"),
    ],
)
def test_what_a_failed_download_left(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=message):
        open_adapter(path)


def test_truncated_file_says_so(tmp_path, adapters):
    path = tmp_path / "a.safetensors"
    path.write_bytes((adapters / "ink.safetensors").read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="is truncated: its header promises"):
        open_adapter(path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"unet.lora_alpha": "4"}', '{"unet.lora_alpha": NaN}', '{"unet.alpha_pattern": {"(": 1}}']
)
def test_broken_adapter_metadata(tmp_path, text):
    with pytest.raises(CorruptFileError, match="lora_adapter_metadata cannot be read"):
        open_adapter(write(tmp_path / "a.safetensors", pair(), {"lora_adapter_metadata": text}))


def test_a_layer_with_a_part_that_is_not_understood_is_not_applied_by_halves(tmp_path):
    path = write(tmp_path / "a.safetensors", pair() | {"unet.conv_in.something.new": torch.ones(2)})
    with pytest.raises(CorruptFileError, match=r"unet\.conv_in has something\.new beside its factors"):
        open_adapter(path)


def test_two_pairs_for_one_layer(tmp_path):
    tensors = pair() | {
        "unet.conv_in.lora_down.weight": torch.ones(2, 3),
        "unet.conv_in.lora_up.weight": torch.ones(5, 2),
    }
    with pytest.raises(CorruptFileError, match="are the same part of one layer"):
        open_adapter(write(tmp_path / "a.safetensors", tensors))


@pytest.mark.parametrize("rest", [{}, pair()])
def test_half_a_pair(tmp_path, rest):
    path = write(tmp_path / "a.safetensors", rest | {"unet.x.lora_A.weight": torch.ones(2, 3)})
    with pytest.raises(CorruptFileError, match=r"unet\.x\.lora_A\.weight is there without what belongs to it"):
        open_adapter(path)


def test_the_name_peft_leaves_in_the_keys_of_a_model_in_memory(tmp_path):
    tensors = {"unet.a.lora_A.default.weight": torch.ones(2, 3), "unet.a.lora_B.default.weight": torch.ones(5, 2)}
    (layer,) = open_adapter(write(tmp_path / "a.safetensors", tensors)).layers
    assert (layer.stem, layer.rank, set(layer.keys.values())) == ("unet.a", 2, set(tensors))
    other = {key.replace("default", "second"): value.clone() for key, value in tensors.items()}
    with pytest.raises(CorruptFileError, match="it holds several adapters, default, second"):
        open_adapter(write(tmp_path / "b.safetensors", tensors | other))


def test_each_wrong_alpha_is_named_beside_the_sound_ones(tmp_path):
    tensors = pair("unet.a", alpha=torch.ones(2)) | pair("unet.b", alpha=torch.tensor(1.0))
    file = read_lora_file(write(tmp_path / "a.safetensors", tensors), READING)
    assert [problem.text for problem in file.problems] == ["unet.a.alpha should be one number but is F32 [2]"]


@pytest.mark.parametrize(
    "settings",
    [
        {"unet.fan_in_fan_out": True},
        {"unet.modules_to_save": ["conv_in"]},
        {"unet.init_lora_weights": "pissa_niter_4"},
    ],
)
def test_settings_that_mean_more_than_plain_lora(tmp_path, settings):
    path = write(tmp_path / "a.safetensors", pair(), {"lora_adapter_metadata": json.dumps(settings)})
    with pytest.raises(UnknownFormatError, match="which is not plain LoRA and is not applied by halves"):
        open_adapter(path)


@pytest.mark.parametrize("pattern", ["(?i)conv_in", r"([\w.]+)*!", "a" * 2000, "("])
def test_patterns_that_could_hang_or_break(tmp_path, pattern):
    settings = json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {pattern: 8}})
    with pytest.raises(CorruptFileError, match="lora_adapter_metadata cannot be read"):
        open_adapter(write(tmp_path / "a.safetensors", pair(), {"lora_adapter_metadata": settings}))


def test_something_behind_the_end(tmp_path, adapters):
    path = tmp_path / "a.safetensors"
    path.write_bytes((adapters / "ink.safetensors").read_bytes() + b"x")
    with pytest.raises(CorruptFileError, match="has something behind its end"):
        open_adapter(path)


def test_other_files_are_not_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(LoraFileError, match=r"only \.safetensors"):
        open_adapter(tmp_path / "a.txt")
