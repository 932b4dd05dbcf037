"""Where the values of one parameter lie in a file of tensors."""

from typing import NamedTuple


class Place(NamedTuple):
    """Where a parameter lies in its file: a tensor, some of its rows or all, its halves swapped or not.

    `transposed`: the parameter is the transpose of what lies there (OpenCLIP's text projection, which is applied
    from the other side).
    """

    tensor: str
    rows: tuple[int, int] | None = None
    swapped: bool = False
    transposed: bool = False

    def shape(self, tensor: tuple[int, ...]) -> tuple[int, ...]:
        """Give the shape of the parameter from the shape of the tensor it lies in."""
        shape = tensor if self.rows is None else (self.rows[1] - self.rows[0], *tensor[1:])
        return shape[::-1] if self.transposed else shape
