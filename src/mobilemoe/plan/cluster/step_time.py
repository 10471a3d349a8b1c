"""How long an optimiser step takes: a sum of stated parts, each from a rate with a source.

    step = max(compute, gathers and reductions) + all-to-all + counts + optimiser

Compute is the step's FLOPs over `mfu` times the peak, one more forward pass with activation
checkpointing. FSDP fetches the next layer while one computes, so only what is longer of the two
counts; rows on their way to an expert are waited for. The optimiser is bound by memory.

T context.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.plan.cluster.gpu import GpuProfile
from mobilemoe.plan.cluster.layout import WIDE_BYTES, Layout
from mobilemoe.plan.cluster.quantity import Quantity
from mobilemoe.plan.cluster.shards import padded_by_part
from mobilemoe.plan.cluster.traffic import DISPATCH, GATHER, REDUCE, Flow, flows
from mobilemoe.recipe import Stage

LINK_EFFICIENCY = Quantity(
    "link efficiency",
    0.7,
    "of the link",
    "assumed",
    "what collectives reach of a link's rate with messages of megabytes",
)
EFFECTIVE_SHARE = Quantity(
    "effective training time",
    0.9,
    "of wall time",
    "published",
    "arXiv 2407.21783: more than 90 % over 54 days of Llama 3 405B; checkpoints and restarts "
    "take the rest",
)
# Reads of weight, gradient and two moments, writes of all but the gradient, and its zeroing.
OPTIMISER_PASSES = 8


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step by part; `exchange` is hidden behind `compute` or hides it."""

    compute: float
    recompute: float
    exchange: float
    all_to_all: float
    counts: float
    optimiser: float

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        overlapped = max(self.compute + self.recompute, self.exchange)
        return overlapped + self.all_to_all + self.counts + self.optimiser

    @property
    def is_communication_bound(self) -> bool:
        """Whether gathers and reductions take longer than the arithmetic."""
        return self.exchange > self.compute + self.recompute


def step_time(
    config: ModelConfig, layout: Layout, stage: Stage, gpu: GpuProfile, mfu: Quantity
) -> StepTime:
    """Return how long one optimiser step of `stage` takes on every GPU."""
    tokens = layout.rows_per_gpu(stage) * stage.context
    peak = gpu.bf16_flops if layout.precision == "bf16" else gpu.fp32_flops
    flops = config.training_flops_per_token(stage.context) * tokens
    compute = flops / (mfu.value * peak.value)
    sent = {flow.kind: _seconds(flow, gpu) for flow in flows(config, layout, stage)}
    shard = sum(padded_by_part(config, layout).values()) * WIDE_BYTES
    return StepTime(
        compute=compute,
        recompute=compute / 3 if layout.activation_checkpointing else 0.0,
        exchange=sent.pop(GATHER, 0.0) + sent.pop(REDUCE, 0.0),
        all_to_all=sent.pop(DISPATCH, 0.0),
        counts=sum(sent.values()),
        optimiser=OPTIMISER_PASSES * shard / gpu.hbm_bandwidth.value,
    )


def _seconds(flow: Flow, gpu: GpuProfile) -> float:
    """Both kinds of link work at the same time."""
    node = flow.node_bytes / gpu.node_bandwidth.value
    network = flow.network_bytes / gpu.network_bandwidth.value
    return max(node, network) / LINK_EFFICIENCY.value
