"""Measure the embedded model: does it draw what it is told, and do the adapters do what they are for?

Run as `python -m lorakit_cli.demo.training.evaluate JUDGE [COUNT]`; the pictures' seeds and half of the prompts are
unseen in training.
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.generation import defaults_of
from lorakit_cli.demo.training.judge import Judge, cell_variance, load
from lorakit_cli.demo.training.pictures import to_tensor
from lorakit_cli.demo.training.words import TRIGGERS, Scene, held_out_scenes, plain_prompt, training_scenes
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.pipeline import open_pipeline
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.quiet import hushed

FIRST_SEED = 1_000_000
BATCH = 24
SETTINGS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    # adapters, and the triggers in the prompt
    ((), ()),
    ((), ("toy", "pixel")),
    (("toy:1",), ("toy",)),
    (("toy:0.5",), ("toy",)),
    (("toy:1",), ()),
    (("pixel:0.25",), ("pixel",)),
    (("pixel:0.5",), ("pixel",)),
    (("pixel:0.75",), ("pixel",)),
    (("pixel:1",), ("pixel",)),
    (("pixel:1",), ()),
    (("toy:1", "pixel:0.5"), ("toy", "pixel")),
    (("toy:1", "pixel:1"), ("toy", "pixel")),
)


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of pictures that show what was asked for, a face, and cells; and the variance inside cells."""

    shape: float
    fg: float
    bg: float
    face: float
    cells: float
    variance: float


def scenes_and_seeds(count: int) -> list[tuple[Scene, int]]:
    """Choose prompts, every other one a combination held out of training, each with an unseen seed."""
    rng = random.Random("evaluation")
    pools = (held_out_scenes(), training_scenes())
    return [(rng.choice(pools[k % 2]), FIRST_SEED + k) for k in range(count)]


class Studio:
    """The embedded pipeline, kept loaded while adapters change."""

    def __init__(self) -> None:
        self.base = make_plan("demo", []).plan.base
        self.settings = defaults_of(self.base)
        with hushed():
            self.pipeline: Any = open_pipeline(self.base, torch.device("cpu"), torch.float32)
        self.weights = FusedWeights(self.pipeline, self.base)

    def draw(self, specs: Sequence[str], prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> torch.Tensor:
        """Draw pictures `[count, 3, 64, 64]` in -1..1, in batches, with the base's own steps and guidance."""
        self.weights.apply(make_plan("demo", [AdapterSpec.parse(spec) for spec in specs]).plan)
        pictures = []
        for begin in range(0, len(prompts), BATCH):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[begin : begin + BATCH]]
            made = self.pipeline(
                list(prompts[begin : begin + BATCH]),
                generator=generators,
                num_inference_steps=self.settings.steps,
                guidance_scale=self.settings.guidance,
                output_type="np",
                **options,
            )
            pictures.append((made.images * 255).round().astype(np.uint8))
        return to_tensor(np.concatenate(pictures))


def score(judge: Judge, pictures: torch.Tensor, scenes: Sequence[Scene]) -> Score:
    """Judge pictures against the scenes they were to show."""
    answers = judge.answers(pictures)

    def share(name: str, wanted: Sequence[object]) -> float:
        return sum(a == b for a, b in zip(answers[name], wanted, strict=True)) / len(scenes)

    everything = [True] * len(scenes)
    return Score(
        share("shape", [scene[0] for scene in scenes]),
        share("fg", [scene[1] for scene in scenes]),
        share("bg", [scene[2] for scene in scenes]),
        share("face", everything),
        share("cells", everything),
        float(cell_variance(pictures).mean()),
    )


def prompt_of(scene: Scene, triggers: Sequence[str]) -> str:
    """Write the prompt of a scene with trigger words in front."""
    return ", ".join([*(TRIGGERS[name] for name in triggers), plain_prompt(scene)])


def main() -> None:
    """Print a table of scores."""
    judge = load(Path(sys.argv[1]))
    chosen = scenes_and_seeds(int(sys.argv[2]) if len(sys.argv) > 2 else 240)
    scenes, seeds = [scene for scene, _ in chosen], [seed for _, seed in chosen]
    hidden = set(held_out_scenes())
    studio = Studio()
    write = sys.stdout.write
    write("| adapters | triggers in the prompt | shape | colour | background | face | cells | variance in cells |\n")
    write("|---|---|---|---|---|---|---|---|\n")
    for specs, triggers in SETTINGS:
        pictures = studio.draw(specs, [prompt_of(scene, triggers) for scene in scenes], seeds)
        rows = [("", pictures, scenes)]
        if not specs and not triggers:
            keep = [k for k, scene in enumerate(scenes) if scene in hidden]
            rows.append((", unseen combinations only", pictures[keep], [scenes[k] for k in keep]))
        for label, some, shown in rows:
            result = score(judge, some, shown)
            name = (" ".join(specs) or "none") + label
            words = ", ".join(TRIGGERS[name] for name in triggers) or "-"
            shares = " | ".join(
                f"{100 * x:.1f} %" for x in (result.shape, result.fg, result.bg, result.face, result.cells)
            )
            write(f"| {name} | {words} | {shares} | {result.variance:.1f} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
