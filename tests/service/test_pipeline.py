import json
import shutil

import pytest
import torch

from lorakit_cli.core.loading import Loading
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.errors import BaseModelError, OptionError, UnsupportedError
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.memory import enough_memory, saving_advice
from lorakit_cli.service.pipeline import choose_dtype, open_pipeline

CPU = torch.device("cpu")


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(OptionError, match="'quantum' is no device"):
        choose_device("quantum")
    with pytest.raises(UnsupportedError, match=r"this machine has no cuda:99 device for torch; it has .*cpu"):
        choose_device("cuda:99")


def test_dtypes(base):
    index = read_base_index(base)
    assert choose_dtype("auto", CPU, index) == torch.float32
    assert choose_dtype("auto", torch.device("cuda"), index) == torch.float16
    assert choose_dtype("bfloat16", CPU, index) == torch.bfloat16


def test_too_little_memory_says_what_helps():
    advice = saving_advice(Loading(), CPU, torch.float32)
    with (
        pytest.raises(
            UnsupportedError, match="not enough memory; try --dtype bfloat16, --low-memory or a smaller --wi"
        ),
        enough_memory(advice),
    ):
        torch.empty(2**50)
    with pytest.raises(UnsupportedError, match="not enough memory"), enough_memory():
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="another matter"), enough_memory():
        raise RuntimeError("another matter")


def test_what_helps_is_what_is_not_in_use_yet():
    cuda = torch.device("cuda")
    texts = [
        saving_advice(Loading(), cuda, torch.float32),
        saving_advice(Loading(low_memory=True, offload="model"), cuda, torch.float16),
        saving_advice(Loading(low_memory=True, offload="sequential"), cuda, torch.float16),
        saving_advice(Loading(low_memory=True), CPU, torch.bfloat16),
    ]
    assert texts == [
        "--dtype float16, --low-memory, --offload model, a smaller --width and --height or --device cpu",
        "--offload group, a smaller --width and --height or --device cpu",
        "a smaller --width and --height or --device cpu",
        "a smaller --width and --height",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{}"),
        lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(),
        lambda folder: (folder / "unet" / "config.json").write_text("{}"),
        lambda folder: (folder / "model_index.json").write_text(
            json.dumps(json.loads((folder / "model_index.json").read_text()) | {"_class_name": "NopePipeline"})
        ),
    ],
)
def test_a_base_that_diffusers_cannot_load(base, tmp_path, damage):
    folder = shutil.copytree(base, tmp_path / "damaged")
    damage(folder)
    with pytest.raises(BaseModelError, match=r"diffusers cannot load .*damaged: ."):
        open_pipeline(read_base_index(folder), CPU, torch.float32)
