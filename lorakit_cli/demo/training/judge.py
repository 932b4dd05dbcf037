"""A small classifier that says what a picture shows; trained on the drawings, never on generated pictures."""

import itertools
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from lorakit_cli.demo.training.drawing import CELL, SIZE
from lorakit_cli.demo.training.pictures import STYLES, to_tensor, training_set
from lorakit_cli.demo.training.words import COLOURS, SHAPES

STEPS = 900
BATCH = 64
HEADS = {"shape": len(SHAPES), "fg": len(COLOURS), "bg": len(COLOURS), "face": 2, "cells": 2}


class Judge(nn.Module):
    """Four strided convolutions and one linear head per question."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 40, 48, 48)
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 3, 2, 1), nn.GroupNorm(4, outer), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.heads = nn.ModuleDict({name: nn.Linear(48 * 16, count) for name, count in HEADS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Give the logits of every head for pictures `[count, 3, 64, 64]` in -1..1."""
        features = self.body(pictures)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def answers(self, pictures: Tensor) -> dict[str, list[str | bool]]:
        """Say shape, colours, face and cells of each picture."""
        best = {name: logits.argmax(1).tolist() for name, logits in self(pictures).items()}
        colours = list(COLOURS)
        return {
            "shape": [SHAPES[k] for k in best["shape"]],
            "fg": [colours[k] for k in best["fg"]],
            "bg": [colours[k] for k in best["bg"]],
            "face": [bool(k) for k in best["face"]],
            "cells": [bool(k) for k in best["cells"]],
        }


def cell_variance(pictures: Tensor) -> Tensor:
    """Give the mean variance inside the 8x8-pixel cells of each picture, in squared 8-bit units."""
    count = SIZE // CELL
    cells = (pictures * 127.5).reshape(len(pictures), 3, count, CELL, count, CELL)
    return cells.var(dim=(3, 5), correction=0).mean(dim=(1, 2, 3))


def _worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, shift and soil the drawings a little, as generated pictures are."""
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand((len(pictures), 1, 1, 1), generator=generator) * 0.7
    tint = torch.randn((len(pictures), 3, 1, 1), generator=generator) * 0.04
    noise = torch.randn(pictures.shape, generator=generator) * 0.05
    return pictures + share * (blurred - pictures) + tint + noise


def train(work: Path) -> float:
    """Train the judge, write it to `judge.safetensors`, and give its accuracy on drawings it has not seen."""
    torch.manual_seed(5)
    generator, rng = torch.Generator().manual_seed(5), np.random.default_rng(5)
    judge = Judge()
    sets = {style: training_set(style, work) for style in STYLES}
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.01)

    def batch(held_out: bool) -> tuple[Tensor, dict[str, Tensor]]:
        pictures, truth = [], []
        for _ in range(BATCH):
            style = STYLES[rng.integers(len(STYLES))]
            scenes, drawn = sets[style]
            index = (
                rng.integers(len(scenes) // 10) * 10
                if held_out
                else rng.integers(len(scenes) // 10) * 10 + rng.integers(1, 10)
            )
            shape, fg, bg = scenes[index]
            colours = list(COLOURS)
            pictures.append(drawn[index])
            truth.append(
                (
                    SHAPES.index(shape),
                    colours.index(fg),
                    colours.index(bg),
                    style in ("toy", "both"),
                    style in ("pixel", "both"),
                )
            )
        columns = torch.tensor(truth, dtype=torch.long).unbind(1)
        return to_tensor(np.stack(pictures)), dict(zip(HEADS, columns, strict=True))

    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / STEPS)
        pictures, truth = batch(held_out=False)
        logits = judge(_worn(pictures, generator))
        loss = torch.stack([functional.cross_entropy(logits[name], truth[name]) for name in HEADS]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    judge.eval()
    with torch.no_grad():
        right = []
        for _ in range(20):
            pictures, truth = batch(held_out=True)
            logits = judge(_worn(pictures, generator))
            right.append(torch.stack([logits[name].argmax(1) == truth[name] for name in HEADS]).float().mean(1))
    accuracy = torch.stack(right).mean(0)
    with (work / "judge.log").open("a") as file:
        file.write(" ".join(f"{name} {value:.4f}" for name, value in zip(HEADS, accuracy.tolist(), strict=True)) + "\n")
    save_file({name: value.half() for name, value in judge.state_dict().items()}, work / "judge.safetensors")
    return float(accuracy.min())


def load(path: Path) -> Judge:
    """Load a trained judge."""
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return judge.eval()
