"""Properties of route and dispatch.

T tokens, D hidden, E experts, K top-k.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import SMALL, normal

from mobilemoe.model import Routing, dispatch, route


def config_of(E: int, K: int):
    return replace(SMALL, num_local_experts=E, num_experts_per_tok=K)


@st.composite
def router_inputs(draw):
    """Draw tokens, router and a bias that takes few values, so that ties are common."""
    E = draw(st.integers(1, 9))
    K = draw(st.integers(1, E))
    T = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**31))
    spread = draw(st.sampled_from([0.0, 0.3, 1.0, 30.0]))
    bias_E = draw(st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.5]), min_size=E, max_size=E))
    h_TD = normal(T, 32, seed=seed)
    return h_TD, spread * normal(E, 32, seed=seed + 1), torch.tensor(bias_E), config_of(E, K)


@settings(max_examples=150, deadline=None)
@given(router_inputs())
def test_route_follows_its_definition(inputs):
    h_TD, router_ED, bias_E, config = inputs
    routing = route(h_TD, router_ED, bias_E, config)
    K = config.num_experts_per_tok
    scores_TE = torch.sigmoid(h_TD @ router_ED.T)
    for t in range(len(h_TD)):
        biased = (scores_TE[t] + bias_E).tolist()
        expected = sorted(range(len(biased)), key=lambda e: (-biased[e], e))[:K]
        assert routing.topk_ids_TK[t].tolist() == expected  # ties to the lower index
        chosen = scores_TE[t, expected].double()  # the bias decides, and does not weigh
        weights = 2.5 * chosen / (chosen.sum() + 1e-20)
        np.testing.assert_allclose(routing.topk_weights_TK[t], weights, rtol=1e-5)
    assert torch.equal(routing.router_logits_TE, h_TD @ router_ED.T)
    counts = Counter(routing.topk_ids_TK.flatten().tolist())
    assert routing.tokens_per_expert_E.tolist() == [counts[e] for e in range(len(bias_E))]


@settings(max_examples=100, deadline=None)
@given(router_inputs())
def test_weights_of_a_token_sum_to_the_scaling_factor(inputs):
    h_TD, router_ED, bias_E, config = inputs
    routing = route(h_TD, router_ED, bias_E, config)
    # Scores that are all near 1e-20 give less, because 1e-20 is added to their sum.
    scored_T = routing.router_logits_TE.gather(1, routing.topk_ids_TK).amax(-1) > -30
    sums_T = routing.topk_weights_TK.sum(-1)
    full_T = torch.full_like(sums_T, 2.5)
    torch.testing.assert_close(sums_T[scored_T], full_T[scored_T], rtol=1e-5, atol=0)
    assert (sums_T <= 2.5 * (1 + 1e-5)).all()


def test_equal_scores_go_to_the_lower_index():
    config = config_of(E=6, K=3)
    routing = route(normal(4, 32), torch.zeros(6, 32), torch.zeros(6), config)
    assert routing.topk_ids_TK.tolist() == [[0, 1, 2]] * 4
    bias_E = torch.tensor([0.0, 0.1, 0.0, 0.1, 0.1, 0.1])
    routing = route(normal(4, 32), torch.zeros(6, 32), bias_E, config)
    assert routing.topk_ids_TK.tolist() == [[1, 3, 4]] * 4


def test_a_bias_changes_the_choice_and_leaves_the_weights_formula():
    config, h_TD, router_ED = config_of(E=4, K=2), normal(1, 32), normal(4, 32, seed=1)
    scores = torch.sigmoid(h_TD @ router_ED.T)[0]
    lowest = scores.argsort()[:2]
    bias_E = torch.zeros(4)
    bias_E[lowest] = 2.0
    routing = route(h_TD, router_ED, bias_E, config)
    assert set(routing.topk_ids_TK[0].tolist()) == set(lowest.tolist())
    chosen = scores[routing.topk_ids_TK[0]]
    torch.testing.assert_close(routing.topk_weights_TK[0], 2.5 * chosen / chosen.sum())


def test_routing_is_computed_in_float32():
    h_TD, router_ED = normal(5, 32), normal(4, 32, seed=1)
    config, bias_E = config_of(E=4, K=2), torch.zeros(4)
    low = route(h_TD.bfloat16(), router_ED.bfloat16(), bias_E, config)
    assert low.router_logits_TE.dtype == low.topk_weights_TK.dtype == torch.float32
    wide = route(h_TD.bfloat16().float(), router_ED.bfloat16().float(), bias_E, config)
    assert torch.equal(low.router_logits_TE, wide.router_logits_TE)


@st.composite
def choices(draw):
    """Draw a routing of distinct experts per token, and a capacity."""
    E = draw(st.integers(1, 8))
    K = draw(st.integers(1, E))
    T = draw(st.integers(1, 15))
    order = st.permutations(range(E))
    ids_TK = torch.tensor([draw(order)[:K] for _ in range(T)])
    counts_E = torch.bincount(ids_TK.flatten(), minlength=E)
    routing = Routing(ids_TK, torch.ones(T, K), torch.zeros(T, E), counts_E)
    return routing, draw(st.integers(1, T))


@settings(max_examples=150, deadline=None)
@given(choices())
def test_dispatch_keeps_the_first_choices_of_every_expert(drawn):
    routing, capacity = drawn
    plan = dispatch(routing, capacity)
    flat = routing.topk_ids_TK.flatten().tolist()
    wanted = [
        [choice for choice, expert in enumerate(flat) if expert == e][:capacity]
        for e in range(len(routing.tokens_per_expert_E))
    ]
    assert plan.counts == tuple(map(len, wanted))
    assert plan.choices_N.tolist() == [choice for own in wanted for choice in own]
    assert len(plan.choices_N) + plan.dropped == len(flat)  # kept + dropped = T K
    assert max(plan.counts) <= capacity
    assert len(set(plan.choices_N.tolist())) == len(plan.choices_N)


@settings(max_examples=100, deadline=None)
@given(choices())
def test_dropless_equals_a_capacity_of_all_tokens(drawn):
    routing, _ = drawn
    dropless, roomy = dispatch(routing, None), dispatch(routing, len(routing.topk_ids_TK))
    assert dropless.dropped == roomy.dropped == 0
    assert dropless.counts == roomy.counts
    assert torch.equal(dropless.choices_N, roomy.choices_N)


def test_the_router_stays_float32_where_products_are_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    h_TD = torch.randn(7, SMALL.hidden_size, generator=generator)
    router_ED = torch.randn(SMALL.num_local_experts, SMALL.hidden_size, generator=generator)
    bias_E = torch.zeros(SMALL.num_local_experts)
    plain = route(h_TD, router_ED, bias_E, SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = route(h_TD, router_ED, bias_E, SMALL)
    assert mixed.router_logits_TE.dtype == torch.float32
    assert torch.equal(mixed.router_logits_TE, plain.router_logits_TE)
