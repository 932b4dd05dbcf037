"""How long merging and resizing of full-size adapters takes, beside `cp` and beside dense decompositions, in one run.

Two adapters of rank 32 for the 722 linear layers of the UNet of SDXL, random values in fp16, files in to file out.
What kohya's svd_merge_lora.py does is build the sum of each layer and decompose that whole with `torch.linalg.svd`.
This is timed on one layer of each shape and multiplied by how many layers have it, for all of them would take minutes;
the vectors that nobody wants, which kohya's has made as well, are left out. Each command in turns, and of each the
least of several rounds, once with the files in memory and once with them on the disk alone, as after a download; what
builds every change whole takes a minute and runs once.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parent.parent))

PROGRAM = Path(sys.executable).parent / "lorakit"
ROUNDS = 4
RANK = 32


def seconds(*command: object) -> float:
    """Time one run of a program."""
    begin = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return time.perf_counter() - begin


def peak_memory(*command: object) -> float:
    """Give the most memory that a program holds, in GB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], check=True, capture_output=True, text=True)
    return int(done.stdout) * 1024 / 1e9


def dense(paths: tuple[Path, Path]) -> tuple[float, int, int]:
    """Time building and decomposing the sums densely; give the time for all layers, the layers, and those timed."""
    with safe_open(paths[0], "pt") as first, safe_open(paths[1], "pt") as second:
        keys = list(first.keys())
        stems = [key.removesuffix(".lora_A.weight") for key in keys if key.endswith(".lora_A.weight")]
        shapes = {
            stem: (
                first.get_slice(f"{stem}.lora_B.weight").get_shape()[0],
                first.get_slice(f"{stem}.lora_A.weight").get_shape()[1],
            )
            for stem in stems
        }
        total = 0.0
        counts = Counter(shapes.values())
        for shape, count in counts.items():
            stem = next(stem for stem in stems if shapes[stem] == shape)
            factors = [
                tuple(file.get_tensor(f"{stem}.lora_{part}.weight").float() for part in "BA")
                for file in (first, second)
            ]
            begin = time.perf_counter()
            change = sum(up @ down for up, down in factors)
            left, values, right = torch.linalg.svd(change, full_matrices=False)
            _ = left[:, :RANK] @ torch.diag(values[:RANK]), right[:RANK]
            total += count * (time.perf_counter() - begin)
    return total, len(stems), len(counts)


def by_whole_changes(pair: Sequence[object]) -> None:
    """Time the methods that build every change, prune it and bring the outcome to a rank; print the memory as well."""
    for method in ("ties_svd", "dare_ties_svd"):
        command = [PROGRAM, "merge", *pair, "--method", method, "--density", 0.5, "--rank", RANK, "--overwrite"]
        begin = time.perf_counter()
        memory = peak_memory(*command)
        print(f"merge, {method:17} {time.perf_counter() - begin:6.1f} s   {memory:.2f} GB")


def main() -> None:
    """Run the commands in turns and print the least time of each, with ratios."""
    with tempfile.TemporaryDirectory() as name:
        from benchmarks.full_size import write_unet_adapters

        folder = Path(name)
        one, two = paths = write_unet_adapters(folder)
        size = sum(path.stat().st_size for path in paths)
        out = folder / "out.safetensors"
        pair = ["--lora", one, "--lora", f"{two}:0.7", "--out", out]
        ways: dict[str, list[object]] = {
            "cp of both": ["sh", "-c", f"cp {one} {folder}/a; cp {two} {folder}/b"],
            "cp of one": ["cp", one, folder / "a"],
            "import torch": [sys.executable, "-c", "import torch"],
            "merge, cat": [PROGRAM, "merge", *pair],
            f"merge, svd to rank {RANK}": [PROGRAM, "merge", *pair, "--rank", RANK],
            "resize --rank 16": [PROGRAM, "resize", one, "--out", out, "--rank", 16],
        }
        from benchmarks.fuse import forget

        print(f"{size / 1e6:.0f} MB in two files of {RANK} ranks")
        least: dict[str, float] = {}
        for where in ("disk", "memory"):
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, command in ways.items():
                    out.unlink(missing_ok=True)
                    if where == "disk":
                        forget(folder)
                    times[way].append(seconds(*command))
            least = {way: min(taken) for way, taken in times.items()}
            start = least["import torch"]
            for way, command in ways.items():
                text = f"from {where:6} {way:24} {least[way]:6.2f} s"
                if command[0] == PROGRAM:
                    copied = least["cp of one" if way.startswith("resize") else "cp of both"]
                    text += f"   without import torch {(least[way] - start) / copied:5.1f} x cp"
                print(text)
        for way in ways:
            if ways[way][0] == PROGRAM:
                out.unlink()
                print(f"{way:36} {peak_memory(*ways[way]):.2f} GB")
        by_whole_changes(pair)
        total, layers, timed = dense(paths)
        print(
            f"dense svd                {total:6.0f} s for {layers} layers, extrapolated from {timed}, one a shape: "
            f"{total / least[f'merge, svd to rank {RANK}']:.0f} x as long as the merge from file to file"
        )


if __name__ == "__main__":
    main()
