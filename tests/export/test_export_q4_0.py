"""Q4_0 blocks against gguf's own reading of them, and the loss of rounding again."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mobilemoe.export.q4_0 import Requantizer, q4_0_rows
from mobilemoe.quant.int4 import dequantize, quantize


def read(blocks: np.ndarray) -> np.ndarray:
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0)


@settings(max_examples=100)
@given(
    arrays.arrays(np.int8, st.tuples(st.integers(1, 5), st.just(96)), elements=st.integers(-8, 7)),
    st.integers(0, 2**32 - 1),
)
def test_levels_and_scales_survive_bit_for_bit(integers, seed):
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0, 3, (len(integers), 3)).astype(np.float16)
    blocks = q4_0_rows(integers, scales)
    assert (blocks.dtype, blocks.shape) == (np.uint8, (len(integers), 54))
    assert np.array_equal(read(blocks), dequantize(integers, scales))


def test_a_block_by_hand():
    integers = np.arange(-16, 16).astype(np.int8).clip(-8, 7)[None]
    block = q4_0_rows(integers, np.array([[1.5]], np.float16))[0]
    assert block[:2].tolist() == [0x00, 0x3E]  # 1.5 as float16, little-endian
    for j in range(16):
        assert block[2 + j] & 15 == integers[0, j] + 8
        assert block[2 + j] >> 4 == integers[0, j + 16] + 8


def test_the_loss_is_that_of_what_was_written():
    rng = np.random.default_rng(1)
    requantizer = Requantizer()
    parts = [rng.standard_normal((7, 64)).astype(np.float32) * factor for factor in (1, 30)]
    errors = [read(requantizer.rows(part)) - part for part in parts]
    error = np.concatenate(errors).astype(np.float64)
    values = np.concatenate(parts).astype(np.float64)
    expected = np.sqrt((error**2).sum() / (values**2).sum())
    assert requantizer.relative_rms_error == pytest.approx(expected, rel=1e-6)
    assert 0.05 < expected < 0.15


def test_what_is_on_the_grid_loses_nothing():
    values = dequantize(*quantize(np.linspace(-1, 1, 64, dtype=np.float32)[None]))
    requantizer = Requantizer()
    blocks = requantizer.rows(values * 0)
    assert requantizer.relative_rms_error == 0
    assert np.array_equal(read(blocks), values * 0)
