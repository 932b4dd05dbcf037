"""How long the norms of an SDXL adapter take: from Gram matrices of its factors, and from its deltas, side by side.

The adapter is that of kohya's default, 722 linear layers, at rank 32 in fp16. Each of its eight shapes is timed and
counted as often as it occurs, so the totals are extrapolated; reading the file is not in them. On one thread, since
several wait for each other where a machine is busy.
"""

import statistics
import time
from collections.abc import Callable

import torch

from lorakit_cli.kinds.lora import LORA
from lorakit_cli.kinds.norms import frobenius, lora_norm

# (out, in): how many; 10 transformer blocks are 640 wide, 60 are 1280, in 5 and 6 places.
LAYERS = {
    (640, 640): 10 * 6 + 5 * 2,
    (640, 2048): 10 * 2,
    (5120, 640): 10,
    (640, 2560): 10,
    (1280, 1280): 60 * 6 + 6 * 2,
    (1280, 2048): 60 * 2,
    (10240, 1280): 60,
    (1280, 5120): 60,
}
RANK = 32
ROUNDS = 7


def seconds(measure: Callable[[], torch.Tensor]) -> float:
    """Time one measurement."""
    begin = time.perf_counter()
    measure()
    return time.perf_counter() - begin


def main() -> None:
    """Time both ways in turns, so that a busy machine is busy for both, and print medians and their sums."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    totals = [0.0, 0.0]
    for (rows, columns), count in LAYERS.items():
        factors = {"up": torch.randn(rows, RANK).half(), "down": torch.randn(RANK, columns).half()}

        def from_factors(factors: dict[str, torch.Tensor] = factors) -> torch.Tensor:
            return lora_norm(factors, 0.5)

        def from_delta(factors: dict[str, torch.Tensor] = factors) -> torch.Tensor:
            wide = {role: factor.float() for role, factor in factors.items()}
            return frobenius(LORA.delta(wide, 0.5, None, {}))

        apart = abs(float(from_factors() / from_delta()) - 1)
        times = [(seconds(from_factors), seconds(from_delta)) for _ in range(ROUNDS)]
        medians = [statistics.median(way) for way in zip(*times, strict=True)]
        totals = [total + count * median for total, median in zip(totals, medians, strict=True)]
        gram, dense = (1000 * median for median in medians)
        print(f"{rows:5} x {columns:4} {count:4} times   {gram:7.2f} ms   {dense:7.2f} ms   apart by {apart:.0e}")
    gram, dense = totals
    layers = sum(LAYERS.values())
    print(f"{layers} layers of rank {RANK}, extrapolated: factors {gram:.2f} s, deltas {dense:.1f} s")
    print(f"{dense / gram:.0f} x as fast from the factors")


if __name__ == "__main__":
    main()
