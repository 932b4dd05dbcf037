"""The program's entry: `lorakit` and `python -m lorakit_cli`."""

import os
import sys

_INTERRUPTED = 130


def main() -> None:
    """Run lorakit; however early Ctrl-C comes, leave with 130 and one line."""
    try:
        from lorakit_cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        os._exit(_INTERRUPTED)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            # Files are closed by now; threads of the libraries would turn a second look at the signal into a traceback.
            os._exit(_INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
