"""The program's entry: `lorakit` and `python -m lorakit_cli`."""

import gc
import os
import sys

_INTERRUPTED = 130
_OBJECTS = 100_000


def main() -> None:
    """Run lorakit; however early Ctrl-C comes, leave with 130 and one line."""
    # Little of what is made on the way is garbage, and looking for it takes a tenth of a short run.
    gc.set_threshold(_OBJECTS, 50, 50)
    try:
        from lorakit_cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        _leave()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            # Files are closed by now; threads of the libraries would turn a second look at the signal into a traceback.
            _leave()
        raise
    finally:
        # The process ends here, so that nothing is to be looked through once more.
        gc.freeze()


def _leave() -> None:
    folders = sys.modules.get("lorakit_cli.core.private_folder")
    if folders:
        folders.remove_private_folder()
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
