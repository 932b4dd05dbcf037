"""The looks at an adapter file that read more than its header: its hashes, its values, its strength."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.output_place import require_png
from lorakit_cli.core.record import Record
from lorakit_cli.core.training import StatedHash, Training
from lorakit_cli.errors import CorruptFileError, OptionError
from lorakit_cli.service.inspect_report import FileHashes

if TYPE_CHECKING:
    from lorakit_cli.core.match import Match
    from lorakit_cli.service.scanning import ScanReport
    from lorakit_cli.service.strength import StrengthReport

Progress = Callable[[int, int], None]
_MEGABYTE = 1_000_000


def _silent(label: str) -> AbstractContextManager[Progress | None]:
    return nullcontext()


class Looks(Record):
    """How closely to look: list every key, read every value, measure every layer, hash the whole file.

    `plot` is a picture of the strengths to write, which takes measuring them. `progress` makes, for a piece of work of
    that name, a function that is told what is done and what there is in all.
    """

    keys: bool = False
    scan: bool = False
    strength: bool = False
    plot: Path | None = None
    overwrite: bool = False
    hashes: bool = False
    progress: Callable[[str], AbstractContextManager[Progress | None]] = _silent

    @property
    def measures(self) -> bool:
        """Whether every layer is to be measured."""
        return self.strength or self.plot is not None

    def require_possible(self, files: int) -> None:
        """Raise OptionError or OutputError, before any work, for a picture that cannot be written."""
        if self.plot is None:
            return
        require_png(self.plot)
        if files != 1:
            raise OptionError(f"--plot draws one adapter, and there are {files}; name one")
        from lorakit_cli.core.output_file import require_absent, require_writable

        require_absent(self.plot, overwrite=self.overwrite)
        require_writable(self.plot.parent)


HEADER_ONLY = Looks()


def scan_values(file: LoraFile, looks: Looks) -> "ScanReport | None":
    """Read every value, if that was asked for. Raises CorruptFileError."""
    if not looks.scan:
        return None
    from lorakit_cli.service.scanning import scan

    with looks.progress("scanning tensors") as progress:
        return scan(file, progress)


def measure_strength(
    file: LoraFile, base: BaseIndex | None, matches: "Sequence[Match]", looks: Looks
) -> "StrengthReport | None":
    """Measure every layer, if that was asked for; without a base, `matches` only say which module each one is.

    Raises CorruptFileError, or OutputError where the picture cannot be written.
    """
    if not looks.measures:
        return None
    from lorakit_cli.service.strength import measure

    with looks.progress("measuring layers") as progress:
        if base:
            report = measure(file, base=base, matches=matches, progress=progress)
        else:
            modules = {match.layer.stem: match.name.parts[0] for match in matches}
            report = measure(file, modules=modules, progress=progress)
    if looks.plot is not None:
        from lorakit_cli.service.strength_plot import plot

        plot(report, looks.plot, overwrite=looks.overwrite)
    return report


def file_hashes(file: LoraFile, training: Training, looks: Looks) -> FileHashes:
    """Give the hashes that are stated and, if that was asked for, those that the file has. Raises CorruptFileError."""
    if not looks.hashes:
        return FileHashes(tuple(StatedHash(key, text) for key, text in training.hashes.items()))
    from lorakit_cli.service.hashing import hashes, whole_hashes

    with looks.progress("hashing MB") as progress:
        told = _in_megabytes(progress) if progress else None
        try:
            if file.data != file.path:
                sha256, auto_v1 = whole_hashes(file.path, told)
                stated = tuple(StatedHash(key, text) for key, text in training.hashes.items())
                return FileHashes(stated, sha256, auto_v1, sha256[:10].upper())
            found = hashes(file.path, told)
        except OSError as error:
            raise CorruptFileError(f"{file.path} cannot be read: {error.strerror}") from error
    return FileHashes(
        found.stated,
        found.sha256,
        found.auto_v1,
        found.auto_v2,
        found.auto_v3,
        found.addnet.model,
        found.addnet.legacy,
    )


def changed_since(hashes: FileHashes) -> list[str]:
    """Say of each stated hash that is not the file's what that means."""
    return [
        f"its metadata states {stated.key} {stated.text}, which its tensors do not have; they were changed since"
        for stated in hashes.stated
        if stated.matches is False
    ]


def _in_megabytes(progress: Progress) -> Progress:
    return lambda done, total: progress(done // _MEGABYTE, -(-total // _MEGABYTE))
