"""`mobilemoe generate` on the native engine: the same text as the library, streamed or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobilemoe import engine
from mobilemoe.checkpoint import open_checkpoint, write_checkpoint

from .conftest import Run

PROMPT = "def main"


def test_text_and_json_agree_with_the_library(run: Run, base_model: Path) -> None:
    common = ("generate", base_model, "--prompt", PROMPT, "--max-new-tokens", "12")
    document = json.loads(run(*common, "--json").stdout)
    tokens = list(engine.load(base_model).generate(PROMPT, max_new_tokens=12))
    assert document["text"] == "".join(token.text for token in tokens)
    assert document["token_ids"] == [token.id for token in tokens]
    assert document["logprobs"] == pytest.approx([token.logprob for token in tokens])
    assert document["finish_reason"] == tokens[-1].finish_reason
    streamed = run(*common)
    assert streamed.returncode == 0
    assert streamed.stdout == document["text"] + "\n"


def test_the_seed_decides(run: Run, base_model: Path) -> None:
    def sample(seed: int) -> str:
        done = run(
            *("generate", base_model, "--prompt", PROMPT, "--max-new-tokens", "16"),
            *("--temperature", "1.5", "--top-k", "200", "--top-p", "0.99", "--seed", str(seed)),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = sample(1)
    assert sample(1) == first
    assert sample(2) != first


def test_min_p_and_the_repetition_penalty_reach_the_engine(run: Run, base_model: Path) -> None:
    done = run(
        *("generate", base_model, "--prompt", PROMPT, "--max-new-tokens", "16", "--json"),
        *("--temperature", "1.5", "--min-p", "0.3", "--repetition-penalty", "1.3", "--seed", "1"),
    )
    model = engine.load(base_model)
    chosen = {"temperature": 1.5, "min_p": 0.3, "repetition_penalty": 1.3, "seed": 1}
    expected = [token.id for token in model.generate(PROMPT, 16, **chosen)]
    assert json.loads(done.stdout)["token_ids"] == expected
    for without in ("min_p", "repetition_penalty"):
        fewer = {name: value for name, value in chosen.items() if name != without}
        assert [token.id for token in model.generate(PROMPT, 16, **fewer)] != expected


def test_logprobs_of_prompt_and_text_in_the_document(run: Run, base_model: Path) -> None:
    common = ("generate", base_model, "--prompt", PROMPT, "--max-new-tokens", "5", "--json")
    plain = json.loads(run(*common).stdout)
    document = json.loads(run(*common, "--logprobs", "2", "--prompt-logprobs").stdout)
    model = engine.load(base_model)
    ids, scored = model.encode(PROMPT), model.logprobs(PROMPT, top=2)
    assert document["prompt_token_ids"] == ids
    assert document["prompt_logprobs"] == [None, *(token.logprob for token in scored)]
    tops = [[], *(token.top_logprobs for token in scored)]
    tops += [token.top_logprobs for token in model.generate(PROMPT, 5, logprobs=2)]
    shown = document["prompt_top_logprobs"] + document["top_logprobs"]
    assert [[(one["id"], one["logprob"]) for one in each] for each in shown] == list(
        map(list, tops)
    )
    best = document["top_logprobs"][0][0]
    assert best["text"] == model.tokenizer.decode([best["id"]])
    for each in (plain, document):
        del each["start"]  # has the memory of its process
    assert {**document, **plain} == document, "the rest is the same"
    assert "top_logprobs" not in plain and "prompt_logprobs" not in plain


@pytest.mark.parametrize("option", [("--logprobs", "2"), ("--prompt-logprobs",)])
def test_logprobs_without_json_are_refused(
    run: Run, base_model: Path, option: tuple[str, ...]
) -> None:
    done = run("generate", base_model, "--prompt", PROMPT, *option)
    assert (done.returncode, done.stdout) == (2, "")
    assert "need --json" in done.stderr


def test_exact_mode_and_stop(run: Run, base_model: Path) -> None:
    common = ("generate", base_model, "--prompt", PROMPT, "--max-new-tokens", "30")
    exact = (*common, "--activations", "fp32", "--threads", "1", "--json")
    document = json.loads(run(*exact).stdout)
    text = document["text"]
    stop = text[4]
    stopped = json.loads(run(*exact, "--stop", stop).stdout)
    assert stopped["text"] == text[: text.index(stop)]
    assert stopped["finish_reason"] == "stop"


@pytest.mark.parametrize("kv", ["int8", "fp16", "fp32"])
def test_the_cache_option_reaches_the_engine(run: Run, base_model: Path, kv: engine.Kv) -> None:
    options = ("--prompt", PROMPT, "--max-new-tokens", "4", "--kv", kv)
    document = json.loads(run("generate", base_model, *options, "--json").stdout)
    tokens = list(engine.load(base_model, kv=kv).generate(PROMPT, max_new_tokens=4))
    assert document["logprobs"] == [token.logprob for token in tokens]


def test_bf16_weights_run_in_the_exact_mode(run: Run, base_model: Path, tmp_path: Path) -> None:
    floats = {w.name: values for w, values in open_checkpoint(base_model).read_weights()}
    tokenizer = (base_model / "tokenizer.json").read_text()
    config = engine.load(base_model).config
    write_checkpoint(tmp_path / "bf16", config, "bf16", floats.__getitem__, tokenizer)
    arguments = ("--prompt", PROMPT, "--max-new-tokens", "6")
    done = run("generate", tmp_path / "bf16", *arguments)
    tokens = engine.load(tmp_path / "bf16").generate(PROMPT, max_new_tokens=6)
    assert done.stdout == "".join(token.text for token in tokens) + "\n"
    refused = run("generate", tmp_path / "bf16", *arguments, "--activations", "int8")
    assert refused.returncode == 1
    assert "activations is 'int8'; allowed: fp32" in refused.stderr
    assert "hint: leave it out, or convert" in refused.stderr


def test_a_full_context_is_noted_on_stderr(run: Run, base_model: Path) -> None:
    done = run("generate", base_model, "--prompt", PROMPT, "--context", "12")
    assert done.returncode == 0
    assert "context is full" in done.stderr


def test_a_prompt_that_does_not_fit_is_an_error(run: Run, base_model: Path) -> None:
    done = run("generate", base_model, "--prompt", "x" * 300, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: prompt has ")


def test_the_start_line_is_told_on_request_and_is_part_of_the_json(
    run: Run, base_model: Path
) -> None:
    common = ("generate", base_model, "--prompt", PROMPT, "--max-new-tokens", "3", "--threads", "1")
    line = engine.load(base_model, threads=1).start_line()
    first, memory = run(*common, "--verbose").stderr.splitlines()
    assert first == str(line).splitlines()[0]
    assert memory.startswith("memory ") and "; limit " in memory
    assert run(*common).stderr == run(*common, "--quiet").stderr == ""
    document = json.loads(run(*common, "--json").stdout)
    assert document["start"]["fingerprint"] == line.fingerprint
    assert document["residency"] is None


def test_more_threads_than_cpus_are_warned_of(run: Run, base_model: Path) -> None:
    done = run(
        "generate", base_model, "--prompt", PROMPT, "--threads", "64", "--max-new-tokens", "1"
    )
    assert done.returncode == 0
    assert done.stderr.startswith("warning: threads is 64, but ")


def test_a_plan_above_the_limit_is_told_and_refused(run: Run, base_model: Path) -> None:
    done = run("generate", base_model, "--prompt", PROMPT, "--memory-limit", "20MB", "--verbose")
    assert (done.returncode, done.stdout) == (1, "")
    _, memory, error, hint = done.stderr.splitlines()
    assert memory.endswith("; limit 20 MB (memory_limit)")
    assert error.startswith("error: the model would take ") and "allowed: 20 MB" in error
    assert hint.endswith("(--memory-limit)")


def test_resident_experts_give_the_same_text_and_tell_their_cost(
    run: Run, base_model: Path, tmp_path: Path
) -> None:
    common = ("generate", base_model, "--prompt", PROMPT, "--max-new-tokens", "12")
    trace = tmp_path / "trace.json"
    plain = run(*common, "--save-routing", trace)
    assert (plain.returncode, plain.stderr) == (0, "")
    once = engine.RoutingTrace.read(trace).counts_LE
    run(*common, "--save-routing", trace)
    assert (engine.RoutingTrace.read(trace).counts_LE == 2 * once).all()
    kept = run(*common, "--resident", "110kB", "--routing-trace", trace)
    assert kept.stdout == plain.stdout
    assert kept.stderr.startswith("resident experts: ") and kept.stderr.count("\n") == 1
    for part in ("% of ", " choices were in memory; ", " read in ", " s; at most ", " pinned"):
        assert part in kept.stderr
    document = json.loads(run(*common, "--resident", "110kB", "--json").stdout)
    assert document["text"] + "\n" == plain.stdout
    cost = document["residency"]
    assert cost["peak_bytes"] <= cost["budget_bytes"] <= 110_000
    assert cost["hit_rate"] == cost["hits"] / (cost["hits"] + cost["misses"])


def test_bad_budgets_are_refused(run: Run, base_model: Path, tmp_path: Path) -> None:
    common = ("generate", base_model, "--prompt", PROMPT)
    small = run(*common, "--resident", "1kB")
    assert (small.returncode, small.stdout) == (1, "")
    assert small.stderr.startswith("error: resident is 1000; allowed: bytes, ")
    assert run(*common, "--resident", "much").returncode == 2
    missing = run(*common, "--resident", "1MB", "--routing-trace", tmp_path / "none.json")
    assert missing.returncode == 1 and "cannot read a routing trace" in missing.stderr
    alone = run(*common, "--routing-trace", tmp_path / "none.json")
    assert alone.returncode == 1 and "without resident" in alone.stderr
