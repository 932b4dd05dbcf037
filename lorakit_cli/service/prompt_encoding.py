"""Turn prompts into what a pipeline is called with: as they stand, or with weights and at any length."""

import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.prompt_reading import READER, family_of, has_reader
from lorakit_cli.core.prompt_weights import WeightedText, is_weighted, plain_text, weighted_parts
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import UnsupportedError

_Encoder = Callable[[list[WeightedText]], torch.Tensor]


class PromptEncoder:
    """The prompts of one pipeline. `cuts` say what of a prompt was too long for it."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._family = family_of(type(pipeline).__name__)
        self._known = inspect.signature(pipeline.__call__).parameters
        sequence = self._known.get("max_sequence_length")
        self._most: int | None = sequence.default if sequence else None
        self.cuts: dict[str, None] = {}

    def is_literal(self, spec: PictureSpec) -> bool:
        """Tell whether prompts go to the text encoders as they stand: what has neither weights nor length does."""
        if spec.literal is not None:
            return spec.literal
        if is_weighted(spec.prompt) or is_weighted(spec.negative or ""):
            return False
        # The long text of FLUX is for an encoder that weights do not make longer.
        can = has_reader() and self._family is not None and self._family != "Flux"
        return not (can and (self._rest(spec.prompt) or self._rest(spec.negative or "")))

    def versions(self, spec: PictureSpec) -> dict[str, str]:
        """Give the version of what read the prompts, where anything did."""
        return {} if self.is_literal(spec) else {READER: version(READER)}

    def call(self, spec: PictureSpec, options: dict[str, Any]) -> dict[str, Any]:
        """Give the options of a call with the prompts in the form that they are to have.

        Raises UnsupportedError where prompts cannot have weights.
        """
        if self.is_literal(spec):
            for prompt in (spec.prompt, spec.negative or ""):
                self._note_cut(prompt)
            return options
        if self._family is None or not has_reader():
            raise UnsupportedError(
                f"the prompt was read by {READER}: pip install 'lorakit[{READER}]'; --literal-prompt takes it as it "
                "stands"
            )
        if options.get("clip_skip"):
            raise UnsupportedError("weights in the prompt and a clip skip do not go together; leave one out")
        rest = {name: value for name, value in options.items() if name not in ("prompt", "negative_prompt")}
        with torch.no_grad():
            return rest | self._encoded(weighted_parts(spec.prompt), spec.negative)

    def _encoded(self, prompt: list[WeightedText], negative: str | None) -> dict[str, Any]:
        pipeline, device = self._pipeline, self._pipeline._execution_device
        encode, pad = self._encoders()
        positive = encode(prompt)
        found: dict[str, Any] = {"prompt_embeds": positive}
        zeros = negative is None and pipeline.config.get("force_zeros_for_empty_prompt")
        if self._family == "Flux":
            _, found["pooled_prompt_embeds"], _ = pipeline.encode_prompt(plain_text(prompt), None, device)
            if negative:
                other = weighted_parts(negative)
                found["negative_prompt_embeds"] = encode(other)
                _, found["negative_pooled_prompt_embeds"], _ = pipeline.encode_prompt(plain_text(other), None, device)
            return found
        other = weighted_parts(negative or "")
        found["prompt_embeds"], found["negative_prompt_embeds"] = pad(positive, encode(other))
        if self._family == "StableDiffusionXL":
            # The other text embedding stands for a prompt as a whole.
            pooled = pipeline.encode_prompt(
                plain_text(prompt), device=device, negative_prompt=plain_text(other), do_classifier_free_guidance=True
            )
            found["pooled_prompt_embeds"], found["negative_pooled_prompt_embeds"] = pooled[2], pooled[3]
            if zeros:
                for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
                    found[name] = torch.zeros_like(found[name])
        return found

    def _encoders(self) -> tuple[_Encoder, Callable[[torch.Tensor, torch.Tensor], list[torch.Tensor]]]:
        """Give what encodes a prompt, and what makes two of one length."""
        from compel import Compel, ReturnedEmbeddingsType
        from compel.prompt_parser import Conjunction, FlattenedPrompt

        pipeline, device = self._pipeline, str(self._pipeline._execution_device)
        penultimate = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        last = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
        parts = {
            "StableDiffusion": [("", last)],
            "StableDiffusionXL": [("", penultimate), ("_2", penultimate)],
            "Flux": [("_2", last)],
        }[self._family or ""]
        readers = [
            Compel(
                getattr(pipeline, f"tokenizer{number}"),
                getattr(pipeline, f"text_encoder{number}"),
                returned_embeddings_type=kind,
                truncate_long_prompts=self._family == "Flux",
                model_max_length=self._most if self._family == "Flux" else None,
                device=device,
            )
            for number, kind in parts
        ]

        def encode(prompt: list[WeightedText]) -> torch.Tensor:
            # compel has a syntax of its own, in which other signs have a meaning; the parts go past it.
            fragments = FlattenedPrompt([tuple(part) for part in prompt if part.text] or [("", 1.0)])
            found = [
                reader.build_conditioning_tensor_for_conjunction(Conjunction([fragments]))[0] for reader in readers
            ]
            length = max(each.shape[1] for each in found)
            even = [
                reader.pad_conditioning_tensors_to_same_length([each, each.new_zeros(1, length, each.shape[2])])[0]
                for reader, each in zip(readers, found, strict=True)
            ]
            return torch.cat(even, dim=-1)

        def pad(one: torch.Tensor, other: torch.Tensor) -> list[torch.Tensor]:
            filler = encode([])
            length = max(one.shape[1], other.shape[1])
            return [
                torch.cat([each, *[filler] * ((length - each.shape[1]) // filler.shape[1])], dim=1)
                for each in (one, other)
            ]

        return encode, pad

    def _note_cut(self, prompt: str) -> None:
        rest = self._rest(prompt)
        if rest:
            advice = ""
            if self._family and self._family != "Flux" and not has_reader():
                advice = f"; with pip install 'lorakit[{READER}]' all of it is read"
            self.cuts[f"the prompt is too long for this base, and its end is cut off: {shown(rest)!r}{advice}"] = None

    def _rest(self, prompt: str) -> str:
        """Give the end of a prompt that is beyond what its longest text encoder takes."""
        pipeline = self._pipeline
        name = "tokenizer"
        if self._most:
            name = next((n for n in ("tokenizer_3", "tokenizer_2") if getattr(pipeline, n, None) is not None), name)
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is None or not prompt:
            return ""
        most = self._most or tokenizer.model_max_length
        tokens = tokenizer(prompt, truncation=False, add_special_tokens=True).input_ids
        if len(tokens) <= most:
            return ""
        # The last place is taken by the sign of the end.
        return str(tokenizer.decode(tokens[most - 1 : -1], skip_special_tokens=True)).strip()
