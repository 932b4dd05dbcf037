"""Pickles that are damaged, made to deceive, or no adapters: each is refused by name, and none does harm."""

import collections
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy
import pytest
import torch

from lorakit_cli.core.private_folder import private_folder
from lorakit_cli.errors import CorruptFileError, LoraFileError, LorakitError, NotALoraError, PickleError
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.unpickling import unpickled
from tests.pickles import A, B, read, rezipped, saved, write


class Exploit:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


class SystemExploit(Exploit):
    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class EvalExploit(Exploit):
    def __reduce__(self):
        return eval, (f"open({self.path!r}, 'w')",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("exploit", [Exploit, SystemExploit, EvalExploit])
def test_code_in_a_pickle_never_runs(tmp_path, exploit, legacy):
    proof = tmp_path / "proof"
    data = saved({"a": A, "b": exploit(proof)}, legacy=legacy)
    with pytest.raises(PickleError, match=r"needs code to be run to open it \(.+\); refused"):
        read(data)
    assert not proof.exists()
    # The file is one that does run where it is opened without care.
    torch.load(io.BytesIO(data), weights_only=False)
    assert proof.exists()


def test_code_in_a_pickle_never_runs_in_the_process_either(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    proof = tmp_path / "proof"
    with pytest.raises(PickleError, match=r"a\.pt needs code to be run to open it \((posix|nt)\.system\); refused"):
        unpickled(write(tmp_path / "a.pt", {"a": SystemExploit(proof)}))
    assert not proof.exists()


def test_a_module_in_the_current_folder_is_not_imported(tmp_path, here):
    for name in ("torch", "json", "safetensors", "lorakit_cli"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')")
    unpickled(write(tmp_path / "a.pt", {"a": A}))
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": A, "b": numpy.float32(3)}, "numpy"),
        ({"a": numpy.ones(3)}, "numpy"),
        ({"a": numpy.array([object()], dtype=object)}, "numpy"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"a": A, "b": Path("x")}, "pathlib"),
        ({"a": torch.nn.ParameterDict({"*": A})}, "torch.nn.modules.container.ParameterDict"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_objects_are_refused_by_name(value, name, legacy):
    with pytest.raises(PickleError, match=rf"needs code to be run to open it \({name}"):
        read(saved(value, legacy=legacy))


def _nested(levels):
    value = {"a": A}
    for _ in range(levels):
        value = {"a": value, "b": value}
    return value


def _in_itself():
    value = {"a": A}
    value["b"] = value
    return value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([], NotALoraError, "holds an empty list"),
        ({}, NotALoraError, "there are no tensors in it"),
        ({"a": 1, "b": torch.tensor(2.0)}, NotALoraError, "there are no tensors in it"),
        ([A], NotALoraError, "holds a list, but its 1 tensors are no pairs"),
        ([A, 3], NotALoraError, "holds a list with an int in it"),
        ([A, {"a": B}], NotALoraError, "holds a list with a dict in it"),
        ("text", NotALoraError, "holds a str, which is no adapter"),
        (3, NotALoraError, "holds an int, which is no adapter"),
        (None, NotALoraError, "holds a NoneType, which is no adapter"),
        (A, NotALoraError, "holds a torch.Tensor, which is no adapter"),
        ({(1, 2): A}, NotALoraError, "has a tuple as a name"),
        ({"a": A, "b": {1, 2}}, NotALoraError, "holds a set called b"),
        ({"a": A, "b": 1j}, NotALoraError, "holds a complex called b"),
        ({"a": A, "b": bytearray(b"x")}, NotALoraError, "holds a bytearray called b"),
        ({"a": A.to_sparse()}, NotALoraError, "has a as a tensor that is not plain"),
        ({"a": A.to("meta")}, NotALoraError, "has a as a tensor that is not plain"),
        ({"a": torch.quantize_per_tensor(A, 0.1, 0, torch.quint8)}, NotALoraError, "has a as a"),
        ({"a": A.to(torch.complex128)}, NotALoraError, "has a in torch.complex128"),
        ({"a": A, "b": 2**70}, CorruptFileError, "has a number beyond 64 bits called b"),
        ({"a.b": A, "a": {"b": B}}, CorruptFileError, "has two parts called a.b"),
        ({"0": A, 0: B}, CorruptFileError, "has two parts called 0"),
        ({"__metadata__": A}, CorruptFileError, "has two parts called __metadata__"),
        ({"\ud800": A}, CorruptFileError, "not valid Unicode"),
        ({"a": A, "b": "\udfff"}, CorruptFileError, "not valid Unicode"),
        (_nested(40), CorruptFileError, "unfolds into more parts"),
        (_in_itself(), CorruptFileError, "unfolds into more parts"),
        (dict.fromkeys(map(str, range(1000)), "x" * 50_000) | {"a": A}, CorruptFileError, "unfolds into more text"),
        ({"a": {"k" * 40_000: dict.fromkeys(range(1000), A)}}, CorruptFileError, "unfolds into more text"),
        (dict.fromkeys(map(str, range(2000)), torch.ones(1000)), CorruptFileError, "unfolds into more bytes"),
        ({"a": torch.zeros(1).expand(1 << 30)}, CorruptFileError, r"has a \[1073741824\], which unfolds"),
        ({"a": torch.zeros(4).expand(2, 4)}, CorruptFileError, r"has a \[2, 4\], which unfolds into more bytes"),
        ({"a": torch.zeros(9).as_strided((4, 4), (1, 1))}, CorruptFileError, "unfolds into more bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) > 9 else "",
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_no_adapter_is_refused(value, error, message, legacy):
    with pytest.raises(error, match=message):
        read(saved(value, legacy=legacy))


def test_a_parameter_cannot_hide_its_size():
    """A Parameter carries attributes, and one of them can stand before a method that a check would use."""
    value = torch.nn.Parameter(torch.zeros(1).expand(1 << 28))
    value.numel = torch.Size
    value.detach = collections.OrderedDict
    with pytest.raises(CorruptFileError, match="unfolds into more bytes"):
        read({"a": value})


GOOD_ZIP = saved({"a": torch.arange(100.0)})
GOOD_LEGACY = saved({"a": torch.arange(100.0)}, legacy=True)


def _bomb():
    return rezipped(saved({"a": torch.zeros(10_000_000)}), lambda _, data: data, zipfile.ZIP_DEFLATED)


def _overlapping():
    """Let every entry of the directory point at the largest member."""
    data = bytearray(saved({str(n): torch.rand(1000) for n in range(20)}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        place = archive.start_dir
    largest = max(members, key=lambda member: member.file_size)
    for member in members:
        if member.file_size == largest.file_size or member.filename.endswith("data.pkl"):
            struct.pack_into("<II", data, place + 20, len(data) // 2, len(data) // 2)
        place += 46 + len(member.filename.encode()) + len(member.extra) + len(member.comment)
    return bytes(data)


def _tar(name):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return made.getvalue()


def _zip(**members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), data)
    return made.getvalue()


def _claiming(data, old, new):
    assert old in data
    return data.replace(old, new)


def _twice():
    """Write a member of the same name a second time, with other contents."""
    made = io.BytesIO(GOOD_ZIP)
    with zipfile.ZipFile(made, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", bytes(400))
    return made.getvalue()


DAMAGED = {
    "empty": (b"", CorruptFileError, "is damaged or no file of torch.save"),
    "one byte": (b"x", CorruptFileError, "is damaged or no file of torch.save"),
    "random": (bytes(range(256)) * 8, CorruptFileError, "is damaged or no file of torch.save"),
    "html": (b"<!DOCTYPE html><html>Log in</html>" * 20, CorruptFileError, "is damaged or no file of torch.save"),
    "truncated zip": (GOOD_ZIP[:-30], CorruptFileError, "is a broken or truncated zip archive"),
    "half a zip": (GOOD_ZIP[: len(GOOD_ZIP) // 2], CorruptFileError, "is a broken or truncated zip archive"),
    "truncated legacy": (GOOD_LEGACY[:-40], CorruptFileError, "is damaged or no file of torch.save"),
    "half a legacy pickle": (GOOD_LEGACY[:150], CorruptFileError, "is damaged or no file of torch.save"),
    "zip of something": (_zip(readme="x"), NotALoraError, "not one that torch.save wrote"),
    "empty zip": (b"PK\x05\x06" + bytes(18), NotALoraError, "not one that torch.save wrote"),
    "two pickles": (_zip(a__data_pkl="x", b__data_pkl="x"), NotALoraError, "not one that torch.save wrote"),
    "empty pickle": (_zip(a__data_pkl=""), CorruptFileError, "is damaged or no file of torch.save"),
    "TorchScript": (_zip(a__data_pkl="x", a__constants_pkl="x"), PickleError, "is a TorchScript program"),
    "compressed bomb": (_bomb(), CorruptFileError, "is a compressed zip archive"),
    "overlapping members": (_overlapping(), CorruptFileError, "members that do not fit into it"),
    "the same member twice": (_twice(), CorruptFileError, "members that do not fit into it"),
    "many members": (_zip(a__data_pkl="x", **{f"n{n}": "" for n in range(100_001)}), CorruptFileError, "100002"),
    "tar": (_tar("storages"), PickleError, "is a tar archive"),
    "tar that goes up": (_tar("../../x"), PickleError, "is a tar archive"),
    "plain pickle": (pickle.dumps({"a": [1.0]}, 2), CorruptFileError, "is damaged or no file of torch.save"),
    "newer plain pickle": (pickle.dumps({"a": [1.0]}, 5), CorruptFileError, "is damaged or no file of torch.save"),
    "legacy claims a terabyte": (
        _claiming(GOOD_LEGACY, b"Kd", b"\x8a\x06\x00\x00\x00\x00\x00\x01"),
        LoraFileError,
        "(claims more bytes of tensors than it has|needs far more memory than its size)",
    ),
    "legacy claims a little more": (
        _claiming(GOOD_LEGACY, b"Kd", b"J\x00\x01\x00\x00"),
        CorruptFileError,
        "claims more bytes of tensors than it has",
    ),
    "zip claims a terabyte": (
        rezipped(GOOD_ZIP, lambda _, data: data.replace(b"Kd", b"\x8a\x06\x00\x00\x00\x00\x00\x01")),
        CorruptFileError,
        "is damaged or no file of torch.save",
    ),
    "zip shape beyond its storage": (
        rezipped(GOOD_ZIP, lambda _, data: data.replace(b"Kd\x85", b"Kx\x85")),
        CorruptFileError,
        "is damaged or no file of torch.save",
    ),
    "negative shape": (
        rezipped(GOOD_ZIP, lambda _, data: data.replace(b"Kd\x85", b"J\xff\xff\xff\xff\x85")),
        CorruptFileError,
        "is damaged or no file of torch.save",
    ),
    "storage that is not there": (
        rezipped(GOOD_ZIP, lambda name, data: data.replace(b"\x01\x00\x00\x000", b"\x01\x00\x00\x009")),
        CorruptFileError,
        "is damaged or no file of torch.save",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_hostile_files_are_refused(name):
    data, error, message = DAMAGED[name]
    with pytest.raises(error, match=message):
        read(data)


def test_a_long_pickle_without_tensors_is_refused():
    data = rezipped(GOOD_ZIP, lambda name, data: bytes(64_000_001) if name.endswith("data.pkl") else data)
    with pytest.raises(CorruptFileError, match="has a pickle of 64000001 bytes"):
        read(data)


def test_values_that_a_legacy_file_leaves_out_are_not_whatever_was_in_memory():
    end = GOOD_LEGACY.rfind(b"]q\x00")
    contents = read(GOOD_LEGACY[:end] + b"]q\x00." + bytes(500))
    assert torch.equal(contents.tensors["a"], torch.zeros(100))


def test_every_cut_of_a_file_is_an_error_of_its_own_kind():
    for data in (GOOD_ZIP, GOOD_LEGACY):
        for length in range(0, len(data) - 1, 7):
            with pytest.raises(LorakitError):
                read(data[:length])


def test_a_torch_that_cannot_open_pickles_safely_is_not_asked_to(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(LorakitError, match=r"torch 2\.9\.1\+cu128 cannot open safely; install torch 2\.10 or newer"):
        read(GOOD_ZIP)


@pytest.mark.parametrize("name", ["compressed bomb", "half a zip", "tar", "legacy claims a terabyte", "random"])
def test_refusals_come_back_from_the_process(tmp_path, name):
    data, error, message = DAMAGED[name]
    path = write(tmp_path / "a.pt", data)
    before = set(private_folder().iterdir())
    with pytest.raises(error, match=rf"{path} {message}"):
        open_adapter(path, allow_pickle=True)
    assert set(private_folder().iterdir()) == before
