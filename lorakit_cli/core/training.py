"""How an adapter was trained, as its file and the files beside it state it. Nothing of it is believed."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from lorakit_cli.core.late import late
from lorakit_cli.core.record import Record
from lorakit_cli.core.stated import (
    CARD,
    CIVITAI,
    NOTHING_BESIDE,
    PEFT_CONFIG,
    Place,
    SideFiles,
    Statements,
    capped,
    text_of,
    whole_number,
)

_PEFT = "lora_adapter_metadata"
_ONETRAINER = "ot_config"
# Where each fact stands, the best place first. kohya: train_network.py; https://github.com/Stability-AI/ModelSpec;
# https://github.com/Nerogar/OneTrainer (TrainConfig.py); https://github.com/ostris/ai-toolkit (metadata.py).
_PLACES: dict[str, tuple[Place, ...]] = {
    "name": ("modelspec.title", "ss_output_name", "name", (CIVITAI, "model", "name")),
    "author": ("modelspec.author", (CIVITAI, "creator", "username")),
    "license": ("modelspec.license", (CARD, "license")),
    "description": ("modelspec.description",),
    "usage_hint": ("modelspec.usage_hint",),
    "comment": ("ss_training_comment",),
    "base_hash": ("ss_new_sd_model_hash", "ss_sd_model_hash"),
    "network": ("ss_network_module", (_ONETRAINER, "peft_type"), (PEFT_CONFIG, "peft_type")),
    "rank": (
        "ss_network_dim",
        (_ONETRAINER, "lora_rank"),
        (PEFT_CONFIG, "r"),
        (_PEFT, "unet.r"),
        (_PEFT, "transformer.r"),
    ),
    "alpha": (
        "ss_network_alpha",
        (_ONETRAINER, "lora_alpha"),
        (PEFT_CONFIG, "lora_alpha"),
        (_PEFT, "unet.lora_alpha"),
        (_PEFT, "transformer.lora_alpha"),
    ),
    "steps": ("ss_steps", ("training_info", "step"), "ss_max_train_steps"),
    "epochs": ("ss_epoch", ("training_info", "epoch"), "ss_num_epochs", (_ONETRAINER, "epochs")),
    "learning_rate": ("ss_learning_rate", (_ONETRAINER, "learning_rate")),
    "denoiser_learning_rate": (
        "ss_unet_lr",
        (_ONETRAINER, "unet", "learning_rate"),
        (_ONETRAINER, "transformer", "learning_rate"),
    ),
    "text_encoder_learning_rate": ("ss_text_encoder_lr", (_ONETRAINER, "text_encoder", "learning_rate")),
    "scheduler": ("ss_lr_scheduler", (_ONETRAINER, "learning_rate_scheduler")),
    "optimizer": ("ss_optimizer", (_ONETRAINER, "optimizer", "optimizer")),
    "resolution": (
        "ss_resolution",
        ("ss_datasets", "*", "resolution"),
        (_ONETRAINER, "resolution"),
        "modelspec.resolution",
    ),
    "batch_size": (
        "ss_total_batch_size",
        "ss_batch_size_per_device",
        ("ss_datasets", "*", "batch_size_per_device"),
        (_ONETRAINER, "batch_size"),
    ),
    "images_with_repeats": ("ss_num_train_images",),
    "clip_skip": ("ss_clip_skip", "modelspec.encoder_layer", (_ONETRAINER, "text_encoder_layer_skip")),
    "prediction_type": ("modelspec.prediction_type",),
    "precision": ("ss_mixed_precision", (_ONETRAINER, "train_dtype")),
    "noise_offset": ("ss_noise_offset", (_ONETRAINER, "offset_noise_weight")),
    "min_snr_gamma": ("ss_min_snr_gamma",),
    "network_dropout": ("ss_network_dropout", (_ONETRAINER, "dropout_probability")),
    "loss": ("ss_loss_type",),
    "seed": ("ss_seed",),
}
_DATES: tuple[Place, ...] = ("modelspec.date", "ss_training_finished_at", "ss_training_started_at")
_BASES: tuple[Place, ...] = (
    "ss_sd_model_name",
    (_ONETRAINER, "base_model_name"),
    (PEFT_CONFIG, "base_model_name_or_path"),
    (_PEFT, "unet.base_model_name_or_path"),
    (_PEFT, "transformer.base_model_name_or_path"),
    (CARD, "base_model"),
    (CIVITAI, "baseModel"),
)
_HASHES = {"sshs_model_hash": 64, "sshs_legacy_hash": 8, "modelspec.hash_sha256": 64}
# Kinds of network that kohya's trainer for videos and newer models has, and the one for images has not.
_MUSUBI = late(
    r"networks\.lora_(wan|framepack|flux_2|qwen_image|kandinsky|hv_1_5|zimage|ernie_image|hidream_o1|ideogram4)"
)
_PATH = late(r"[/\\~]|[A-Za-z]:[/\\]|\.\.?[/\\]|[^/\\]*[/\\].*([/\\]|\.(safetensors|ckpt|pt|bin)$)", re.IGNORECASE)
_LAST_UNIX_TIME = 253_402_300_799
_MOST_ARGUMENTS = 50


class StatedHash(Record):
    """A hash that the metadata states; `matches` is None where nobody can tell, or nobody has looked."""

    key: str
    text: str
    matches: bool | None = None


class Training(Record):
    """What is stated about a training, each fact as the file puts it, None where it says nothing.

    `images` counts each picture once, from the sizes of the data sets. `hashes` are lower-case hex, by metadata key.
    `problems` names what was there but could not be read.
    """

    software: str | None = None
    name: str | None = None
    author: str | None = None
    date: str | None = None
    license: str | None = None
    description: str | None = None
    usage_hint: str | None = None
    comment: str | None = None
    base_model: str | None = None
    base_hash: str | None = None
    network: str | None = None
    rank: str | None = None
    alpha: str | None = None
    steps: str | None = None
    epochs: str | None = None
    learning_rate: str | None = None
    denoiser_learning_rate: str | None = None
    text_encoder_learning_rate: str | None = None
    scheduler: str | None = None
    optimizer: str | None = None
    resolution: str | None = None
    batch_size: str | None = None
    images: str | None = None
    images_with_repeats: str | None = None
    clip_skip: str | None = None
    prediction_type: str | None = None
    precision: str | None = None
    noise_offset: str | None = None
    min_snr_gamma: str | None = None
    network_dropout: str | None = None
    loss: str | None = None
    seed: str | None = None
    network_args: Mapping[str, str] = MappingProxyType({})
    hashes: Mapping[str, str] = MappingProxyType({})
    problems: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """Give the facts that are stated, by name and in a good order to read; without arguments and hashes."""
        values = {name: getattr(self, name) for name in self._fields}
        return {name: value for name, value in values.items() if isinstance(value, str)}


def read_training(metadata: Mapping[str, str], side: SideFiles = NOTHING_BESIDE) -> Training:
    """Read what is stated about a training. Never raises: the values are anyone's text."""
    stated = Statements(metadata, side)
    facts = {name: stated.text(*places) for name, places in _PLACES.items()}
    facts["software"] = _software(stated)
    facts["date"] = _date(stated.text(*_DATES))
    facts["base_model"] = _base_model(stated)
    facts["images"] = _images(stated)
    arguments = _network_args(stated)
    hashes = _hashes(stated)
    return Training(**facts, network_args=arguments, hashes=hashes, problems=tuple(stated.problems))


def _software(stated: Statements) -> str | None:
    """Name the trainer, as far as what it leaves behind tells."""
    tags = (stated.text((CARD, "tags")) or "").split(", ")
    network = stated.text("ss_network_module") or ""
    software = stated.metadata.get("software", "")
    if software.lstrip().startswith("{"):
        parts = [stated.text(("software", key), limit=60) for key in ("name", "version")]
        return " ".join(part for part in parts if part) or None
    if software:
        return text_of(software)
    if revision := stated.text("ot_revision"):
        return f"OneTrainer {capped(revision, 12)}"
    if network.startswith("lycoris"):
        return "LyCORIS in kohya sd-scripts"
    if network.startswith("networks.lora_") and _MUSUBI.match(network):
        return "musubi-tuner"
    if stated.text("ss_sd_scripts_commit_hash"):
        return "kohya sd-scripts"
    if network.startswith("networks."):
        return "kohya sd-scripts or musubi-tuner"
    for tag, name in (("simpletuner", "SimpleTuner"), ("ai-toolkit", "ai-toolkit")):
        if tag in tags:
            return name
    if any(re.fullmatch(r"(unet|text_encoder):\d{1,9}:rank", key) for key in stated.metadata):
        return "cloneofsimo lora"
    if _PEFT in stated.metadata or "diffusers-training" in tags:
        return "diffusers"
    return "peft" if PEFT_CONFIG in stated.side.contents else None


def _date(text: str | None) -> str | None:
    """Give a time as a date; kohya writes seconds since 1970."""
    if text is None or not re.fullmatch(r"\d{1,12}(\.\d+)?", text, re.ASCII):
        return text
    seconds = float(text)
    return datetime.fromtimestamp(seconds, UTC).date().isoformat() if seconds <= _LAST_UNIX_TIME else text


def _base_model(stated: Statements) -> str | None:
    """Name the base model; of a path only the last part, for the folders are the author's own affair."""
    text = stated.text(*_BASES)
    if text and _PATH.match(text):
        text = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return text or None


def _images(stated: Statements) -> str | None:
    folders = list(stated.mapping("ss_dataset_dirs").values())
    counts = [whole_number(folder.get("img_count")) for folder in folders if isinstance(folder, dict)]
    images = sum(count for count in counts if count)
    return str(images) if images else None


def _network_args(stated: Statements) -> dict[str, str]:
    arguments = list(stated.mapping("ss_network_args").items())[:_MOST_ARGUMENTS]
    return {capped(name, 60): text for name, value in arguments if (text := text_of(value))}


def _hashes(stated: Statements) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for key, length in _HASHES.items():
        text = stated.text(key, limit=100)
        if text is None:
            continue
        digits = text.lower().removeprefix("0x")
        if re.fullmatch(f"[0-9a-f]{{{length}}}", digits):
            hashes[key] = digits
        else:
            stated.problems.append(f"{key} is no hash of {length} digits")
    return hashes
