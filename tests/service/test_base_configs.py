"""What is shipped for single files: configurations held against the published tables, and CLIP's tokenizer."""

import gzip
import itertools
import json
import re
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

import lorakit_cli.architectures
from lorakit_cli.architectures.tables import published, sizes
from lorakit_cli.core.architecture import expand
from lorakit_cli.core.generation import Settings
from lorakit_cli.errors import BaseModelError
from lorakit_cli.service.base_configs import find_configs, remark_on, scheduler_marks
from lorakit_cli.service.bases import open_base
from lorakit_cli.service.clip_tokenizer import clip_tokenizer
from lorakit_cli.sources.library import open_library
from tests.checkpoints import DENOISER, hugging_face_tensors, open_clip_tensors, prefixed, unet_tensors
from tests.sparse import write_sparse

SHIPPED = Path(lorakit_cli.architectures.__file__).parent / "pipelines"
SIZES = {"sd1": "SD1.x", "sd2": "SD2.x", "sdxl": "SDXL"}
PARTS = [
    (family, part) for family, size in SIZES.items() for part in published.ARCHITECTURES[family][size] if part != "vae"
]
VAES = {"sd1": (512, 0.18215), "sd2": (768, 0.18215), "sdxl": (1024, 0.13025)}
# Class, what it predicts, and where its steps lie, as the published pipelines have them.
SCHEDULERS = {
    "sd1": ("PNDMScheduler", "epsilon", "leading"),
    "sd2": ("DDIMScheduler", "v_prediction", "leading"),
    "sdxl": ("EulerDiscreteScheduler", "epsilon", "leading"),
}


def index(family):
    return json.loads((SHIPPED / family / "model_index.json").read_text())


def built(family, part):
    library, class_name = index(family)[part]
    with torch.device("meta"):
        if library == "diffusers":
            kind = getattr(diffusers, class_name)
            return kind.from_config(kind.load_config(SHIPPED / family, subfolder=part))
        kind = getattr(transformers, class_name)
        return kind(kind.config_class.from_pretrained(SHIPPED / family / part))


@pytest.mark.parametrize(("family", "part"), PARTS, ids=["-".join(part) for part in PARTS])
def test_a_model_of_a_shipped_configuration_has_the_published_tensors(family, part):
    model = published.ARCHITECTURES[family][SIZES[family]][part]
    model = published.TEXT_ENCODERS[model] if isinstance(model, str) else model
    module = built(family, part)
    assert type(module).__name__ == model.class_name
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes == expand(sizes(family)[SIZES[family]][part])
    # The width of a projection that is not there tells nothing.
    wanted = {name: value for name, value in model.config.items() if name != "projection_dim"}
    config = {name: getattr(module.config, name) for name in wanted}
    assert json.loads(json.dumps(config)) == json.loads(json.dumps(wanted))


@pytest.mark.parametrize("family", SIZES)
def test_what_no_tensor_shows_is_as_it_was_published(family):
    size, factor = VAES[family]
    vae = built(family, "vae")
    assert (vae.config.sample_size, vae.config.scaling_factor, vae.config.latent_channels) == (size, factor, 4)
    assert sum(value.numel() for value in vae.state_dict().values()) == 83_653_863
    assert built(family, "unet").config.sample_size * 8 == size
    first = built(family, "text_encoder").config
    # OpenCLIP's activation is the exact one.
    assert first.hidden_act == ("gelu" if family == "sd2" else "quick_gelu")
    name, prediction, spacing = SCHEDULERS[family]
    assert index(family)["scheduler"] == ["diffusers", name]
    scheduler = getattr(diffusers, name).from_pretrained(SHIPPED / family, subfolder="scheduler")
    assert scheduler.config.prediction_type == prediction
    assert scheduler.config.timestep_spacing == spacing
    assert (scheduler.config.beta_start, scheduler.config.beta_end) == (0.00085, 0.012)
    assert (scheduler.config.beta_schedule, scheduler.config.steps_offset) == ("scaled_linear", 1)
    assert [name for name in index(family) if name.startswith("tokenizer")] == (
        ["tokenizer", "tokenizer_2"] if family == "sdxl" else ["tokenizer"]
    )


# The numbers in the documentation of CLIP and of transformers.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("hello world!", [3306, 1002, 256]),
        ("a diagram", [320, 22697]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("a photo of a dog", [320, 1125, 539, 320, 1929]),
    ],
)
def test_tokens_of_clip(text, ids):
    assert clip_tokenizer()(text).input_ids == [49406, *ids, 49407]


def test_all_kinds_of_characters_are_cut_as_the_original_cuts_them():
    tokenizer, merges = clip_tokenizer(), reference_merges()
    for text in (
        "An Astronaut riding a horse, 4k!! photo-realistic",
        "don't we've it's I'll",
        "  two   spaces\nand a line ",
        "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \U0001f600 \u0416\u0443\u043a 123 4.5:1",
        "(toy_face:1.3), [x] <lora> #1 @you 100%",
        "supercalifragilisticexpialidocious",
    ):
        assert tokenizer(text).input_ids == [49406, *reference(text, merges), 49407], text
    assert len(tokenizer) == 49408
    assert tokenizer.model_max_length == 77


def test_padding():
    options = {"padding": "max_length", "max_length": 77, "truncation": True}
    assert clip_tokenizer()("cat", **options).input_ids == [49406, 2368, *[49407] * 75]
    assert clip_tokenizer("!")("cat", **options).input_ids == [49406, 2368, 49407, *[0] * 74]
    long = clip_tokenizer()("cat " * 100, **options).input_ids
    assert (len(long), long[0], long[-1]) == (77, 49406, 49407)


def reference_merges():
    lines = gzip.decompress((SHIPPED / "clip_merges.txt.gz").read_bytes()).decode().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 48894
    return {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}


def reference(text, merges):
    """Byte pair encoding as it was described for CLIP: the pair that was learned first is joined first."""
    ranges = ((33, 126), (161, 172), (174, 255))
    printable = [code for first, last in ranges for code in range(first, last + 1)]
    others = [code for code in range(256) if code not in printable]
    shown = {code: chr(code) for code in printable} | {code: chr(256 + place) for place, code in enumerate(others)}
    alphabet = [shown[code] for code in (*printable, *others)]
    numbers = {token: place for place, token in enumerate([*alphabet, *(one + "</w>" for one in alphabet)])}
    numbers |= {"".join(pair): 512 + rank for pair, rank in merges.items()}
    found = []
    letters, digits, rest = r"[^\W\d_]+", r"\d", r"(?:[^\s\w]|_)+"
    for word in re.findall(rf"'s|'t|'re|'ve|'m|'ll|'d|{letters}|{digits}|{rest}", " ".join(text.lower().split())):
        pieces = [shown[byte] for byte in word.encode()]
        pieces[-1] += "</w>"
        while len(pieces) > 1:
            rank, at = min((merges.get(pair, 1 << 30), at) for at, pair in enumerate(itertools.pairwise(pieces)))
            if rank == 1 << 30:
                break
            pieces[at : at + 2] = ["".join(pieces[at : at + 2])]
        found += [numbers[piece] for piece in pieces]
    return found


def published_file(folder, family, *more):
    """Write the header of a published checkpoint, over values that nobody wrote."""
    tensors = prefixed(unet_tensors(built(family, "unet")), DENOISER)
    if family == "sd1":
        tensors |= prefixed(hugging_face_tensors(built(family, "text_encoder")), "cond_stage_model.transformer.")
    elif family == "sd2":
        tensors |= open_clip_tensors(built(family, "text_encoder"), "cond_stage_model.model.")
    else:
        first = hugging_face_tensors(built(family, "text_encoder"))
        tensors |= prefixed(first, "conditioner.embedders.0.transformer.")
        tensors |= open_clip_tensors(built(family, "text_encoder_2"), "conditioner.embedders.1.model.")
    shapes = {name: ("F16", tuple(value.shape)) for name, value in tensors.items()}
    return write_sparse(folder / f"{family}.safetensors", shapes | dict.fromkeys(more, ("F16", (1,))))


@pytest.mark.parametrize("family", SIZES)
def test_a_published_file_needs_no_folder(family, here):
    vae = "first_stage_model.decoder.conv_in.weight"
    base = open_base(str(published_file(here, family, vae)), open_library())
    configs = find_configs(base, None)
    assert (configs.folder, configs.tokenizers) == (SHIPPED / family, False)
    assert (configs.lacking, configs.left_out) == ((), ())
    remark = remark_on(base, Settings())
    if family != "sd2":
        assert remark is None
        return
    assert "velocity is assumed" in remark
    assert "--scheduler-option prediction_type=epsilon" in remark
    assert remark_on(base, Settings(scheduler_options={"prediction_type": "epsilon"})) is None


def test_a_published_file_without_autoencoder_wants_one(here):
    base = open_base(str(published_file(here, "sd1")), open_library())
    with pytest.raises(BaseModelError, match=r"holds no vae; --vae FOLDER brings one; --config FOLDER names"):
        find_configs(base, None)
    assert find_configs(base, None, ("vae",)).folder == SHIPPED / "sd1"


@pytest.mark.parametrize(
    ("marks", "options"),
    [
        ((), {}),
        (("v_pred",), {"prediction_type": "v_prediction"}),
        (("v_pred", "ztsnr"), {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    ],
)
def test_marks_of_velocity(here, marks, options):
    base = open_base(str(published_file(here, "sdxl", *marks)), open_library())
    assert scheduler_marks(base) == options
