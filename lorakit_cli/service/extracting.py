"""Extract an adapter from a fine-tune: how a tuned model differs from its base, as LoRA of a chosen rank."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lorakit_cli import __version__
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.bytes_done import BytesDone
from lorakit_cli.core.conversion import convert_layers
from lorakit_cli.core.factored_layer import read_alike
from lorakit_cli.core.lora_file import LoraFile, read_lora_file
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.model_pairs import Pair
from lorakit_cli.core.new_tensor import NewTensor, header_of
from lorakit_cli.core.output_file import new_file, require_absent
from lorakit_cli.core.private_folder import private_folder
from lorakit_cli.core.rank_budget import Spectrum, ranks_within
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.core.source import Source
from lorakit_cli.errors import OptionError, OutputError, WrongBaseError
from lorakit_cli.formats.targets import TARGETS
from lorakit_cli.service.converted_file import write_adapter
from lorakit_cli.service.differing import Difference, Models, Wanted, differences, spectra
from lorakit_cli.service.extract_report import ExtractReport, extract_report
from lorakit_cli.service.reading import READING
from lorakit_cli.service.two_models import open_models
from lorakit_cli.sources.local import EMBEDDED, is_embedded

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
LAYOUTS = ("diffusers", "kohya", "comfy")
SUFFIX = ".safetensors"
Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """A request for an adapter, as the user wrote it."""

    base: str
    tuned: str
    out: Path
    rule: RankRule
    to: str = "diffusers"
    dtype: str = "fp16"
    components: Sequence[str] = ()
    min_diff: float = 0.0
    keep_full: bool = False
    overwrite: bool = False
    allow_pickle: bool = False
    variant: str | None = None
    device: str = "auto"


def extract(request: ExtractRequest, progress: Progress | None = None) -> ExtractReport:
    """Write how a tuned model differs from its base as an adapter.

    `progress` is called with values done and values in all. Raises BaseModelError or WrongBaseError for the models,
    OptionError, UnsupportedError for what the layout cannot hold, OutputError.
    """
    _require_sense(request)
    require_absent(request.out, overwrite=request.overwrite)
    models, shared = open_models(request)
    _require_rank(request.rule, shared.pairs)
    pairs = shared.pairs
    done = BytesDone(request.rule.rounds * sum(pair.size for pair in pairs), progress)
    if request.rule.size is None:
        found = _found(request, models, pairs, lambda _: request.rule, done)
        size = _write(request, models.before, _as_adapter(found, models.before))
    else:
        found, size = _within(request, models, pairs, done)
    return extract_report(models, request, found, shared, len(pairs), size)


def _found(
    request: ExtractRequest,
    models: Models,
    pairs: Sequence[Pair],
    rule: Callable[[Pair], RankRule],
    done: Callable[[int], None],
) -> list[Difference]:
    """Take all differences. Raises WrongBaseError where there is nothing to write."""
    wanted = Wanted(rule, request.min_diff, whole=request.keep_full, dtype=DTYPES[request.dtype])
    found = differences(models, pairs, wanted, done)
    if not any(each.up is not None or each.diff is not None for each in found):
        what = f"{models.after.label} differs from {models.before.label} in nothing that can be extracted"
        more = f": {found[0].pair.label} and {len(found) - 1} others, {found[0].reason}" if found else ""
        raise WrongBaseError(what + more)
    return found


def _within(
    request: ExtractRequest, models: Models, pairs: Sequence[Pair], done: Callable[[int], None]
) -> tuple[list[Difference], int]:
    """Extract with a rank for each layer such that the file keeps to its size. Raises OptionError for a tiny one."""
    known = spectra(models, pairs, request.min_diff, done)
    layers = [pair for pair in pairs if pair.label in known]
    each = DTYPES[request.dtype].itemsize
    costs = [Spectrum(known[pair.label], each * (pair.shape[0] + pair.size // pair.shape[0])) for pair in layers]
    budget = room = request.rule.size or 0
    while True:
        try:
            ranks = ranks_within(costs, room, lambda ranks: _size_of(layers, ranks, request))
        except ValueError as error:
            least = int(error.args[0]) + budget - room
            raise OptionError(
                f"--size {budget} bytes is too little: {len(costs)} layers of rank 1 alone take {least}; ask for at "
                f"least {-(-least // 10_000) / 100:.2f}MB, or leave out small ones with --min-diff"
            ) from error
        of = {pair.label: rank for pair, rank in zip(layers, ranks, strict=True)}
        found = _found(request, models, pairs, partial(_chosen_rank, of), done)
        file = _as_adapter(found, models.before)
        try:
            return found, _write(request, models.before, file, budget)
        except _TooLargeError as problem:
            # Names and joined layers of the layout take more than was reckoned.
            room -= problem.excess


def _chosen_rank(ranks: Mapping[str, int], pair: Pair) -> RankRule:
    return RankRule(rank=ranks.get(pair.label, 1))


class _TooLargeError(Exception):
    """A file that came out larger than its budget, by so many bytes."""

    def __init__(self, excess: int) -> None:
        super().__init__(excess)
        self.excess = excess


def _write(request: ExtractRequest, base: BaseIndex, file: LoraFile, most: int | None = None) -> int:
    """Write an adapter in the layout asked for and give its size; where it is above `most` nothing is written."""
    target = TARGETS[request.to]
    matches, missed = match_layers(base, "", file, hints=False)
    if missed:
        raise OutputError(f"{missed[0].stem} of what was extracted does not fit the base: {missed[0].reason}")
    layers = read_alike(convert_layers(file, base, matches, target), base, differ=most is not None)
    with new_file(request.out, overwrite=request.overwrite, parents=True) as out, Source(file.data) as source:
        size = write_adapter(out, request.out, target, base, layers, file.metadata, source)
        if most is not None and size > most:
            raise _TooLargeError(size - most)
    return size


def _size_of(layers: Sequence[Pair], ranks: Sequence[int], request: ExtractRequest) -> int:
    """Reckon the size of the file, header included, with the names that it has before it is converted."""
    each = DTYPES[request.dtype].itemsize
    tensors: list[NewTensor] = []
    for pair, rank in zip(layers, ranks, strict=True):
        width = pair.size // pair.shape[0]
        for part, rows, columns in (("lora_A", rank, width), ("lora_B", pair.shape[0], rank)):
            run = (0, each * rows * columns)
            tensors.append(NewTensor(f"{pair.label}.{part}", "F16", (rows, columns), (run,)))
    return len(header_of(tensors, {})) + sum(tensor.size for tensor in tensors)


def _require_sense(request: ExtractRequest) -> None:
    if len(request.rule.given) != 1:
        raise OptionError("say how much to keep, with one of --rank, --energy, --error, --ratio and --size")
    if request.out.suffix.lower() != SUFFIX:
        raise OptionError(f"--out {request.out}: an adapter is a file, so a name in {SUFFIX}")
    if request.to not in LAYOUTS:
        raise OptionError(f"--to {request.to}: choose one of {', '.join(LAYOUTS)}")
    if request.keep_full and "full" not in TARGETS[request.to].kinds:
        raise OptionError(
            f"--keep-full: the {request.to} layout holds nothing but factors; --to kohya holds the rest too"
        )
    if not request.min_diff >= 0:
        raise OptionError(f"--min-diff {request.min_diff}: the largest change of a value that is left out, 0 or more")


def _require_rank(rule: RankRule, pairs: Sequence[Pair]) -> None:
    """Refuse a rank above that of every layer. Raises OptionError."""
    highest = max((min(pair.matrix) for pair in pairs if pair.is_adapted and pair.is_matrix), default=0)
    # Where there is none at all, whoever looks for differences says so.
    if rule.rank is not None and rule.rank > highest > 0:
        raise OptionError(f"--rank {rule.rank}: no layer has a rank above {highest}; ask for {highest} or less")


def _as_adapter(found: Sequence[Difference], base: BaseIndex) -> LoraFile:
    """Put the factors into a file of this process's own, under diffusers' names. Raises OutputError."""
    tensors: dict[str, Tensor] = {}
    for each in found:
        pair, stem = each.pair, each.pair.label.removesuffix(".weight").removesuffix(".bias")
        if each.up is not None and each.down is not None:
            ones = [1] * (len(pair.shape) - 2)
            tensors[f"{stem}.lora_up.weight"] = each.up.reshape(*each.up.shape, *ones)
            tensors[f"{stem}.lora_down.weight"] = each.down.reshape(-1, *pair.shape[1:])
            tensors[f"{stem}.alpha"] = torch.tensor(float(each.down.shape[0]))
        elif each.diff is not None:
            tensors[f"{stem}.{_whole_suffix(pair)}"] = each.diff
    data = private_folder() / "extracted.safetensors"
    metadata = {"lorakit.extracted_by": f"lorakit {__version__}", "lorakit.extracted_from": _name(base)}
    try:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, data, metadata)
    except SafetensorError as error:
        raise OutputError(f"cannot write {data}: {error}") from error
    # As it was given: from the file its order is another each time.
    return read_lora_file(data, READING, data)._replace(metadata=metadata)


def _whole_suffix(pair: Pair) -> str:
    if pair.parameter.endswith(".bias"):
        return "diff_b"
    return "diff" if len(pair.shape) > 1 else "w_norm"


def _name(base: BaseIndex) -> str:
    """Give what a base goes by elsewhere too."""
    return base.remote or (EMBEDDED if is_embedded(base.path) else base.path.name)
