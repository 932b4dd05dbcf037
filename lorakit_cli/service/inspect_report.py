"""What `inspect` finds out about an adapter file, as a report."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from lorakit_cli.core.record import Record

if TYPE_CHECKING:
    from lorakit_cli.core.merge_history import MergeHistory
    from lorakit_cli.core.stated_architecture import StatedArchitecture
    from lorakit_cli.core.training import StatedHash, Training
    from lorakit_cli.core.triggers import Triggers
    from lorakit_cli.service.scanning import ScanReport
    from lorakit_cli.service.strength import StrengthReport
    from lorakit_cli.service.unmatched_part import UnmatchedPart

# As many letters as tell what a text says, of texts that may be megabytes.
MOST_PROBLEM = 600


class BaseMatch(Record):
    """How an adapter fits one base: layers matched of all, what did not match, and the verdict in words.

    `needs_base` counts the matched layers whose change depends on the base's own values.
    """

    base: str
    architecture: str
    fits: bool
    verdict: str
    matched: int
    total: int
    needs_base: int
    components: Mapping[str, int]
    unmatched: "tuple[UnmatchedPart, ...]"


class Amount(Record):
    """How many layers have a value: a rank, an alpha (None: it is missing) or a scale."""

    value: float | None
    layers: int


class KeyPlace(NamedTuple):
    """One key of the file: the layer it belongs to and its role there; neither for a key that means nothing."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    layer: str | None
    role: str | None


class FileHashes(Record):
    """The hashes of a file, upper case where CivitAI shows them so: None unless they were asked for.

    AutoV3 and kohya's `sshs_…` are of the tensors alone, and of a pickle there are none. `stated` are those that the
    metadata claims.
    """

    stated: "tuple[StatedHash, ...]"
    sha256: str | None = None
    auto_v1: str | None = None
    auto_v2: str | None = None
    auto_v3: str | None = None
    sshs_model_hash: str | None = None
    sshs_legacy_hash: str | None = None


class InspectReport(Record):
    """What an adapter file is.

    `usable`: nothing keeps it from being applied, and it fits every base it was held against; `verdict` says what does
    not, or "usable". `architecture` joins its candidates with "or"; `confidence` is certain, ambiguous, partial or
    unknown. `triggers` are the words of the most trusted source; `few_step` is the kind of an adapter for few steps,
    such as LCM; `beside` names the files beside it that were read too. `keys`, `scan` and `strength` are None unless
    they were asked for.
    """

    path: str
    usable: bool
    verdict: str
    architecture: str | None
    confidence: str
    reasons: tuple[str, ...]
    candidates: tuple[str, ...]
    stated_architectures: "tuple[StatedArchitecture, ...]"
    dialect: str
    layouts: Mapping[str, int]
    algorithms: Mapping[str, int]
    components: Mapping[str, int]
    layers: int
    ranks: tuple[Amount, ...]
    alphas: tuple[Amount, ...]
    scales: tuple[Amount, ...]
    dtypes: Mapping[str, int]
    size: int
    unknown_keys: tuple[str, ...]
    embeddings: tuple[str, ...]
    few_step: str | None
    triggers: tuple[str, ...]
    triggers_detail: "Triggers"
    training: "Training"
    merge_history: "MergeHistory"
    beside: tuple[str, ...]
    hashes: FileHashes
    problems: tuple[str, ...]
    match: tuple[BaseMatch, ...]
    keys: tuple[KeyPlace, ...] | None = None
    scan: "ScanReport | None" = None
    strength: "StrengthReport | None" = None


class UnreadableFile(Record):
    """A file among several that is no adapter, or a broken one: what reading it said."""

    path: str
    problem: str


class FilesReport(Record):
    """Several files, each with what it is or why it cannot be read."""

    files: tuple[InspectReport | UnreadableFile, ...]
