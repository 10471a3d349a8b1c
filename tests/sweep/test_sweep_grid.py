"""What a sweep trains: equal active width for every choice, each run once, nothing unbuildable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_cases import KEYS, SMALL

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import builtin_recipes
from mobilemoe.sweep import load_sweep, parse_sweep
from mobilemoe.sweep.architecture import Experts, Shape, build_config

RECIPE = Path(__file__).parents[2] / "recipes" / "sweep_nano.toml"


def build(hidden: int, experts: Experts) -> tuple[int, int, int, int]:
    """Return routed experts, top-k, fine width and shared width."""
    config = build_config(Shape(hidden, 2, 1, 1, 64), experts, 4096, 256)
    return (
        config.num_local_experts,
        config.num_experts_per_tok,
        config.intermediate_size,
        config.intermediate_size_mlp,
    )


def test_the_published_choice_is_60_experts_top_4_and_a_shared_one() -> None:
    assert build(768, Experts(8, 8, True)) == (60, 4, 384, 1536)


def test_one_expert_is_the_dense_model_whatever_the_rest_says() -> None:
    dense = (0, 0, 0, 4 * 64)
    assert {build(64, Experts(1, g, shared)) for g in (1, 8) for shared in (True, False)} == {dense}


@given(
    equivalents=st.sampled_from((1, 2, 4, 8, 16, 32)),
    granularity=st.sampled_from((2, 4, 8)),
    shared=st.booleans(),
    hidden=st.sampled_from((64, 128, 192)),
)
def test_the_active_width_is_that_of_the_dense_model(
    equivalents: int, granularity: int, shared: bool, hidden: int
) -> None:
    _, top_k, fine, shared_width = build(hidden, Experts(equivalents, granularity, shared))
    assert top_k * fine + shared_width == 4 * hidden


@given(
    equivalents=st.sampled_from((2, 4, 8, 16)),
    granularity=st.sampled_from((2, 4, 8)),
    shared=st.booleans(),
)
def test_all_experts_together_are_e_times_as_wide(
    equivalents: int, granularity: int, shared: bool
) -> None:
    routed, _, fine, shared_width = build(64, Experts(equivalents, granularity, shared))
    assert routed * fine + shared_width == equivalents * 4 * 64


def test_a_run_of_two_grids_is_trained_once_and_named_once() -> None:
    assert tuple(run.key for run in parse_sweep(SMALL).runs()) == KEYS


def test_the_sweep_of_the_package_is_the_published_order_and_values() -> None:
    sweep = load_sweep(RECIPE)
    assert [grid.name for grid in sweep.grids][:2] == ["experts", "granularity"]
    assert sweep.grids[0].expert_equivalents == (1, 2, 4, 8, 16, 32)
    assert {g for grid in sweep.grids[1:3] for g in grid.granularity} == {1, 2, 4, 8, 16}
    assert len(sweep.runs()) >= 60
    assert "sweep_nano" not in builtin_recipes()


def test_equal_but_for_the_router() -> None:
    sweep = load_sweep(RECIPE)
    for size in sweep.sizes.values():
        without_router = set()
        for run in sweep.runs():
            if run.size == size:
                config = run.config(sweep.training)
                extra = sum(w.size for w in config.weights() if w.kind in ("router", "expert_bias"))
                without_router.add(config.active_params - extra)
        assert len(without_router) == 1, size.name


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("layers = 1", "layers = 1\nspeed = 3", "unknown key 'speed'"),
        ("seeds = [0, 1]", "seeds = []", "grids.experts.seeds is []"),
        ("seeds = [0, 1]", "seeds = 0", "grids.experts.seeds is 0"),
        ("seeds = [0, 1]", "seeds = [-1]", "grids.experts.seeds is -1"),
        ("tokens = [512]\nseeds = [0, 1]", 'tokens = ["a"]\nseeds = [0, 1]', "experts.tokens is"),
        ('sizes = ["tiny"]', 'sizes = ["tinny"]', "grids.experts.sizes is 'tinny'"),
        ("granularity = [4]", "granularity = [3]", "granularity is 3 with a shared expert"),
        ("granularity = [4]", "granularity = [8]", "experts would be 16 wide"),
        ("math = 0.5", "math = 0.6", "the sum of pretrain.mixture is 1.1"),
        ("math = 0.5", "maths = 0.5", "training.mixture is 'maths'"),
        ("batch_tokens = 128", "batch_tokens = 100", "batch_tokens is 100"),
        ("head_dim = 32", "head_dim = 31", "head_dim is 31"),
        ("lr = 4e-3", "lr = 0", "sizes.tiny.lr is 0"),
        ("final_lr = 0.1", "", "lacks final_lr"),
        ('name = "small"', "name = ", "is not TOML"),
        ("capacity_factor = 0", "capacity_factor = -1", "training.capacity_factor is -1"),
    ],
)
def test_rejects(old: str, new: str, words: str) -> None:
    assert old in SMALL
    with pytest.raises(MobileMoEError) as refused:
        parse_sweep(SMALL.replace(old, new, 1), "mine.toml")
    assert words in refused.value.message
    assert refused.value.message.startswith("mine.toml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MobileMoEError, match="cannot read the sweep"):
        load_sweep(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lr = 4e-3", "lr = 3e-3"),
        ("z_loss = 1e-4", "z_loss = 0"),
        ("heldout_tokens = 256", "heldout_tokens = 512"),
        ("layers = 1", "layers = 2"),
        ("code = 0.5\nmath = 0.5", "code = 0.4\nmath = 0.6"),
    ],
)
def test_what_decides_the_outcome_is_in_the_fingerprint(old: str, new: str) -> None:
    one, other = parse_sweep(SMALL), parse_sweep(SMALL.replace(old, new))
    run, changed = one.runs()[0], other.runs()[0]
    assert run.key == changed.key
    assert one.fingerprint(run) != other.fingerprint(changed)
    assert one.fingerprint(run) == parse_sweep(SMALL).fingerprint(run)
