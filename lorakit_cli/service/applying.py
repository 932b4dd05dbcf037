"""Put a plan into a loaded pipeline: fused into its weights in memory, and exactly taken out again."""

from typing import Any

import torch

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.delta import add_delta, delta
from lorakit_cli.core.matching import Part, Target
from lorakit_cli.core.plan import Plan, Term
from lorakit_cli.errors import LoraFileError
from lorakit_cli.service.pipeline import LiveComponent
from lorakit_cli.service.tensors import TensorReader


class FusedWeights:
    """The weights of a loaded pipeline with a plan added in memory.

    Every fused value is computed from the base's file, not from the live tensor: the sum is rounded once from the
    stored precision, changing weights never compounds, and nothing need be kept to restore the base exactly.
    """

    def __init__(self, pipeline: Any, base: BaseIndex) -> None:
        self._base = base
        self._pipeline = pipeline
        self._live: dict[str, LiveComponent] = {}
        self._applied: dict[Target, tuple[Term, ...]] = {}

    @torch.no_grad()
    def apply(self, plan: Plan) -> int:
        """Make the live weights base + plan, rewriting only tensors whose terms differ; count the rewritten.

        Raises LoraFileError where a sum is not finite; the base is then restored first.
        """
        wanted = dict(plan.changes())
        self._restore([target for target in self._applied if target not in wanted])
        changed = {target: terms for target, terms in wanted.items() if self._applied.get(target) != terms}
        finite: list[torch.Tensor] = []
        with TensorReader(self._pipeline.device) as reader:

            def load_base(part: Part) -> torch.Tensor:
                return self._read_base(reader, part.target)

            for target, terms in changed.items():
                parameter = self._component(target).parameter(target.tensor)
                stored = self._read_base(reader, target)
                value = add_delta(stored, delta(terms, stored.shape, reader.factors, load_base), parameter.dtype)
                finite.append(torch.isfinite(value).all())
                parameter.copy_(value)
                self._applied[target] = terms
        # One look for all tensors, so that a GPU is not made to wait in the loop.
        sound = torch.stack(finite).tolist() if finite else []
        for (target, terms), is_finite in zip(changed.items(), sound, strict=True):
            if not is_finite:
                self.restore()
                names = " and ".join(dict.fromkeys(term.adapter for term in terms))
                raise LoraFileError(
                    f"{target.component}.{target.tensor} with {names} is not finite: the adapter holds NaN or "
                    "infinity, or the sum does not fit the dtype; try a smaller weight or --dtype float32"
                )
        return len(changed)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the base's own values back, bit for bit."""
        self._restore(list(self._applied))

    def _restore(self, targets: list[Target]) -> None:
        with TensorReader(self._pipeline.device) as reader:
            for target in targets:
                self._component(target).parameter(target.tensor).copy_(self._read_base(reader, target))
                del self._applied[target]

    def _component(self, target: Target) -> LiveComponent:
        if target.component not in self._live:
            component = self._base.components[target.component]
            self._live[target.component] = LiveComponent(self._pipeline, component)
        return self._live[target.component]

    def _read_base(self, reader: TensorReader, target: Target) -> torch.Tensor:
        file = self._base.components[target.component].tensors[target.tensor].local_file
        return reader.read(file, target.tensor)
