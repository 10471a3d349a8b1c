"""Random groups of rows, and how far float32 sums over them may be from the truth.

N rows, E experts, I inputs, O outputs, D hidden, F expert width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 2.0**-24  # half a unit in the last place of a float32 near 1
LOADS = {
    "even": (5, 5, 5, 5),
    "uneven": (1, 40, 0, 7, 300),
    "one-has-all": (0, 0, 61, 0),
    "blocks": (256, 257, 255, 0, 513),
    "single-rows": (1, 1, 0, 1),
    "nobody": (0, 0, 0),
}


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_of(counts: tuple[int, ...]) -> list[slice]:
    """Return each expert's rows."""
    ends = torch.tensor(counts).cumsum(0).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def grouped(x_NI: Tensor, counts: tuple[int, ...], w_EIO: Tensor) -> Tensor:
    """Return each expert's rows times its matrix."""
    parts = zip(x_NI.split(counts), w_EIO, strict=True)
    return torch.cat([x_nI @ w_IO for x_nI, w_IO in parts])


def grouped_outer(x_NI: Tensor, counts: tuple[int, ...], y_NO: Tensor) -> Tensor:
    """Return x^T y over each expert's rows."""
    parts = zip(x_NI.split(counts), y_NO.split(counts), strict=True)
    return torch.stack([x_nI.T @ y_nO for x_nI, y_nO in parts])


def expect_within(actual: Tensor, expected: Tensor, bound: Tensor, what: str = "") -> None:
    """Assert |actual - expected| <= bound; say where it is exceeded most."""
    over = (actual.double() - expected).abs() - bound
    if over.numel() and not bool((over <= 0).all()):
        at = tuple(
            int(i) for i in torch.unravel_index(over.nan_to_num(torch.inf).argmax(), over.shape)
        )
        raise AssertionError(
            f"{what} at {at}: expected {expected[at]}, actual {actual[at]}, bound {bound[at]}"
        )


@dataclass(frozen=True)
class Layer:
    """One layer's routed experts in float64, its gradients, and bounds of a float32 result.

    The bounds follow every rounding: a sum of k products is off by (k + 2) EPS times the sum of
    its magnitudes; what enters a product with an error leaves with it times the other factor;
    |silu'| <= 1.1 and |silu''| <= 0.5. A sigmoid in float32 is off by 8 EPS.
    """

    values: dict[str, Tensor]
    bounds: dict[str, Tensor]


def exact_layer(
    x_ND: Tensor, counts: tuple[int, ...], gate_up: Tensor, down: Tensor, grad_y_ND: Tensor
) -> Layer:
    """Return y and the gradients of x, gate_up and down."""
    x, G, Dn, gy = (t.double() for t in (x_ND, gate_up, down, grad_y_ND))
    D, width = G.shape[1], Dn.shape[1]
    per_row = torch.tensor(counts).max()
    h, e_h = grouped(x, counts, G), (D + 2) * EPS * grouped(x.abs(), counts, G.abs())
    (gate, up), (e_gate, e_up) = h.chunk(2, -1), e_h.chunk(2, -1)
    sigmoid = gate.sigmoid()
    silu = gate * sigmoid
    a = silu * up
    e_a = 1.1 * e_gate * up.abs() + silu.abs() * e_up + 12 * EPS * a.abs()
    y = grouped(a, counts, Dn)
    e_y = grouped(e_a + (width + 2) * EPS * a.abs(), counts, Dn.abs())
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    ga = grouped(gy, counts, Dn.mT)
    e_ga = (D + 2) * EPS * grouped(gy.abs(), counts, Dn.abs().mT)
    gh = torch.cat([ga * up * slope, ga * silu], -1)
    e_gate_part = 1.1 * (e_ga * up.abs() + ga.abs() * e_up) + 0.5 * (ga * up).abs() * e_gate
    e_up_part = e_ga * silu.abs() + 1.1 * ga.abs() * e_gate
    small = 24 * EPS * torch.cat([(ga * up).abs() * (1 + gate.abs()), (ga * silu).abs()], -1)
    e_gh = torch.cat([e_gate_part, e_up_part], -1) + small
    gx = grouped(gh, counts, G.mT)
    e_gx = grouped(e_gh + (2 * width + 2) * EPS * gh.abs(), counts, G.abs().mT)
    rows = (per_row + 2) * EPS
    return Layer(
        {
            "y": y,
            "x": gx,
            "gate_up": grouped_outer(x, counts, gh),
            "down": grouped_outer(a, counts, gy),
        },
        {
            "y": 1.01 * e_y,
            "x": 1.01 * e_gx,
            "gate_up": 1.01 * grouped_outer(x.abs(), counts, e_gh + rows * gh.abs()),
            "down": 1.01 * grouped_outer(e_a + rows * a.abs(), counts, gy.abs()),
        },
    )
