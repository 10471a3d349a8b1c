"""`resident`: less memory, the same bits, and no expert is hurt by the going of another."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_support import SMALL, write_random
from hypothesis import given, settings
from hypothesis import strategies as st

import mobilemoe
from mobilemoe.checkpoint.random_init import init_checkpoint
from mobilemoe.engine import RoutingTrace, collect_routing, load
from mobilemoe.engine.footprint import expert_bytes
from mobilemoe.engine.residency import smallest_resident
from mobilemoe.errors import MobileMoEError

linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
CONFIG = replace(
    SMALL,
    vocab_size=256,
    hidden_size=160,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=10,
    num_local_experts=40,
    num_experts_per_tok=4,
    eos_token_id=(255,),
)
IDS = np.random.default_rng(3).integers(0, 256, 90)
PAGE = mmap.PAGESIZE

# What /proc says of the pages of the weights file that are in this process.
PRELUDE = """
import json, os, sys
from pathlib import Path
import numpy as np
from mobilemoe.engine import load
from mobilemoe.errors import CheckpointError

def mapped():
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            ours = line.endswith(".safetensors")
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total

folder, ids = sys.argv[1], list(range(200)) + list(range(50, 150))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Experts of 27 KB that share pages with their neighbours."""
    return write_random(tmp_path_factory.mktemp("residency") / "model", CONFIG).folder


@pytest.fixture(scope="module")
def free(folder):
    return load(folder, threads=2)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """35 MB, most of it in 480 experts."""
    config = replace(
        mobilemoe.ModelConfig.preset("nano"),
        vocab_size=512,
        hidden_size=256,
        intermediate_size=128,
        intermediate_size_mlp=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        num_local_experts=60,
        num_experts_per_tok=4,
        max_position_embeddings=1024,
    )
    folder = tmp_path_factory.mktemp("resident") / "model"
    return init_checkpoint(folder, config, "int4", 0).folder


def run(code: str, *arguments: object) -> list[str]:
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def decode(model, ids) -> np.ndarray:
    session = model.session()
    return np.stack([session.append([int(i)]) for i in ids])


def least(config=CONFIG, weight_format="int4") -> int:
    return smallest_resident(config, weight_format)


@pytest.mark.parametrize(
    ("weight_format", "activations"), [("int4", "int8"), ("int4", "fp32"), ("bf16", "fp32")]
)
@pytest.mark.parametrize("step", [1, 2])
def test_logits_are_bit_equal(tmp_path, weight_format, activations, step):
    """With the smallest budget, so that most choices are misses; one layer in two, or each."""
    config = replace(CONFIG, interleave_moe_layer_step=step)
    write_random(tmp_path / "model", config, weight_format)
    options = {"threads": 2, "activations": activations}
    free = load(tmp_path / "model", **options)
    tight = load(tmp_path / "model", **options, resident=least(config, weight_format))
    assert np.array_equal(tight.logits(IDS), free.logits(IDS))
    assert np.array_equal(decode(tight, IDS), decode(free, IDS))
    cost = tight.residency()
    assert min(cost.evictions, cost.misses, cost.hits) > 100
    assert cost.peak_bytes <= cost.budget_bytes
    assert free.residency() is None


@settings(max_examples=25, deadline=None)
@given(
    extra=st.integers(0, 2 * expert_bytes(CONFIG, "int4")),
    calls=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_any_budget_pins_and_calls_keep_bits_and_budget(folder, free, extra, calls, seed):
    counts_LE = np.random.default_rng(seed).integers(0, 5, (4, 40))
    resident = least() + extra
    model = load(folder, threads=1, resident=resident, routing_trace=RoutingTrace(counts_LE))
    pinned = model.residency().pinned_bytes
    for ids in calls:
        assert np.array_equal(model.logits(ids), free.logits(ids))
        cost = model.residency()
        assert pinned <= cost.resident_bytes <= cost.peak_bytes <= cost.budget_bytes <= resident
    assert cost.pinned_bytes == pinned <= resident - least() + 4096


def test_what_is_counted(folder):
    """With room for everything each expert is read once, and pinned ones are never missed."""
    trace = collect_routing(load(folder, threads=1), [IDS])
    model = load(folder, threads=1, resident=4 * expert_bytes(CONFIG, "int4"))
    chosen = int((trace.counts_LE > 0).sum())
    model.logits(IDS)
    first = model.residency()
    assert (first.hits, first.misses, first.evictions) == (0, chosen, 0)
    assert 0 < first.bytes_read == first.resident_bytes and first.wait_seconds > 0
    model.logits(IDS)
    second = model.residency()
    assert (second.hits, second.misses) == (chosen, chosen)
    assert second.bytes_read == first.bytes_read and second.hit_rate == 0.5

    resident = 4 * expert_bytes(CONFIG, "int4")
    model = load(folder, threads=1, resident=resident, routing_trace=trace)
    model.logits(IDS)
    assert model.residency().misses == 0 and model.residency().hits == chosen


def expert_pages(folder: Path) -> tuple[dict[tuple[int, int], set[int]], set[int]]:
    """Return the pages of the file that hold bytes of each expert, and of anything else."""
    text = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(text[:8], "little")
    header = json.loads(text[8 : 8 + length])
    pages: dict[tuple[int, int], set[int]] = {}
    others = set(range((8 + length - 1) // PAGE + 1))
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        if ".experts." not in name:
            others |= set(range(start // PAGE, (end - 1) // PAGE + 1))
            continue
        size = (end - start) // 40
        for e in range(40):
            first = start + e * size
            key = int(name.split(".")[2]), e
            span = set(range(first // PAGE, (first + size - 1) // PAGE + 1))
            pages[key] = pages.get(key, set()) | span
    return pages, others


@pytest.mark.parametrize("extra", [0, 300_000])
def test_the_least_recently_used_expert_goes_first(folder, extra):
    """Against a list of experts and sets of pages: the same misses, evictions and pages."""
    pages, others = expert_pages(folder)
    budget = (least() + extra) // PAGE
    model = load(folder, threads=1, resident=least() + extra)
    session, held = model.session(), {}  # from the least to the most recently used
    misses = evictions = 0

    def taken(*more: tuple[int, int]) -> int:
        return len(set().union(*(pages[key] for key in (*held, *more))) - others)

    for token in IDS:
        session.append([int(token)])
        for layer, ids_TK in enumerate(session.routing()):
            keys = [(layer, int(expert)) for expert in ids_TK[0]]
            missing = [key for key in keys if key not in held]
            for key in keys:
                if key not in missing:
                    held[key] = held.pop(key)
            for key in missing:
                while taken(key) > budget:
                    del held[next(iter(held))]
                    evictions += 1
                held[key] = True
            misses += len(missing)
    cost = model.residency()
    assert (cost.misses, cost.evictions) == (misses, evictions)
    assert evictions > 100
    assert cost.resident_bytes == PAGE * taken()


def test_hottest_experts_of_the_trace_stay(folder):
    counts_LE = np.zeros((4, 40), np.int64)
    counts_LE[1, 7], counts_LE[3, 0], counts_LE[0, 39] = 5, 9, 7
    trace = RoutingTrace(counts_LE)
    assert trace.hottest(2) == [(3, 0), (0, 39)]
    assert trace.hottest(9) == [(3, 0), (0, 39), (1, 7)]
    model = load(folder, threads=1, resident=3 * least(), routing_trace=trace)
    one = expert_bytes(CONFIG, "int4") // 160
    assert 2 * one < model.residency().pinned_bytes < 3 * one + 3 * 8 * 4096


@linux
@pytest.mark.parametrize("shared", [False, True])
def test_the_memory_of_the_process_stays_under_the_plan(large, tmp_path, shared):
    """Pages of the file: what is always needed and the budget.

    Also when somebody else uses the file, so that the system keeps all of it in its cache and
    maps what lies around a page that is touched.
    """
    budget = 6_000_000
    code = """
import gc, mmap
os.link(Path(folder) / "model.safetensors", sys.argv[3])
if sys.argv[4] == "True":
    with open(sys.argv[3], "rb") as other:
        view = mmap.mmap(other.fileno(), 0, access=mmap.ACCESS_READ)
    sum(view[:: mmap.PAGESIZE])
free = load(folder, threads=2)
expected = free.logits(ids)
everything = mapped()
del free
gc.collect()
model = load(folder, threads=2, resident=int(sys.argv[2]))
session, most, least = model.session(), 0, 1.0
file = Path(folder) / "model.safetensors"
assert np.array_equal(model.logits(ids), expected)
for token in ids[::3]:
    session.append([token])
    pages, plan = mapped(), model.memory_plan
    kept = model.residency().resident_bytes + os.path.getsize(file) - plan.experts
    most, least = max(most, pages), min(least, pages / kept)
print(json.dumps([everything, most, least, plan.weights, plan.experts]))
print(json.dumps(model.residency().to_dict()))
"""
    numbers, cost = run(code, large, budget, tmp_path / "link", shared)
    everything, most, least, weights, experts = json.loads(numbers)
    size = (large / "model.safetensors").stat().st_size
    assert json.loads(cost)["evictions"] > 100
    assert everything > 0.95 * size
    assert weights == size - experts + budget
    assert most <= 1.05 * weights, (most, weights)
    assert most < 0.6 * everything
    assert least > 0.999  # what is kept stays, though a neighbour goes


@linux
@pytest.mark.parametrize("resident", [None, 6_000_000])
def test_the_peak_of_a_process_is_what_was_planned(large, resident):
    code = """
resident = None if sys.argv[2] == "None" else int(sys.argv[2])
model = load(folder, threads=2, context=1024, resident=resident)
session = model.session()
session.append(np.arange(1024) % 512)
peak = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(json.dumps([1024 * int(peak[0].split()[1]), model.memory_plan.total]))
"""
    peak, planned = json.loads(run(code, large, resident)[0])
    assert 0.9 * planned < peak <= 1.05 * planned


@linux
def test_a_file_cut_while_its_experts_are_read_is_an_error(large, tmp_path):
    code = """
import shutil
shutil.copytree(folder, sys.argv[2])
file = Path(sys.argv[2]) / "model.safetensors"
model = load(sys.argv[2], threads=2, resident=6_000_000)
session = model.session()
session.append(ids)
os.truncate(file, file.stat().st_size // 2)
for call in (lambda: session.append(ids[:9]), lambda: model.logits(ids)):
    try:
        call()
    except CheckpointError as error:
        print(error.message.split(": ")[-1])
del session, model  # the model can still be let go of
"""
    assert run(code, large, tmp_path / "copy") == ["was truncated while in use"] * 2


@pytest.mark.parametrize("resident", [0, -1, 1, 4096, True, 1.5, float("nan"), "6MB", 2**63, 2**70])
def test_hostile_budgets_are_refused(folder, resident):
    with pytest.raises(MobileMoEError, match=r"resident is .*; allowed: bytes, \d+ \(the routed"):
        load(folder, threads=1, resident=resident)


def test_the_smallest_budget_holds_and_one_byte_less_does_not(folder):
    assert load(folder, threads=1, resident=least()).residency().hit_rate == 1.0
    with pytest.raises(
        MobileMoEError, match=f"resident is {least() - 1}; allowed: bytes, {least()}"
    ):
        load(folder, threads=1, resident=least() - 1)


def test_a_dense_model_has_nothing_to_page(tmp_path):
    dense = replace(SMALL, num_local_experts=0, num_experts_per_tok=0, intermediate_size=0)
    write_random(tmp_path / "model", dense)
    with pytest.raises(MobileMoEError, match="resident is 1000000; allowed: None"):
        load(tmp_path / "model", threads=1, resident=1_000_000)
    with pytest.raises(MobileMoEError, match="the model routes nothing"):
        collect_routing(load(tmp_path / "model", threads=1), [[1]])


def test_the_native_engine_checks_for_itself(folder):
    native = load(folder, threads=1)._native
    for budget, pins, message in (
        (4096, [], "resident is 4096 bytes; allowed: at least"),
        (10**7, [(4, 0)], "a pinned layer is 4; allowed: 0 to 3"),
        (10**7, [(-1, 0)], "a pinned layer is -1"),
        (10**7, [(0, 40)], "a pinned expert of layer 0 is 40; allowed: 0 to below 40"),
        (
            least(),
            [(0, e) for e in range(5)],
            "the pinned experts take more than the budget leaves",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            native.limit_experts(budget, pins)
    assert native.residency() is None
