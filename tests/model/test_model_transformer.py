"""The whole model: against the float64 oracle's files, and what must hold for any model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_support import CONFIGS, DATA, FOLDERS, SMALL, fresh_model, token_ids

from mobilemoe.checkpoint import open_checkpoint, write_checkpoint
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.model import MobileMoE


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def oracle(request):
    return request.param, np.load(request.param / "expected.npz")


@torch.no_grad()
def test_logits_and_routing_equal_the_oracle(oracle):
    folder, expected = oracle
    trace = []
    ids = torch.from_numpy(expected["ids"].astype(np.int64))[None]
    logits = MobileMoE.from_pretrained(folder)(ids, trace=trace)[0].numpy()
    difference = np.abs(logits - expected["logits"])
    # float32 against float64: errors of a few 2^-24 per product, a few hundred products deep.
    tolerance = 1e-4 * np.abs(expected["logits"]).max()
    worst = np.unravel_index(difference.argmax(), difference.shape)
    assert difference[worst] < tolerance, (worst, logits[worst], expected["logits"][worst])
    chosen = np.stack([routing.topk_ids_TK.sort(-1).values.numpy() for routing in trace])
    assert np.array_equal(chosen, expected["topk_ids"])


@torch.no_grad()
def test_the_whole_capacity_gives_the_same_logits(oracle):
    folder, expected = oracle
    model = MobileMoE.from_pretrained(folder)
    ids = torch.from_numpy(expected["ids"].astype(np.int64))[None]
    enough = model.config.num_local_experts / model.config.num_experts_per_tok
    trace = []
    roomy = model(ids, capacity_factor=enough, trace=trace)
    assert [routing.dropped for routing in trace] == [0] * model.config.num_hidden_layers
    assert torch.equal(roomy, model(ids))


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_changing_a_later_token_never_changes_earlier_logits(config):
    model = fresh_model(config)
    ids = token_ids(config, 1, 24)
    before = model(ids)[0]
    for position in (1, 7, 23):
        changed = ids.clone()
        changed[0, position] = (ids[0, position] + 1) % config.vocab_size
        after = model(changed)[0]
        scale = before.abs().max()
        assert (after[:position] - before[:position]).abs().max() < 1e-5 * scale
        assert (after[position] - before[position]).abs().max() > 1e-3 * scale


@torch.no_grad()
def test_a_changed_first_token_reaches_the_last_logits():
    model = fresh_model(SMALL)
    ids = token_ids(SMALL, 1, 24)
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % SMALL.vocab_size
    assert (model(ids)[0, -1] - model(changed)[0, -1]).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_rows_of_a_batch_do_not_see_each_other(config):
    model = fresh_model(config)
    ids = token_ids(config, 3, 10)
    together = model(ids)
    assert together.shape == (3, 10, config.vocab_size)
    for row in range(3):
        alone = model(ids[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_there_is_one_trace_per_moe_layer(config):
    trace = []
    fresh_model(config)(token_ids(config, 2, 5), trace=trace)
    layers = range(config.num_hidden_layers)
    assert len(trace) == sum(config.is_moe_layer(layer) for layer in layers)
    for routing in trace:
        assert routing.topk_ids_TK.shape == (10, config.num_experts_per_tok)
        assert int(routing.tokens_per_expert_E.sum()) == 10 * config.num_experts_per_tok


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_are_named_and_shaped_as_the_checkpoint(config):
    state = MobileMoE(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        weight.name: weight.shape for weight in config.weights()
    }


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_written_model_is_read_back(config, tmp_path):
    model = fresh_model(config).bfloat16().float()
    state = model.state_dict()
    write_checkpoint(tmp_path / "model", config, "bf16", lambda name: state[name].numpy())
    again = MobileMoE.from_pretrained(tmp_path / "model")
    assert not again.training
    ids = token_ids(config, 2, 9)
    assert torch.equal(again(ids), model(ids))


@torch.no_grad()
def test_an_untied_head_is_its_own_matrix():
    config = CONFIGS["untied"]
    model = fresh_model(config)
    ids = token_ids(config, 1, 6)
    before = model(ids)
    model.lm_head.weight.mul_(2)
    torch.testing.assert_close(model(ids), 2 * before)


@torch.no_grad()
def test_logits_are_the_head_times_the_hidden_states():
    model = fresh_model(SMALL)
    ids = token_ids(SMALL, 2, 6)
    expected = model.hidden(ids) @ model.model.embed_tokens.weight.T
    torch.testing.assert_close(model(ids), expected)


def test_same_seed_same_weights_other_seed_others():
    first, same, other = (fresh_model(SMALL, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    drawn = [name for name in first if "norm" not in name and "bias" not in name]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_fresh_weights_have_the_documented_spread():
    config = replace(SMALL, hidden_size=128, vocab_size=512, num_attention_heads=16)
    residual = ("o_proj", "down_proj")
    for name, tensor in fresh_model(config).named_parameters():
        if "norm" in name:
            assert torch.equal(tensor, torch.ones_like(tensor))
            continue
        std = 0.5 / 128**0.5
        if any(part in name for part in residual):
            std /= (2 * config.num_hidden_layers) ** 0.5
        # the standard error of a standard deviation is about std / sqrt(2 n); six of them
        assert abs(float(tensor.detach().std()) / std - 1) < 6 / (2 * tensor.numel()) ** 0.5, name


@pytest.mark.parametrize("bad", [-1, 40, 10_000])
def test_rejects_a_token_id_outside_the_vocabulary(bad):
    with pytest.raises(MobileMoEError, match=f"token id {bad} is out of range; allowed: 0 to 39"):
        fresh_model(SMALL)(torch.tensor([[0, bad, 39]]))


def test_from_pretrained_rejects_a_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        MobileMoE.from_pretrained(tmp_path / "nowhere")


def test_from_pretrained_rejects_damaged_weights(tmp_path):
    checkpoint = open_checkpoint(DATA / "tiny-bf16")
    (tmp_path / "config.json").write_bytes((checkpoint.folder / "config.json").read_bytes())
    raw = checkpoint.shards[0].read_bytes()
    (tmp_path / "model.safetensors").write_bytes(raw[:-1])
    with pytest.raises(CheckpointError, match="header needs"):
        MobileMoE.from_pretrained(tmp_path)


def test_from_pretrained_takes_an_open_checkpoint():
    checkpoint = open_checkpoint(DATA / "tiny-int4")
    assert MobileMoE.from_pretrained(checkpoint).config == checkpoint.config


def test_a_preset_is_built_with_the_parameters_it_counts():
    config = ModelConfig.preset("nano")
    with torch.device("meta"):
        model = MobileMoE(config)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == config.total_params


@pytest.mark.parametrize("tokens", [0, 17])
def test_no_tokens_and_too_many_are_refused(tokens: int) -> None:
    config = replace(ModelConfig.preset("nano"), max_position_embeddings=16, num_hidden_layers=1)
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with pytest.raises(MobileMoEError, match="allowed: 1 to 16 tokens"):
        MobileMoE(config)(ids)
