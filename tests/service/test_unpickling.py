"""Pickled adapters: what is taken out of them, when, and what the process that does it leaves behind."""

import collections
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lorakit_cli.core.private_folder import private_folder
from lorakit_cli.errors import CorruptFileError, LoraFileError, PickleError
from lorakit_cli.service import unpickling
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.tensors import TensorReader
from lorakit_cli.service.unpickling import unpickled
from tests.pickles import A, B, read, saved, write


def same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value.detach())


# What it reads


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_becomes_a_safetensors_file_with_the_same_tensors(tmp_path, legacy):
    path = write(tmp_path / "a.bin", {"unet.a.lora_A.weight": A, "unet.a.lora_B.weight": B}, legacy=legacy)
    before = path.read_bytes()
    made = unpickled(path)
    assert {key: value.tolist() for key, value in load_file(made).items()} == {
        "unet.a.lora_A.weight": A.tolist(),
        "unet.a.lora_B.weight": B.tolist(),
    }
    assert path.read_bytes() == before
    assert made.parent == private_folder()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_list_of_parameters_becomes_named_pairs(tmp_path, legacy):
    values = [
        torch.nn.Parameter(torch.randn(4, 2)) if n % 2 == 0 else torch.nn.Parameter(torch.randn(2, 3)) for n in range(6)
    ]
    made = load_file(unpickled(write(tmp_path / "lora.pt", values, legacy=legacy)))
    assert set(made) == {f"unet:{n}:{role}" for n in range(3) for role in ("up", "down")}
    for place, value in enumerate(values):
        assert torch.equal(made[f"unet:{place // 2}:{'up' if place % 2 == 0 else 'down'}"], value.detach())


def test_the_name_of_the_file_says_that_a_list_is_the_text_encoders(tmp_path):
    path = write(tmp_path / "lora.text_encoder.pt", [B, A])
    assert set(load_file(unpickled(path))) == {"text_encoder:0:up", "text_encoder:0:down"}


STRUCTURES = {
    "flat": ({"a": A, "b": B}, {"a": A, "b": B}),
    "ordered": (collections.OrderedDict(b=B, a=A), {"b": B, "a": A}),
    "tuple": ((B, A), {"unet:0:up": B, "unet:0:down": A}),
    "state_dict": ({"state_dict": {"a": A}}, {"a": A}),
    "model": ({"model": {"a": A, "b": {"c": B}}}, {"a": A, "b.c": B}),
    "wrapped beside other things": ({"epoch": 3, "state_dict": {"a": A}}, {"epoch": torch.tensor(3), "a": A}),
    "two wrappers": ({"model": {"a": A}, "state_dict": {"a": B}}, {"model.a": A, "state_dict.a": B}),
    "a tensor called model": ({"model": A}, {"model": A}),
    "nested": ({"unet": {"x": {"A": A}}, "te": [A, B]}, {"unet.x.A": A, "te.0": A, "te.1": B}),
    "numbers as names": ({0: A, 1: B}, {"0": A, "1": B}),
    "scalars": (
        {"a": A, "alpha": 4.0, "rank": 2, "on": True},
        {
            "a": A,
            "alpha": torch.tensor(4.0, dtype=torch.float64),
            "rank": torch.tensor(2),
            "on": torch.tensor(True),
        },
    ),
    "nothing": ({"a": A, "b": None}, {"a": A}),
    "token": ({"<s1>": torch.ones(768)}, {"<s1>": torch.ones(768)}),
    "embedding": (
        {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(A)}, "name": "x", "step": 9},
        {"string_to_token.*": torch.tensor(265), "string_to_param.*": A, "step": torch.tensor(9)},
    ),
    "not contiguous": ({"a": A.T, "b": B[1:3]}, {"a": A.T, "b": B[1:3]}),
    "one storage": ({"a": A, "b": A, "c": A[1]}, {"a": A, "b": A, "c": A[1]}),
    "empty": ({"a": A, "b": torch.empty(0, 3)}, {"a": A, "b": torch.empty(0, 3)}),
    "conjugate": ({"a": torch.tensor([1 + 2j]).conj()}, {"a": torch.tensor([1 - 2j])}),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(tmp_path, name):
    value, expected = STRUCTURES[name]
    contents = read(value)
    same(contents.tensors, expected)
    # Copies of their own, as safetensors wants them.
    assert len({one.untyped_storage().data_ptr() for one in contents.tensors.values() if one.numel()}) == sum(
        one.numel() > 0 for one in expected.values()
    )


@pytest.mark.parametrize(
    "dtype",
    [
        *(
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.int8,
            torch.uint8,
            torch.bool,
        ),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    ],
)
def test_every_dtype_is_kept(tmp_path, dtype):
    value = torch.tensor([[0, 1, 3], [1, 0, 2]]).to(dtype)
    # torch itself cannot read 8-bit floats from its legacy format.
    for legacy in (False,) if dtype.is_floating_point and dtype.itemsize == 1 else (False, True):
        contents = read(saved({"a": value}, legacy=legacy))
        assert contents.tensors["a"].dtype == dtype
        assert torch.equal(contents.tensors["a"].view(torch.uint8), value.view(torch.uint8))


def test_text_becomes_metadata(tmp_path):
    settings = json.dumps({"unet.lora_alpha": 4})
    value = {"a": A, "lora_adapter_metadata": settings, "more": {"author": "Ü"}, "dtype": torch.float16}
    with safe_open(unpickled(write(tmp_path / "a.pt", value)), "pt") as file:
        assert file.metadata() == {"lora_adapter_metadata": settings, "more.author": "Ü", "dtype": "torch.float16"}


def test_hostile_names_are_data_and_never_paths(tmp_path):
    names = ["../../x", "a\0b", "\x1b[2J\x1b]0;t\x07", "two\nlines\nthree", "/absolute"]
    before = set(private_folder().iterdir())
    made = unpickled(write(tmp_path / "a.pt", dict.fromkeys(names, A) | {"text": "\x1b[31m\0"}))
    assert set(load_file(made)) == set(names)
    assert {file.name for file in tmp_path.iterdir()} == {"a.pt", "here"}
    assert set(private_folder().iterdir()) - before == {made}


def test_an_adapter_is_the_same_pickled_or_not(adapters, base, tmp_path):
    source = adapters / "ink.safetensors"
    with safe_open(source, "pt") as file:
        pickle_path = write(tmp_path / "ink.bin", load_file(source) | (file.metadata() or {}))
    whole, taken = open_adapter(source), open_adapter(pickle_path, allow_pickle=True)
    assert taken.layers == whole.layers
    assert (taken.path, whole.path, whole.data) == (pickle_path, source, source)
    from lorakit_cli.core.adapter_spec import AdapterSpec

    plans = [
        make_plan(str(base), [AdapterSpec.parse(f"ink={path}:1")], allow_pickle=True).plan
        for path in (source, pickle_path)
    ]
    terms = [dict(plan.changes()) for plan in plans]
    assert terms[0].keys() == terms[1].keys()
    with TensorReader(torch.device("cpu")) as reader:
        for target in terms[0]:
            (one,), (other,) = terms[0][target], terms[1][target]
            factors = reader.factors(other)
            for role, factor in reader.factors(one).items():
                assert torch.equal(factor, factors[role])


def test_messages_name_the_pickle(tmp_path):
    path = write(tmp_path / "a.pt", {"unet.a.lora_A.weight": A, "unet.a.lora_B.weight": B, "unet.a.alpha": A})
    with pytest.raises(CorruptFileError, match=r"a\.pt: unet\.a\.alpha should be one number but is F32 \[2, 3\]"):
        open_adapter(path, allow_pickle=True)


# What must be asked for


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.ckpt", "a.pth", "a.PT", "a", "a.zip"])
def test_a_pickle_is_not_opened_unasked(tmp_path, monkeypatch, name, legacy):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    path = write(tmp_path / name, {"a": A}, legacy=legacy)
    with pytest.raises(PickleError, match=r"is a pickle file, which can run code when opened; pass --allow-pickle"):
        open_adapter(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("allowed", [False, True])
def test_a_pickle_called_safetensors_is_refused_even_where_pickles_are_allowed(tmp_path, allowed, legacy):
    path = write(tmp_path / "a.safetensors", {"a": A}, legacy=legacy)
    with pytest.raises(CorruptFileError, match="pickle file under another name"):
        open_adapter(path, allow_pickle=allowed)


def test_a_safetensors_file_called_otherwise_is_no_pickle(tmp_path, adapters):
    for name, length in (("a.bin", None), ("b.bin", 0x280)):
        data = (adapters / "ink.safetensors").read_bytes()
        if length:  # a header length whose bytes begin like a pickle
            text = json.dumps({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode().ljust(length)
            data = struct.pack("<Q", length) + text
        with pytest.raises(LoraFileError, match=r"only \.safetensors adapters are read; if it is one, name it so"):
            open_adapter(write(tmp_path / name, data), allow_pickle=True)


# The process


def test_a_file_that_is_gone(tmp_path):
    for action in (unpickled, lambda path: open_adapter(path, allow_pickle=True)):
        with pytest.raises(CorruptFileError, match=r"a\.pt cannot be read: No such file"):
            action(tmp_path / "a.pt")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write(tmp_path / "a.pt", {"a": A})
    path.chmod(0)
    with pytest.raises(CorruptFileError, match=r"a\.pt cannot be read: Permission denied"):
        open_adapter(path, allow_pickle=True)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_only_the_user_may_look_into_the_folder(tmp_path):
    made = unpickled(write(tmp_path / "a.pt", {"a": A}))
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert made.stat().st_mode & 0o777 == 0o600


def test_a_reader_that_crashes_ends_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickling, "_PROGRAM", "import os; os.abort()")
    with pytest.raises(PickleError, match=r"a\.pt ended the process that opened it"):
        unpickled(write(tmp_path / "a.pt", {"a": A}))


def test_a_reader_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickling, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(unpickling, "_SECONDS", 0.2)
    with pytest.raises(PickleError, match=r"a\.pt is not open after 0 seconds"):
        unpickled(write(tmp_path / "a.pt", {"a": A}))


def test_a_mistake_of_the_reader_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickling, "_PROGRAM", "1 / 0")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        unpickled(write(tmp_path / "a.pt", {"a": A}))


def _limited(code):
    program = f"from lorakit_cli.service.pickle_reading import limit_this_process\nlimit_this_process(1000)\n{code}"
    paths = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no limit of memory without /proc")
def test_the_process_cannot_take_much_more_memory_than_the_file():
    assert "MemoryError" in _limited("bytearray(2_000_000_000)").stderr
    assert _limited("bytearray(500_000_000)").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="no limits on Windows")
def test_the_process_cannot_write_much_more_than_the_file(tmp_path):
    path = tmp_path / "out"
    done = _limited(f"file = open({str(path)!r}, 'wb')\nfile.truncate(300_000_000)")
    assert "File too large" in done.stderr
    assert path.stat().st_size == 0


def _environment(folder):
    return os.environ | {"TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}


def test_nothing_is_left_behind_when_the_program_ends(tmp_path, program, adapters, base):
    path = write(tmp_path / "ink.bin", load_file(adapters / "ink.safetensors"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = ["generate", "--base", base, "--lora", path, "--dry-run", "x"]
    refused = program(*command, env=_environment(folder))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "pass --allow-pickle" in refused.stderr
    done = program(*command, "--allow-pickle", env=_environment(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert str(path) in done.stdout
    assert str(folder) not in done.stdout
    assert list(folder.iterdir()) == []


def test_nothing_is_left_behind_after_ctrl_c(tmp_path, adapters, base):
    """Ctrl-C when the adapter has been unpacked and diffusers is about to be imported, as in the program's own test."""
    path = write(tmp_path / "ink.bin", load_file(adapters / "ink.safetensors"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    code = f"""
import os, sys
from lorakit_cli.__main__ import main

class Finger:
    def find_spec(self, name, path=None, target=None):
        if name == "diffusers":
            sys.stderr.write(f"{{len(os.listdir(os.environ['TMPDIR']))}} there\\n")
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finger())
sys.argv[1:] = ["generate", "--base", {str(base)!r}, "--lora", {str(path)!r}, "--allow-pickle", "--seed", "1", "x"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(folder))
    assert (done.returncode, done.stderr) == (130, "1 there\nerror: interrupted\n")
    assert list(folder.iterdir()) == []


def test_the_program_itself_loads_no_torch_for_a_dry_run(tmp_path, adapters, base):
    path = write(tmp_path / "ink.bin", load_file(adapters / "ink.safetensors"))
    code = (
        "import sys\nfrom lorakit_cli.app import app\n"
        f"try: app(['generate', '--base', {str(base)!r}, '-l', {str(path)!r}, '--allow-pickle', '--dry-run', 'x'])\n"
        "except SystemExit as end: code = end.code\n"
        "print([name for name in ('torch', 'numpy', 'safetensors') if name in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[] 0"


def test_list_adapters_says_what_a_pickle_would_need(lorakit, tmp_path, adapters, here):
    write(tmp_path / "ink.bin", load_file(adapters / "ink.safetensors"))
    (here / "lorakit.toml").write_text(f'[adapters.ink]\nsource = "{(tmp_path / "ink.bin").as_posix()}"\n')
    assert "pass --allow-pickle" in lorakit("list-adapters").stdout
    listed = json.loads(lorakit("list-adapters", "--allow-pickle", "--json").stdout)["adapters"]
    (ink,) = [one for one in listed if one["name"] == "ink"]
    assert (ink["problem"], ink["ranks"]) == (None, [4])
