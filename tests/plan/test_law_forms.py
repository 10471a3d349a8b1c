"""The law's reduced forms, marked extrapolation, published data, and laws as files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemoe import MobileMoEError
from mobilemoe.plan import effective_experts, published_law
from mobilemoe.plan.law import (
    Architecture,
    DenseLaw,
    LawTable,
    MoELaw,
    load_law,
    published_shared_expert,
    save_law,
)

LAW = published_law()
SIZES, TOKENS = st.floats(0.3e9, 0.9e9), st.floats(100e9, 500e9)


@given(SIZES, TOKENS, st.floats(1, 32))
def test_the_law_is_the_formula(size: float, tokens: float, experts: float) -> None:
    k, x = LAW, log(effective_experts(experts))
    n, d = log(size / 1e9), log(tokens / 1e9)
    capacity = k.a * exp(k.delta * x + (k.alpha + k.gamma * x) * n)
    data = k.b * exp(k.omega * x + (k.beta + k.zeta * x) * d)
    loss = LAW.loss(active_params=size, tokens=tokens, num_experts=experts)
    assert loss == pytest.approx(capacity + data + k.c, rel=1e-12)


@given(SIZES, TOKENS, st.floats(1, 32))
def test_at_one_e_it_is_chinchilla_s_form(size: float, tokens: float, experts: float) -> None:
    dense = LAW.dense_law(experts)
    loss = dense.a * (size / 1e9) ** dense.alpha + dense.b * (tokens / 1e9) ** dense.beta + dense.c
    assert dense.loss(active_params=size, tokens=tokens) == loss
    assert LAW.loss(active_params=size, tokens=tokens, num_experts=experts) == loss


def test_the_dense_slice_keeps_the_coefficients() -> None:
    dense = LAW.dense_law(1)
    kept = (dense.a, dense.alpha, dense.b, dense.beta, dense.c)
    assert kept == pytest.approx((0.2388, -0.2833, 0.6019, -0.3210, 1.9730), abs=1e-12)


def test_units_only_restate_the_coefficients() -> None:
    """N in millions: a N^alpha with a' = a 1000^-alpha; the E terms move delta and omega."""
    per = log(1000)
    restated = replace(
        LAW,
        a=LAW.a * exp(-LAW.alpha * per),
        delta=LAW.delta - LAW.gamma * per,
        b=LAW.b * exp(-LAW.beta * per),
        omega=LAW.omega - LAW.zeta * per,
        unit_active=1e6,
        unit_tokens=1e6,
    )
    point = {"active_params": 0.4e9, "tokens": 250e9, "num_experts": 8}
    assert restated.loss(**point) == pytest.approx(LAW.loss(**point), rel=1e-12)


def test_a_prediction_inside_is_not_marked() -> None:
    point = {"active_params": 0.3e9, "tokens": 500e9, "num_experts": 32}
    prediction = LAW.predict(**point)
    assert prediction.outside == () and not prediction.extrapolated
    assert prediction.loss == LAW.loss(**point)


def test_a_prediction_outside_names_every_argument() -> None:
    prediction = LAW.predict(active_params=5e6, tokens=6e12, num_experts=8)
    assert prediction.extrapolated
    active, tokens = prediction.outside
    assert active.startswith("active_params is 5e+06") and "3e+08 to 9e+08" in active
    assert tokens.startswith("tokens is 6e+12") and "1e+11 to 5e+11" in tokens
    loss = LAW.loss(active_params=5e6, tokens=6e12, num_experts=8, extrapolate=True)
    assert prediction.loss == loss


def test_a_slice_at_an_e_outside_stays_marked() -> None:
    dense = LAW.dense_law(64)
    prediction = dense.predict(active_params=0.5e9, tokens=200e9)
    assert [text.split()[0] for text in prediction.outside] == ["num_experts"]
    with pytest.raises(MobileMoEError, match="num_experts is 64, outside"):
        dense.loss(active_params=0.5e9, tokens=200e9)


def test_rounding_at_the_end_of_the_sweep_is_inside() -> None:
    assert LAW.predict(active_params=3 * 0.1e9, tokens=5e11, num_experts=1).outside == ()
    assert LAW.predict(active_params=0.9e9 * (1 + 1e-12), tokens=5e11, num_experts=1).outside == ()


@pytest.mark.parametrize("name", ["active_params", "tokens", "num_experts"])
def test_predict_refuses_nonsense(name: str) -> None:
    point: dict[str, float] = {"active_params": 0.5e9, "tokens": 2e11, "num_experts": 8}
    with pytest.raises(MobileMoEError, match=name):
        LAW.predict(**{**point, name: -1.0})


def test_published_numbers_carry_source_and_confidence() -> None:
    assert "2605.27358" in LAW.source and LAW.confidence
    effect = published_shared_expert()
    assert (effect.with_shared, effect.without_shared) == (0.1224, 0.1670)
    assert round(effect.capacity_ratio, 4) == 0.7329
    assert "2605.27358" in effect.source and "not known" in effect.confidence
    assert not hasattr(effect, "loss")


def test_an_architecture_has_its_own_law_or_none() -> None:
    with_shared, without = Architecture(8, True), Architecture(8, False)
    other = replace(LAW, a=0.3)
    table = LawTable(((with_shared, LAW), (without, other)))
    assert table.at(Architecture(8, False)) is other
    with pytest.raises(MobileMoEError, match=r"g = 16 with shared expert.*g = 8 without"):
        table.at(Architecture(16, True))


@pytest.mark.parametrize("law", [LAW, LAW.dense_law(8)], ids=["joint", "dense"])
def test_a_file_gives_back_the_same_law(law: MoELaw | DenseLaw, tmp_path: Path) -> None:
    save_law(law, tmp_path / "law.json")
    assert load_law(tmp_path / "law.json") == law


WRONG: dict[str, tuple[Any, str]] = {
    "a": (-1.0, "a is -1.0; allowed: a positive number"),
    "c": (-0.1, "c is -0.1"),
    "beta": ("x", "beta is 'x'; allowed: a finite number"),
    "gamma": (True, "gamma is True"),
    "omega": (float("inf"), "omega is inf"),
    "active_grid": ([2.0, 1.0], "active_grid is .* rising order"),
    "token_grid": ([], "token_grid"),
    "expert_grid": ([0, 1], "expert_grid"),
    "source": (3, "source is 3; allowed: text"),
    "unit_tokens": (0, "unit_tokens is 0"),
    "form": ("cubic", "form is 'cubic'; allowed: joint or dense"),
    "format": ("law-9", "not a law"),
    "kappa": (1.0, "missing or unknown kappa"),
}


@pytest.mark.parametrize("key", sorted(WRONG))
def test_a_damaged_law_is_refused_by_name(key: str, tmp_path: Path) -> None:
    value, message = WRONG[key]
    path = tmp_path / "law.json"
    save_law(LAW, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(MobileMoEError, match=message):
        load_law(path)


@pytest.mark.parametrize("key", sorted(asdict(LAW)))
def test_a_law_without_a_key_is_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    save_law(LAW, path)
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(MobileMoEError, match=f"missing or unknown {key}"):
        load_law(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "\ufffd"])
def test_what_is_no_law_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MobileMoEError, match="law"):
        load_law(path)
    with pytest.raises(MobileMoEError, match="cannot read the law"):
        load_law(tmp_path / "none.json")
