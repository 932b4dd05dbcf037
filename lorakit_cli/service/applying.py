"""Put a plan into a loaded pipeline: fused into its weights in memory, and exactly taken out again."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.delta import add_delta, as_matrix, blocks, delta_rows
from lorakit_cli.core.match import Part, Target
from lorakit_cli.core.plan import Plan, Term
from lorakit_cli.errors import BaseModelError, LoraFileError
from lorakit_cli.service.lanes import run_side_by_side
from lorakit_cli.service.pipeline import LiveComponent, View
from lorakit_cli.service.tensors import TensorReader


class FusedWeights:
    """The weights of a loaded pipeline with a plan added in memory.

    Every fused value is computed from the base's file, not from the live tensor: the sum is rounded once from the
    stored precision, changing weights never compounds, and nothing need be kept to restore the base exactly. The
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

    @torch.no_grad()
    def apply(self, plan: Plan) -> int:
        """Make the live weights base + plan, rewriting only tensors whose terms differ; count the rewritten.

        Raises LoraFileError where a sum is not finite; the base is then restored first.
        """
        wanted = dict(plan.changes())
        self._restore([target for target in self._applied if target not in wanted])
        changed = {target: terms for target, terms in wanted.items() if self._applied.get(target) != terms}
        finite: dict[Target, torch.Tensor] = {}
        with TensorReader(self._device) as reader:

            def job(target: Target, terms: tuple[Term, ...]) -> int:
                views = self._component(target).views(target.tensor)
                finite[target] = self._rewrite(reader, target, terms, views)
                return 1

            for target in changed:
                self._component(target)
            self._applied |= changed
            run_side_by_side((partial(job, *change) for change in changed.items()), self._device)
        # One look for all tensors, so that a GPU is not made to wait in the loop.
        sound = torch.stack([finite[target] for target in changed]).tolist() if changed else []
        for (target, terms), is_finite in zip(changed.items(), sound, strict=True):
            if not is_finite:
                self.restore()
                names = " and ".join(dict.fromkeys(term.adapter for term in terms))
                raise LoraFileError(
                    f"{target.component}.{target.tensor} with {names} is not finite: the adapter holds NaN or "
                    "infinity, or the sum does not fit the dtype; try a smaller weight or --dtype float32"
                )
        return len(changed)

    def _rewrite(
        self, reader: TensorReader, target: Target, terms: tuple[Term, ...], views: Sequence[View]
    ) -> torch.Tensor:
        """Put the sum of the base's stored tensor and its terms where it lives; say on its device if it is finite."""

        def load_base(part: Part) -> torch.Tensor:
            return self._read_base(reader, part.target)

        stored = self._read_base(reader, target)
        base, dtype = stored.reshape(as_matrix(stored.shape)), views[0].matrix.dtype
        rows = delta_rows(terms, stored.shape, reader.factors, load_base)
        sound = []
        for start, stop in blocks(stored.shape, stored.device):
            value = add_delta(base[start:stop], rows(start, stop), dtype)
            sound.append(torch.isfinite(value).all())
            _put(value, start, views)
        return torch.stack(sound).all()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the base's own values back, bit for bit."""
        self._restore(list(self._applied))

    def _restore(self, targets: list[Target]) -> None:
        with TensorReader(self._device) as reader:
            for target in targets:
                stored = self._read_base(reader, target)
                _put(stored.reshape(as_matrix(stored.shape)), 0, self._component(target).views(target.tensor))
                del self._applied[target]

    def _component(self, target: Target) -> LiveComponent:
        if target.component not in self._live:
            raise BaseModelError(f"the loaded pipeline has no {target.component}; is the base complete?")
        return self._live[target.component]

    def _read_base(self, reader: TensorReader, target: Target) -> torch.Tensor:
        file = self._base.components[target.component].tensors[target.tensor].local_file
        return reader.read(file, target.tensor)


def _put(rows: torch.Tensor, start: int, views: Sequence[View]) -> None:
    """Copy rows of a tensor, the first of them its row `start`, into the parameters that they are of."""
    for first, matrix in views:
        begin, end = max(start, first), min(start + len(rows), first + len(matrix))
        if begin < end:
            matrix[begin - first : end - first].copy_(rows[begin - start : end - start])
