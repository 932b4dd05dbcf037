"""One tensor of a safetensors file, as its header states it."""

from typing import NamedTuple

# Every dtype of the safetensors library; two or four of the smallest share their bytes.
BIT_SIZES = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
# Those whose tensors are values by themselves; the smaller ones mean something only with scales beside them.
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
# Those that adapters are stored in, as options call them.
SHORT_NAMES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
# The library counts in 64 bits and refuses what does not fit.
MOST = 2**64 - 1


class TensorInfo(NamedTuple):
    """One tensor: dtype as safetensors spells it, shape, and its first and last byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
