"""What lorakit says of diffusers' own reader, held against diffusers' own reader."""

import dataclasses
import re

import pytest
import torch

from lorakit_cli.core.audit import audit, mis_scaled
from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import changes, plan_of, write
from tests.dialects.layouts import KOHYA, LAYOUTS, adapter
from tests.dialects.loading import apart, loaded

ARCHITECTURES = {"sd1": "SD1.x", "sdxl": "SDXL", "sd3": "SD3", "flux": "FLUX.1"}
BY_NAME = {(layout.name, name): layout for layout in LAYOUTS for name in layout.families.split()}
# diffusers splits the first layer of FLUX' single blocks at the published width, which the tiny model has not.
WIDE = "linear1"


def layout(name, family, **changed):
    return dataclasses.replace(BY_NAME[name, family], **changed)


def held(family_of, tmp_path, family, chosen, change=lambda tensors: tensors):
    """Write a layout's file; give it as lorakit reads it, what it changes, and the models."""
    folder, parts = family_of(family)
    tensors, _ = adapter(chosen, family, parts)
    file = open_adapter(write(tmp_path / "a.safetensors", change(tensors)))
    plan = plan_of(folder, file)
    places = {
        (part.target.component, part.parameter): match.layer for match in plan.matches["a"] for part in match.parts
    }
    return file, changes(plan), places, parts


def uneven(tensors):
    """Make some alphas rarer than others, so that the most common is one, and leave some out."""
    stems = sorted({key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")})
    for number, stem in enumerate(stems):
        tensors[f"{stem}.alpha"] = torch.tensor(2.0 if number % 3 else 0.5 * (number % 4 + 1))
        if number % 11 == 0:
            del tensors[f"{stem}.alpha"]
    return tensors


SCALED = [
    ("kohya", "sd1"),
    ("kohya, diffusers' names", "sdxl"),
    ("diffusers", "sd1"),
    ("diffusers", "flux"),
    ("diffusers", "sd3"),
    ("TheLastBen", "flux"),
]


@pytest.mark.parametrize(
    ("name", "family_name", "change"),
    [
        *((*case, lambda tensors: tensors) for case in SCALED),
        # Of equally common alphas diffusers takes the first in an order of its own where it renames whole blocks.
        *((*case, uneven) for case in (*SCALED, ("kohya, sgm's names", "sdxl"), ("kohya, sgm's names", "sd1"))),
    ],
)
def test_mis_scaled_are_the_layers_that_diffusers_scales_otherwise(family, tmp_path, name, family_name, change):
    few = r"attn1|conv|op|embed|mlp" if family_name == "sdxl" else ""
    file, wanted, places, parts = held(family, tmp_path, family_name, layout(name, family_name, only=few), change)
    theirs = loaded(family_name, parts, file.path)
    said = {id(layer) for layer in mis_scaled(file, ARCHITECTURES[family_name])}
    assert {id(places[key]) for key in apart(theirs, wanted)} == said
    if name.startswith("kohya"):
        assert said
    lines = audit(file, ARCHITECTURES[family_name])
    lost = {id(places[key]) for key in wanted.keys() - theirs.keys()}
    counted = [int(word) for line in lines if "drops" in line for word in line.split() if word.isdigit()]
    assert sum(counted) == len(lost)


@pytest.mark.parametrize(
    ("name", "family_name", "change"),
    [
        *(("peft", name, {}) for name in ("sd1", "sdxl", "sd3")),
        *(("peft in memory", name, {}) for name in ("sd1", "sdxl", "sd3")),
        *(("DiffSynth", name, {}) for name in ("sd1", "sdxl", "sd3", "flux")),
        *(("ai-toolkit", name, {}) for name in ("sd1", "sdxl", "sd3", "flux")),
        *(("LyCORIS' wrapper", name, {"alpha": False}) for name in ("sd1", "sdxl", "sd3")),
        *(("bare attention processors", name, {}) for name in ("sd1", "sdxl")),
        *(("ComfyUI, denoiser", name, {"alpha": False}) for name in ("sd1", "sdxl", "sd3")),
        ("ComfyUI", "flux", {}),
        ("BFL", "flux", {}),
        ("kohya, sd3", "sd3", {}),
        ("OneTrainer, legacy", "sd3", {}),
    ],
)
def test_without_an_effect_is_what_diffusers_puts_on_no_module(family, tmp_path, name, family_name, change):
    file, _wanted, _, parts = held(family, tmp_path, family_name, layout(name, family_name, **change))
    assert loaded(family_name, parts, file.path) == {}
    lines = audit(file, ARCHITECTURES[family_name])
    assert lines
    assert all("without an effect" in line for line in lines)
    assert sum(int(line.split()[2]) for line in lines) == len(file.layers)


@pytest.mark.parametrize(
    ("name", "family_name", "reason"),
    [
        *(("PixArt's trainer", name, "base_model.model") for name in ("sd1", "sdxl", "sd3")),
        *(("ComfyUI, denoiser", name, r"takes \S+\.alpha for no part") for name in ("sd1", "sdxl", "sd3")),
        *(("LyCORIS' wrapper", name, r"takes lycoris_\S+\.alpha for") for name in ("sd1", "sdxl", "sd3")),
        ("LyCORIS' wrapper", "flux", "lycoris_"),
        ("OneTrainer, original", "sd3", r"takes \S+\.alpha for no part"),
        ("VideoX-Fun", "flux", "names such as lora_unet__"),
        ("peft", "flux", "the original names alone"),
        ("peft in memory", "flux", "the original names alone"),
    ],
)
def test_refuses_is_what_diffusers_raises_on(family, tmp_path, name, family_name, reason):
    file, _, _, parts = held(family, tmp_path, family_name, layout(name, family_name))
    (line,) = audit(file, ARCHITECTURES[family_name])
    assert line.startswith("diffusers refuses the file: ")
    with pytest.raises((ValueError, KeyError)):
        loaded(family_name, parts, file.path)
    assert re.search(reason, line)


def only(keep, *, change=lambda tensors: tensors):
    return lambda tensors: change({key: value for key, value in tensors.items() if keep(key)})


def magnitudes(end):
    """Give the layers called to_q a magnitude for each row."""

    def add(tensors):
        ups = [key for key in tensors if key.endswith(("to_q.lora_B.weight", "to_q.lora_up.weight"))]
        made = {f"{key.rsplit('.lora_', 1)[0]}.{end}": torch.rand(tensors[key].shape[0]) + 0.5 for key in ups}
        return tensors | {key: value[:, None] if end == "dora_scale" else value for key, value in made.items()}

    return add


@pytest.mark.parametrize(
    ("name", "family_name", "dropped", "lost"),
    [
        # The layers outside of the blocks, and T5.
        ("kohya, flux", "flux", r"(img|txt|time|vector|guidance)_in|final_layer|lora_te3_", 17),
        ("diffusers", "sd3", r"^text_encoder_3\.", 7),
        ("diffusers", "flux", r"^text_encoder_2\.", 7),
    ],
)
def test_drops_is_what_diffusers_leaves_out(family, tmp_path, name, family_name, dropped, lost):
    narrow = only(lambda key: WIDE not in key)
    file, wanted, places, parts = held(family, tmp_path, family_name, layout(name, family_name), narrow)
    theirs = loaded(family_name, parts, file.path)
    assert len(wanted.keys() - theirs.keys()) == lost
    assert {places[key].stem for key in wanted.keys() - theirs.keys()} == {
        layer.stem for layer in file.layers if re.search(dropped, layer.stem)
    }
    assert apart(theirs, wanted) == set()
    lines = audit(file, ARCHITECTURES[family_name])
    assert sum(int(word) for line in lines for word in line.split() if word.isdigit()) == lost
    assert all(line.startswith("diffusers drops") for line in lines)


def test_kohyas_ends_behind_diffusers_names_lose_alpha_and_text_encoders(family, tmp_path):
    chosen = layout("TheLastBen", "flux", ends=KOHYA)
    chosen = dataclasses.replace(chosen, stems={**chosen.stems, "text_encoder": "lora_te1_{_}"})
    file, wanted, places, parts = held(family, tmp_path, "flux", chosen)
    theirs = loaded("flux", parts, file.path)
    said = {id(layer) for layer in mis_scaled(file, "FLUX.1")}
    assert {id(places[key]) for key in apart(theirs, wanted)} == said
    assert len(said) > 10
    lost = {places[key].stem for key in wanted.keys() - theirs.keys()}
    assert all(stem.startswith("lora_te1_") for stem in lost)
    assert f"diffusers drops the {len(lost)} layers of the text encoders" in audit(file, "FLUX.1")


@pytest.mark.parametrize(
    ("name", "family_name", "end"),
    [
        ("kohya", "sd1", "dora_scale"),
        *(("diffusers", name, end) for name in ("sd1", "flux") for end in ("dora_scale", "lora_magnitude_vector")),
    ],
)
def test_magnitudes_are_dropped_under_the_name_that_lycoris_gives_them(family, tmp_path, name, family_name, end):
    chosen = layout(name, family_name, alpha=False, only=r"to_q$")
    file, wanted, _, parts = held(family, tmp_path, family_name, chosen, magnitudes(end))
    theirs = loaded(family_name, parts, file.path)
    assert theirs.keys() == wanted.keys()
    wrong = apart(theirs, wanted)
    assert wrong == (set(wanted) if end == "dora_scale" else set())
    lines = audit(file, ARCHITECTURES[family_name])
    assert (
        lines
        == [f"diffusers drops the magnitudes of {len(wrong)} DoRA layers and applies the rest as plain LoRA"][
            : bool(wrong)
        ]
    )


@pytest.mark.parametrize("keep", [r"_attn_to_", r"transformer_blocks", r"_norm1_|_ff_|lora_te1_"])
def test_onetrainers_older_layout_is_read_for_attention_alone(family, tmp_path, keep):
    chosen = layout("OneTrainer, legacy", "flux")
    part = only(lambda key: re.search(keep, key) and not key.startswith("lora_te2_"))
    file, wanted, _, parts = held(family, tmp_path, "flux", chosen, part)
    lines = audit(file, "FLUX.1")
    if keep == r"_attn_to_" and not any("lora_te" in key for key in file.tensors):
        assert lines == []
        assert apart(loaded("flux", parts, file.path), wanted) == set()
        return
    (line,) = lines
    assert line.startswith("diffusers refuses or drops ")
    try:
        theirs = loaded("flux", parts, file.path)
    except (KeyError, AssertionError, ValueError):
        return
    assert wanted.keys() - theirs.keys()


@pytest.mark.parametrize("algorithm", ["hada_w1_a", "lokr_w1", "diff", "a1.weight", "oft_blocks", "lora_mid.weight"])
def test_other_algorithms_are_refused_for_unets(family, tmp_path, algorithm):
    from tests.dialects.test_scales import KERNEL, factors

    kinds = {"hada_w1_a": "loha", "lokr_w1": "lokr", "a1.weight": "glora", "lora_mid.weight": "lora-tucker"}
    _, parts = family("sd1")
    weight = parts["unet"].get_submodule(KERNEL).weight.detach()
    own = {"diff": {"diff": weight}, "oft_blocks": {"oft_blocks": torch.rand(4, len(weight) // 4, len(weight) // 4)}}
    made = own.get(algorithm) or factors(kinds[algorithm], weight.double(), False)[0]
    ends = {"down": "lora_down.weight", "up": "lora_up.weight"}
    stem = f"lora_unet_{KERNEL.replace('.', '_')}"
    path = write(tmp_path / "a.safetensors", {f"{stem}.{ends.get(end, end)}": value for end, value in made.items()})
    (line,) = audit(open_adapter(path), "SD1.x")
    assert line.startswith("diffusers refuses the file: it does not know ")
    with pytest.raises(ValueError, match=r"not been correctly renamed|Invalid LoRA"):
        loaded("sd1", parts, path)


def test_textual_inversions_beside_the_layers_are_refused(family, tmp_path):
    def bundled(tensors):
        return tensors | {"bundle_emb.word.string_to_param.*": torch.ones(1, 12)}

    file, _, _, parts = held(family, tmp_path, "sd1", layout("kohya", "sd1"), bundled)
    assert audit(file, "SD1.x") == ["diffusers refuses the file: it has textual inversions beside the layers"]
    with pytest.raises(ValueError, match="Invalid LoRA checkpoint"):
        loaded("sd1", parts, file.path)
