"""How long `lorakit inspect` takes on a full-size LoRA, beside `lorakit --help` in the same run; and held to a base.

The LoRA has all 986 layers of SDXL as kohya names them, at rank 144, a gigabyte; the base is SDXL. Neither takes
room on the disk, for nobody wrote their values.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.sparse import sparse_base, write_sparse  # noqa: E402

PROGRAM = Path(sys.executable).with_name("lorakit")
RANK, LISTED_RANK = 144, 8
ROUNDS = 15


def adapter(path: Path) -> Path:
    """Write the LoRA."""
    listed = json.loads((ROOT / "tests" / "data" / "keys" / "kohya_sdxl.json").read_text())
    tensors = {
        name: (dtype, tuple(RANK if size == LISTED_RANK else size for size in shape))
        for name, (dtype, shape) in listed["tensors"].items()
    }
    return write_sparse(path, tensors, listed["metadata"], alpha=RANK / 2)


def seconds(arguments: list[str]) -> float:
    """Time one run."""
    begin = time.perf_counter()
    subprocess.run([PROGRAM, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    """Run the commands in turns, so that a busy machine is busy for all of them; print shortest times and medians."""
    with tempfile.TemporaryDirectory() as folder:
        lora, base = str(adapter(Path(folder) / "lora.safetensors")), str(sparse_base(Path(folder) / "sdxl", "sdxl"))
        commands = {
            "lorakit --help": ["--help"],
            "lorakit inspect": ["inspect", lora],
            "lorakit inspect --json": ["inspect", lora, "--json"],
            "lorakit inspect --base": ["inspect", lora, "--base", base],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name, command in commands.items():
                taken = seconds(command)
                if turn:  # the first turn fills caches
                    times[name].append(taken)
    least = {name: min(values) for name, values in times.items()}
    for name, shortest in least.items():
        median = statistics.median(times[name])
        ratio = shortest / least["lorakit --help"]
        print(f"{name:24} {shortest:.3f} s at best, {median:.3f} s in the middle   {ratio:.2f} x lorakit --help")


if __name__ == "__main__":
    main()
