import numpy as np
import pytest
import torch

from lorakit_cli.kinds.sparse import SPARSE
from tests.kinds.apply import change, difference, kinds_of


def stored(matrix):
    """Write a matrix as LyCORIS's extraction does: whatever is not zero, in 16 bits."""
    sparse = matrix.reshape(matrix.shape[0], -1).to_sparse().coalesce()
    return {
        "bias_indices": sparse.indices().to(torch.int16),
        "bias_values": sparse.values().half(),
        "bias_size": torch.tensor(sparse.shape, dtype=torch.int16),
    }


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_values_are_at_their_places_and_zeros_elsewhere(shape, dtype):
    matrix = torch.tensor(np.random.default_rng(0).normal(size=shape)).half().double()
    matrix[matrix.abs() < 1.0] = 0.0
    tensors = stored(matrix)
    assert kinds_of(tensors) == [SPARSE]
    assert 0 < tensors["bias_values"].numel() < matrix.numel() / 2
    assert difference(change(tensors, matrix, dtype=dtype), matrix) == 0.0


def test_it_takes_the_scale_of_what_it_stands_beside():
    assert SPARSE.shares_scale
    tensors = {
        "sparse_indices": torch.tensor([[1.0], [2.0]]),
        "sparse_values": torch.tensor([4.0]),
        "sparse_size": torch.tensor([2.0, 3.0]),
    }
    assert SPARSE.delta(tensors, 0.5, None, {}).tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]


@pytest.mark.parametrize("place", [-1, 5])
def test_a_place_outside_is_refused(place):
    tensors = stored(torch.eye(5)) | {"bias_indices": torch.full((2, 5), place)}
    with pytest.raises(ValueError, match=r"outside a tensor of size \[5, 5\]"):
        change(tensors, torch.zeros(5, 5))


def test_lists_of_different_lengths_are_refused():
    shapes = {"sparse_indices": (2, 4), "sparse_values": (3,), "sparse_size": (2,)}
    with pytest.raises(ValueError, match="its indices are"):
        SPARSE.rank(shapes)
