"""The baseline of benchmarks/train.py: the same model and step, written as PyTorch is usually.

One step is the mathematics of `mobilemoe.train` without its shortcuts: a loop over experts that
looks up each one's tokens and adds its outputs to them, logits of all positions at once, the
optimiser's default implementation, and no native operation of this project anywhere.

B batch, T tokens, D hidden, V vocabulary, E experts, K top-k, L MoE layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilemoe.data import Batch
from mobilemoe.model import MobileMoE, MoE, Routing
from mobilemoe.model.attention import Attention
from mobilemoe.model.moe import SwiGLU
from mobilemoe.model.norm import RMSNorm, rms_norm
from mobilemoe.model.rope import apply_rope
from mobilemoe.recipe import Stage
from mobilemoe.train import Settings
from mobilemoe.train.balance import BiasBalancer


class PlainTrainer:
    """Trains `model` in place, dropless, in float32; `step` returns the loss."""

    def __init__(
        self,
        model: MobileMoE,
        stage: Stage,
        batches: Callable[[int], Batch],
        settings: Settings,
        backwards: bool = False,
    ) -> None:
        """`backwards` takes the experts in the other order: other roundings, nothing else."""
        self.model, self.stage, self.batches, self.settings = model, stage, batches, settings
        for module in model.modules():
            forward = PLAIN.get(type(module))
            if type(module) is MoE:
                forward = partial(plain_moe, backwards=backwards)
            if forward is not None:
                module.forward = MethodType(forward, module)
        values = settings.optimizer
        vectors = [p for p in model.parameters() if p.dim() < 2]
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": values.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        betas = values.beta1, values.beta2
        self.optimizer = torch.optim.AdamW(groups, betas=betas, eps=values.eps)
        self.balancer = BiasBalancer(model, settings.routing.bias_update_rate)
        self.steps = 0

    def step(self) -> float:
        """Take the next step and return its loss in nats per token."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.lr_at(self.steps)
        batch = self.batches(self.steps)
        trace: list[Routing] = []
        logits_BTV = self.model(torch.from_numpy(batch.ids_BT), trace=trace)
        targets = torch.from_numpy(batch.targets_BT)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten())
        z_losses = [r.router_logits_TE.logsumexp(-1).square().mean() for r in trace]
        z_loss = torch.stack(z_losses).mean()
        (loss + self.settings.routing.z_loss * z_loss).backward()
        clip_norm = self.settings.optimizer.clip_norm
        nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.balancer.update(torch.stack([r.tokens_per_expert_E for r in trace]))
        self.steps += 1
        return float(loss.detach())


def plain_route(moe: MoE, h_TD: Tensor) -> Routing:
    """Choose experts with a stable sort: ties to the lower index."""
    logits_TE = moe.router(h_TD)
    scores_TE = logits_TE.sigmoid()
    biased_TE = scores_TE.detach() + moe.expert_bias
    order_TE = biased_TE.sort(dim=-1, descending=True, stable=True).indices
    ids_TK = order_TE[:, : moe.config.num_experts_per_tok]
    chosen_TK = scores_TE.gather(1, ids_TK)
    weights_TK = chosen_TK / (chosen_TK.sum(-1, keepdim=True) + 1e-20)
    counts_E = torch.bincount(ids_TK.flatten(), minlength=moe.config.num_local_experts)
    return Routing(ids_TK, weights_TK * moe.config.routed_scaling_factor, logits_TE, counts_E)


def plain_moe(
    self: MoE,
    x_BTD: Tensor,
    capacity_factor: float | None = None,
    trace: list[Routing] | None = None,
    backwards: bool = False,
) -> Tensor:
    """Compute the layer with a loop over experts, from the first or from the last."""
    if capacity_factor is not None:
        raise ValueError("the baseline is dropless")
    h_TD = x_BTD.flatten(0, 1)
    routing = plain_route(self, h_TD)
    y_TD = torch.zeros_like(h_TD)
    mask_EKT = F.one_hot(routing.topk_ids_TK, self.config.num_local_experts).permute(2, 1, 0)
    experts = range(len(mask_EKT))
    for expert in reversed(experts) if backwards else experts:
        mask_KT = mask_EKT[expert]
        choice_n, token_n = torch.where(mask_KT)
        gate_up_nF = h_TD[token_n] @ self.experts.gate_up_proj[expert]
        gate_nF, up_nF = gate_up_nF.chunk(2, dim=-1)
        y_nD = (F.silu(gate_nF) * up_nF) @ self.experts.down_proj[expert]
        weight_n1 = routing.topk_weights_TK[token_n, choice_n, None]
        y_TD = y_TD.index_add(0, token_n, y_nD * weight_n1) if len(token_n) else y_TD
    if self.shared_expert is not None:
        y_TD = y_TD + self.shared_expert(h_TD)
    if trace is not None:
        trace.append(routing)
    return y_TD.view_as(x_BTD)


def plain_swiglu(self: SwiGLU, x: Tensor) -> Tensor:
    """Compute the shared expert."""
    y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
    return y


def plain_norm(self: RMSNorm, x: Tensor) -> Tensor:
    """Normalise the last axis."""
    return rms_norm(x, self.eps) * self.weight


def plain_attention(self: Attention, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Compute attention over rotated and normalised heads."""
    q, k, v = (
        projection(x_BTD).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    q, k = (rms_norm(apply_rope(x, cos, sin), self.config.rms_norm_eps) for x in (q, k))
    repeat = self.config.num_attention_heads // self.config.num_key_value_heads
    k, v = (x.repeat_interleave(repeat, dim=1) for x in (k, v))
    o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y: Tensor = self.o_proj(o.transpose(1, 2).flatten(2))
    return y


PLAIN: dict[type, Callable[..., Tensor]] = {
    SwiGLU: plain_swiglu,
    RMSNorm: plain_norm,
    Attention: plain_attention,
}
