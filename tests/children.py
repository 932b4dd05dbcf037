"""Processes that a test starts, waits for and kills; they import the product and nothing heavy."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(code: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
    """Run code as a process of its own, without what `site` would load."""
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code, *(str(argument) for argument in arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )
