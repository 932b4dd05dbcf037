"""Write the completion scripts of lorakit for bash, zsh and fish into this folder, or check that they are current."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = {"bash": "lorakit.bash", "zsh": "_lorakit", "fish": "lorakit.fish"}
HERE = Path(__file__).parent


def script(shell: str) -> str:
    """Ask the program itself for the script of a shell."""
    program = Path(sys.executable).with_name("lorakit")
    variables = os.environ | {"_LORAKIT_COMPLETE": f"source_{shell}"}
    done = subprocess.run([program], env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip() + "\n"


def main() -> None:
    """Write the scripts; with --check only compare."""
    for shell, name in SCRIPTS.items():
        path, text = HERE / name, script(shell)
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"completions/{name} is not current; run `make completions`")


if __name__ == "__main__":
    main()
