"""CLIP's tokenizer, from the merges that lorakit brings."""

import gzip
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

_MERGES = Path(__file__).parent.parent / "architectures" / "pipelines" / "clip_merges.txt.gz"
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad: str | None = None) -> Any:
    """Build the tokenizer that CLIP was trained with; it pads with its last token where nothing else is asked for."""
    lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").splitlines()
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    characters = _byte_characters()
    tokens = [*characters, *(character + "</w>" for character in characters), *(a + b for a, b in merges)]
    tokens += [_BEGIN, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=pad or _END)


def _byte_characters() -> list[str]:
    """List the characters that stand for the 256 bytes, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(256 - len(printable))]
