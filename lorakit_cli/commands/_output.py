"""The only place that prints: reports to stdout, all else to stderr."""

import dataclasses
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lorakit_cli.errors import OutputError

_SCHEMA = "lorakit/{}/1"


def emit(text: str) -> None:
    """Print a line or block of the result to stdout."""
    _write(text + "\n")


def emit_json(schema: str, report: Any) -> None:
    """Print a report, a dataclass, as exactly one JSON object; in ASCII, which every pipe can carry."""
    _write(json.dumps({"schema": _SCHEMA.format(schema)} | dataclasses.asdict(report), allow_nan=False) + "\n")


def note(text: str) -> None:
    """Print a remark to stderr."""
    _to_stderr(text)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _to_stderr(f"warning: {printable(text)}")


def error(text: str) -> None:
    """Print an error to stderr, on one line."""
    _to_stderr("error: " + printable(" ".join(text.split())))


def printable(text: str) -> str:
    """Show text from a file without letting its control characters reach the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def carry_any_text() -> None:
    """Let stdout and stderr escape what their encoding cannot hold, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Any]:
    """Give a function `(done, total)` that draws a bar on a terminal, or None where nobody would see it."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
