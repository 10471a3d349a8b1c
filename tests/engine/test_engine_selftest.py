"""The self-test passes here, and reports every kind of broken kernel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mobilemoe.engine._native import testing
from mobilemoe.engine.native import instruction_set
from mobilemoe.engine.selftest import SHARED, runnable_kernels, self_test

FUNCTIONS = ("linear", "expert", "linear_bf16", "expert_bf16", "quantize", "attend", "route")
PRODUCTS = {
    f"{product} {mode}"
    for product in ("linear", "expert")
    for mode in ("fp32", "int8", "int8, integers", "bf16")
}


def failures(**broken):
    """Return the failed (kernel, function) pairs with some functions replaced."""
    good = {name: getattr(testing, name) for name in FUNCTIONS}
    checks = self_test(("portable",), SimpleNamespace(**good | broken))
    return {(check.kernel, check.function) for check in checks if not check.passed}


def test_every_kernel_of_this_cpu_passes():
    checks = self_test()
    assert all(check.passed for check in checks), [c for c in checks if not c.passed]
    expected = {(SHARED, "route")}
    for kernel in runnable_kernels():
        expected |= {(kernel, function) for function in PRODUCTS | {"quantize", "attend"}}
    assert {(check.kernel, check.function) for check in checks} == expected
    assert len(checks) == len(expected)


def test_the_chosen_kernel_is_among_the_tested():
    assert {"portable", instruction_set()} <= set(runnable_kernels())


@pytest.mark.parametrize("product", ["linear", "expert"])
def test_a_lost_input_is_reported(product):
    """Even one of 288, which the tolerance of int8 alone could hide."""

    def lossy(qweight, scale, x, int8, kernel):
        x = x.copy()
        x[:, 100] = 0
        return getattr(testing, product)(qweight, scale, x, int8, kernel)

    failed = failures(**{product: lossy})
    assert {("portable", f"{product} fp32"), ("portable", f"{product} int8, integers")} <= failed
    assert all(function.startswith(product) for _, function in failed)


@pytest.mark.parametrize("product", ["linear", "expert"])
def test_swapped_nibbles_are_reported(product):
    def swapped(qweight, scale, x, int8, kernel):
        qweight = ((qweight << 4) | (qweight >> 4)).astype(np.uint8)
        return getattr(testing, product)(qweight, scale, x, int8, kernel)

    expected = {("portable", f"{product} {mode}") for mode in ("fp32", "int8", "int8, integers")}
    assert failures(**{product: swapped}) == expected


@pytest.mark.parametrize("product", ["linear", "expert"])
def test_a_bf16_weight_read_as_another_is_reported(product):
    def shifted(stored, x, kernel):
        stored = stored.copy()
        stored[3, :4] = stored[4, :4]
        return getattr(testing, f"{product}_bf16")(stored, x, kernel)

    assert failures(**{f"{product}_bf16": shifted}) == {("portable", f"{product} bf16")}


@pytest.mark.parametrize("change", [1, np.nan])
def test_an_error_in_the_last_token_of_a_prompt_is_reported(change):
    def last_wrong(qweight, scale, x, int8, kernel):
        y = testing.linear(qweight, scale, x, int8, kernel)
        if len(y) > 1:
            y[-1, -1] += change
        return y

    assert ("portable", "linear fp32") in failures(linear=last_wrong)
    assert ("portable", "linear int8, integers") in failures(linear=last_wrong)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_reported(bad):
    def spoiled(q, k, v, factor, kernel):
        out = testing.attend(q, k, v, factor, kernel)
        out[3] = bad
        return out

    assert failures(attend=spoiled) == {("portable", "attend")}


def test_a_skipped_position_is_reported():
    def skipped(q, k, v, factor, kernel):
        return testing.attend(q, k[:-1].copy(), v[:-1].copy(), factor, kernel)

    assert failures(attend=skipped) == {("portable", "attend")}


def test_a_missing_output_is_reported():
    def short(q, k, v, factor, kernel):
        return testing.attend(q, k, v, factor, kernel)[:-1]

    assert failures(attend=short) == {("portable", "attend")}


@pytest.mark.parametrize("part", [0, 1, 2])
def test_one_wrong_bit_of_a_quantised_row_is_reported(part):
    def wrong(x, kernel):
        parts = testing.quantize(x, kernel)
        integers = parts[part].view(f"i{parts[part].itemsize}")
        integers[-1] += 1
        return parts

    assert failures(quantize=wrong) == {("portable", "quantize")}


def test_wrong_experts_and_wrong_weights_are_reported():
    def second_best(logits, bias, k, scaling):
        ids, weights = testing.route(logits, bias, k + 1, scaling)
        return ids[1:], weights[1:]

    def unscaled(logits, bias, k, scaling):
        return testing.route(logits, bias, k, 1.0)

    assert failures(route=second_best) == {(SHARED, "route")}
    assert failures(route=unscaled) == {(SHARED, "route")}


def test_a_failure_says_where_with_both_values():
    def wrong(x, kernel):
        values, scales, sums = testing.quantize(x, kernel)
        values[5] = 99
        return values, scales, sums

    good = {name: getattr(testing, name) for name in FUNCTIONS}
    checks = self_test(("portable",), SimpleNamespace(**good | {"quantize": wrong}))
    (failed,) = (check for check in checks if not check.passed)
    assert failed.worst == np.inf
    assert failed.where.startswith("at [5]: ")
    assert failed.where.endswith(" expected, 99 found")
