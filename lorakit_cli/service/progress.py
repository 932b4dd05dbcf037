"""How far work is, for whoever shows it."""

from lorakit_cli.core.bytes_done import BytesDone, Progress

__all__ = ["BytesDone", "Progress"]
