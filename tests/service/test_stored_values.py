"""Values as files keep them, against torch's own conversions: each one of 16 bits, and all ways of rounding to it."""

import numpy as np
import pytest
import torch

from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.stored_values import as_bytes, rounded, widened

EVERY_16_BITS = np.arange(1 << 16, dtype=np.uint16)


def as_torch(data, dtype):
    return torch.from_numpy(data).view(TORCH_DTYPES[dtype])


@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_every_value_of_16_bits_is_read_as_torch_reads_it(dtype, wide):
    data = EVERY_16_BITS.view(np.uint8)
    found = widened(data, dtype, wide)
    assert found.dtype == wide
    assert np.array_equal(found, as_torch(data, dtype).double().numpy().astype(wide), equal_nan=True)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
@pytest.mark.filterwarnings("error")
def test_every_value_of_8_bits_is_read_as_torch_reads_it(dtype):
    data = np.arange(256, dtype=np.uint8)
    found = widened(data, dtype, np.float64)
    wanted = as_torch(data, dtype).double().numpy()
    assert np.array_equal(found, wanted, equal_nan=True)
    there = ~np.isnan(wanted)
    assert np.array_equal(np.signbit(found[there]), np.signbit(wanted[there]))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_value_comes_back_and_what_lies_between_goes_to_the_closest(dtype):
    every = as_torch(EVERY_16_BITS.view(np.uint8), dtype).double().numpy()
    values = np.unique(every[np.isfinite(every)])
    assert np.array_equal(widened(as_bytes(rounded(values, dtype)), dtype, np.float64), values)
    halves = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    for between in (halves, np.nextafter(halves, np.float32(1e38)), np.nextafter(halves, np.float32(-1e38))):
        wanted = torch.from_numpy(between).to(TORCH_DTYPES[dtype]).double().numpy()
        assert np.array_equal(widened(as_bytes(rounded(between, dtype)), dtype, np.float64), wanted)
        lower, upper = between - values[:-1], values[1:] - between
        assert (np.abs(wanted - between) == np.minimum(lower, upper)).all()


@pytest.mark.parametrize(("dtype", "digits"), [("F16", 10), ("BF16", 7)])
def test_fp64_is_rounded_once(dtype, digits):
    """By way of fp32 these would first become the middle between two values, then the even one of them."""
    step, little = 2.0**-digits, 2.0**-40
    values = [1 + step / 2 + little, 1 + step / 2, 1 + 1.5 * step - little, 1 + 1.5 * step, -1 - step / 2 - little]
    wanted = [1 + step, 1, 1 + step, 1 + 2 * step, -1 - step]
    for order in "CF":
        both = np.array([values, values], order=order)
        assert widened(as_bytes(rounded(both, dtype)), dtype, np.float64).tolist() == [*wanted, *wanted]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "large"), [("F16", 65520.0), ("BF16", 3.4e38), ("F32", 1e39)])
def test_what_is_too_large_becomes_infinite(dtype, large):
    found = widened(as_bytes(rounded(np.array([large, -large, 1.0]), dtype)), dtype, np.float64)
    assert found.tolist() == [np.inf, -np.inf, 1.0]


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_the_bytes_are_those_of_torch(dtype):
    values = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    wanted = values.T.to(TORCH_DTYPES[dtype]).contiguous().view(torch.uint8).numpy().tobytes()
    assert as_bytes(rounded(values.T.numpy(), dtype)).tobytes() == wanted
