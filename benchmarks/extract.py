"""How long `lorakit extract` takes on a full-size SD1.5, beside dense decompositions, in one run.

    extract.py [FOLDER]

The fine-tune is the base with an adapter of rank 32 fused and noise on all other layers, in fp16, as a trained model
has: no layer is of low rank alone. FOLDER is kept, and may hold `base` and `tuned` (2 GB each) already. What kohya's
extract_lora_from_models.py does is decompose the difference of each layer whole with `torch.linalg.svd`. This is timed
on one layer of each shape up to a size, beyond that as the cube of what it is, and multiplied by how many layers have
it: all of them would take an hour.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent))

PROGRAM = Path(sys.executable).with_name("lorakit")
RANK = 32
# Values of a matrix that are decomposed at once; larger ones are reckoned.
MOST = 1280 * 2560


def write_models(folder: Path) -> tuple[Path, Path]:
    """Write a base and a fine-tune of it, where they are not there."""
    from benchmarks.full_size import write_pipeline

    base, tuned = folder / "base", folder / "tuned"
    if not base.exists():
        write_pipeline(base, "sd15")
    if not tuned.exists():
        write_pipeline(tuned, "sd15")
        generator = torch.Generator().manual_seed(1)
        for path in sorted([*tuned.glob("unet/*.safetensors"), *tuned.glob("text_encoder/*.safetensors")]):
            tensors = load_file(path)
            for name, value in tensors.items():
                if value.dim() > 1 and "embedding" not in name:
                    tensors[name] = (value.float() + _change(value, generator)).half()
            save_file(tensors, path, {"format": "pt"})
    return base, tuned


def _change(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    rows, columns = value.flatten(1).shape
    up, down = torch.randn(rows, RANK, generator=generator), torch.randn(RANK, columns, generator=generator)
    noise = torch.randn(rows, columns, generator=generator)
    return ((up @ down) * 2e-3 + noise * 1e-3).mul(columns**-0.5).reshape(value.shape)


def run(*command: object) -> tuple[float, float]:
    """Run a program; give seconds, and the most memory that it holds, in GB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], check=True, capture_output=True, text=True)
    return time.perf_counter() - begin, int(done.stdout) * 1024 / 1e9


def dense(base: Path, tuned: Path) -> tuple[float, int, int, int]:
    """Time decomposing differences whole; give seconds for all layers, layers, shapes, and shapes that were timed."""
    counts: Counter[tuple[int, ...]] = Counter()
    changes: dict[tuple[int, ...], torch.Tensor] = {}
    for part in ("unet", "text_encoder"):
        (one,), (two,) = ((folder / part).glob("*.safetensors") for folder in (base, tuned))
        before, after = load_file(one), load_file(two)
        for name, value in before.items():
            if value.dim() > 1 and "embedding" not in name:
                shape = tuple(value.flatten(1).shape)
                counts[shape] += 1
                if shape not in changes and value.numel() <= MOST:
                    changes[shape] = (after[name].float() - value.float()).flatten(1)
    rates, total = [], 0.0
    for shape, change in changes.items():
        begin = time.perf_counter()
        torch.linalg.svd(change, full_matrices=False)
        taken = time.perf_counter() - begin
        rates.append((_work(shape), taken))
        total += counts[shape] * taken
    largest = max(rates)
    total += sum(
        count * largest[1] * _work(shape) / largest[0] for shape, count in counts.items() if shape not in changes
    )
    return total, sum(counts.values()), len(counts), len(changes)


def _work(shape: tuple[int, ...]) -> float:
    return float(max(shape)) * min(shape) ** 2


def main(folder: Path) -> None:
    """Extract by rank and by energy, decompose a sample whole, and print what each took."""
    base, tuned = write_models(folder)
    out = folder / "out.safetensors"
    taken = {}
    for rule in (["--rank", RANK], ["--energy", 0.6]):
        out.unlink(missing_ok=True)
        asked = ["--base", base, "--tuned", tuned, "--out", out, *rule, "-q"]
        taken[rule[0]], memory = run(PROGRAM, "extract", *asked)
        print(f"extract {' '.join(map(str, rule)):13} {taken[rule[0]]:6.1f} s   {memory:.2f} GB   "
              f"{out.stat().st_size / 1e6:.0f} MB written")  # fmt: skip
    total, layers, shapes, timed = dense(base, tuned)
    print(
        f"dense svd            {total:6.0f} s for {layers} layers, extrapolated from {timed} of {shapes} shapes: "
        f"{total / taken['--rank']:.0f} x as long as --rank {RANK} from folder to file"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
