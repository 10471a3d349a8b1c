"""The plan's activation bytes against what autograd saves of the real model, within 6 %."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.parametrize import cached

from mobilemoe.config import ModelConfig
from mobilemoe.model import MobileMoE, MoE, Routing
from mobilemoe.model.experts import experts_loop
from mobilemoe.plan.cluster import Layout
from mobilemoe.plan.cluster.activations import activation_bytes
from mobilemoe.plan.cluster.memory import CHUNK_LOGITS, MIN_CHUNK_ROWS
from mobilemoe.quant.fake import enable_fake_quant
from mobilemoe.recipe.schema import Precision
from mobilemoe.train import loss
from mobilemoe.train.loss import router_z_loss
from paper_recipes import PRETRAIN, QAT

BASE = ModelConfig(
    vocab_size=128,
    hidden_size=192,
    intermediate_size=96,
    intermediate_size_mlp=384,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=64,
    num_local_experts=12,
    num_experts_per_tok=4,
    rope_scaling_factor=1.0,
)
CONFIGS = {
    "family": BASE,
    "no shared expert": replace(BASE, intermediate_size_mlp=0),
    "every second layer dense": replace(BASE, interleave_moe_layer_step=2),
    "dense": replace(BASE, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0),
    "many heads": replace(BASE, num_attention_heads=6, num_key_value_heads=3),
}
ROWS, CONTEXT = 2, 512
TOLERANCE = {"fp32": 0.01, "bf16": 0.06}


def saved_bytes(
    config: ModelConfig,
    precision: Precision,
    capacity: float | None,
    *,
    context: int = CONTEXT,
    int8: bool = False,
) -> int:
    """Storage that the graph of one forward pass keeps alive, weights not counted."""
    model = MobileMoE(config).init_weights(torch.Generator().manual_seed(0))
    for layer in model.model.layers:  # on a CPU, float32 has kernels of its own
        if isinstance(layer.feed_forward, MoE) and precision == "fp32":
            layer.feed_forward.experts.compute = experts_loop
    if int8:
        enable_fake_quant(model, config.weights(), int8_activations=True)
    elif precision == "bf16":
        _as_gathered(model)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids_BT = torch.randint(
        0, config.vocab_size, (ROWS, context), generator=torch.Generator().manual_seed(1)
    )
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    trace: list[Routing] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast, cached():
        h_BTD = model.hidden(ids_BT, capacity_factor=capacity, trace=trace)
        z_loss = router_z_loss(trace)
    assert h_BTD.requires_grad
    del z_loss
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)


def _as_gathered(model: MobileMoE) -> None:
    """Give the weights the types that they have when a sharded layer computes."""
    for layer in model.model.layers:
        layer.to(torch.bfloat16)
        if isinstance(layer.feed_forward, MoE):
            layer.feed_forward.router.float()
            layer.feed_forward.expert_bias = layer.feed_forward.expert_bias.float()


# float32 on a CPU runs in native code, which keeps less than a GPU would.
@pytest.mark.parametrize("name", CONFIGS)
def test_the_formula_is_what_autograd_keeps(name: str, precision: Precision = "bf16") -> None:
    config = CONFIGS[name]
    stage = replace(PRETRAIN, context=CONTEXT, capacity_factor=None)
    layout = Layout(1, micro_batch_rows=ROWS, precision=precision)
    planned = sum(activation_bytes(config, layout, stage).values())
    # bf16 is planned with a float32 input of the router, which autocast may make smaller
    assert planned == pytest.approx(saved_bytes(config, precision, None), rel=TOLERANCE[precision])


def test_fake_quantisation_keeps_about_what_is_planned(precision: Precision = "bf16") -> None:
    """The weights' share does not grow with the tokens: two lengths tell them apart."""
    short, long = (
        saved_bytes(BASE, precision, None, context=context, int8=True)
        for context in (CONTEXT, 2 * CONTEXT)
    )
    layout = Layout(1, micro_batch_rows=ROWS, precision=precision)
    planned = sum(activation_bytes(BASE, layout, replace(QAT, context=CONTEXT)).values())
    assert planned == pytest.approx(long - short, rel=0.1)


def test_drop_and_pad_never_keeps_more_than_is_planned() -> None:
    stage = replace(PRETRAIN, context=CONTEXT, capacity_factor=1.5)
    layout = Layout(1, micro_batch_rows=ROWS, precision="bf16")
    planned = sum(activation_bytes(BASE, layout, stage).values())
    assert 0.85 * planned < saved_bytes(BASE, "bf16", 1.5) < 1.06 * planned


def test_the_plan_and_the_loss_agree_on_the_chunk() -> None:
    assert loss.CHUNK_LOGITS["cuda"] == CHUNK_LOGITS
    assert loss.MIN_ROWS == MIN_CHUNK_ROWS
