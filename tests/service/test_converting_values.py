"""What is carried into a converted file and what is made anew: values in other dtypes, metadata, hashes."""

import json
import math
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorakit_cli.core import new_tensor
from lorakit_cli.errors import OutputError, UnsupportedError
from lorakit_cli.service import converted_file
from lorakit_cli.service.converting import ConvertRequest, convert
from lorakit_cli.service.hashing import hashes
from tests.conversions import BUILDERS, as_kohya, metadata_of, our_deltas, random_adapter, read, write
from tests.kohya_metadata import KOHYA
from tests.service.test_converting import KOHYA_PREFIXES
from tests.service.test_converting_kinds import LINEAR, tensors_of

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / "sd1"
    BUILDERS["sd1"]().save_pretrained(folder)
    return folder


@pytest.fixture
def run(base, tmp_path):
    def convert_to(tensors, to, metadata=None, **options):
        source = write(tmp_path / "in.safetensors", tensors, metadata)
        out = tmp_path / ("out" if to == "peft" else "out.safetensors")
        report = convert(ConvertRequest(str(source), to, out, str(base), **options))
        return report, out

    return convert_to


@pytest.fixture
def tensors():
    return as_kohya(random_adapter(BUILDERS["sd1"]()), KOHYA_PREFIXES["sd1"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16])
def test_values_are_rounded_once_as_torch_does_and_the_largest_error_is_told(run, tensors, stored, dtype):
    tensors = {name: value if name.endswith("alpha") else value.to(stored) for name, value in tensors.items()}
    report, out = run(tensors, "kohya", dtype=dtype)
    found = read(out)
    assert found.keys() >= tensors.keys()
    worst = 0.0
    for name, tensor in tensors.items():
        if name.endswith("alpha"):
            assert (found[name].dtype, float(found[name])) == (tensor.dtype, float(tensor))
            continue
        assert torch.equal(found[name], tensor.to(DTYPES[dtype]).reshape(found[name].shape))
        assert found[name].dtype == DTYPES[dtype]
        apart = (tensor.double() - tensor.to(DTYPES[dtype]).double()).abs().max() / tensor.double().abs().max()
        worst = max(worst, float(apart))
    assert report.error == pytest.approx(worst, rel=1e-12)
    assert report.exact == (worst == 0)


def test_what_a_dtype_cannot_hold_is_refused_by_name(run, tensors, tmp_path):
    name = f"{LINEAR}.lora_up.weight"
    tensors[name] = torch.full_like(tensors[name], 1e5)
    with pytest.raises(UnsupportedError, match=r"unet\.mid_block.*to_q\.lora_B\.weight has values that fp16 cannot"):
        run(tensors, "diffusers", dtype="fp16")
    assert not (tmp_path / "out.safetensors").exists()
    assert run(tensors, "diffusers", dtype="bf16")[0].error > 0


def test_whole_numbers_stay_as_they_are(run):
    tensors = tensors_of("sparse") | {f"{LINEAR}.alpha": torch.tensor(3)}
    _, out = run(tensors, "kohya", dtype="fp16")
    found = read(out)
    for part in ("bias_indices", "bias_size", "alpha"):
        assert torch.equal(found[f"{LINEAR}.{part}"], tensors[f"{LINEAR}.{part}"])
        assert found[f"{LINEAR}.{part}"].dtype == torch.int64
    assert found[f"{LINEAR}.bias_values"].dtype == torch.float16


def test_eight_bit_floats_become_wider(run, tensors):
    narrow = {n: v if n.endswith("alpha") else v.to(torch.float8_e4m3fn) for n, v in tensors.items()}
    report, out = run(narrow, "kohya", dtype="fp16")
    assert report.exact
    written = read(out)
    assert all(torch.equal(written[n].double(), v.double().reshape(written[n].shape)) for n, v in narrow.items())


def test_alphas_of_every_form_keep_their_bytes(run):
    forms = [torch.tensor(2), torch.tensor([0.5]).half(), torch.tensor(0.3).bfloat16(), torch.tensor(0.1).double()]
    modules = [LINEAR.replace("attn1_to_q", f"attn{n}_to_{part}") for n in (1, 2) for part in ("q", "out_0")]
    tensors = {}
    for module, alpha in zip(modules, forms, strict=True):
        tensors |= {name.replace(LINEAR, module): value for name, value in tensors_of("lora").items()}
        tensors[f"{module}.alpha"] = alpha
    _, out = run(tensors, "comfy")
    found = [value for name, value in read(out).items() if name.endswith("alpha")]
    for alpha in forms:
        assert any(torch.equal(alpha, other) and alpha.dtype == other.dtype for other in found)


@pytest.mark.parametrize("to", ["diffusers", "peft", "kohya", "comfy"])
def test_metadata_is_carried_and_hashes_are_those_of_the_new_file(run, tensors, to):
    given = KOHYA | {"modelspec.hash_sha256": "0x" + "ab" * 32, "modelspec.trigger_phrase": "ohwx"}
    _, out = run(tensors, to, given)
    for file in out.rglob("*.safetensors") if out.is_dir() else [out]:
        metadata = metadata_of(file)
        stated = hashes(file).stated
        assert {entry.key for entry in stated} == {"sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"}
        assert all(entry.matches for entry in stated)
        made = {entry.key for entry in stated} | {"lora_adapter_metadata"}
        assert {key: text for key, text in metadata.items() if key not in made} == {
            key: text for key, text in given.items() if key not in made
        }
        assert ("lora_adapter_metadata" in metadata) == (to == "diffusers")
        assert metadata["modelspec.hash_sha256"].startswith("0x")


def test_hashes_that_were_not_there_are_not_added(run, tensors):
    _, out = run(tensors, "kohya", {"ss_output_name": "x"})
    assert metadata_of(out) == {"ss_output_name": "x"}
    _, out = run(tensors, "kohya", overwrite=True)
    assert metadata_of(out) == {}


def test_settings_of_the_old_layout_are_replaced(run, tensors, base, tmp_path):
    """A rank-stabilised adapter becomes one with alphas; its old settings would scale it a second time."""
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{stem}.lora_A.weight": torch.randn(3, 16), f"{stem}.lora_B.weight": torch.randn(16, 3)}
    settings = {"unet.r": 3, "unet.lora_alpha": 2, "unet.use_rslora": True, "unet.peft_type": "LORA"}
    _, out = run(tensors, "comfy", {"lora_adapter_metadata": json.dumps(settings)})
    (alpha,) = (value for name, value in read(out).items() if name.endswith("alpha"))
    assert float(alpha) == pytest.approx(2 / math.sqrt(3) * 3, rel=1e-15)
    assert metadata_of(out) == {}
    back = tmp_path / "back.safetensors"
    convert(ConvertRequest(str(out), "diffusers", back, str(base)))
    written = json.loads(metadata_of(back)["lora_adapter_metadata"])
    assert "unet.use_rslora" not in written
    assert written["unet.lora_alpha"] / written["unet.r"] == pytest.approx(2 / math.sqrt(3), rel=1e-15)


def test_embeddings_and_unknown_keys_are_named(run, tensors):
    more = {"bundle_emb.word.string_to_param.*": torch.ones(2, 4), "something.else": torch.ones(2)}
    report, out = run(tensors | more, "kohya")
    assert set(report.left_out) == set(more)
    assert not more.keys() & read(out).keys()


def test_new_files_are_aligned_and_ordered_as_the_library_does(run, tensors):
    tensors = {name: value if name.endswith("alpha") else value.half() for name, value in tensors.items()}
    _, out = run(tensors, "kohya")
    data = out.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    sizes = {"F16": 2, "F32": 4}
    assert length % 8 == 0
    places = [(entry["data_offsets"][0], entry["dtype"]) for name, entry in header.items() if name != "__metadata__"]
    assert places == sorted(places)
    assert all(place % sizes[dtype] == 0 for place, dtype in places)
    again = out.with_name("again.safetensors")
    save_file(read(out), again)
    assert again.read_bytes() == data


def misplace(file, tensors, metadata, source):
    """Write two tensors of one shape in each other's place."""
    by_shape = {}
    for tensor in tensors:
        other = by_shape.setdefault(tensor.shape, tensor)
        if other is not tensor and tensor.shape:
            break
    swapped = {other.name: tensor.pieces, tensor.name: other.pieces}
    changed = [new_tensor.NewTensor(t.name, t.dtype, t.shape, swapped.get(t.name, t.pieces)) for t in tensors]
    return new_tensor.write_tensors(file, changed, metadata, source)


def drop_alpha(file, tensors, metadata, source):
    left = [tensor for tensor in tensors if not tensor.name.endswith("attn1_to_q.alpha")]
    return new_tensor.write_tensors(file, left, metadata, source)


def flip_one_bit(file, tensors, metadata, source):
    size = new_tensor.write_tensors(file, tensors, metadata, source)
    file.flush()
    with Path(file.name).open("r+b") as written:
        written.seek(size // 2)
        (byte,) = written.read(1)
        written.seek(size // 2)
        written.write(bytes([byte ^ 1]))
    return size


def rename_one(file, tensors, metadata, source):
    first = next(tensor.name for tensor in tensors if "attn1_to_q" in tensor.name).rsplit(".", 2)[0]
    changed = [
        new_tensor.NewTensor(t.name.replace(first, first[:-1] + "x"), t.dtype, t.shape, t.pieces) for t in tensors
    ]
    return new_tensor.write_tensors(file, changed, metadata, source)


def cut_off(file, tensors, metadata, source):
    size = new_tensor.write_tensors(file, tensors, metadata, source)
    file.truncate(size - 8)
    return size


@pytest.mark.parametrize("sabotage", [misplace, drop_alpha, flip_one_bit, rename_one, cut_off])
def test_what_does_not_read_back_never_appears(run, tensors, tmp_path, monkeypatch, sabotage):
    monkeypatch.setattr(converted_file, "write_tensors", sabotage)
    with pytest.raises(OutputError, match="what was written does not read back"):
        run(tensors, "kohya")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "in.safetensors"]


def test_factors_without_alpha_get_the_one_they_meant(run, base):
    """Trainers read a missing alpha as the rank, one reader of files as the most common alpha of the file."""
    tensors = tensors_of("lora")
    del tensors[f"{LINEAR}.alpha"]
    _, out = run(tensors, "kohya")
    assert float(read(out)[f"{LINEAR}.alpha"]) == 2.0
    ((_, change),) = our_deltas(base, out).items()
    product = tensors[f"{LINEAR}.lora_up.weight"].double() @ tensors[f"{LINEAR}.lora_down.weight"].double()
    assert torch.equal(change, product)
