"""Settings that stand beside the factors: missing, contradicting them, or made to hang."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lorakit_cli.core.name_patterns import NamePatterns
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.reading import look_at, open_adapter

MODULE = "transformer_blocks.0.attn.to_q"
PAIR = {f"base_model.model.{MODULE}.lora_A.weight": torch.ones(2, 3)} | {
    f"base_model.model.{MODULE}.lora_B.weight": torch.ones(5, 2)
}


def test_without_the_settings_of_peft_the_scale_is_said_to_be_a_guess(tmp_path):
    save_file(PAIR, tmp_path / "copied.safetensors")
    file = look_at(tmp_path / "copied.safetensors")
    assert [layer.scale for layer in file.layers] == [1.0]
    (problem,) = file.problems
    assert "no adapter_config.json beside it" in problem.text
    assert not problem.fatal


def test_dora_by_its_settings_alone_is_incomplete(tmp_path):
    save_file(PAIR, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": True})
    )
    with pytest.raises(CorruptFileError, match=f"{MODULE}: its settings say DoRA, but the file has no magnitude"):
        open_adapter(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize("pattern", [".*" * 8 + "z", "(a|b)*c", "x" * 2000])
def test_patterns_that_could_hang_are_refused(pattern):
    with pytest.raises(ValueError, match="repeats a group, repeats too much or is too long"):
        NamePatterns(((pattern, 1.0),)).require_sane()


def test_a_pattern_with_a_dot_before_it_is_an_expression_as_in_peft():
    patterns = NamePatterns(((".0.attn.to_q", 8.0),))
    assert patterns.find("10.attn.to_q") == 8.0
    assert patterns.find("0.attn.to_q") is None


@pytest.mark.parametrize(
    "written", ["encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.0.self_attn.q_proj"]
)
@pytest.mark.parametrize(
    "pattern", ["^encoder.layers.0.self_attn.q_proj", "^text_model.encoder.layers.0.self_attn.q_proj"]
)
def test_a_text_encoder_goes_by_both_names_in_patterns_too(tmp_path, written, pattern):
    settings = {"text_encoder.lora_alpha": 2, "text_encoder.alpha_pattern": {pattern: 6}}
    stem = f"text_encoder.{written}"
    tensors = {f"{stem}.lora_A.weight": torch.ones(2, 3), f"{stem}.lora_B.weight": torch.ones(5, 2)}
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    assert [layer.scale for layer in open_adapter(tmp_path / "a.safetensors").layers] == [3.0]


def test_pairs_numbered_among_convolutions_too_are_not_placed_by_guess(tmp_path, base):
    from lorakit_cli.core.local_folder import read_base_index
    from lorakit_cli.core.matching import match_layers

    tensors = {
        f"unet:{n}:{side}": torch.ones(1, 4) if side == "down" else torch.ones(4, 1)
        for n in range(3)
        for side in ("up", "down")
    }
    tensors |= {"unet:3:up": torch.ones(4, 1, 1, 1), "unet:3:down": torch.ones(1, 4, 3, 3)}
    save_file(tensors, tmp_path / "a.safetensors")
    found, missed = match_layers(read_base_index(base), "a", look_at(tmp_path / "a.safetensors"))
    assert (found, len(missed)) == ((), 4)
