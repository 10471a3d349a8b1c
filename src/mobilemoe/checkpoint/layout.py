"""Which tensors a checkpoint file holds, under which names, dtypes and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from mobilemoe.config import ModelConfig
from mobilemoe.weights import GROUP_SIZE, QUANTIZED_KINDS, Weight, WeightFormat

Dtype = Literal["U8", "F16", "BF16", "F32"]
DTYPE_BYTES: dict[Dtype, int] = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4}

QUANTIZATION_BLOCK = {
    "format": "mobilemoe-int4-g32",
    "group_size": GROUP_SIZE,
    "embedding_group_size": GROUP_SIZE,
    "qmin": -8,
    "qmax": 7,
    "symmetric": True,
    "packed": True,
    "scale_dtype": "float16",
    "linear_group_axis": "in (last dim of [out, in])",
    "expert_group_axis": "out (last dim of [E, in, out])",
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file; `dtypes` lists what a reader accepts, the first is written."""

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[Dtype, ...]

    @property
    def nbytes(self) -> int:
        """Bytes as we write it."""
        return prod(self.shape) * DTYPE_BYTES[self.dtypes[0]]


def stored_names(weight: Weight) -> tuple[str, str]:
    """Return the INT4 file's names for the packed values and the scales of `weight`."""
    if weight.kind == "expert":
        base = weight.name.removesuffix("_proj")
        return f"{base}_qweight", f"{base}_scale"
    base = weight.name.removesuffix(".weight")
    return f"{base}.qweight", f"{base}.weight_scale"


def stored_tensors(weight: Weight, weight_format: WeightFormat) -> tuple[StoredTensor, ...]:
    """Return how `weight` stands in a file of `weight_format`."""
    if weight_format == "int4" and weight.kind in QUANTIZED_KINDS:
        values, scales = stored_names(weight)
        *outer, last = weight.shape
        return (
            StoredTensor(values, (*outer, last // 2), ("U8",)),
            StoredTensor(scales, (*outer, last // GROUP_SIZE), ("F16",)),
        )
    if weight.kind == "router":
        dtypes: tuple[Dtype, ...] = ("F32",) if weight_format == "int4" else ("BF16", "F32")
        return (StoredTensor(weight.name, weight.shape, dtypes),)
    return (StoredTensor(weight.name, weight.shape, ("BF16",)),)


def file_layout(config: ModelConfig, weight_format: WeightFormat) -> tuple[StoredTensor, ...]:
    """Return every tensor of the file in order."""
    return tuple(
        tensor for weight in config.weights() for tensor in stored_tensors(weight, weight_format)
    )
