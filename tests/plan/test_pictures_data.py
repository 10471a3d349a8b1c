"""The numbers behind a plan's figures, against naive twins and published values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.page.markup import TIMES
from mobilemoe.plan.cluster import Layout, cluster_plan, gpu_profile
from mobilemoe.plan.device import Request, load_profile, request_cost
from mobilemoe.plan.law import published_law
from mobilemoe.plan.pictures import (
    Regions,
    Trainee,
    family_sizes,
    latencies,
    law_curves,
    memory_parts,
    regions,
    training_costs,
)
from mobilemoe.plan.pictures.axis import (
    bytes_text,
    colour_name,
    count_text,
    log_padded,
    log_ticks,
    money_text,
    padded,
    power_text,
)
from mobilemoe.plan.pictures.latency import ANSWER, decode_ms, usual_requests
from mobilemoe.plan.pictures.memory import even_contexts
from mobilemoe.recipe import Recipe, load_recipe

LAW = published_law()
EXPERTS = (1, 2, 4, 8, 16, 32)
S, L = ModelConfig.preset("S"), ModelConfig.preset("L")
PAPER = family_sizes(EXPERTS, vocab_size=128_256)
SMALL = family_sizes((1, 8), vocab_size=4096, context=1024)


def test_a_width_of_whole_layers_is_counted_exactly() -> None:
    context = 8192
    (sizes,) = family_sizes((8,), vocab_size=128_256, context=context)
    index = int(np.flatnonzero(sizes.active_W == L.active_params)[0])  # 1280 / 40 = 32 layers
    kv = context * L.kv_bytes_per_token("int8")
    assert sizes.memory_W[index] == L.weight_bytes("int4") + kv


@pytest.mark.parametrize("sizes", [*PAPER, *SMALL])
def test_sizes_grow_and_memory_is_turned_back_into_parameters(sizes: object) -> None:
    assert (np.diff(sizes.active_W) > 0).all()  # type: ignore[attr-defined]
    assert (np.diff(sizes.memory_W) > 0).all()  # type: ignore[attr-defined]
    middle = np.sqrt(sizes.active_W[1:] * sizes.active_W[:-1])  # type: ignore[attr-defined]
    memory = sizes.memory_of(middle)  # type: ignore[attr-defined]
    back = [sizes.active_within(each) for each in memory]  # type: ignore[attr-defined]
    assert back == pytest.approx(middle.tolist())
    assert sizes.active_within(sizes.memory_W[0] - 1) == 0  # type: ignore[attr-defined]


def found(memories: list[float], flops: list[float]) -> Regions:
    return regions(LAW, PAPER, memories, flops)


def test_at_equal_memory_dense_wins_at_a_quarter_gigabyte_and_loses_at_half() -> None:
    """The publication's comparison at 3e21 training FLOPs (arXiv 2605.27358)."""
    at = found([0.25e9, 0.5e9], [3e21])
    assert at.experts[at.winner_CM[0, 0]] == 1
    assert at.experts[at.winner_CM[0, 1]] > 1
    assert at.dense_gain_CM[0, 0] > 0 > at.dense_gain_CM[0, 1]


def test_regions_are_those_of_a_search_over_every_size() -> None:
    memories, flops = [0.2e9, 0.7e9, 3e9], [2e20, 5e21]
    at = found(memories, flops)
    for c, budget in enumerate(flops):
        for m, memory in enumerate(memories):
            for e, sizes in enumerate(PAPER):
                fitting = np.geomspace(sizes.active_W[0], sizes.active_within(memory), 4000)
                losses = [
                    LAW.loss(
                        active_params=n,
                        tokens=budget / (6 * n),
                        num_experts=sizes.expert_equivalents,
                        extrapolate=True,
                    )
                    for n in fitting.tolist()
                ]
                assert at.loss_ECM[e, c, m] == pytest.approx(min(losses), abs=2e-5)
            ordered = sorted(at.loss_ECM[:, c, m])
            assert at.loss_ECM[at.winner_CM[c, m], c, m] == ordered[0]
            assert at.margin_CM[c, m] == pytest.approx(ordered[1] - ordered[0])


def test_a_larger_budget_never_raises_the_loss() -> None:
    at = found(np.geomspace(1e8, 8e9, 13).tolist(), np.geomspace(1e20, 1e23, 7).tolist())
    assert (np.diff(at.loss_ECM, axis=2) <= 1e-12).all()
    assert (np.diff(at.loss_ECM, axis=1) < 0).all()


def test_trusted_is_exactly_where_the_law_answers() -> None:
    at = found(np.geomspace(1e8, 8e9, 15).tolist(), np.geomspace(1e20, 1e22, 9).tolist())
    assert at.trusted_CM.any() and not at.trusted_CM.all()
    for c, m in np.ndindex(at.winner_CM.shape):
        e = at.winner_CM[c, m]
        active = float(at.active_ECM[e, c, m])
        asked = {"active_params": active, "tokens": float(at.flops_C[c]) / (6 * active)}
        predicted = LAW.predict(num_experts=at.experts[e], **asked)
        assert bool(at.trusted_CM[c, m]) == (not predicted.outside)
    assert (at.tied_CM == (at.margin_CM < LAW.rmse)).all()


def test_where_nothing_fits_nothing_wins() -> None:
    at = found([1e5, 1e9], [1e21])
    assert at.fits_CM.tolist() == [[False, True]]
    assert not at.trusted_CM[0, 0] and not at.tied_CM[0, 0]
    assert math.isnan(at.dense_gain_CM[0, 0]) and np.isnan(at.loss_ECM[:, 0, 0]).all()


def test_one_expert_count_has_no_runner_up_and_no_break_even() -> None:
    at = regions(LAW, PAPER[3:4], [1e9], [1e21])
    assert math.isinf(at.margin_CM[0, 0]) and math.isnan(at.dense_gain_CM[0, 0])


def test_an_expert_count_that_was_not_fitted_is_never_trusted() -> None:
    at = regions(replace(LAW, expert_grid=(1, 4)), PAPER[3:4], [2e9], [5e20])
    assert not at.trusted_CM.any()
    assert regions(LAW, PAPER[3:4], [2e9], [5e20]).trusted_CM.all()


@pytest.mark.parametrize("bad", [[], [0.0], [-1.0], [math.nan], [math.inf]])
def test_rejects_budgets_that_are_none(bad: list[float]) -> None:
    with pytest.raises(MobileMoEError, match="memories"):
        found(bad, [1e21])
    with pytest.raises(MobileMoEError, match="flops"):
        found([1e9], bad)
    with pytest.raises(MobileMoEError, match="at least one"):
        regions(LAW, (), [1e9], [1e21])


@pytest.mark.parametrize("name", ["S", "nano", "mobilellm-pro", "olmoe-1b-7b"])
def test_parts_of_memory_add_up_to_the_file_and_the_cache(name: str) -> None:
    config = ModelConfig.preset(name)
    parts = memory_parts(config, (0, 100, 1000), "fp16")
    kv = config.kv_bytes_per_token("fp16")
    assert parts.totals == tuple(config.weight_bytes("int4") + kv * n for n in (0, 100, 1000))
    assert ("routed experts" in parts.parts) == config.is_moe
    assert ("feed-forward" in parts.parts) == (not config.is_moe)


def test_every_part_is_what_its_name_says() -> None:
    parts = {name: sizes[0] for name, sizes in memory_parts(S, (0,)).parts.items()}
    D, F, layers = S.hidden_size, S.intermediate_size, S.num_hidden_layers
    int4 = 0.5 + 2 / 32
    assert parts["embedding"] == int4 * S.vocab_size * D
    assert parts["routed experts"] == layers * 60 * 3 * int4 * D * F
    assert parts["shared expert"] == layers * 3 * int4 * D * S.intermediate_size_mlp
    assert parts["attention"] == layers * int4 * (2 * D * D + 2 * D * 256)
    assert parts["router"] == layers * (4 * 60 * D + 2 * 60)
    assert parts["norms"] == 2 * D * (2 * layers + 1)
    untied = memory_parts(ModelConfig.preset("olmoe-1b-7b"), (0,)).parts["embedding"][0]
    assert untied == 2 * int4 * 50304 * 2048


def test_contexts_are_even_and_end_at_the_longest() -> None:
    assert even_contexts(8192) == tuple(range(0, 8193, 1024))
    assert even_contexts(1) == (0, 1)
    with pytest.raises(MobileMoEError, match="contexts"):
        memory_parts(S, ())
    with pytest.raises(MobileMoEError, match="contexts"):
        memory_parts(S, (-1,))


def priced(config: ModelConfig, tokens: float, rows: int, checkpointing: bool) -> Recipe:
    recipe = load_recipe("s", ["parallel.expert_parallel=1"])
    first = replace(recipe.stages[0], tokens=round(tokens), context=2048, batch_tokens=4_194_304)
    run = replace(recipe.run, micro_batch_rows=rows, activation_checkpointing=checkpointing)
    return replace(recipe, model=config, run=run, stages=(first, *recipe.stages[1:]))


def test_costs_are_those_of_the_fastest_cluster_plan_that_fits() -> None:
    tokens, gpus, gpu = 4_194_304 * 50_000.0, 64, gpu_profile("h100")
    costs = training_costs(LAW, [Trainee("L", L, 8)], [tokens], gpu, gpus)
    recipes = [priced(L, tokens, n, c) for n in (1, 2, 4, 8, 16, 32) for c in (False, True)]
    every = [cluster_plan(r, Layout.of(r, gpus), gpu, stage="pretrain") for r in recipes]
    plan = min((each for each in every if each.fits), key=lambda each: each.days)
    assert not all(each.fits for each in every)
    (point,) = costs.curves[0].points
    assert point.days == pytest.approx(plan.days)
    assert point.money == pytest.approx(plan.money)
    assert point.gpu_hours == pytest.approx(plan.gpu_hours)
    assert point.flops == pytest.approx(plan.stages[0].flops)
    assert point.fits and plan.fits
    assert point.outside  # L has more active parameters than the largest of the sweep


def test_a_cost_has_the_laws_loss_or_none() -> None:
    gpu, M = gpu_profile("h100"), ModelConfig.preset("M")
    (inside, beyond) = training_costs(LAW, [Trainee("M", M, 8)], [3e11, 3e12], gpu).curves[0].points
    expected = LAW.loss(active_params=M.active_params, tokens=3e11, num_experts=8)
    assert inside.loss == expected and not inside.outside and beyond.outside
    (unknown,) = training_costs(None, [Trainee("M", M, 8)], [3e11], gpu).curves[0].points
    assert unknown.loss is None and unknown.money == inside.money
    with pytest.raises(MobileMoEError, match="tokens"):
        training_costs(LAW, [], [0.0], gpu)


def test_a_model_that_is_too_large_for_the_gpu_is_marked() -> None:
    gpu = gpu_profile("l4")
    (point,) = training_costs(LAW, [Trainee("L", L, 8)], [1e11], gpu, 1).curves[0].points
    assert not point.fits


def test_small_runs_take_small_batches() -> None:
    nano = ModelConfig.preset("nano")
    points = training_costs(None, [Trainee("n", nano, 8)], [1e6, 1e8], gpu_profile("h100"), 1)
    few, many = points.curves[0].points
    assert 0 < few.money < many.money


def test_curves_follow_the_law_and_mark_its_ends() -> None:
    curves = law_curves(LAW)
    assert [curve.expert_equivalents for curve in curves.over_active] == list(EXPERTS)
    for family, fixed in ((curves.over_active, "tokens"), (curves.over_tokens, "active_params")):
        for curve in family:
            for x, loss, inside in zip(curve.x, curve.loss, curve.inside, strict=True):
                free = "active_params" if fixed == "tokens" else "tokens"
                asked = {free: x, fixed: getattr(curves, fixed)}
                predicted = LAW.predict(num_experts=curve.expert_equivalents, **asked)
                assert (loss, inside) == (predicted.loss, not predicted.outside)
    first, last = curves.active_range
    drawn = curves.over_active[0].x
    assert first in drawn and last in drawn and drawn[0] < first and drawn[-1] > last


def test_latencies_are_the_costs_of_requests() -> None:
    phone = load_profile("galaxy-s25")
    found = latencies(phone, S, usual_requests(8192))
    assert [cost.request.prompt_tokens for cost in found.costs] == [64, 256, 1024, 4096]
    alone = request_cost(phone, S, Request(256, ANSWER))
    assert found.costs[1] == alone
    assert decode_ms(alone) == pytest.approx((ANSWER - 1) * (alone.tpot_ms or 0))
    assert found.inputs == alone.inputs
    assert latencies(phone, S, ()).inputs == ()
    assert usual_requests(100) == (Request(50, 50),)


@given(
    st.floats(1e-3, 1e24),
    st.floats(1.01, 1e8),
    st.integers(2, 12),
)
@settings(max_examples=200, deadline=None)
def test_ticks_are_round_inside_and_few(low: float, factor: float, most: int) -> None:
    high = low * factor
    ticks = log_ticks(low, high, most)
    assert len(ticks) <= most and ticks == sorted(ticks)
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)
    if factor >= 10:
        assert ticks, "a whole decade holds a power of ten"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8))
@settings(max_examples=100, deadline=None)
def test_limits_enclose_what_is_finite(values: list[float]) -> None:
    values = [v for v in values if not math.isfinite(v) or abs(v) < 1e100]
    low, high = padded(values)
    assert low < high
    assert all(low <= v <= high for v in values if math.isfinite(v))
    low, high = log_padded(values)
    assert 0 < low < high or not any(math.isfinite(v) and v > 1e-300 for v in values)


def test_numbers_on_ticks() -> None:
    assert [bytes_text(v) for v in (1.5e9, 2.5e8, 900.0)] == ["1.5 GB", "250 MB", "900 B"]
    assert [power_text(v) for v in (1e22, 3e21, 512.0)] == ["10²²", f"3{TIMES}10²¹", "512"]
    assert [count_text(v) for v in (5e11, 3e8, 6e12, 12.0)] == ["500B", "300M", "6T", "12"]
    assert [money_text(v) for v in (0.05, 950.0, 1.2e6)] == ["$0.05", "$950", "$1.2M"]


def test_expert_counts_have_colours_of_their_own() -> None:
    names = [colour_name(each) for each in EXPERTS]
    assert len(set(names)) == len(names)
    assert names[0] == "dense" and names[3] == "moe"
    assert colour_name(64) == colour_name(32) and colour_name(1.2) == colour_name(2)
