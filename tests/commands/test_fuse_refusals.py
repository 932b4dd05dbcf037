"""What `lorakit fuse` refuses, and that nothing is lost by it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fused import files, fused, specs
from tests.tiny import ATTENTION, save_adapter


@pytest.fixture
def odd(tmp_path, adapters):
    """Adapters that cannot be fused as they are."""
    tensors = load_file(adapters / "wash.safetensors")
    first = next(name for name in tensors if name.endswith("lora_B.weight"))
    save_file(tensors | {first: torch.full_like(tensors[first], float("nan"))}, tmp_path / "nan.safetensors")
    save_file(tensors | {first: torch.full_like(tensors[first], 1e30)}, tmp_path / "huge.safetensors")
    renamed = {name.replace("mid_block", "mid_blok"): value for name, value in tensors.items()}
    save_file(renamed, tmp_path / "partly.safetensors")
    save_adapter(tmp_path / "wide.safetensors", seed=3, width=16, targets=ATTENTION)
    return tmp_path, first.removesuffix(".lora_B.weight")


@pytest.mark.parametrize(
    ("adapter", "options", "code", "message"),
    [
        ("nan", (), 1, "{tensor}.weight: what nan adds is not finite"),
        ("huge", (), 1, "{tensor}.weight with huge comes to values that F16 cannot hold"),
        ("partly", (), 1, "layers or keys do not fit the base, first unet.mid_blok"),
        ("wide", (), 1, "adapter wide does not fit tiny-base"),
        ("missing", (), 1, "no adapter file"),
        ("nan:x", (), 2, "weight"),
        ("huge", ("--dtype", "fp8"), 2, "fp8"),
        ("huge", ("--max-shard-size", "5"), 2, "write a size such as 5GB"),
        ("huge", ("--scale", "nan"), 2, "not a finite number"),
        ("huge", ("--block-scales", '{"huge": {"unet": {"dwn": 1}}}'), 2, "has no part 'dwn'"),
        ("huge", ("--device", "tpu"), 2, "is no device"),
    ],
)
def test_refusals_leave_nothing(lorakit, here, base, odd, adapter, options, code, message):
    folder, tensor = odd
    name, colon, weight = adapter.partition(":")
    spec = f"{folder}/{name}.safetensors{colon}{weight}"
    done = lorakit("fuse", "--base", base, "--lora", spec, "--out", "out", *options)
    assert (done.exit_code, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message.format(tensor=tensor) in last
    assert list(here.iterdir()) == []


def test_what_does_not_fit_is_left_out_on_request(lorakit, here, base, odd):
    folder, _ = odd
    partly = ["--lora", f"{folder}/partly.safetensors"]
    report = fused(lorakit, "--base", base, *partly, "--out", "out", "--allow-unmatched")
    assert len(report["warnings"]) == 1
    assert "layers or keys of partly are left out, first unet.mid_blok" in report["warnings"][0]


def test_where_not_to_write(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors")
    shutil.copytree(base, here / "base")
    (here / "there").mkdir()
    (here / "there" / "mine").write_text("mine")
    (here / "link").symlink_to(here / "there")
    places = {
        "base": "which is read",
        "base/inside": "which is read",
        ".": "is no name for an output",
        "link": "is a link to",
    }
    attempts = [(out, more, message) for out, message in places.items() for more in ((), ("--overwrite",))]
    for out, more, message in [("there", (), "exists already"), *attempts]:
        done = lorakit("fuse", "--base", "base", *ink, "--out", out, *more)
        assert done.exit_code == 1, out
        assert message in done.stderr, out
    assert (here / "there" / "mine").read_text() == "mine"
    assert files(here / "base") == files(base)
    assert sorted(path.name for path in here.iterdir()) == ["base", "link", "there"]
    done = lorakit("fuse", "--base", "base", *ink, "--out", "there", "--overwrite")
    assert "there holds other things than a pipeline or adapters, and is not replaced" in done.stderr
    assert (here / "there" / "mine").read_text() == "mine"
    shutil.copytree(base, here / "old")
    fused(lorakit, "--base", "base", *ink, "--out", "old", "--overwrite")
    assert (here / "old" / "lorakit.json").is_file()


def test_no_adapters_named_is_told_with_the_ways_to_name_them(lorakit, here, base):
    done = lorakit("fuse", "--base", base, "--out", "out")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: no adapters: name them with --lora NAME:WEIGHT, once for each (`lorakit list-adapters` shows those "
        "with a name), or with `use` in lorakit.toml\n"
    )
    (here / "lorakit.toml").write_text('use = ["toy:0.5"]\n')
    assert [one["name"] for one in fused(lorakit, "--base", "demo", "--out", "out")["adapters"]] == ["toy"]


def test_one_adapter_under_two_names_is_asked_about(lorakit, here, base, adapters):
    shutil.copy(adapters / "ink.safetensors", here / "copy.safetensors")
    twice = [*specs(adapters, "ink.safetensors"), "--lora", "copy.safetensors"]
    done = lorakit("fuse", "--base", base, *twice, "--out", "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "error: ink and copy are one adapter, which would be in it twice; give it once, or with --again\n"
    )
    assert fused(lorakit, "--base", base, *twice, "--out", "out", "--again")["check"]["sound"]


def test_a_component_that_leads_out_of_the_base_is_refused(lorakit, here, base, adapters):
    shutil.copytree(base, here / "base")
    shutil.copytree(base / "vae", here / "evil")
    index = here / "base" / "model_index.json"
    index.write_text(index.read_text().replace('"vae"', '"../evil"'))
    done = lorakit("fuse", "--base", "base", *specs(adapters, "ink.safetensors"), "--out", "deep/out")
    assert (done.exit_code, (here / "deep").exists()) == (1, False)
    assert "names a component ../evil, which is no folder in it" in done.stderr


def test_the_other_engine_writes_no_single_file(lorakit, base, adapters):
    ink = specs(adapters, "ink.safetensors")
    for more in ((), ("--dry-run",)):
        done = lorakit("fuse", "--base", base, *ink, "--engine", "pipeline", "--out", "a.safetensors", *more)
        assert done.exit_code == 2
        assert "--engine pipeline writes a folder" in done.stderr
