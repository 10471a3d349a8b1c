"""Device profiles, the work of a step, and what a request costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.device import (
    Constant,
    DeviceProfile,
    Request,
    StatedRates,
    builtin_profiles,
    decode_seconds,
    dump_profile,
    load_profile,
    parse_profile,
    prefill_seconds,
    request_cost,
)
from mobilemoe.plan.device.terms import Rates, decode_terms, prefill_terms

S, PRO = ModelConfig.preset("S"), ModelConfig.preset("mobilellm-pro")
SMALL = ModelConfig.preset("nano").dense_twin()
UNIT = Rates(read_bytes_s=1.0, mac_s=1.0, cache_bytes=0.0, chunk_tokens=512)
PHONE = load_profile("galaxy-s25")
TEXT = dump_profile(PHONE)


def test_the_phones_are_there() -> None:
    assert {"galaxy-s25", "iphone-16-pro"} <= set(builtin_profiles())
    assert load_profile("Galaxy-S25") == PHONE


@pytest.mark.parametrize("name", builtin_profiles())
def test_every_number_of_a_profile_has_its_source(name: str) -> None:
    constants = dict(load_profile(name).constants())
    assert len(constants) > 12
    for path, constant in constants.items():
        assert len(constant.source) > 5 and constant.unit, path
    assert constants["power.decode"].origin == "assumed"


@pytest.mark.parametrize("name", builtin_profiles())
def test_a_profile_survives_its_file(name: str, tmp_path: Path) -> None:
    profile = replace(load_profile(name), title='a "quoted" \\ title\n\x7f', name="mine")
    (tmp_path / "mine.toml").write_text(dump_profile(profile), encoding="utf-8")
    assert load_profile(tmp_path / "mine.toml") == profile


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "galaxy-s25"', 'name = "x"\nspeed = 3', "the top level is 'speed'"),
        ('name = "galaxy-s25"', "", "the top level lacks name"),
        ("threads = 4", "threads = 3", "threads is 3; allowed: one of"),
        ("threads = 4", "threads = true", "threads is True"),
        ("[power]", "[power]\nidle = 3", r"a key of \[power\] is 'idle'; allowed: prefill, decode"),
        ("[mac_s]\n4 =", "[mac_s]\n5 =", "mac_s is"),
        ("[mac_s]\n4 =", "[mac_s]\nfour =", "mac_s is 'four'"),
        ("value = 44400000000.0", "value = 0", "read_bytes_s.4 is 0"),
        ("[weights.int4]", "[weights.int3]", "a key of .weights. is 'int3'"),
        ("decode_dense = ", "decode_danse = ", "'decode_danse'; allowed: decode_dense"),
        ('unit = "W"', 'unit = "kW"', r"power.prefill.unit is 'kW'; allowed: 'W'"),
        ("value = 8.0", "value = -8.0", "power.prefill: value is -8.0"),
        ("value = 8.0", "value = nan", "power.prefill: value is nan"),
        ("value = 8.0", 'value = "8"', "power.prefill: value is '8'"),
        ("value = 8.0,", "", r"\[power.prefill\] lacks value"),
        ('origin = "assumed"', 'origin = "guessed"', "memory_bytes: origin is 'guessed'"),
        ("value = 131072", "value = 0.5", "chunk_tokens is 0.5"),
        ("value = 1,", "value = 1.5,", "projection_passes is 1.5"),
        ("[power]", "[power", "device profile here"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_place(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(MobileMoEError, match=said) as caught:
        parse_profile(TEXT.replace(old, new, 1), "here")
    assert caught.value.message.startswith("device profile here: ")


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match=r"device is 'pixel'; allowed: .*galaxy-s25"):
        load_profile("pixel")
    with pytest.raises(MobileMoEError, match="cannot read the device profile"):
        load_profile(tmp_path / "none.toml")


def test_threads_and_formats_that_nobody_measured_are_refused() -> None:
    with pytest.raises(MobileMoEError, match="threads is 3; allowed with galaxy-s25: 4"):
        decode_seconds(PHONE, S, 0, threads=3)
    with pytest.raises(MobileMoEError, match="kv_format is 'fp16'; allowed with galaxy-s25: int8"):
        prefill_seconds(PHONE, S, 8, kv_format="fp16")
    with pytest.raises(MobileMoEError, match="weight_format is 'bf16'"):
        decode_seconds(PHONE, S, 8, weight_format="bf16")
    with pytest.raises(MobileMoEError, match="depth is -1"):
        decode_seconds(PHONE, S, -1)
    with pytest.raises(MobileMoEError, match="tokens is 0"):
        prefill_seconds(PHONE, S, 0)


@pytest.mark.parametrize("config", [S, PRO, S.dense_twin(), ModelConfig.preset("olmoe-1b-7b")])
@pytest.mark.parametrize("weight_format", ["int4", "bf16"])
def test_a_token_reads_and_multiplies_what_the_config_counts(config, weight_format) -> None:
    terms = decode_terms(config, 99, UNIT, weight_format)
    read = terms["decode_dense"] + terms["decode_experts"]
    assert read == config.step_weight_bytes(weight_format)
    assert terms["decode_macs"] + terms["decode_attention"] == config.macs_per_token(100)
    assert terms["decode_kv"] == 100 * config.kv_bytes_per_token("int8")
    assert terms["decode_layers"] == config.num_hidden_layers


def test_the_projections_are_multiplied_as_often_as_the_engine_does() -> None:
    """Only those of INT4 weights: the exact mode has one term."""
    twice = replace(UNIT, projection_passes=2)
    D, keys = S.hidden_size, S.num_key_value_heads * S.head_dim
    projections = S.num_hidden_layers * (2 * D * D + 2 * D * keys)
    for terms, key, tokens in (
        (lambda rates, format: decode_terms(S, 0, rates, format), "decode_macs", 1),
        (lambda rates, format: prefill_terms(S, 7, 0, rates, format), "prefill_dense", 7),
    ):
        assert terms(twice, "int4")[key] - terms(UNIT, "int4")[key] == tokens * projections
        assert terms(twice, "bf16")[key] == terms(UNIT, "bf16")[key]


@settings(deadline=None, max_examples=30)
@given(tokens=st.integers(1, 40), depth=st.integers(0, 5000))
def test_a_prompt_multiplies_as_its_tokens_one_by_one(tokens: int, depth: int) -> None:
    terms = prefill_terms(SMALL, tokens, depth, UNIT, "int4")
    macs = terms["prefill_dense"] + terms["prefill_experts"] + terms["prefill_attention"]
    one_by_one = sum(SMALL.macs_per_token(depth + i + 1, head=False) for i in range(tokens))
    assert macs == pytest.approx(one_by_one, rel=1e-12)


def test_a_chunk_unpacks_more_experts_the_longer_it_is_but_each_once() -> None:
    """One token unpacks its 4, a long chunk all 60, two chunks all of them twice."""
    chosen = S.active_params - replace(S, num_experts_per_tok=3).active_params
    per_token = 4 * chosen
    for tokens, unpacked in ((1, 4), (512, 60), (1024, 120)):
        amount = prefill_terms(S, tokens, 0, UNIT, "int4")["prefill_experts"]
        assert amount == pytest.approx(per_token * (tokens + unpacked / 4), rel=1e-9)


def test_the_rows_of_a_layer_by_hand() -> None:
    """Two norms, two quantised inputs and two sums of D; heads twice; SwiGLU thrice its width."""
    shared, routed = 3 * 1536, 4 * (768 + 3 * 384)
    per_layer = 6 * 768 + 2 * (12 + 8) * 64 + shared + routed
    assert prefill_terms(S, 3, 0, UNIT, "int4")["prefill_rows"] == 3 * 20 * per_layer


def test_a_prompt_never_takes_less_than_one_decoded_token() -> None:
    for profile in map(load_profile, builtin_profiles()):
        assert prefill_seconds(profile, S, 1, depth=9) == decode_seconds(profile, S, 9)
        assert prefill_seconds(profile, S, 512) > decode_seconds(profile, S, 511)


def test_a_model_in_the_cache_is_not_read_from_memory() -> None:
    size = ModelConfig.preset("nano").weight_bytes("int4")
    for cache, missed in ((0, 1.0), (2 * size, 0.0)):
        rates = replace(UNIT, cache_bytes=cache)
        terms = decode_terms(ModelConfig.preset("nano"), 0, rates)
        read = terms["decode_dense"] + terms["decode_experts"]
        assert read == missed * ModelConfig.preset("nano").step_weight_bytes("int4")


@pytest.mark.parametrize("name", builtin_profiles())
@settings(deadline=None)
@given(depth=st.integers(0, 8000), more=st.integers(1, 4000))
def test_more_work_takes_more_time(name: str, depth: int, more: int) -> None:
    profile = load_profile(name)
    assert decode_seconds(profile, S, depth + more) > decode_seconds(profile, S, depth)
    shorter, longer = depth + 32, depth + 32 + more
    assert prefill_seconds(profile, S, longer) > prefill_seconds(profile, S, shorter)
    assert prefill_seconds(profile, S, 64, depth=depth + more) > prefill_seconds(
        profile, S, 64, depth=depth
    )


def flat() -> DeviceProfile:
    """A device where a token of S takes 1 s and a prompt a number of seconds that is its length."""
    layer = Constant(1 / S.num_hidden_layers, "s", "assumed", "for a test")
    rows = prefill_terms(S, 1, 0, UNIT, "int4")["prefill_rows"] / PHONE.mac_s[4].value
    prompt = Constant(1 / rows, "x the time at the plain rate", "assumed", "for a test")
    return replace(
        PHONE,
        weights={"int4": {"decode_layers": layer, "prefill_rows": prompt}},
        attention={"int8": {}},
        power={
            "prefill": Constant(10, "W", "assumed", "for a test"),
            "decode": Constant(5, "W", "assumed", "for a test"),
        },
        electricity=Constant(0.36, "$/kWh", "assumed", "for a test"),
        per_hour=Constant(3600, "$/h", "assumed", "for a test"),
    )


def test_a_request_by_hand() -> None:
    """20 tokens of 1 s, then 10 of 1 s: 30 s, 20 x 10 + 10 x 5 J, 1 $ a second."""
    cost = request_cost(flat(), S, Request(20, 11))
    assert (cost.ttft_ms, cost.tpot_ms, cost.total_ms) == pytest.approx((20_000, 1_000, 30_000))
    assert cost.joules == pytest.approx(250)
    assert cost.money == pytest.approx(250 * 0.36 / 3.6e6 + 30)
    stated = request_cost(flat(), S, Request(20, 11), rates=StatedRates(1, 2, 0, 0))
    assert (stated.joules, stated.money) == pytest.approx((40, 0))
    assert dict(stated.inputs)["power.decode"].source == "stated with the question"


def test_an_answer_of_one_token_is_the_first_one() -> None:
    cost = request_cost(PHONE, S, Request(64, 1))
    assert cost.tpot_ms is None
    assert cost.total_ms == cost.ttft_ms == 1e3 * prefill_seconds(PHONE, S, 64)


@settings(deadline=None, max_examples=20)
@given(prompt=st.integers(1, 2000), answer=st.integers(2, 300))
def test_the_answer_takes_its_steps_one_by_one(prompt: int, answer: int) -> None:
    cost = request_cost(PHONE, S, Request(prompt, answer))
    steps = sum(decode_seconds(PHONE, S, prompt + i) for i in range(answer - 1))
    assert cost.total_ms == pytest.approx(cost.ttft_ms + 1e3 * steps, rel=1e-9)


def test_the_inputs_are_those_that_matter() -> None:
    inputs = dict(request_cost(PHONE, S, Request(64, 8)).inputs)
    assert "memory_bytes" not in inputs
    assert {"read_bytes_s.4", "mac_s.4", "attention.int8.decode_attention"} <= set(inputs)
    assert set(inputs) < set(dict(PHONE.constants()))


@pytest.mark.parametrize("field", ["prompt_tokens", "new_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True])
def test_a_request_without_tokens_is_refused(field: str, value: object) -> None:
    with pytest.raises(MobileMoEError, match=f"request: {field} is"):
        Request(**{"prompt_tokens": 1, "new_tokens": 1, field: value})  # type: ignore[arg-type]


def test_a_rate_below_zero_is_refused() -> None:
    with pytest.raises(MobileMoEError, match="value is -1"):
        request_cost(PHONE, S, Request(1, 1), rates=StatedRates(per_hour=-1))
