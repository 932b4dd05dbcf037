import json

import pytest
import torch
from safetensors.torch import save_file

from lorakit_cli.core.stated import CARD, CIVITAI, MANAGER, WEBUI, SideFiles
from lorakit_cli.core.triggers import read_triggers
from lorakit_cli.service.reading import open_adapter
from tests.kohya_metadata import KOHYA


def suggested(tags, folders=None, **other):
    metadata = {"ss_tag_frequency": json.dumps(tags)} | {key: json.dumps(value) for key, value in other.items()}
    if folders is not None:
        metadata["ss_dataset_dirs"] = json.dumps({name: {"img_count": count} for name, count in folders.items()})
    return [word.text for word in read_triggers(metadata).words if word.source == "ss_tag_frequency"]


def test_what_kohya_writes():
    triggers = read_triggers(KOHYA)
    assert [(word.text, word.source, word.guessed) for word in triggers.words] == [
        ("ohwx man", "ss_tag_frequency", True),
        ("close-up", "ss_tag_frequency", True),
        ("ohwx face", "data set folder", True),
    ]
    assert triggers.best == ("ohwx man", "close-up")
    assert [(tag.text, tag.count) for tag in triggers.tags] == [
        ("ohwx man", 29),
        ("solo", 12),
        ("close-up", 10),
        ("outdoors", 7),
        ("smile", 7),
    ]
    assert triggers.distinct == 5


@pytest.mark.parametrize(
    ("metadata", "triggers"),
    [({}, ()), (KOHYA, ("ohwx man", "close-up")), (KOHYA | {"modelspec.trigger_phrase": "a, b"}, ("a", "b"))],
)
def test_an_adapter_file_tells_its_triggers(tmp_path, metadata, triggers):
    path = tmp_path / "a.safetensors"
    factors = {"unet.x.lora_A.weight": torch.ones(2, 3), "unet.x.lora_B.weight": torch.ones(5, 2)}
    save_file(factors, path, metadata)
    assert read_triggers(open_adapter(path).metadata).best == triggers


def test_the_sources_in_order_of_trust():
    side = SideFiles(
        {
            WEBUI: {"activation text": "web, phrase"},
            MANAGER: {"civitai": {"trainedWords": ["managed"]}},
            CIVITAI: {"trainedWords": ["Civ one, civ two,", "PHRASE", 3]},
            CARD: {"instance_prompt": "a photo of sks dog"},
        }
    )
    triggers = read_triggers(KOHYA | {"modelspec.trigger_phrase": " phrase,  two  words "}, side)
    assert [(word.text, word.source) for word in triggers.words if not word.guessed] == [
        ("phrase", "modelspec.trigger_phrase"),
        ("two words", "modelspec.trigger_phrase"),
        ("a photo of sks dog", "README.md instance_prompt"),
        ("Civ one", ".civitai.info trainedWords"),
        ("civ two", ".civitai.info trainedWords"),
        ("managed", ".metadata.json trainedWords"),
        ("web", ".json activation text"),
    ]
    assert triggers.best == ("phrase", "two words")
    assert read_triggers(KOHYA, side).best == ("a photo of sks dog",)


@pytest.mark.parametrize(
    ("count", "images", "is_trigger"), [(20, 20, True), (18, 20, True), (17, 20, False), (3, 3, False), (4, 4, True)]
)
def test_a_tag_is_a_trigger_at_nine_of_ten_pictures_of_at_least_four(count, images, is_trigger):
    assert bool(suggested({"pictures": {"tok": count, "other": 1}}, {"pictures": images})) is is_trigger


def test_without_the_number_of_pictures_only_the_folder_tells():
    assert suggested({"1_TOK": {"TOK": 1}}) == ["TOK"]
    assert suggested({"pictures": {"1girl": 50, "solo": 20}}) == []


def test_a_folder_listed_twice_does_not_halve_the_bar():
    tags = {"10_x y": {"x y": 40, "smile": 20}}
    assert suggested(tags, {"10_x y": 20, "10_x y (2)": 20}) == ["x y"]
    words = read_triggers({"ss_dataset_dirs": json.dumps({"10_x y": {}, "10_x y (2)": {}})}).words
    assert [(word.text, word.source) for word in words] == [("x y", "data set folder")]


def test_captions_are_not_triggers():
    tags = {"10_x": {"a photo of x " + "very " * 30 + "far away": 9, "x": 9}}
    assert suggested(tags, {"10_x": 9}) == ["x"]


def test_sets_for_regularisation_suggest_nothing():
    tags = {"1_man": {"man": 100}, "10_ohwx": {"ohwx": 20}}
    assert suggested(tags, {"10_ohwx": 20}) == ["ohwx"]
    assert suggested(tags, ss_reg_dataset_dirs={"1_man": {}}) == ["ohwx"]


def test_suggestions_are_few():
    tags = {"pictures": {f"tag {n}": 100 - n // 10 for n in range(100)}}
    assert suggested(tags, {"pictures": 100}) == [f"tag {n}" for n in range(8)]


def test_a_folder_alone_is_shown_but_not_trusted():
    triggers = read_triggers({"ss_dataset_dirs": json.dumps({"10_img": {"img_count": 5}, "pictures of jo": {}})})
    assert [word.text for word in triggers.words] == ["img"]
    assert triggers.best == ()
