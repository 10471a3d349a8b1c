"""round_bf16 against torch.bfloat16, bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilemoe.quant import round_bf16


def torch_bits(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)


def from_bits(bits) -> np.ndarray:
    return np.asarray(bits, np.uint32).view(np.float32)


def test_every_bfloat16_and_every_tie_between_two():
    upper = np.arange(2**16, dtype=np.uint32) << 16
    for low in (0x0000, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = from_bits(upper | np.uint32(low))
        numbers = ~np.isnan(values)
        assert np.array_equal(round_bf16(values)[numbers], torch_bits(values)[numbers]), hex(low)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint32, st.integers(1, 64), elements=st.integers(0, 2**32 - 1)))
def test_any_bit_pattern(bits):
    values = from_bits(bits)
    numbers = ~np.isnan(values)
    assert np.array_equal(round_bf16(values)[numbers], torch_bits(values)[numbers])


def test_nan_stays_nan_with_its_sign_whatever_its_payload():
    bits = from_bits([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF])
    rounded = round_bf16(bits)
    assert np.isnan((rounded.astype(np.uint32) << 16).view(np.float32)).all()
    assert (rounded >> 15).tolist() == [0, 0, 0, 1, 1]


def test_known_values():
    values = np.array([1.0, -2.0, 0.0, -0.0, np.inf, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    # 3.4e38 rounds to infinity; the two ties go to the even neighbour.
    expected = [0x3F80, 0xC000, 0x0000, 0x8000, 0x7F80, 0x7F80, 0x3F80, 0x3F82]
    assert round_bf16(values).tolist() == expected


def test_shapes_and_strides_do_not_matter():
    values = np.random.default_rng(0).standard_normal((4, 6, 8)).astype(np.float32)
    strided = values[::2, 1:, ::-1]
    assert np.array_equal(round_bf16(strided), torch_bits(strided.copy()))
