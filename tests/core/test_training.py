import json
import time

import pytest

from lorakit_cli.core.merge_history import read_merge_history
from lorakit_cli.core.stated import CARD, CIVITAI, LONGEST_JSON, PEFT_CONFIG, SideFiles, capped, text_of
from lorakit_cli.core.stated_architecture import family_called, stated_architectures
from lorakit_cli.core.training import read_training
from lorakit_cli.core.triggers import read_triggers
from tests.kohya_metadata import KOHYA

HOSTILE = [
    "",
    "\x00\x1b]0;title\x07\x1b[31m",
    "[" * 100_000,
    '{"a":' * 100_000,
    "{",
    "[1, 2]",
    "3",
    "NaN",
    '{"a": NaN, "b": [1e999, -Infinity]}',
    '{"name": {"name": {}}, "10_x": 3, "4_y": {"a": "b", "c": -1, "d": 1e400, "e": true, "": 5}}',
    '{"10_x": {"img_count": "many"}, "a": [], "b": null}',
    '{"a": "\\ud800"}',
    "9" * 5000,
    '{"a": ' + "9" * 5000 + "}",
    "{" + ", ".join(f'"tag {n}": {{"x": 1}}' for n in range(150_000)) + "}",
    '{"10_x": {' + ", ".join(f'"tag {n}": 7' for n in range(200_000)) + "}}",
    " " * 5_000_000,
    "a, " * 5_000_000,
]
JSON_KEYS = ("ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs", "ss_network_args", "ss_datasets")
OTHER_KEYS = ("ot_config", "ot_revision", "training_info", "software", "lora_adapter_metadata", "sd_merge_recipe")


def test_what_kohya_writes():
    training = read_training(KOHYA)
    assert training.facts() == {
        "software": "kohya sd-scripts",
        "name": "ohwx",
        "author": "A. Painter",
        "date": "2024-05-01T12:00:00",
        "comment": "third try",
        "base_model": "sd_xl_base_1.0.safetensors",
        "base_hash": "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
        "network": "networks.lora",
        "rank": "16",
        "alpha": "8.0",
        "steps": "1500",
        "epochs": "10",
        "learning_rate": "0.0001",
        "denoiser_learning_rate": "0.0001",
        "text_encoder_learning_rate": "5e-05",
        "scheduler": "cosine",
        "optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)",
        "resolution": "(1024, 1024)",
        "batch_size": "2",
        "images": "30",
        "images_with_repeats": "300",
        "prediction_type": "epsilon",
        "precision": "bf16",
        "noise_offset": "0.0357",
        "min_snr_gamma": "5.0",
        "loss": "l2",
        "seed": "42",
    }
    assert training.network_args == {"conv_dim": "8", "conv_alpha": "4"}
    assert training.hashes == {"sshs_model_hash": "ab" * 32, "sshs_legacy_hash": "0123abcd"}
    assert training.problems == ()


def test_nothing_stated_is_nothing_read():
    training = read_training({"format": "pt"})
    assert (training.facts(), training.network_args, training.hashes, training.problems) == ({}, {}, {}, ())


def test_several_data_sets_of_one_training():
    sets = [{"resolution": [512, 512], "batch_size_per_device": 4}, {"resolution": [768, 768]}]
    training = read_training({"ss_datasets": json.dumps(sets)})
    assert (training.resolution, training.batch_size) == ("512, 512, 768, 768", "4")


@pytest.mark.parametrize(
    ("metadata", "card", "software"),
    [
        ({"software": '{"name": "ai-toolkit", "url": "https://github.com/ostris/ai-toolkit"}'}, {}, "ai-toolkit"),
        ({"software": '{"name": "ai-toolkit", "version": "0.7.1"}'}, {}, "ai-toolkit 0.7.1"),
        ({"software": "Some Trainer 2"}, {}, "Some Trainer 2"),
        ({"ot_branch": "master", "ot_revision": "0123456789abcdef"}, {}, "OneTrainer 0123456789a…"),
        ({"ss_network_module": "lycoris.kohya"}, {}, "LyCORIS in kohya sd-scripts"),
        ({"ss_network_module": "networks.lora_wan"}, {}, "musubi-tuner"),
        ({"ss_network_module": "networks.lora"}, {}, "kohya sd-scripts or musubi-tuner"),
        ({"unet:0:rank": "4", "unet": "[]"}, {}, "cloneofsimo lora"),
        ({"lora_adapter_metadata": "{}"}, {}, "diffusers"),
        ({"lora_adapter_metadata": "{}"}, {"tags": ["lora", "simpletuner"]}, "SimpleTuner"),
        ({"ss_output_name": "x"}, {}, None),
    ],
)
def test_the_trainer_from_what_it_leaves_behind(metadata, card, software):
    assert read_training(metadata, SideFiles({CARD: card})).software == software


def test_what_onetrainer_writes():
    config = {
        "base_model_name": "C:\\Users\\jo\\models\\dream.safetensors",
        "model_type": "STABLE_DIFFUSION_XL_10_BASE",
        "optimizer": {"optimizer": "ADAMW"},
        "unet": {"learning_rate": None},
        "text_encoder": {"learning_rate": 1e-05},
        "learning_rate": 0.0003,
        "lora_rank": 16,
        "lora_alpha": 1.0,
        "peft_type": "LORA",
        "epochs": 100,
    }
    training = read_training({"ot_revision": "abc", "ot_config": json.dumps(config), "modelspec.date": "2024-01-02"})
    assert (training.base_model, training.optimizer, training.epochs) == ("dream.safetensors", "ADAMW", "100")
    assert (training.learning_rate, training.denoiser_learning_rate) == ("0.0003", None)
    assert (training.text_encoder_learning_rate, training.rank, training.alpha) == ("1e-05", "16", "1.0")


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("runwayml/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
        ("/srv/secret project/anything.ckpt", "anything.ckpt"),
        ("D:/models/x.safetensors", "x.safetensors"),
        ("..\\models\\x", "x"),
        ("models/jo/x", "x"),
        ("models/x.SAFETENSORS", "x.SAFETENSORS"),
        ("/", None),
    ],
)
def test_the_folders_of_a_base_model_are_not_told(stated, shown):
    assert read_training({"ss_sd_model_name": stated}).base_model == shown


def test_a_base_model_from_beside():
    side = SideFiles({PEFT_CONFIG: {"base_model_name_or_path": "a/b", "r": 8}, CIVITAI: {"baseModel": "SDXL 1.0"}})
    training = read_training({}, side)
    assert (training.software, training.base_model, training.rank) == ("peft", "a/b", "8")
    assert read_training({}, SideFiles({CIVITAI: {"baseModel": "SDXL 1.0"}})).base_model == "SDXL 1.0"


def test_a_metadata_key_cannot_pass_for_a_file_beside():
    metadata = {CIVITAI: '{"baseModel": "forged", "trainedWords": ["forged"]}'}
    assert read_training(metadata).base_model is None
    assert read_triggers(metadata).words == ()


@pytest.mark.parametrize(
    ("stated", "date"),
    [
        ("1714564800.5", "2024-05-01"),
        ("0", "1970-01-01"),
        ("999999999999", "999999999999"),
        ("yesterday", "yesterday"),
        ("inf", "inf"),
    ],
)
def test_a_time_in_seconds_becomes_a_date(stated, date):
    assert read_training({"ss_training_finished_at": stated}).date == date


def test_hashes_are_read_in_every_spelling_and_nothing_else_is():
    training = read_training({"modelspec.hash_sha256": "0x" + "AB" * 32, "sshs_model_hash": "none of it"})
    assert training.hashes == {"modelspec.hash_sha256": "ab" * 32}
    assert training.problems == ("sshs_model_hash is no hash of 64 digits",)


def test_long_text_is_cut_and_set_on_one_line():
    assert capped("a\n b\t\tc") == "a b c"
    assert capped("x" * 10, 10) == "x" * 10
    assert capped("x" * 11, 10) == "x" * 9 + "…"
    assert capped("x" + " " * 100 + "y", 10) == "x…"
    assert text_of([512, "a", None, {}, 1.5, float("nan")]) == "512, a, 1.5"
    assert text_of("None") is None


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_values_neither_fail_nor_take_long(value):
    keys = {*KOHYA, *JSON_KEYS, *OTHER_KEYS, "sd_merge_models", "modelspec.merged_from", "modelspec.trigger_phrase"}
    metadata = dict.fromkeys(keys, value)
    start = time.perf_counter()
    training, triggers = read_training(metadata), read_triggers(metadata)
    history, architectures = read_merge_history(metadata), stated_architectures(metadata)
    took = time.perf_counter() - start
    report = [training.facts(), dict(training.network_args), training.problems, [word.text for word in triggers.words]]
    report += [[tag.text for tag in triggers.tags], history.merged_from, history.notes, triggers.problems]
    report += [[each.text for each in architectures]]
    text = json.dumps(report, allow_nan=False)
    assert len(text) < 50_000
    # A parse of the largest value takes a fraction of a second; what grows with its square takes minutes.
    assert took < 20


def test_what_cannot_be_read_is_named_once():
    metadata = {"ss_dataset_dirs": "{", "ss_network_args": "[" * 9000, "ss_tag_frequency": "[1]"}
    assert read_training(metadata).problems == (
        "ss_dataset_dirs is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "ss_network_args is nested too deeply",
    )
    assert "ss_tag_frequency is not a JSON object" in read_triggers(metadata).problems
    long = {"ss_dataset_dirs": " " * LONGEST_JSON + "{}"}
    assert read_training(long).problems == ("ss_dataset_dirs is longer than 4 MB",)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("stable-diffusion-v1/lora", "SD1.x"),
        ("sd_v1", "SD1.x"),
        ("sd_1.5", "SD1.x"),
        ("STABLE_DIFFUSION_15", "SD1.x"),
        ("runwayml/stable-diffusion-v1-5", "SD1.x"),
        ("sd_v2_v", "SD2.x"),
        ("stable-diffusion-v2-768-v/lora", "SD2.x"),
        ("stabilityai/stable-diffusion-2-1", "SD2.x"),
        ("STABLE_DIFFUSION_20_BASE", "SD2.x"),
        ("sdxl_base_v1-0", "SDXL"),
        ("sdxl_", "SDXL"),
        ("stable-diffusion-xl-v1-base/lora", "SDXL"),
        ("stable-diffusion-xl-v1-refiner", "SDXL refiner"),
        ("Illustrious", "SDXL"),
        ("sd3", "SD3"),
        ("stable-diffusion-3-5-large/lora", "SD3"),
        ("STABLE_DIFFUSION_35", "SD3"),
        ("flux1", "FLUX.1"),
        ("flux-1-dev/lora", "FLUX.1"),
        ("Flux.1 D", "FLUX.1"),
        ("chroma", "FLUX.1"),
        ("zeta_chroma", None),
        ("flux2_klein_4b", "FLUX.2"),
        ("FLUX_KLEIN_9B", "FLUX.2"),
        ("black-forest-labs/FLUX.2-dev", "FLUX.2"),
        ("wan2.1/lora", "Wan"),
        ("wan_2.2_14b", "Wan"),
        ("Wan Video 14B t2v", "Wan"),
        ("someone/taiwan-street", None),
        ("hunyuan-video", "HunyuanVideo"),
        ("hunyuan-image-2.1/lora", "HunyuanImage"),
        ("Qwen-Image-Edit/lora", "Qwen-Image"),
        ("zimage", "Z-Image"),
        ("Z_IMAGE", "Z-Image"),
        ("lumina2", "Lumina2"),
        ("ltx2", "LTX-2"),
        ("LTXV", "LTX-Video"),
        ("jo/mysd2go", None),
        ("", None),
    ],
)
def test_families_by_the_names_people_give_them(text, family):
    assert family_called(text) == family


def test_contradicting_statements_are_all_given():
    metadata = {"modelspec.architecture": "stable-diffusion-v1/lora", "ss_base_model_version": "sdxl_base_v1-0"}
    side = SideFiles({CIVITAI: {"baseModel": "Pony"}})
    found = stated_architectures(metadata, side)
    assert [(each.source, each.family) for each in found] == [
        ("modelspec.architecture", "SD1.x"),
        ("ss_base_model_version", "SDXL"),
        (".civitai.info baseModel", "SDXL"),
    ]
    assert [each.family for each in stated_architectures({"ss_v2": "True"})] == ["SD2.x"]
    assert stated_architectures({"ss_v2": "False"}) == ()


def test_what_an_adapter_was_merged_from():
    history = read_merge_history(
        {
            "modelspec.merged_from": "ink, wash ,",
            "sd_merge_recipe": json.dumps({"type": "webui", "interp_method": "Weighted sum", "multiplier": 0.3}),
            "sd_merge_models": json.dumps({"ab12": {"name": "base.safetensors"}, "cd34": 5, "sd_merge_recipe": None}),
            "ss_training_comment": "dimension is resized from 128 to 32; merged: ink 0.5 + wash; third try",
        }
    )
    assert history.merged_from == ("ink", "wash", "base.safetensors")
    assert history.method == "webui, Weighted sum, 0.3"
    assert history.notes == ("dimension is resized from 128 to 32", "merged: ink 0.5 + wash")
    assert read_merge_history(KOHYA) == read_merge_history({})
