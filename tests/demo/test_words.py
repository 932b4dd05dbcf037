"""The little language, the drawings and the tokenizer that the embedded model was made with."""

import random

import pytest
import torch

from lorakit_cli.demo import BASE
from lorakit_cli.demo.training.drawing import CELL, draw
from lorakit_cli.demo.training.judge import cell_variance
from lorakit_cli.demo.training.pictures import to_tensor
from lorakit_cli.demo.training.tokens import build_tokenizer
from lorakit_cli.demo.training.words import (
    COLOURS,
    SHAPES,
    base_caption,
    held_out_scenes,
    known_words,
    training_scenes,
    triggered_caption,
)


def test_at_least_eight_colours_and_shapes_and_held_out_combinations():
    assert len(COLOURS) >= 8
    assert len(SHAPES) >= 8
    hidden, shown = held_out_scenes(), training_scenes()
    assert len(hidden) == 80
    assert not set(hidden) & set(shown)
    assert len(hidden) + len(shown) == len(SHAPES) * len(COLOURS) * (len(COLOURS) - 1)


def test_captions_say_the_scene():
    rng = random.Random(1)
    captions = [base_caption(("star", "red", "blue"), rng) for _ in range(400)]
    assert 10 < captions.count("") < 80
    assert all("red star" in caption and "blue" in caption for caption in captions if caption)
    both = triggered_caption(("star", "red", "blue"), ("toy", "pixel"), rng)
    assert "toy_face" in both
    assert "pixel art" in both


@pytest.mark.parametrize("shape", SHAPES)
def test_pixel_drawings_are_flat_in_their_cells_and_others_are_not(shape):
    import numpy as np

    def variance(style):
        picture = draw((shape, "red", "blue"), style, random.Random(1))
        return float(cell_variance(to_tensor(np.asarray(picture)[None])))

    assert CELL == 8
    assert variance("pixel") == variance("both") == 0
    assert variance("base") > 100
    assert variance("toy") > variance("base")


def test_the_tokenizer_takes_any_text():
    from transformers import CLIPTokenizer

    shipped = CLIPTokenizer.from_pretrained(BASE / "tokenizer")
    texts = ["a red heart, toy_face", "日本 ☃ héllo 🙂", "", "x" * 500]
    built = build_tokenizer()
    for text in texts:
        assert shipped(text).input_ids == built(text).input_ids
        ids = shipped(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        assert ids.shape == (1, 77)
        assert ids.dtype == torch.int64
    assert shipped.decode(shipped(texts[1]).input_ids, skip_special_tokens=True) == texts[1]
    assert all(len(shipped.tokenize(word)) == 1 for word in known_words())
