"""2 and 4 ranks train what 1 rank trains, with experts shared or not; any layout reads another's.

Tolerance. Layouts differ only in the order of float32 sums: a loss near 4 carries an error of a
few times 2^-24 x 4 = 2.4e-7, and eight AdamW steps pass on what they get (no step multiplies it
by much at these rates). `LOSS` and `WEIGHT` are some forty and ten times what one rank differs
from itself when it takes the same rows one at a time (2e-7 and 1.5e-6, in "alone in pieces").
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from parallel_support import free_ports, run_ranks
from parallel_worker import LAYOUTS, PLAIN, PORTS, RELOADED, SAVED
from safetensors.torch import load_file
from torch import Tensor

LOSS, NORM, WEIGHT = 1e-5, 1e-4, 2e-5  # nats; relative; absolute, of weights that reach 0.3
LOGIT = 1e-4  # a sum of 64 products of the above
ROUNDED, HALF = 5e-3, 2e-2  # what INT4 and bfloat16 make of such differences, in nats


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the losses and the final state of every layout."""
    out = tmp_path_factory.mktemp("layouts")
    run_ranks(4, "parallel_worker.py", out, *free_ports(PORTS))
    return out


def curve(folder: Path, name: str) -> Tensor:
    """Loss and gradient norm of each step."""
    return torch.tensor(json.loads((folder / name / "curve.json").read_text()), dtype=torch.float64)


def state(folder: Path, name: str) -> dict[str, Tensor]:
    """The whole final state, as one file."""
    tensors = load_file(folder / name / "state.safetensors")
    return {key: tensor for key, tensor in tensors.items() if not key.startswith("random.")}


def logits(folder: Path, name: str) -> Tensor:
    """The logits of two evaluations: before and after training, or loading."""
    return load_file(folder / name / "logits.safetensors")["logits"]


def assert_same_curve(folder: Path, name: str, reference: str, loss: float, norm: float) -> None:
    """Compare step by step."""
    actual, expected = curve(folder, name), curve(folder, reference)
    torch.testing.assert_close(actual[:, 0], expected[:, 0], rtol=0, atol=loss)
    torch.testing.assert_close(actual[:, 1], expected[:, 1], rtol=norm, atol=0)


@pytest.mark.parametrize("name", [layout.name for layout in PLAIN])
def test_every_layout_gives_the_curve_and_weights_of_one_rank(trained: Path, name: str) -> None:
    assert_same_curve(trained, name, "alone", LOSS, NORM)
    expected = state(trained, "alone")
    actual = state(trained, name)
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        if key.startswith(("bias.", "loads")):
            assert torch.equal(actual[key], tensor), key
        else:
            torch.testing.assert_close(actual[key], tensor, rtol=0, atol=WEIGHT, msg=key)


@pytest.mark.parametrize("name", [layout.name for layout in PLAIN])
def test_an_evaluation_sees_the_newest_weights(trained: Path, name: str) -> None:
    expected, actual = logits(trained, "alone"), logits(trained, name)
    torch.testing.assert_close(actual, expected, rtol=0, atol=LOGIT)
    assert (actual[0] - actual[1]).abs().max() > 1, "training changed them"


def test_the_model_learns_and_the_experts_move(trained: Path) -> None:
    losses = curve(trained, "4 ranks, EP 2")[:, 0]
    assert losses[-1] < 0.75 * losses[0]
    full = state(trained, "4 ranks, EP 2")
    name = "exp_avg_sq.model.layers.0.feed_forward.experts.down_proj"
    assert (full[name].flatten(1).amax(1) > 0).all(), "every expert of every rank had a gradient"


def test_capacity_is_per_rank(trained: Path) -> None:
    """Four ranks with a row each drop what one rank drops that takes the rows one at a time."""
    assert_same_curve(trained, "dropping, EP 2", "dropping alone", LOSS, NORM)
    dropless = curve(trained, "alone")[: len(curve(trained, "dropping alone"))]
    assert (dropless[:, 0] - curve(trained, "dropping alone")[:, 0]).abs().max() > 10 * LOSS


def test_fake_quantisation_sees_whole_groups(trained: Path) -> None:
    assert_same_curve(trained, "rounded, EP 2", "rounded alone", ROUNDED, 0.05)


def test_bfloat16_is_gathered_and_summed_in_float32(trained: Path) -> None:
    assert_same_curve(trained, "bf16, EP 2", "bf16 alone", HALF, 0.05)


@pytest.mark.parametrize("name", [layout.name for layout in RELOADED])
def test_a_checkpoint_is_the_same_bits_on_any_number_of_ranks(trained: Path, name: str) -> None:
    expected = state(trained, SAVED.name)
    actual = state(trained, name)
    assert actual.keys() == expected.keys()
    assert any(key.startswith("exp_avg_sq.") and tensor.any() for key, tensor in expected.items())
    for key, tensor in expected.items():
        assert torch.equal(actual[key], tensor), key


@pytest.mark.parametrize("name", [layout.name for layout in RELOADED])
def test_an_evaluation_sees_the_weights_that_were_loaded(trained: Path, name: str) -> None:
    before, after = logits(trained, name)
    torch.testing.assert_close(after, logits(trained, SAVED.name)[1], rtol=0, atol=LOGIT)
    assert (before - after).abs().max() > 1


def test_each_rank_wrote_its_share(trained: Path) -> None:
    folder = trained / (trained / "LATEST").read_text().strip()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["ranks"], manifest["expert_parallel"]) == (4, 2)
    sizes = list(manifest["files"].values())
    assert len(sizes) == 4
    assert max(sizes) < 0.5 * sum(sizes)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    assert len(LAYOUTS) >= 10
