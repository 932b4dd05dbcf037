"""How long the light commands take, beside `hf --help` of huggingface_hub in the same run; and a picture in all."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
COMMANDS = {
    "hf --help": ["hf", "--help"],
    "lorakit --help": ["lorakit", "--help"],
    "lorakit generate --help": ["lorakit", "generate", "--help"],
    "lorakit list-adapters": ["lorakit", "list-adapters"],
    "lorakit generate --dry-run": [
        "lorakit",
        "generate",
        "--lora",
        "toy",
        "--lora",
        "pixel:0.5",
        "--dry-run",
        "toy_face, pixel art",
    ],
}
ROUNDS = 15


def seconds(command: list[str], folder: str) -> float:
    """Time one run of a program of this environment."""
    begin = time.perf_counter()
    subprocess.run([PROGRAMS / command[0], *command[1:]], check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - begin


def main() -> None:
    """Run the commands in turns, so that a busy machine is busy for all of them, and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for turn in range(ROUNDS + 1):
            for name, command in COMMANDS.items():
                taken = seconds(command, folder)
                if turn:  # the first turn fills caches
                    times[name].append(taken)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, median in medians.items():
            print(f"{name:30} {median:.3f} s   {median / medians['hf --help']:.2f} x hf --help")
        picture = ["lorakit", "generate", "--lora", "toy", "--lora", "pixel:0.5", "toy_face, pixel art, a red heart"]
        print(f"{'one picture, imports included':30} {seconds(picture, folder):.1f} s")


if __name__ == "__main__":
    main()
