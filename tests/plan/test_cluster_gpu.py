"""GPU profiles: every number has a source; anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster import Quantity, gpu_profile, known_gpus

H100 = Path(__file__).parents[2] / "src/mobilemoe/plan/cluster/gpus/h100.toml"


def test_every_known_gpu_is_complete_and_plausible() -> None:
    assert {"a100", "b200", "h100", "h200", "l4"} <= set(known_gpus())
    for name in known_gpus():
        gpu = gpu_profile(name)
        assert gpu.fp32_flops.value < gpu.bf16_flops.value
        assert gpu.network_bandwidth.value < gpu.node_bandwidth.value < gpu.hbm_bandwidth.value
        assert gpu.mfu.value < 1
        assert all(len(quantity.source) > 10 for quantity in gpu.quantities())
        assert {q.kind for q in (gpu.memory, gpu.bf16_flops, gpu.hbm_bandwidth)} == {"published"}


def test_case_does_not_matter_and_a_path_works(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(H100.read_text().replace("8.0e10", "6.0e10"))
    assert gpu_profile("H100") == gpu_profile("h100")
    assert gpu_profile(str(own)).memory.value == 6e10


def test_rejects_an_unknown_gpu_with_the_list() -> None:
    with pytest.raises(MobileMoEError, match="a100, b200, h100, h200, l4"):
        gpu_profile("h1000")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("memory =", "memori =", "missing or unknown memori, memory"),
        ("8.0e10", '"80GB"', "memory is '80GB'"),
        ("8.0e10", "-1", "memory is -1"),
        (', source = "NVIDIA H100 data sheet, SXM" }', " }", "memory is"),
        ('kind = "published"', 'kind = "guessed"', "kind is 'guessed'"),
        ("name =", "name ==", "GPU profile"),
    ],
)
def test_rejects_a_bad_profile(tmp_path: Path, old: str, new: str, message: str) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(H100.read_text().replace(old, new, 1))
    with pytest.raises(MobileMoEError, match=message):
        gpu_profile(str(bad))


def test_rejects_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="cannot read"):
        gpu_profile(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True])
def test_rejects_a_quantity_that_is_no_positive_number(value: float) -> None:
    with pytest.raises(MobileMoEError, match="a positive number"):
        Quantity("price", value, "$", "stated", "a test")
