"""Memory, traffic, time and money of a cluster plan: identities, published runs, refusals."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster import (
    ClusterPlan,
    Layout,
    cluster_plan,
    gpu_profile,
    require_fit,
)
from mobilemoe.plan.cluster.document import plan_document
from mobilemoe.plan.cluster.notes import expert_parallel_choices, plan_notes
from mobilemoe.plan.cluster.traffic import COUNTS, DISPATCH, GATHER, REDUCE
from mobilemoe.recipe import STAGE_NAMES, Recipe
from paper_recipes import CHECKPOINTING, olmoe_recipe, paper_recipe

H100 = gpu_profile("h100")
ONE_ROW = [f"{name}.batch_tokens=8192" for name in STAGE_NAMES]  # cannot be spread out


def plan_of(recipe: Recipe, gpus: int = 256, **rates: float) -> ClusterPlan:
    """The plan on nodes of eight H100."""
    return cluster_plan(recipe, Layout.of(recipe, gpus), H100, **rates)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["S", "M", "L"])
def test_training_takes_six_flops_per_parameter_and_those_of_attention(size: str) -> None:
    config = ModelConfig.preset(size)
    vectors = sum(w.size for w in config.weights() if w.kind in ("norm", "expert_bias"))
    scores = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    expected = 6 * (config.active_params - vectors) + scores * (2048 + 1) / 2
    assert config.training_flops_per_token(2048) == expected


def test_parts_add_up_and_states_are_sixteen_bytes_per_parameter() -> None:
    memory = plan_of(paper_recipe(), 8).stages[0].memory
    assert memory.total == sum(memory.parts.values())
    states = sum(memory.parts[name] for name in ("parameters", "gradients", "AdamW moments"))
    # 8 GPUs: nothing but the routers' 60 rows and a group's 15 experts of 2 ranks is padded
    assert states * 8 == pytest.approx(16 * ModelConfig.preset("S").total_params, rel=0.1)


def test_checkpointing_trades_memory_for_a_third_more_arithmetic() -> None:
    plain = plan_of(paper_recipe()).stages[0]
    saving = plan_of(paper_recipe("S", CHECKPOINTING)).stages[0]
    assert saving.memory.total < plain.memory.total
    assert saving.time.recompute == pytest.approx(plain.time.compute / 3)
    assert saving.time.all_to_all == pytest.approx(1.5 * plain.time.all_to_all)


def test_activations_grow_with_rows_and_states_do_not() -> None:
    two, four = (plan_of(paper_recipe(rows=n)).stages[0] for n in (2, 4))
    for name, size in two.memory.parts.items():
        factor = 2 if name.startswith("activations") else 1
        if name not in ("loss", "communication buffers"):
            assert four.memory.parts[name] == pytest.approx(factor * size, rel=1e-6), name
    assert four.time.exchange == pytest.approx(two.time.exchange / 2)


def test_only_qat_rounds_weights() -> None:
    plan = plan_of(paper_recipe())
    rounded = {s.stage.name: s.memory.parts.get("rounded weights", 0) for s in plan.stages}
    assert rounded["qat"] > 0
    assert sum(rounded.values()) == rounded["qat"]


def test_traffic_of_one_node_never_crosses_its_border() -> None:
    stage = plan_of(paper_recipe(), 8).stages[0]
    assert [flow.kind for flow in stage.flows] == [GATHER, REDUCE, DISPATCH, COUNTS]
    assert all(flow.network_bytes == 0 for flow in stage.flows)


def test_gathered_bytes_are_those_of_the_other_ranks() -> None:
    recipe = paper_recipe("M", "parallel.expert_parallel=1", rows=8)
    gather = next(f for f in plan_of(recipe, 256).stages[0].flows if f.kind == GATHER)
    config = recipe.model
    embedding = config.vocab_size * config.hidden_size
    # layers twice in bf16, the embedding once in float32
    once = 2 * (config.total_params - embedding) * 2 + embedding * 4
    assert gather.total_bytes == pytest.approx(once * 255 / 256, rel=0.02)
    assert gather.network_bytes == pytest.approx(once * (256 - 8) / (256 * 8), rel=0.02)


def test_all_to_all_sends_each_choice_there_and_back_forwards_and_backwards() -> None:
    stage = plan_of(paper_recipe()).stages[0]
    rows = stage.stage.tokens_per_step / 256 * 4
    size = rows * 768 * 2 * 20  # hidden, bf16, layers
    assert stage.flows[2].total_bytes == pytest.approx(size * 4 * 3 / 4)
    assert stage.flows[2].network_bytes == 0  # a group of four stays in its node
    assert stage.flows[2].calls == 20 * 4 * stage.micro_batches


def test_one_gpu_sends_nothing() -> None:
    recipe = paper_recipe("S", "parallel.expert_parallel=1", rows=1)
    stage = plan_of(recipe, 1).stages[0]
    assert stage.flows == ()
    assert stage.memory.parts["communication buffers"] == 0


def test_time_and_money_follow_from_the_rates() -> None:
    recipe = paper_recipe()
    plan, slow = plan_of(recipe, price=2.0, mfu=0.2), plan_of(recipe, price=4.0, mfu=0.1)
    first = plan.stages[0]
    compute = first.flops / first.stage.steps / 256 / (0.2 * 989.4e12)
    assert first.time.compute == pytest.approx(compute)
    assert first.time.total > compute
    assert plan.money == pytest.approx(2 * plan.gpu_hours)
    assert plan.gpu_hours == pytest.approx(plan.days * 24 * 256)
    assert slow.stages[0].time.compute == pytest.approx(2 * compute)
    assert slow.money > 2 * plan.money
    assert {q.name: q.kind for q in plan.inputs}["mfu"] == "stated"


def test_the_published_olmoe_run_comes_out_at_its_published_speed() -> None:
    """23,600 tokens/s per H100 with FSDP (arXiv 2409.02060); the profile's MFU comes from it."""
    recipe = olmoe_recipe()
    plan = cluster_plan(recipe, Layout.of(recipe, 256), H100, stage="pretrain")
    assert plan.stages[0].tok_s / 256 == pytest.approx(23_600, rel=0.03)
    assert plan.fits
    assert len(plan.stages) == 1


@pytest.mark.parametrize("size", ["S", "M", "L"])
def test_the_published_recipe_fits_with_expert_parallelism_four(size: str) -> None:
    """6T tokens of pre-training, expert parallel 4 (arXiv 2605.27358)."""
    plan = plan_of(paper_recipe(size, rows=1))
    require_fit(plan)
    assert plan.layout.expert_parallel == 4
    assert plan.stages[0].stage.tokens == 6_000_000_000_000
    assert sum(s.flops for s in plan.stages) > 6 * plan.recipe.model.active_params * 6.6e12


ALONE = "parallel.expert_parallel=1"
REFUSED = (
    (("L", 2, []), 256, "h100", "--set run.activation_checkpointing=true:"),
    (("L", 64, [CHECKPOINTING]), 8, "a100", "--set run.micro_batch_rows="),
    (("S", 1, [CHECKPOINTING, ALONE]), 2, "l4", "--set parallel.expert_parallel=2:"),
    (("L", 1, [CHECKPOINTING]), 8, "l4", "--gpus "),
    (("L", 64, []), 8, "a100", f"--set {CHECKPOINTING} --set run.micro_batch_rows="),
    (("S", 1, [ALONE]), 1, "l4", "--set run.activation_checkpointing=true --set parallel"),
    (("L", 1, [ALONE, *ONE_ROW]), 1, "a100", "--gpu "),
)


@pytest.mark.parametrize(("case", "gpus", "gpu", "knob"), REFUSED)
def test_following_the_hint_of_a_refusal_works(
    case: tuple[str, int, list[str]], gpus: int, gpu: str, knob: str
) -> None:
    size, rows, overrides = case
    recipe = paper_recipe(size, *overrides, rows=rows)
    plan = cluster_plan(recipe, Layout.of(recipe, gpus), gpu_profile(gpu))
    with pytest.raises(MobileMoEError) as caught:
        require_fit(plan)
    hint = caught.value.hint
    assert hint.startswith(knob)
    words = shlex.split(hint.partition(": then")[0])
    changes = list(zip(words[::2], words[1::2], strict=True))
    settings = [value for option, value in changes if option == "--set"]
    recipe = paper_recipe(size, *overrides, *settings, rows=rows)
    gpus, gpu = int(dict(changes).get("--gpus", gpus)), dict(changes).get("--gpu", gpu)
    mended = cluster_plan(recipe, Layout.of(recipe, gpus), gpu_profile(gpu))
    require_fit(mended)
    assert f"{mended.fullest.memory.total / 1e9:.1f} GB of" in hint


def test_a_refusal_says_by_how_much_and_what_dominates() -> None:
    plan = plan_of(paper_recipe("L"))
    with pytest.raises(MobileMoEError) as caught:
        require_fit(plan)
    total, excess = plan.fullest.memory.total / 1e9, plan.fullest.memory.total / 1e9 - 80
    assert f"midtrain needs {total:.1f} GB per GPU, {excess:.1f} GB more" in caught.value.message
    assert "the largest part is activations: experts" in caught.value.message


def test_a_model_beyond_every_setting_is_refused_without_a_false_hint() -> None:
    config = replace(
        ModelConfig.preset("mobilellm-pro"),
        hidden_size=1_280_000,
        intermediate_size_mlp=5_120_000,
        num_attention_heads=20_000,
    )
    recipe = replace(paper_recipe("S", ALONE), model=config)
    with pytest.raises(MobileMoEError, match="more than the 80") as caught:
        require_fit(plan_of(recipe))
    assert caught.value.hint.startswith("no setting makes it fit")


def test_notes_name_what_binds_and_what_is_assumed() -> None:
    bound = plan_of(paper_recipe("L", rows=1))
    assert any("slower than the arithmetic in pretrain" in note for note in plan_notes(bound))
    assert any("assumed MFU" in note for note in plan_notes(bound))
    measured = plan_of(paper_recipe("L"), mfu=0.05)
    assert not any("assumed MFU" in note for note in plan_notes(measured))


def test_choices_of_expert_parallelism_are_those_that_can_run() -> None:
    plan = plan_of(paper_recipe(rows=1))
    degrees = [choice.layout.expert_parallel for choice in expert_parallel_choices(plan)]
    assert degrees == [1, 2, 4]
    same = next(c for c in expert_parallel_choices(plan) if c.layout == plan.layout)
    assert same.days == pytest.approx(plan.days)


def test_the_document_repeats_the_plan() -> None:
    plan = plan_of(paper_recipe())
    document = plan_document(plan)
    assert document["days"] == plan.days
    assert [s["name"] for s in document["stages"]] == ["pretrain", "midtrain", "sft", "qat"]
    first = document["stages"][0]
    assert first["memory_total_bytes"] == sum(first["memory_bytes"].values())
    assert {q["kind"] for q in document["inputs"]} == {"published", "assumed"}
