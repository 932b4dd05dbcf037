"""Which files go along when a pipeline is copied or downloaded: the same ones, told from their names alone."""

import json

from lorakit_cli.core.pipeline_copy import components_of, files_to_copy, to_copy

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
}
ALONG = [
    "LICENSE.md",
    "model_index.json",
    "pipeline.py",
    "safety_checker/config.json",
    "tokenizer/spiece.model",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/more/notes.txt",
]
LEFT = [
    ".gitattributes",
    "README.md",
    "lorakit.json",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "grid.JPG",
    "model.zip",
    "assets/example.png",
    "vae_old/config.json",
    "unet/.cache/kept.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/openvino_model.xml",
]


def test_what_a_pipeline_is_made_of_goes_along(tmp_path):
    for name in (*ALONG, *LEFT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(MODEL_INDEX))
    assert [str(name) for name in files_to_copy(tmp_path)] == ALONG
    assert [str(name) for name in to_copy([*LEFT, *ALONG], components_of(MODEL_INDEX))] == ALONG


def test_a_component_cannot_reach_out_of_the_folder(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (tmp_path / "secret.txt").touch()
    entries = {"..": [None, None], str(tmp_path): [None, None], "a/../..": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(entries))
    assert [str(name) for name in files_to_copy(folder)] == ["model_index.json"]
