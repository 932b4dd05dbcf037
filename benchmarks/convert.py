"""How long a convert that only renames takes, beside a `cp` of the same file in the same run.

The adapter is one for all of SDXL in kohya's layout: 986 layers in fp16 with their alphas, 220 MB of random values,
without hashes and with them (a file that states its hashes is hashed anew). Every byte is read back and compared, which
`cp` does not do. Each way in turns, and of each the least of several rounds: what comes on top is other work of the
machine.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.recognition import published

PROGRAM = Path(sys.executable).parent / "lorakit"
PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
LAYERS = 986
RANK = 29
ROUNDS = 7


def shapes() -> dict[str, list[int]]:
    """Give the shapes of the factors of linear layers and convolutions of SDXL, under kohya's names."""
    (sdxl,) = (known for known in ARCHITECTURES if known.name == "SDXL")
    layers: dict[str, tuple[int, ...]] = {}
    for component in published(sdxl, "SDXL").components.values():
        native = {name.parts[0]: name.text for name in component.names} if component.name == "unet" else {}
        for module in component.modules:
            parameter = f"{module}.weight"
            if parameter in component.tensors and len(component.shape(parameter)) > 1 and "embed" not in module:
                stem = PREFIXES[component.name] + native.get(module, module).replace(".", "_")
                layers[stem] = component.shape(parameter)
    factors: dict[str, list[int]] = {}
    for stem, (rows, *columns) in sorted(list(layers.items())[-LAYERS:]):
        factors[f"{stem}.alpha"] = []
        factors[f"{stem}.lora_down.weight"] = [RANK, *columns]
        factors[f"{stem}.lora_up.weight"] = [rows, RANK, *[1] * (len(columns) - 1)]
    return factors


def write_adapter(path: Path, *, with_hash: bool) -> int:
    """Write an adapter of random values; give its size."""
    tensors: dict[str, object] = {}
    place = 0
    data = bytearray()
    for name, shape in shapes().items():
        size = 2 * math.prod(shape)
        tensors[name] = {"dtype": "F16", "shape": shape, "data_offsets": [place, place + size]}
        # 16 is a plain number in fp16; any 16 bits below infinity are one.
        data += b"\x00\x4c" if not shape else bytes(byte & 0x3F for byte in os.urandom(64)) * (size // 64 + 1)
        del data[place + size :]
        place += size
    metadata = {"ss_network_module": "networks.lora", "ss_base_model_version": "sdxl_base_v1-0"}
    if with_hash:
        metadata["sshs_model_hash"] = hashlib.sha256(data).hexdigest()
    header = json.dumps({"__metadata__": metadata} | tensors).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path.stat().st_size


def seconds(*command: object) -> float:
    """Time one run of a program."""
    begin = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return time.perf_counter() - begin


def flush(path: Path) -> float:
    """Time how long a file still takes to the disk."""
    begin = time.perf_counter()
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - begin


def main() -> None:
    """Run the ways in turns and print the least time of each: in memory, and from the disk until on the disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, hashed, out = (folder / f"{part}.safetensors" for part in ("plain", "hashed", "out"))
        size = write_adapter(plain, with_hash=False)
        write_adapter(hashed, with_hash=True)
        ways: dict[str, list[object]] = {"cp": ["cp", plain, out]}
        for source in (plain, hashed):
            for layout in ("diffusers", "comfy"):
                ways[f"{source.stem} to {layout}"] = [PROGRAM, "convert", source, "--to", layout, "--out", out]
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, command in ways.items():
                source = Path(str(command[1 if way == "cp" else 2]))
                source.read_bytes()
                in_memory = seconds(*command)
                flush(out)
                out.unlink()
                forget(source)
                times[way].append((in_memory, seconds(*command) + flush(out)))
                out.unlink()
        print(f"{size / 1e6:.0f} MB, {LAYERS} layers; the program's start alone {start():.3f} s")
        least = {way: [min(column) for column in zip(*taken, strict=True)] for way, taken in times.items()}
        for way, (in_memory, on_disk) in least.items():
            ratios = in_memory / least["cp"][0], on_disk / least["cp"][1]
            memory = f"in memory {in_memory:.3f} s, {ratios[0]:.1f} x cp"
            print(f"{way:20} {memory}   from disk until on disk {on_disk:.3f} s, {ratios[1]:.1f} x cp")


def forget(path: Path) -> None:
    """Let the system forget the contents of a file, so that it comes from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start() -> float:
    """Time a command that does nothing but look at a few small files."""
    return min(seconds(PROGRAM, "list-adapters") for _ in range(ROUNDS))


if __name__ == "__main__":
    main()
