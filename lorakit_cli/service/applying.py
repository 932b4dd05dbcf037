"""Put a plan into a loaded pipeline: fused into its weights in memory, and exactly taken out again."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any

import torch

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.delta import add_delta, as_matrix, blocks, delta_rows
from lorakit_cli.core.match import Part, Target
from lorakit_cli.core.plan import Plan, Term
from lorakit_cli.errors import BaseModelError, LoraFileError
from lorakit_cli.service.lanes import run_side_by_side
from lorakit_cli.service.pipeline import LiveComponent, View
from lorakit_cli.service.tensors import KeptTensors, TensorReader

# Threads that hand work of fewer values to each other wait longer than they compute.
_SMALL = 1 << 16


class FusedWeights:
    """The weights of a loaded pipeline with a plan added in memory.

    Every fused value is computed from what the base's file holds, not from the live tensor: the sum is rounded once
    from the stored precision, changing weights never compounds, and only what is small is kept, for speed. The
    parameters are those that the pipeline has when this is made; they may be offloaded afterwards.
    """

    def __init__(self, pipeline: Any, base: BaseIndex) -> None:
        self._base = base
        self._device: torch.device = pipeline.device
        self._live = {
            name: LiveComponent(pipeline, component)
            for name, component in base.components.items()
            if getattr(pipeline, name, None) is not None
        }
        self._applied: dict[Target, tuple[Term, ...]] = {}
        self._kept = KeptTensors()

    @torch.no_grad()
    def apply(self, plan: Plan) -> int:
        """Make the live weights base + plan, rewriting only tensors whose terms differ; count the rewritten.

        Raises LoraFileError where a sum is not finite; the base is then restored first.
        """
        wanted = dict(plan.changes())
        self._restore([target for target in self._applied if target not in wanted])
        changed = {target: terms for target, terms in wanted.items() if self._applied.get(target) != terms}
        live = {target: self._views(target) for target in changed}
        sums: dict[Target, torch.Tensor] = {}
        with TensorReader(self._device, self._kept) as reader:

            def rewrite(*targets: Target) -> int:
                for target in targets:
                    sums[target] = self._rewrite(reader, target, changed[target], live[target])
                return len(targets)

            small = [target for target, views in live.items() if _size(views) <= _SMALL]
            jobs = [partial(rewrite, target) for target, views in live.items() if _size(views) > _SMALL]
            if small:
                jobs.append(partial(rewrite, *small))
            # Whatever ends it early, nobody knows then what was written, and no terms are equal to none.
            self._applied |= dict.fromkeys(changed, ())
            run_side_by_side(jobs, self._device)
        self._applied |= changed
        self._require_finite(changed, sums)
        return len(changed)

    def _rewrite(
        self, reader: TensorReader, target: Target, terms: tuple[Term, ...], views: Sequence[View]
    ) -> torch.Tensor:
        """Put the sum of the base's stored tensor and its terms where it lives; give the sum of its values."""

        def load_base(part: Part) -> torch.Tensor:
            return self._read_base(reader, part.target)

        stored = self._read_base(reader, target)
        base, dtype = stored.reshape(as_matrix(stored.shape)), views[0].matrix.dtype
        rows = delta_rows(terms, stored.shape, reader.factors, load_base)
        sums = []
        for start, stop in blocks(stored.shape, stored.device):
            value = add_delta(base[start:stop], rows(start, stop), dtype)
            sums.append(value.sum(dtype=torch.float32))
            _put(value, start, views)
        return sums[0] if len(sums) == 1 else torch.stack(sums).sum()

    def _require_finite(self, changed: Mapping[Target, tuple[Term, ...]], sums: Mapping[Target, torch.Tensor]) -> None:
        """Restore the base and raise LoraFileError where a rewritten tensor holds a value that is not finite."""
        # One look for all tensors, so that a GPU is not made to wait in the loop; a sum is finite only where all are.
        totals = torch.stack([sums[target] for target in changed]).tolist() if changed else ()
        for (target, terms), total in zip(changed.items(), totals, strict=True):
            if not isfinite(total) and not self._is_finite(target):
                self.restore()
                names = " and ".join(dict.fromkeys(term.adapter for term in terms))
                raise LoraFileError(
                    f"{target.component}.{target.tensor} with {names} is not finite: the adapter holds NaN or "
                    "infinity, or the sum does not fit the dtype; try a smaller weight or --dtype float32"
                )

    @torch.no_grad()
    def restore(self) -> None:
        """Put the base's own values back, bit for bit."""
        self._restore(list(self._applied))

    def _restore(self, targets: list[Target]) -> None:
        with TensorReader(self._device, self._kept) as reader:
            for target in targets:
                stored = self._read_base(reader, target)
                _put(stored.reshape(as_matrix(stored.shape)), 0, self._views(target))
                del self._applied[target]

    def _is_finite(self, target: Target) -> bool:
        return all(bool(torch.isfinite(view.matrix).all()) for view in self._views(target))

    def _views(self, target: Target) -> Sequence[View]:
        if target.component not in self._live:
            raise BaseModelError(f"the loaded pipeline has no {target.component}; is the base complete?")
        return self._live[target.component].views(target.tensor)

    def _read_base(self, reader: TensorReader, target: Target) -> torch.Tensor:
        file = self._base.components[target.component].tensors[target.tensor].local_file
        return reader.read(file, target.tensor)


def _size(views: Sequence[View]) -> int:
    return sum(view.matrix.numel() for view in views)


def _put(rows: torch.Tensor, start: int, views: Sequence[View]) -> None:
    """Copy rows of a tensor, the first of them its row `start`, into the parameters that they are of."""
    for first, matrix in views:
        begin, end = max(start, first), min(start + len(rows), first + len(matrix))
        if begin < end:
            matrix[begin - first : end - first].copy_(rows[begin - start : end - start])
