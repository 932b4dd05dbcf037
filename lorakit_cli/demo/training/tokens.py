"""Build the CLIP tokenizer of the embedded model: any text tokenises, its own words are one token each."""

from transformers import CLIPTokenizer

from lorakit_cli.demo.training.words import known_words


def _byte_characters() -> list[str]:
    """List the 256 characters that stand for bytes in byte-level BPE, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Find merges, left to right, that make one token of each word."""
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        for pair in merges:
            pieces = _merge(pieces, pair)
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            merges.append(pair)
            pieces = _merge(pieces, pair)
    return merges


def build_tokenizer() -> CLIPTokenizer:
    """Build the tokenizer, 77 tokens long as CLIP's."""
    characters = _byte_characters()
    merges = _merges(known_words())
    tokens = [*characters, *(c + "</w>" for c in characters), *dict.fromkeys(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
