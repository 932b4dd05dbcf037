"""What a grid costs beyond its pictures: a 5x5 grid over weights against its bare parts, measured in turns.

The parts: loading the base once, drawing as many pictures without any change of weights. Both run in this process with
everything imported, so that start-up counts for neither; the embedded model at its own 20 steps.
"""

import statistics
import tempfile
import time
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.loading import Loading
from lorakit_cli.service.grids.drawing import draw_grid
from lorakit_cli.service.grids.grid_request import GridRequest, prepare_grid
from lorakit_cli.service.quiet import hushed
from lorakit_cli.service.request import GenerateRequest, prepare
from lorakit_cli.service.session import Session

PROMPT = "toy_face, pixel art, a yellow heart on a blue background"
WEIGHTS = "0.2:1:0.2"
CELLS = 25
ROUNDS = 3


def whole_grid() -> float:
    """Time a grid from its request to its sheet and page."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        axes = (f"toy={WEIGHTS}", f"pixel={WEIGHTS}")
        draw_grid(prepare_grid(GridRequest(GenerateRequest(PROMPT), str(Path(folder) / "grid"), axes, page=True)))
    return time.perf_counter() - begin


def bare_parts() -> float:
    """Time one load, one fuse, and as many pictures one after another."""
    begin = time.perf_counter()
    request = GenerateRequest(PROMPT, adapters=[AdapterSpec.parse("toy"), AdapterSpec.parse("pixel")], seeds=["0"])
    prepared = prepare(request)
    with hushed():
        session = Session(prepared.plan.base, Loading())
        session.put_in(prepared.plan)
        for _ in range(CELLS):
            session.draw(prepared.pictures[0])
    return time.perf_counter() - begin


def main() -> None:
    """Time both in turns, so that a busy machine is busy for both, and print medians and their ratio."""
    times = [(whole_grid(), bare_parts()) for _ in range(ROUNDS)]
    grid, parts = (statistics.median(way) for way in zip(*times, strict=True))
    ratio = statistics.median(one / other for one, other in times)
    print(f"{CELLS} cells of a grid {grid:.2f} s, {CELLS} pictures and one load {parts:.2f} s: {ratio:.3f} x")


if __name__ == "__main__":
    main()
