"""The memory plan: what it sums, which limit it is held against, and how it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import BF16_FOLDER, INT4_FOLDERS, SMALL, write_random
from hypothesis import given
from hypothesis import strategies as st

from fake_system import write_file
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.engine import load
from mobilemoe.engine.footprint import kv_cache_bytes, model_bytes, session_bytes
from mobilemoe.engine.memory_limits import ADDRESS_SPACE, GROUP, MACHINE
from mobilemoe.engine.plan import ASKED, check_plan, megabytes, plan_memory
from mobilemoe.engine.residency import bookkeeping_bytes, smallest_resident
from mobilemoe.errors import MobileMoEError

FOLDER = INT4_FOLDERS[0]
CONFIG = replace(SMALL, vocab_size=4096, num_local_experts=200)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_random(tmp_path_factory.mktemp("plan") / "model", CONFIG)


def machine(root: Path, available_kb: int = 1_500_000, address_space: str = "unlimited") -> Path:
    """A process of 50 MB on a machine of 2 GB."""
    write_file(root, "proc/meminfo", f"MemTotal: 2000000 kB\nMemAvailable: {available_kb} kB")
    write_file(root, "proc/self/status", "VmSize:  100000 kB\nVmRSS:   50000 kB")
    row = f"Max address space         {address_space:<20} unlimited            bytes"
    write_file(root, "proc/self/limits", row)
    return root


def test_the_parts_are_those_of_the_model(checkpoint, tmp_path):
    plan = plan_memory(checkpoint, 640, 2, int8=True, root=machine(tmp_path))
    size = sum(path.stat().st_size for path in checkpoint.shards)
    assert plan.weights == size
    assert plan.copied == model_bytes(CONFIG)
    assert plan.kv + plan.scratch == session_bytes(CONFIG, 640, 2, int8=True)
    assert plan.tokenizer == 0
    parts = (plan.weights, plan.copied, plan.kv, plan.scratch, plan.process)
    assert plan.total == sum(parts)
    assert 51_200_000 < plan.process < 60_000_000
    half = plan.experts // 2
    resident = plan_memory(checkpoint, 640, 2, True, resident=half, root=tmp_path)
    assert resident.weights == size - plan.experts + half
    everything = plan_memory(checkpoint, 640, 2, True, resident=10**12, root=tmp_path)
    assert everything.weights == size


def test_a_tokenizer_takes_memory_too(checkpoint, tmp_path):
    (tmp_path / "model").mkdir()
    for path in checkpoint.folder.iterdir():
        (tmp_path / "model" / path.name).symlink_to(path)
    (tmp_path / "model" / "tokenizer.json").write_bytes(b" " * 1000)
    plan = plan_memory(open_checkpoint(tmp_path / "model"), 8, 1, True)
    assert plan.tokenizer == 14_000


def test_the_kv_cache_by_format():
    per_token = CONFIG.kv_bytes_per_token
    rows = 2 * CONFIG.num_hidden_layers * CONFIG.num_key_value_heads
    assert per_token("int8") == rows * (CONFIG.head_dim + 4)
    for kv in ("int8", "fp16", "fp32"):
        assert kv_cache_bytes(CONFIG, 100, kv) == 128 * per_token(kv)
        assert kv_cache_bytes(CONFIG, 128, kv) == 128 * per_token(kv)
    assert session_bytes(CONFIG, 100, kv="fp16") < session_bytes(CONFIG, 100, kv="fp32")


def test_the_tightest_limit_binds(checkpoint, tmp_path):
    root = machine(tmp_path)
    plan = plan_memory(checkpoint, 8, 1, True, root=root)
    assert (plan.limit, plan.limit_name) == (1_536_000_000 + 51_200_000, MACHINE)
    write_file(root, "sys/fs/cgroup/memory.max", "1000000000")
    write_file(root, "sys/fs/cgroup/memory.current", "400000000")
    plan = plan_memory(checkpoint, 8, 1, True, root=root)
    assert (plan.limit, plan.limit_name) == (600_000_000 + 51_200_000, GROUP)
    plan = plan_memory(checkpoint, 8, 1, True, memory_limit=70_000_000, root=root)
    assert (plan.limit, plan.limit_name) == (70_000_000, ASKED)
    assert plan_memory(checkpoint, 8, 1, True, root=tmp_path / "none").limit is None


def test_all_of_a_file_needs_address_space(checkpoint, tmp_path):
    root = machine(tmp_path, address_space="200000000")
    resident = smallest_resident(CONFIG, "int4")
    plan = plan_memory(checkpoint, 8, 1, True, resident=resident, root=root)
    assert plan.limit_name == ADDRESS_SPACE
    mapped_more = plan.experts - resident
    assert plan.limit == 200_000_000 - 102_400_000 + 51_200_000 - mapped_more


@given(over=st.integers(-2000, 2000))
def test_a_plan_is_refused_exactly_above_its_limit(checkpoint, over):
    total = plan_memory(checkpoint, 640, 1, True, root=Path("/nowhere")).total
    plan = plan_memory(checkpoint, 640, 1, True, memory_limit=total - over, root=Path("/nowhere"))
    assert plan.fits == (over <= 0)
    if plan.fits:
        check_plan(plan)
    else:
        with pytest.raises(MobileMoEError):
            check_plan(plan)


def refusal(checkpoint, saved: float, **options) -> MobileMoEError:
    root = Path("/nowhere")
    total = plan_memory(checkpoint, 640, 1, True, root=root, **options).total
    plan = plan_memory(
        checkpoint, 640, 1, True, root=root, memory_limit=int(total - saved), **options
    )
    with pytest.raises(MobileMoEError) as caught:
        check_plan(plan)
    return caught.value


def test_a_refusal_has_the_numbers_and_what_helps(checkpoint):
    kv = kv_cache_bytes(CONFIG, 640, "int8")
    experts = plan_memory(checkpoint, 8, 1, True).experts
    spare = experts - smallest_resident(CONFIG, "int4")
    error = refusal(checkpoint, kv / 4)
    assert "the model would take 5" in error.message and "MB of memory (weights" in error.message
    assert "KV 0.2 MB (640 tokens, int8)" in error.message and "(memory_limit)" in error.message
    assert "a context of about 448 tokens" in error.hint
    assert "--resident" in error.hint and "--memory-limit" in error.hint
    assert "a context of about" not in refusal(checkpoint, kv + 1).hint
    assert f"{megabytes(experts - kv - 2000)} of experts" in refusal(checkpoint, kv + 1).hint
    assert "fewer experts in memory" in refusal(checkpoint, spare + kv / 2).hint
    assert "choose a smaller model" in refusal(checkpoint, spare + kv).hint


def test_a_context_too_short_to_be_cut_is_not_named(checkpoint):
    """A cache has room for 64 positions at least."""
    assert (
        "a context of about 64 tokens"
        in refusal(checkpoint, 0.89 * kv_cache_bytes(CONFIG, 640, "int8")).hint
    )
    assert (
        "a context of about"
        not in refusal(checkpoint, 0.91 * kv_cache_bytes(CONFIG, 640, "int8")).hint
    )


@given(context=st.integers(513, 8192), share=st.floats(0, 1, exclude_max=True))
def test_the_context_of_the_hint_fits_though_the_cache_is_rounded_up(checkpoint, context, share):
    """Beyond a chunk the buffers hardly shrink, so the cache alone has to."""
    root = Path("/nowhere")
    options = {"int8": True, "root": root}
    total = plan_memory(checkpoint, context, 1, **options).total
    limit = total - int(share * kv_cache_bytes(CONFIG, context, "int8"))
    plan = plan_memory(checkpoint, context, 1, memory_limit=limit - 1, **options)
    with pytest.raises(MobileMoEError) as caught:
        check_plan(plan)
    if "a context of about " in caught.value.hint:
        tokens = int(caught.value.hint.split("about ")[1].split()[0])
        assert plan_memory(checkpoint, tokens, 1, memory_limit=limit - 1, **options).fits


def test_what_the_hint_says_is_enough(checkpoint):
    """The context and the experts that a refusal names do fit."""
    root = Path("/nowhere")
    total = plan_memory(checkpoint, 640, 1, True, root=root).total
    limit = total - kv_cache_bytes(CONFIG, 640, "int8") // 4
    plan = plan_memory(checkpoint, 640, 1, True, root=root, memory_limit=limit)
    with pytest.raises(MobileMoEError) as caught:
        check_plan(plan)
    tokens = int(caught.value.hint.split("about ")[1].split()[0])
    assert plan_memory(checkpoint, tokens, 1, True, root=root, memory_limit=limit).fits
    table = bookkeeping_bytes(plan.weights)
    resident = plan.experts - (total - limit) - table
    assert f"{megabytes(resident)} of experts" in caught.value.hint
    assert plan_memory(checkpoint, 640, 1, True, resident, limit, root=root).fits


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1GB", float("inf")])
def test_a_limit_that_is_no_number_of_bytes_is_refused(limit):
    with pytest.raises(MobileMoEError, match="memory_limit is "):
        load(FOLDER, threads=1, memory_limit=limit)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_load_refuses_before_it_maps_anything():
    code = """
import sys
from pathlib import Path
from mobilemoe.engine import load
from mobilemoe.errors import MobileMoEError
said = []
try:
    load(sys.argv[1], threads=1, memory_limit=20_000_000, announce=said.append)
except MobileMoEError as error:
    print(error.message.split(" (")[0], said[0].memory.limit)
print("safetensors" in Path("/proc/self/maps").read_text())
"""
    done = subprocess.run([sys.executable, "-c", code, FOLDER], capture_output=True, text=True)
    first, mapped = done.stdout.splitlines()
    assert first.startswith("the model would take ") and first.endswith(" of memory 20000000")
    assert mapped == "False"


def test_the_system_is_asked_by_default():
    assert load(FOLDER, threads=1).memory_plan.limit_name in (MACHINE, GROUP, ADDRESS_SPACE)
    assert load(FOLDER, threads=1, memory_limit=10**12).memory_plan.limit == 10**12
    plan = load(BF16_FOLDER, threads=1, context=64).memory_plan
    assert (plan.context, plan.kv_format) == (64, "fp32")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 MB"), (9_949_999, "9.9 MB"), (9_950_000, "10 MB"), (999_499_999, "999 MB"),
     (999_500_000, "1.00 GB"), (24 * 10**9, "24.00 GB")],
)  # fmt: skip
def test_megabytes(value, text):
    assert megabytes(value) == text
