"""Recipes for the tests: the built-in nano, and strategies that draw any valid one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mobilemoe.config import ModelConfig
from mobilemoe.recipe import (
    STAGE_NAMES,
    Guard,
    Optimizer,
    Parallel,
    Recipe,
    RoutingLosses,
    Run,
    Source,
    Stage,
)

NAMES = st.text("aZ09_-", max_size=4).map("n".__add__)
# What a writer of TOML can get wrong: quotes, escapes, control characters, beyond the first plane.
TEXTS = st.text("aZ0 .#=[]{}'\"\\\n\r\t\b\0\x1f\x7f\x85\u2028é漢😀", min_size=1, max_size=8)
SHARES = st.floats(0.01, 1)


@st.composite
def sources(draw: st.DrawFn, name: str) -> Source:
    """A source of any kind, with the fields that its kind allows."""
    kind = draw(st.sampled_from(["embedded", "txt", "jsonl", "parquet", "hf"]))
    values: dict[str, Any] = {"max_tokens": draw(st.none() | st.integers(1, 10**15))}
    if kind in ("jsonl", "parquet", "hf"):
        values[draw(st.sampled_from(["text_field", "messages_field"]))] = draw(TEXTS)
    if kind == "hf":
        values |= {"split": draw(TEXTS), "subset": draw(st.none() | TEXTS)}
        values["revision"] = draw(st.none() | TEXTS)
    path = draw(st.sampled_from(["code", "instruct"]) if kind == "embedded" else TEXTS)
    if kind == "embedded" and path == "instruct":
        values["generate"] = draw(st.none() | st.integers(1, 10**7))
    return Source(name, kind, path, draw(NAMES), draw(TEXTS), **values)


@st.composite
def stages(draw: st.DrawFn, name: str, names: list[str], domains: list[str]) -> Stage:
    """A stage of any mixture of `names`; INT4 in qat alone."""
    raw = draw(st.dictionaries(st.sampled_from(names), SHARES, min_size=1))
    total = sum(raw.values())
    context = draw(st.integers(2, 1024))
    batch_tokens = context * draw(st.integers(1, 64))
    steps = draw(st.integers(1, 1000))
    fake_quant = name == "qat" and draw(st.booleans())
    return Stage(
        name=name,
        purpose=draw(TEXTS),
        for_domains=tuple(draw(st.lists(st.sampled_from(domains), max_size=2))),
        tokens=steps * batch_tokens,
        context=context,
        batch_tokens=batch_tokens,
        mixture={key: share / total for key, share in raw.items()},
        lr=draw(st.floats(1e-9, 1)),
        schedule=draw(st.sampled_from(["cosine", "linear"])),
        warmup_steps=draw(st.integers(0, steps)),
        final_lr=draw(st.floats(0, 1) | st.sampled_from([0, 1])),
        capacity_factor=draw(st.none() | st.floats(0.1, 100) | st.integers(1, 100)),
        fake_quant=fake_quant,
        int8_activations=fake_quant and draw(st.booleans()),
    )


RUNS = st.builds(
    Run,
    device=st.sampled_from(["auto", "cpu", "cuda"]),
    precision=st.sampled_from(["fp32", "bf16"]),
    micro_batch_rows=st.none() | st.integers(1, 64),
    compile=st.booleans(),
    threads=st.none() | st.integers(1, 64),
    save_every_seconds=st.floats(0, 3600),
)
GUARDS = st.builds(Guard, window=st.integers(1, 99), max_loss_jump=st.floats(0.1, 99))
OPTIMIZERS = st.builds(Optimizer, beta1=st.floats(0, 0.99), weight_decay=st.floats(0, 1))
ROUTING = st.builds(RoutingLosses, bias_update_rate=st.floats(0, 1), z_loss=st.floats(0, 1))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any valid recipe."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    found = {name: draw(sources(name)) for name in names}
    domains = sorted({source.domain for source in found.values()})
    return Recipe(
        name=draw(NAMES),
        model=ModelConfig.preset(draw(st.sampled_from(["nano", "S", "olmoe-1b-7b"]))),
        seed=draw(st.integers(0, 2**63 - 1)),
        tokenizer=draw(TEXTS),
        sources=found,
        optimizer=draw(OPTIMIZERS),
        routing=draw(ROUTING),
        stages=tuple(draw(stages(name, names, domains)) for name in STAGE_NAMES),
        run=draw(RUNS),
        guard=draw(GUARDS),
        parallel=Parallel(expert_parallel=draw(st.sampled_from([1, 2, 4]))),
    )
