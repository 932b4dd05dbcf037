"""What a grid costs beyond its pictures: a 5x5 grid over weights against its bare parts, measured in turns.

The parts: loading the base once, drawing as many pictures, with no change of weights and with one before each. All run
in this process with everything imported, so that start-up counts for none; the embedded model at its own 20 steps.
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


def bare_parts(*, changing: bool) -> float:
    """Time one load and as many pictures one after another; `changing`: other weights in all tensors for each."""
    begin = time.perf_counter()
    plans = [
        prepare(
            GenerateRequest(PROMPT, adapters=[AdapterSpec("toy", weight), AdapterSpec("pixel", weight)], seeds=["0"])
        )
        for weight in (0.4, 0.8)
    ]
    with hushed():
        session = Session(plans[0].plan.base, Loading())
        session.put_in(plans[0].plan)
        for number in range(CELLS):
            if changing:
                session.put_in(plans[number % 2].plan)
            session.draw(plans[0].pictures[0])
    return time.perf_counter() - begin


def main() -> None:
    """Time all in turns, so that a busy machine is busy for all, and print medians and their ratios."""
    times = [(whole_grid(), bare_parts(changing=False), bare_parts(changing=True)) for _ in range(ROUNDS)]
    grid, still, changed = (statistics.median(way) for way in zip(*times, strict=True))
    print(f"{CELLS} cells of a grid {grid:.2f} s")
    for what, seconds, place in (("without fusing", still, 1), ("each fused anew", changed, 2)):
        ratio = statistics.median(one[0] / one[place] for one in times)
        print(f"{CELLS} pictures and one load, {what} {seconds:.2f} s: the grid takes {ratio:.3f} x as long")


if __name__ == "__main__":
    main()
