"""The routed experts as the engine's fast mode computes them, with straight-through gradients.

INT4 groups of an expert run along its outputs, so a group's scale changes with every input and
cannot leave the sum. The engine folds it into the activation, once for each group g of 32 outputs
(native/kernels.h): with a the activation over its block's scale s_x = max |x| / 127, s the
weights' scales and S = max s over the block's 32 inputs,

    b[i] = round(a[i] (s[i, g] (1 / S))),    y[o] = sum over blocks (sum_i b[i] q[i, o]) (s_x S).

The step of b is a product of two maxima, which need not fall on the same input: coarser than that
of the plain int8 activation, and another one for each group. Here the integers b are the engine's,
and only the order of the float32 sums differs. The rounding is left out of the backward pass:
its gradients are those of x W with the rounded weights W and the floats x.

E experts, N rows sorted by expert, n of one expert, I inputs, O outputs, G = O / 32 groups,
B = I / 32 blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilemoe.quant.activations import block_scales
from mobilemoe.weights import GROUP_SIZE


def int8_experts(
    x_ND: Tensor,
    counts: tuple[int, ...],
    gate_up_EDF: Tensor,
    down_EFD: Tensor,
    gate_up_scales: Tensor,
    down_scales: Tensor,
) -> Tensor:
    """Apply (silu(x G) * (x U)) Dn of each expert to its rows, as `mobilemoe.model.experts` does.

    The weights [E, in, out] hold INT4 values and `*_scales` [E, in, out / 32] their scales;
    expert e owns the next `counts[e]` rows.
    """
    gate_up_NF = folded_product(x_ND, counts, gate_up_EDF, gate_up_scales)
    gate_NF, up_NF = gate_up_NF.chunk(2, dim=-1)
    return folded_product(F.silu(gate_NF) * up_NF, counts, down_EFD, down_scales)


def folded_product(
    x_NI: Tensor, counts: tuple[int, ...], weight_EIO: Tensor, scales_EIG: Tensor
) -> Tensor:
    """Return y [N, O]: each expert's rows times its weights, the activations folded to int8.

    In float32 inside, also under autocast: bfloat16 does not hold the integers times their steps.
    """
    with torch.autocast(x_NI.device.type, enabled=False):
        y_NO: Tensor = _FoldedProduct.apply(  # type: ignore[no-untyped-call]
            x_NI.float(), counts, weight_EIO.float(), scales_EIG
        )
    return y_NO.to(x_NI.dtype)


class FoldedWeights(NamedTuple):
    """The side of the weights, for all experts: what does not depend on the rows.

    `ratios_EGI` are s / S as the engine rounds them; `steps_EGIo` the integers times S, exactly.
    """

    ratios_EGI: Tensor
    steps_EGIo: Tensor


def fold_weights(weight_EIO: Tensor, scales_EIG: Tensor) -> FoldedWeights:
    """Prepare weights that hold INT4 values; o are the 32 outputs of a group."""
    scales_EGI = scales_EIG.transpose(1, 2).contiguous()
    blocks_EGBi = scales_EGI.unflatten(-1, (-1, GROUP_SIZE))
    largest_EGB1 = blocks_EGBi.amax(-1, keepdim=True)
    inverse_EGB1 = torch.where(largest_EGB1 > 0, largest_EGB1.reciprocal(), 0)
    # An INT4 value over its scale is the integer again: the product was exact.
    step_EGI = largest_EGB1.expand_as(blocks_EGBi).flatten(2)
    safe_EGI1 = torch.where(scales_EGI > 0, scales_EGI, 1).unsqueeze(-1)
    groups_EGIo = weight_EIO.unflatten(-1, (-1, GROUP_SIZE)).transpose(1, 2)
    steps_EGIo = torch.empty(groups_EGIo.shape, device=groups_EGIo.device)
    torch.div(groups_EGIo, safe_EGI1, out=steps_EGIo).mul_(step_EGI.unsqueeze(-1))
    return FoldedWeights((blocks_EGBi * inverse_EGB1).flatten(2), steps_EGIo)


def folded_integers(a_nI: Tensor, ratios_GI: Tensor) -> Tensor:
    """Return the engine's integers b [G, n, I], as float32, of one expert's rows.

    `a_nI` (float64) are activations over the scales of their blocks, not yet rounded. In float64
    the product of two float32 is exact: no half is made or lost before it is rounded.
    """
    integers_GnI: Tensor = (a_nI * ratios_GI.double()[:, None]).round_().float()
    return integers_GnI


class _FoldedProduct(torch.autograd.Function):
    """Saves what the plain product saves: its input and the weights."""

    @staticmethod
    def forward(
        ctx: Any, x_NI: Tensor, counts: tuple[int, ...], weight_EIO: Tensor, scales_EIG: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x_NI, weight_EIO)
        ctx.counts = counts
        folded = fold_weights(weight_EIO, scales_EIG)
        blocks_NBi = x_NI.unflatten(-1, (-1, GROUP_SIZE))
        scale_NB1, inverse_NB1 = block_scales(blocks_NBi)
        a_NI = (blocks_NBi * inverse_NB1).flatten(1).double()
        scale_NI = scale_NB1.expand_as(blocks_NBi).flatten(1)
        y_NO = x_NI.new_empty(len(x_NI), weight_EIO.shape[-1])
        parts = (tensor.split(counts) for tensor in (a_NI, scale_NI, y_NO))
        for e, (a_nI, scale_nI, y_nO) in enumerate(zip(*parts, strict=True)):
            b_GnI = folded_integers(a_nI, folded.ratios_EGI[e]).mul_(scale_nI)
            y_Gno = torch.bmm(b_GnI, folded.steps_EGIo[e])
            y_nO.unflatten(-1, (-1, GROUP_SIZE)).copy_(y_Gno.transpose(0, 1))
        return y_NO

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, Tensor, None]:
        x_NI, weight_EIO = ctx.saved_tensors
        grad_x_NI, grad_weight_EIO = torch.empty_like(x_NI), torch.empty_like(weight_EIO)
        counts: tuple[int, ...] = ctx.counts
        parts = (tensor.split(counts) for tensor in (grad_outputs[0], x_NI, grad_x_NI))
        for e, (grad_y_nO, x_nI, grad_x_nI) in enumerate(zip(*parts, strict=True)):
            torch.mm(grad_y_nO, weight_EIO[e].T, out=grad_x_nI)
            torch.mm(x_nI.T, grad_y_nO, out=grad_weight_EIO[e])
        return grad_x_NI, None, grad_weight_EIO, None
