"""The only place that prints: reports to stdout, all else to stderr."""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lorakit_cli.core.shown import shown
from lorakit_cli.errors import OutputError

_SCHEMA = "lorakit/{}/1"
# Messages name keys and paths, which strangers choose.
_LONGEST_MESSAGE = 3000
# The bars on the screen, one inside the other.
_bars: list[Any] = []


def emit(text: str) -> None:
    """Print a line or block of the result to stdout."""
    _write(text + "\n")


def emit_json(schema: str, report: Any) -> None:
    """Print a report as exactly one JSON object; in ASCII, which every pipe can carry."""
    _write(json.dumps({"schema": _SCHEMA.format(schema)} | _plain(report), allow_nan=False) + "\n")


def note(text: str) -> None:
    """Print a remark to stderr."""
    _to_stderr(text)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _to_stderr(f"warning: {printable(shown(text, _LONGEST_MESSAGE))}")


def error(text: str) -> None:
    """Print an error to stderr, on one line."""
    _to_stderr("error: " + printable(shown(" ".join(text.split()), _LONGEST_MESSAGE)))


def printable(text: str) -> str:
    """Show text from a file without letting its control characters reach the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def size_text(size: int | None) -> str:
    """Write a number of bytes as people do."""
    if size is None:
        return "-"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def table(rows: list[list[str]]) -> list[str]:
    """Align rows of text in columns, safe to print."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def emit_table(rows: list[list[str]]) -> None:
    """Print a table, its first row the header: fitted to a terminal, else one line for each row."""
    if sys.stdout is None or not sys.stdout.isatty():
        for line in table(rows):
            emit(line)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown_table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        shown_table.add_column(name, overflow="fold")
    for row in rows[1:]:
        shown_table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(shown_table)


def carry_any_text() -> None:
    """Let stdout and stderr escape what their encoding cannot hold, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def progress_bar(label: str, *, quiet: bool, as_bytes: bool = False) -> Iterator[Any]:
    """Give a function `(done, total)` that draws a bar on a terminal, or None where nobody would see it.

    `as_bytes`: what it counts are bytes.
    """
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if as_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain(value: Any) -> Any:
    """Make dicts of records, dataclasses and named tuples, and lists of other tuples, however deep they are."""
    if hasattr(value, "_fields"):
        return {name: _plain(getattr(value, name)) for name in value._fields}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _write(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as problem:
        # The interpreter must not try to flush the rest again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A reader that has seen enough is no failure.
        if not isinstance(problem, BrokenPipeError):
            raise OutputError(f"cannot write to stdout: {problem.strerror}") from problem


def _to_stderr(text: str) -> None:
    # Where nobody reads the remarks, the work goes on.
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
