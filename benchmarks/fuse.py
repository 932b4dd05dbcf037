"""How long `lorakit fuse` takes on a full-size SDXL with two adapters, beside `cp -r` and the usual recipe.

    fuse.py [FOLDER] [ROUNDS]

FOLDER is to have `base`, `toy.safetensors` and `pixel.safetensors`, or gets them (7 GB, and as much again for each
output; a temporary folder otherwise). Every way in turns, after what the one before left has gone to the disk, once
with the base still on the disk alone, as after a download or a start of the machine, and once with it in memory; of
each the least of the rounds. The usual recipe, load_lora_weights, set_adapters, fuse_lora, save_pretrained, runs once.
Then how near the values are to the sum in fp64.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

PROGRAM = Path(sys.executable).with_name("lorakit")
ROUNDS = 3
SPECS = (("toy", 1.0), ("pixel", 0.5))
RECIPE = """
import sys, torch
from diffusers import DiffusionPipeline
base, folder, out = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(base, dtype=torch.float16)
for name in ("toy", "pixel"):
    pipeline.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
pipeline.set_adapters(["toy", "pixel"], adapter_weights=[1.0, 0.5])
pipeline.fuse_lora(adapter_names=["toy", "pixel"], lora_scale=1.0)
pipeline.unload_lora_weights()
pipeline.save_pretrained(out)
"""


class Run(NamedTuple):
    """Seconds on the clock and of the processors, and the most memory in GB."""

    seconds: float
    busy: float
    memory: float


def run(*command: object) -> Run:
    """Run a program to its end. Raises RuntimeError where it fails."""
    os.sync()
    begin = time.perf_counter()
    words = [str(part) for part in command]
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    process = os.posix_spawnp(words[0], words, os.environ, file_actions=quiet)
    _, status, used = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{command} failed")
    return Run(time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)


def forget(folder: Path) -> None:
    """Let the system forget the contents of files, so that they come from the disk."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def made(folder: Path, family: str) -> Path:
    """Make the base and the adapters where they are missing."""
    if not (folder / "base" / "model_index.json").exists():
        elsewhere("make", folder, family)
    return folder


def make(folder: Path, family: str) -> None:
    """Write a base and two adapters of full size."""
    from benchmarks.full_size import write_adapters, write_pipeline

    write_pipeline(folder / "base", family)
    write_adapters(folder, family)


def elsewhere(*words: object) -> str:
    """Do something in a process of its own: what this one has in memory is counted for those it starts."""
    command = [sys.executable, __file__, *(str(word) for word in words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def exactness(folder: Path, out: Path, count: int = 60) -> str:
    """Compare changed tensors of the UNet with the fp64 sum rounded once."""
    from safetensors import safe_open

    from lorakit_cli.service.ulps import ulps_between

    name = "unet/diffusion_pytorch_model.safetensors"
    same = values = worst = 0
    with safe_open(folder / "base" / name, "pt") as base, safe_open(out / name, "pt") as fused:
        files = {adapter: safe_open(folder / f"{adapter}.safetensors", "pt") for adapter, _ in SPECS}
        keys = [key for key in files["toy"].keys() if key.startswith("unet.") and "lora_A" in key]  # noqa: SIM118
        for key in keys[:: max(1, len(keys) // count)]:
            tensor = key.removeprefix("unet.").replace(".lora_A", "")
            exact = base.get_tensor(tensor).double()
            for adapter, weight in SPECS:
                down, up = (
                    files[adapter].get_tensor(key.replace("lora_A", part)).double() for part in ("lora_A", "lora_B")
                )
                exact += weight * (up @ down)
            found, wanted = fused.get_tensor(tensor), exact.half()
            apart = ulps_between(found, wanted)
            same, values = same + int((apart == 0).sum()), values + apart.numel()
            worst = max(worst, int(apart.max()))
    return (
        f"{same / values:.4%} of {values} values are the fp64 sum rounded once, the others off by {worst} ulp at most"
    )


def main() -> None:
    """Run all ways in turns and print the least of each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = made(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "sdxl", "sdxl")
        small = made(Path(temporary) / "sd15", "sd15")
        rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
        out = Path(temporary) / "out"

        def fuse(models: Path, *options: str) -> list[object]:
            specs = [word for name, weight in SPECS for word in ("--lora", f"{models}/{name}.safetensors:{weight}")]
            return [PROGRAM, "fuse", "--base", models / "base", *specs, "--quiet", "--out", out, *options]

        ways = {
            "cp -r": ["cp", "-r", folder / "base", out],
            "fuse --no-verify": fuse(folder, "--no-verify"),
            "fuse": fuse(folder),
        }
        runs: dict[str, list[Run]] = {}
        for where in ("from disk", "from memory"):
            for _ in range(rounds):
                for name, command in ways.items():
                    shutil.rmtree(out, ignore_errors=True)
                    if where == "from disk":
                        forget(folder)
                    runs.setdefault(f"{name}, {where}", []).append(run(*command))
        said = elsewhere("exactness", folder, out)
        others = {
            "fuse --dry-run": fuse(folder, "--dry-run"),
            "usual recipe, from memory": [sys.executable, "-c", RECIPE, folder / "base", folder, out],
            "fuse --no-verify, SD1.5": fuse(small, "--no-verify"),
        }
        for name, command in others.items():
            shutil.rmtree(out, ignore_errors=True)
            runs[name] = [run(*command)]
    least = {name: min(own) for name, own in runs.items()}
    for name, (seconds, busy, memory) in least.items():
        beside = least["cp -r, from disk" if "disk" in name else "cp -r, from memory"].seconds
        print(
            f"{name:30} {seconds:6.2f} s  {seconds / beside:5.2f} x cp  {busy:6.2f} s of processors  {memory:5.2f} GB"
        )
    print(said.strip())


if __name__ == "__main__":
    if sys.argv[1:2] == ["exactness"]:
        print(exactness(Path(sys.argv[2]), Path(sys.argv[3])))
    elif sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
