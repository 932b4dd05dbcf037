"""The program's entry: `lorakit` and `python -m lorakit_cli`."""

import gc
import os
import signal
import sys
from types import FrameType

_INTERRUPTED, _TERMINATED = 130, 143
_LINE = "error: interrupted\n"
_IMPORTING = "<frozen importlib"
_OBJECTS = 100_000


def main() -> None:
    """Run lorakit; however early Ctrl-C comes, leave with 130 and one line, and asked to end (SIGTERM) with 143."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        # What was told to ignore them, as in the background of a shell, goes on doing so.
        if signal.getsignal(number) is usual:
            signal.signal(number, _end)
    # Little of what is made on the way is garbage, and looking for it takes a tenth of a short run.
    gc.set_threshold(_OBJECTS, 50, 50)
    try:
        from lorakit_cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write(_LINE)
        _leave()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            # Files are closed by now; threads of the libraries would turn a second look at the signal into a traceback.
            _leave()
        raise
    finally:
        # The process ends here, so that nothing is to be looked through once more.
        gc.freeze()


# What to leave with: it is only known to the handler which of the two it was.
_code = _INTERRUPTED


def _end(number: int, frame: FrameType | None) -> None:
    """Let all that is half made be cleaned up on the way out; at once, while something is imported.

    Libraries that look whether another one is there take the interrupt for its absence, and go on with half of it.
    """
    global _code
    _code = _TERMINATED if number == signal.SIGTERM else _INTERRUPTED
    while frame:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            sys.stderr.write(_LINE)
            sys.stderr.flush()
            _leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave() -> None:
    folders = sys.modules.get("lorakit_cli.core.private_folder")
    if folders:
        folders.remove_private_folder()
    os._exit(_code)


if __name__ == "__main__":
    main()
