"""What a picture costs beside the scripts that people write with diffusers, on one base.

    generate.py [BASE TOY PIXEL] [--steps N] [--size N]

Without a base: the embedded model at its own size and 20 steps. Whole programs first, in turns, start and imports
included: a script without any adapter, the usual script with two adapters, and `lorakit generate` with the same two.
Then in this process, imports behind it: the time of one picture from the command's request to its file, and the time of
a denoising step of the bare base, with two adapters attached as `load_lora_weights` and `set_adapters` leave them, and
in a session of lorakit.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

import lorakit_cli
from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.service.generating import generate
from lorakit_cli.service.pipeline import open_pipeline
from lorakit_cli.service.quiet import hushed
from lorakit_cli.service.request import GenerateRequest, prepare
from lorakit_cli.service.session import Session

PROGRAM = Path(sys.executable).with_name("lorakit")
DEMO = Path(lorakit_cli.__file__).parent / "demo"
PROMPT = "a yellow heart on a blue background"
WEIGHTS = (1.0, 0.5)
WHOLE_ROUNDS, STEP_ROUNDS = 5, 7
SCRIPT = """
import sys, torch
from diffusers import DiffusionPipeline
base, out, prompt, steps, size, *adapters = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(base)
for number, path in enumerate(adapters):
    pipeline.load_lora_weights(path, adapter_name=f"a{number}")
if adapters:
    pipeline.set_adapters(["a0", "a1"], adapter_weights=[1.0, 0.5])
size = {"height": int(size), "width": int(size)} if size != "None" else {}
generator = torch.Generator("cpu").manual_seed(0)
pipeline(prompt, num_inference_steps=int(steps), generator=generator, **size).images[0].save(out)
"""


class Case:
    """A base, its two adapters, and the pictures to be made of them."""

    def __init__(self, base: Path, adapters: tuple[Path, Path], steps: int, size: int | None) -> None:
        self.base, self.adapters, self.steps, self.size = base, adapters, steps, size

    def script(self, out: Path, *adapters: Path) -> list[object]:
        """Give the command that runs the script of somebody who uses diffusers."""
        return [sys.executable, "-c", SCRIPT, self.base, out, PROMPT, self.steps, self.size, *adapters]

    def command(self, out: Path) -> list[object]:
        """Give the command of lorakit for the same picture with both adapters."""
        size = ["--width", self.size, "--height", self.size] if self.size else []
        loras = [
            word for path, weight in zip(self.adapters, WEIGHTS, strict=True) for word in ("-l", f"{path}:{weight}")
        ]
        rest = ["--steps", self.steps, "--seed", 0, "--out", out, "--overwrite"]
        return [PROGRAM, "generate", PROMPT, "--base", self.base, *loras, *size, *rest]

    def request(self, out: Path) -> GenerateRequest:
        """Give what the command asks for."""
        return GenerateRequest(
            PROMPT,
            base=str(self.base),
            adapters=[
                AdapterSpec.parse(f"{path}:{weight}") for path, weight in zip(self.adapters, WEIGHTS, strict=True)
            ],
            settings=Settings(width=self.size, height=self.size, steps=self.steps),
            seeds=["0"],
            out=str(out),
            overwrite=True,
        )


def whole(case: Case, folder: Path) -> None:
    """Time whole programs in turns; print medians and the medians of ratios within a turn."""
    ways = {
        "script without adapters": case.script(folder / "bare.png"),
        "script with two adapters": case.script(folder / "script.png", *case.adapters),
        "lorakit with two adapters": case.command(folder / "lorakit.png"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WHOLE_ROUNDS + 1):
        for name, words in ways.items():
            begin = time.perf_counter()
            subprocess.run([str(word) for word in words], check=True, capture_output=True)
            if turn:  # the first fills caches
                times[name].append(time.perf_counter() - begin)
    bare = times["script without adapters"]
    for name, taken in times.items():
        print(f"{name:28} {statistics.median(taken):6.2f} s   {_ratio(taken, bare):.2f} x the bare script")


def picture(case: Case, folder: Path) -> None:
    """Time a picture from the request to its file, the base loaded for it; the second time all is imported."""
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        generate(prepare(case.request(folder / "picture.png")))
        taken.append(time.perf_counter() - begin)
    print(f"{'one picture after imports':28} {min(taken[1:]):6.2f} s   base loaded and adapters fused for it")


def steps(case: Case) -> None:
    """Time a denoising step of the bare base, with adapters attached, and in a session, in turns."""
    device = torch.device("cpu")
    prepared = prepare(case.request(Path("unused.png")))
    base = prepared.plan.base
    with hushed():
        session = Session(base, Loading())
        session.put_in(prepared.plan)
        bare = open_pipeline(base, device, session.dtype)
        attached: Any = DiffusionPipeline.from_pretrained(str(case.base))
        attached.set_progress_bar_config(disable=True)
        for number, path in enumerate(case.adapters):
            attached.load_lora_weights(str(path), adapter_name=f"a{number}")
        attached.set_adapters(["a0", "a1"], adapter_weights=list(WEIGHTS))

        def run(pipeline: Any) -> None:
            size = {"height": case.size, "width": case.size} if case.size else {}
            generator = torch.Generator("cpu").manual_seed(0)
            pipeline(PROMPT, num_inference_steps=case.steps, generator=generator, output_type="latent", **size)

        ways: dict[str, tuple[torch.nn.Module, Callable[[], object]]] = {
            "bare base": (bare.unet, lambda: run(bare)),
            "two adapters attached": (attached.unet, lambda: run(attached)),
            "session with two fused": (
                session.pipeline.unet,
                lambda: session.values(prepared.pictures[0], output="latent"),
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(STEP_ROUNDS + 1):
            for name, (denoiser, draw) in ways.items():
                with _between_calls(denoiser) as between:
                    draw()
                if turn:
                    times[name].append(statistics.median(between()))
    for name, taken in times.items():
        ratio = _ratio(taken, times["bare base"])
        print(f"{name:28} {statistics.median(taken) * 1000:6.1f} ms a step   {ratio:.3f} x the bare base")


@contextmanager
def _between_calls(denoiser: torch.nn.Module) -> Iterator[Callable[[], list[float]]]:
    """Note when a denoiser is called; give the seconds from each call to the next, which are those of a step."""
    moments: list[float] = []
    hook = denoiser.register_forward_pre_hook(lambda *_: moments.append(time.perf_counter()))
    try:
        yield lambda: [later - sooner for sooner, later in pairwise(moments)]
    finally:
        hook.remove()


def _ratio(taken: list[float], other: list[float]) -> float:
    return statistics.median(one / two for one, two in zip(taken, other, strict=True))


def main() -> None:
    """Time whole programs, a picture and its steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", type=Path, metavar="BASE TOY PIXEL")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int)
    given = parser.parse_args()
    base, *adapters = given.files or (DEMO / "base", *sorted((DEMO / "adapters").glob("*.safetensors")))
    case = Case(base.absolute(), (adapters[0].absolute(), adapters[1].absolute()), given.steps, given.size)
    with tempfile.TemporaryDirectory() as folder:
        whole(case, Path(folder))
        picture(case, Path(folder))
    steps(case)


if __name__ == "__main__":
    main()
