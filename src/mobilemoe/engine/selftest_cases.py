"""What the self-test computes: small inputs, what numpy says of them, and what rounding allows.

The tolerances are derived: sums of I float32 products are off by at most about I units in the
last place of their absolute sum, an int8 activation by half a step. That half step could hide
one lost input, so the integer kernels also get inputs that int8 holds exactly, with scales that
are powers of two: there nothing rounds and nothing may differ.

T tokens, I inputs, O outputs, G groups of 32 outputs, E experts, K top-k, N positions,
d head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mobilemoe.quant.int4 import dequantize, pack, round_bf16
from mobilemoe.weights import GROUP_SIZE

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

EPS = 2.0**-24  # half a unit in the last place of a float32 near 1
HALF_STEP = 1.001 / 254  # of a block's largest magnitude: the rounding of int8, and of its scale
TOKENS = (1, 67)  # decoding, and more than one tile of a prompt
LINEAR_OI = (24, 288)
EXPERT_IO = (288, 64)
EVEN_FIRST = np.concatenate([np.arange(0, GROUP_SIZE, 2), np.arange(1, GROUP_SIZE, 2)])


class Product(Protocol):
    """A product of activations with an INT4 matrix."""

    def __call__(
        self,
        qweight: npt.NDArray[np.uint8],
        scale: npt.NDArray[np.uint16],
        x: Float32,
        int8: bool,
        kernel: str,
    ) -> Float32:
        """Return y [T, O] of x [T, I]."""


Bf16Product = Callable[[npt.NDArray[np.uint8], Float32, str], Float32]  # y [T, O] of w, x [T, I]


class Functions(Protocol):
    """The part of `_native.testing` that is tested; native/testing_bindings.cc defines it."""

    @property
    def linear(self) -> Product:
        """X w^T, with w [O, I]."""

    @property
    def expert(self) -> Product:
        """X w, with w [I, O]."""

    @property
    def linear_bf16(self) -> Bf16Product:
        """The same with w [O, I] in BF16, given as bytes [O, 2 I]."""

    @property
    def expert_bf16(self) -> Bf16Product:
        """The same with w [I, O] in BF16, given as bytes [I, 2 O]."""

    @property
    def quantize(self) -> Callable[[Float32, str], tuple[npt.NDArray[np.int8], Float32, Int32]]:
        """One row x [I] as values [I], scales [I / 32] and sums [I / 32]."""

    @property
    def attend(self) -> Callable[[Float32, Float32, Float32, float, str], Float32]:
        """The value [d] of a query [d] over keys and values [N, d]."""

    @property
    def route(self) -> Callable[[Float32, Float32, int, float], tuple[Int32, Float32]]:
        """topk_ids [K] and topk_weights [K] of one token."""


@dataclass(frozen=True)
class Case:
    """One call, what it should return, and by how much each element may differ (0: not)."""

    function: str
    call: Callable[[Functions, str], npt.NDArray[np.generic]]
    expected: Float64
    bound: Float64 | float


@dataclass(frozen=True)
class Int4:
    """A random matrix: as stored, as integers, and as float64 scales and values."""

    qweight: npt.NDArray[np.uint8]
    scale_bits: npt.NDArray[np.uint16]
    integers: Float64
    scales: Float64  # one per group
    values: Float64


def random_int4(shape: tuple[int, int], scales: npt.NDArray[np.float16]) -> Int4:
    """Return a matrix of every nibble under `scales`."""
    integers = np.random.default_rng(1).integers(-8, 8, shape).astype(np.int8)
    values = dequantize(integers, scales).astype(np.float64)
    return Int4(
        pack(integers),
        scales.view(np.uint16),
        integers.astype(np.float64),
        scales.astype(np.float64),
        values,
    )


def random_scales(rows: int, columns: int) -> npt.NDArray[np.float16]:
    """Return scales as they occur in trained models."""
    shape = (rows, columns // GROUP_SIZE)
    return np.random.default_rng(2).uniform(0.002, 0.05, shape).astype(np.float16)


def exact_scales(rows: int, columns: int, every: int) -> npt.NDArray[np.float16]:
    """Return powers of two, the same for `every` rows that follow each other."""
    exponents = np.random.default_rng(3).integers(-6, -3, (rows // every, columns // GROUP_SIZE))
    return np.repeat(2.0**exponents, every, axis=0).astype(np.float16)


def random_rows(tokens: int, width: int) -> Float32:
    """Return activations as they occur after a norm."""
    return np.random.default_rng(4).standard_normal((tokens, width)).astype(np.float32)


def integer_rows(tokens: int, width: int) -> Float32:
    """Return activations that int8 holds exactly: integers, 127 in every block of 32."""
    x_TI = np.random.default_rng(5).integers(-127, 128, (tokens, width)).astype(np.float32)
    x_TI[:, ::GROUP_SIZE] = 127
    return x_TI


def block_maxima(x: Float64) -> Float64:
    """Return the largest magnitude of each element's block of 32 along the last axis."""
    blocks = np.abs(x).reshape(*x.shape[:-1], -1, GROUP_SIZE).max(-1)
    return np.repeat(blocks, GROUP_SIZE, axis=-1)


def kernel_cases() -> Iterator[Case]:
    """Yield what each kernel table must compute."""
    yield quantize_case()
    yield attend_case()
    for tokens in TOKENS:
        yield from linear_cases(tokens)
        yield from expert_cases(tokens)
        yield from bf16_cases(tokens)


def linear_cases(tokens: int) -> Iterator[Case]:
    """Yield products whose groups run along the inputs."""
    outputs, inputs = LINEAR_OI

    def case(name: str, w: Int4, x_TI: Float32, int8: bool, bound: Float64 | float) -> Case:
        def call(functions: Functions, kernel: str) -> Float32:
            return functions.linear(w.qweight, w.scale_bits, x_TI, int8, kernel)

        return Case(f"linear {name}", call, x_TI.astype(np.float64) @ w.values.T, bound)

    w, x_TI = random_int4(LINEAR_OI, random_scales(outputs, inputs)), random_rows(tokens, inputs)
    x64_TI, w_IO = x_TI.astype(np.float64), np.abs(w.values).T
    yield case("fp32", w, x_TI, False, (inputs + 2) * EPS * (np.abs(x64_TI) @ w_IO))
    yield case("int8", w, x_TI, True, HALF_STEP * block_maxima(x64_TI) @ w_IO)
    w = random_int4(LINEAR_OI, exact_scales(outputs, inputs, 1))
    yield case("int8, integers", w, integer_rows(tokens, inputs), True, 0.0)


def expert_cases(tokens: int) -> Iterator[Case]:
    """Yield products whose groups run along the outputs."""
    inputs, outputs = EXPERT_IO

    def case(name: str, w: Int4, x_TI: Float32, int8: bool, bound: Float64 | float) -> Case:
        def call(functions: Functions, kernel: str) -> Float32:
            return functions.expert(w.qweight, w.scale_bits, x_TI, int8, kernel)

        return Case(f"expert {name}", call, x_TI.astype(np.float64) @ w.values, bound)

    w, x_TI = random_int4(EXPERT_IO, random_scales(inputs, outputs)), random_rows(tokens, inputs)
    x64_TI, w_IO = x_TI.astype(np.float64), np.abs(w.values)
    yield case("fp32", w, x_TI, False, (inputs + 4) * EPS * (np.abs(x64_TI) @ w_IO))
    yield case("int8", w, x_TI, True, folded_steps(w, x64_TI))
    # A scale that is the same for a block of inputs folds into them exactly.
    w = random_int4(EXPERT_IO, exact_scales(inputs, outputs, GROUP_SIZE))
    yield case("int8, integers", w, integer_rows(tokens, inputs), True, 0.0)


def bf16_cases(tokens: int) -> Iterator[Case]:
    """Yield both products with BF16 weights, which round their sums and nothing else."""

    def case(name: str, w_IO: Float32, call: Callable[..., Float32]) -> Case:
        x_TI = random_rows(tokens, len(w_IO)).astype(np.float64)
        bound = (len(w_IO) + 1) * EPS * (np.abs(x_TI) @ np.abs(w_IO.astype(np.float64)))
        return Case(name, call, x_TI @ w_IO.astype(np.float64), bound)

    stored_OI, linear_OI = random_bf16(LINEAR_OI)
    stored_IO, expert_IO = random_bf16(EXPERT_IO)

    def linear(functions: Functions, kernel: str) -> Float32:
        return functions.linear_bf16(stored_OI, random_rows(tokens, LINEAR_OI[1]), kernel)

    def expert(functions: Functions, kernel: str) -> Float32:
        return functions.expert_bf16(stored_IO, random_rows(tokens, EXPERT_IO[0]), kernel)

    yield case("linear bf16", linear_OI.T, linear)
    yield case("expert bf16", expert_IO, expert)


def random_bf16(shape: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], Float32]:
    """Return a matrix as the bytes of its rows, and as the values that these hold."""
    bits = round_bf16(np.random.default_rng(8).standard_normal(shape).astype(np.float32))
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(bits.astype("<u2")).view(np.uint8), values


def folded_steps(w: Int4, x_TI: Float64) -> Float64:
    """Return the half steps [T, O] of an expert, which rounds x times scale for each group.

    A step is that of the largest activation times the largest scale of a block of inputs.
    """
    steps_TGI = HALF_STEP * block_maxima(x_TI)[:, None, :] * block_maxima(w.scales.T)
    magnitudes_GIO = np.abs(w.integers).reshape(len(w.integers), -1, GROUP_SIZE).swapaxes(0, 1)
    bound_GTO = steps_TGI.swapaxes(0, 1) @ magnitudes_GIO
    return bound_GTO.swapaxes(0, 1).reshape(len(x_TI), -1)


def quantize_case() -> Case:
    """Every kernel must give the bits of this rule."""
    x_I = random_rows(1, LINEAR_OI[1])[0]
    blocks = x_I.reshape(-1, GROUP_SIZE)
    largest = np.abs(blocks).max(-1, keepdims=True)
    values = np.rint(blocks * (np.float32(127) / largest))[:, EVEN_FIRST]
    scales = largest[:, 0] / np.float32(127)
    expected = np.concatenate([values.ravel(), scales, values.sum(-1)]).astype(np.float64)

    def call(functions: Functions, kernel: str) -> Float64:
        parts = functions.quantize(x_I, kernel)
        return np.concatenate([part.astype(np.float64) for part in parts])

    return Case("quantize", call, expected, 0.0)


def attend_case() -> Case:
    """One query over positions and a head width that are no multiple of a register."""
    N, d, factor = 77, 72, 0.3
    q_d = random_rows(1, d)[0]
    k_Nd, v_Nd = np.random.default_rng(6).standard_normal((2, N, d)).astype(np.float32)
    scores_N = factor * (k_Nd.astype(np.float64) @ q_d)
    p_N = np.exp(scores_N - scores_N.max())
    expected_d = (p_N / p_N.sum()) @ v_Nd.astype(np.float64)
    # An error of a score acts as a relative error of its weight.
    score_error = factor * (d + 4) * EPS * float((np.abs(k_Nd) @ np.abs(q_d)).max())
    bound = (2 * score_error + (N + 16) * EPS) * float(np.abs(v_Nd).max())

    def call(functions: Functions, kernel: str) -> Float32:
        return functions.attend(q_d, k_Nd, v_Nd, factor, kernel)

    return Case("attend", call, expected_d, bound)


def route_case() -> Case:
    """Ids, which must be equal, and weights; the scores are far enough apart."""
    E, K, scaling = 60, 4, 2.5
    rng = np.random.default_rng(7)
    logits_E = rng.permutation(np.linspace(-3, 3, E)).astype(np.float32)
    bias_E = rng.permutation(np.linspace(-0.2, 0.2, E)).astype(np.float32)
    scores_E = 1 / (1 + np.exp(-logits_E.astype(np.float64)))
    ids_K = np.argsort(-(scores_E + bias_E), kind="stable")[:K]
    weights_K = scores_E[ids_K] / scores_E[ids_K].sum() * scaling

    def call(functions: Functions, _: str) -> Float64:
        found_ids_K, found_weights_K = functions.route(logits_E, bias_E, K, scaling)
        return np.concatenate([found_ids_K.astype(np.float64), found_weights_K])

    # Each weight is a handful of roundings: an exponential, a sum of K, two quotients.
    bound = np.concatenate([np.zeros(K), 32 * EPS * weights_K])
    return Case("route", call, np.concatenate([ids_K.astype(np.float64), weights_K]), bound)
