"""What `fuse` did, as a report."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorakit_cli.service.verify_report import VerifyReport


@dataclass(frozen=True, slots=True)
class FusedAdapter:
    """An adapter that is in the weights now; `layers` counts what matched, by component."""

    name: str
    file: str
    sha256: str
    weight: float
    layers: dict[str, int]


@dataclass(frozen=True, slots=True)
class BlockChange:
    """How much a block was changed: the Frobenius norm of its delta relative to that of the tensors it changes."""

    component: str
    block: str
    change: float


@dataclass(frozen=True, slots=True)
class FuseReport:
    """A fused pipeline; `changed` counts tensors by component, `check` is None where nothing was looked at again.

    `pushed` is the address of the commit that holds it on the Hub.
    """

    out: str
    base: str
    architecture: str
    adapters: tuple[FusedAdapter, ...]
    scale: float
    changed: dict[str, int]
    blocks: tuple[BlockChange, ...]
    files: int
    size: int
    dtype: str | None
    engine: str
    seconds: float
    check: "VerifyReport | None"
    warnings: tuple[str, ...]
    pushed: str | None = None
